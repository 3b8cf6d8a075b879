"""ImageReward: a BLIP text encoder that looks at the picture, and a small network behind it.

The weights are those that its authors publish, saved as safetensors under their own names; the
classes are transformers'. Its arithmetic follows the paper's code as described there; it was not
run beside it here, since its weights are a pickle.

Source: Xu et al., ImageReward, arXiv 2304.05977, with the mean and deviation of its rewards.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipelines.catalog.files.safetensors_file import read_header
from pipelines.catalog.files.weight_files import weight_files
from pipelines.errors import ScoringError
from pipelines.scoring.pretrained import (
    load_image_processor,
    load_tokenizer,
    pixels_of,
    refuse_missing,
)
from pipelines.scoring.scored_clip import ScoredClip, Scores

MAX_TOKENS = 35
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
UNUSED = ("vision_proj.", "text_proj.")  # BLIP's pre-training needs them
# Names of BLIP's own code, and those of transformers' BlipVisionModel.
VISION_NAMES = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
)


class ImageReward:
    """The reward model.

    Args:
        folder: safetensors, a `config.json` of transformers' BlipConfig, and the processors' files.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import BlipConfig, BlipTextModel, BlipVisionModel

        config: Any = BlipConfig.from_pretrained(folder, local_files_only=True)
        weights = sorted_weights(_tensors(folder))
        self._vision = _loaded(folder, BlipVisionModel(config.vision_config), weights["vision"])
        text_model = BlipTextModel(config.text_config, add_pooling_layer=False)
        self._text = _loaded(folder, text_model, weights["text"])
        self._head = _loaded(folder, _head_of(folder, weights["head"]), weights["head"])
        self._tokenizer = load_tokenizer(folder)
        self._images = load_image_processor(folder)
        self._device = device
        for part in (self._vision, self._text, self._head):
            part.eval().to(device)

    @torch.inference_mode()
    def score(self, clip: ScoredClip) -> Scores:
        pixels = pixels_of(self._images, clip.stills, self._device)
        tokens = self._tokenizer(
            [clip.prompt] * len(pixels),
            padding="max_length",
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        ).to(self._device)
        seen = self._vision(pixel_values=pixels).last_hidden_state
        read = self._text(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:-1], device=self._device),
        ).last_hidden_state
        rewards = (self._head(read[:, 0]) - MEAN) / DEVIATION
        return Scores({"preference": rewards.mean().item()})


def sorted_weights(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Sort the published tensors by part, under the names of transformers.

    Returns:
        Tensors of `vision`, `text` and `head`; the head's layers are numbered without gaps.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {"vision": {}, "text": {}, "head": {}}
    for name, tensor in tensors.items():
        own = name.removeprefix("blip.")
        if own.startswith("visual_encoder."):
            own = own.removeprefix("visual_encoder.")
            for pattern, replacement in VISION_NAMES:
                own = re.sub(pattern, replacement, own)
            parts["vision"][own] = tensor
        elif own.startswith("text_encoder."):
            parts["text"][own.removeprefix("text_encoder.")] = tensor
        elif own.startswith("mlp.layers."):
            parts["head"][own.removeprefix("mlp.layers.")] = tensor
        elif not own.startswith(UNUSED):
            raise ScoringError(
                f"{name!r} is not a tensor of ImageReward, such as mlp.layers.0.weight"
            )
    numbers = sorted({int(name.partition(".")[0]) for name in parts["head"]})
    parts["head"] = {
        f"{numbers.index(int(name.partition('.')[0]))}.{name.partition('.')[2]}": tensor
        for name, tensor in parts["head"].items()
    }
    return parts


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        read_header(path)
        found |= load_file(path)
    return {name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in found.items()}  # fmt: skip


def _head_of(folder: Path, weights: Mapping[str, torch.Tensor]) -> torch.nn.Sequential:
    """Return the small network: linear layers, with nothing between them but dropout."""
    shapes = [weights[name].shape for name in sorted(weights) if name.endswith(".weight")]
    if not shapes or shapes[-1][0] != 1:
        raise ScoringError(f"{folder}: expected mlp.layers that end in one reward")
    return torch.nn.Sequential(*(torch.nn.Linear(shape[1], shape[0]) for shape in shapes))


def _loaded(folder: Path, module: Any, weights: Mapping[str, torch.Tensor]) -> Any:
    try:
        found = module.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        message = str(error).strip().splitlines()[-1].strip()
        raise ScoringError(f"{folder} contradicts its config.json: {message}") from error
    refuse_missing(folder, found.missing_keys)
    if unknown := [name for name in found.unexpected_keys if not name.endswith("position_ids")]:
        raise ScoringError(f"{folder} holds {unknown[0]!r}, which its config.json has no place for")
    return module
