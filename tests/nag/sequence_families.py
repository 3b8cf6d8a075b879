"""The single-stream families: a row for each, with what tests of all of them need."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import Ideogram4Pipeline
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from nag import NegativeText
from tests.builders import tiny_sequence
from tests.builders.tiny import TEXT_DIM
from tests.builders.tiny_fibo2 import NUM_TEXTS, fibo2_pipeline
from tests.nag.flux2_by_hand import Flux2Attention
from tests.nag.reference import mask
from tests.nag.sequence_by_hand import Call, Rows
from tests.nag.stream_attentions import (
    BriaFibo2Attention,
    ErnieImageAttention,
    Ideogram4Attention,
    Krea2Attention,
    QwenImage21Attention,
)

PROMPT_LENGTHS, NEGATIVE_LENGTHS = (5, 40), (37, 7)
STRENGTHS: dict[str, Any] = {
    "nag_scale": 5.0,
    "nag_tau": 1.5,
    "nag_alpha": 0.5,
    "nag_norm": "l2",
}


def texts(seed: int, *lengths: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, TEXT_DIM, generator=generator) for length in lengths]


def negative_text(ones: list[torch.Tensor]) -> NegativeText:
    lengths = [len(one) for one in ones]
    return NegativeText(pad_sequence(ones, batch_first=True), mask(max(lengths), *lengths))


@dataclass(frozen=True)
class Family:
    """One family of models.

    Args:
        build: builds its tiny pipeline.
        coverage: text attentions of its transformer.
        unguided: scale of classifier-free guidance that switches it off.
        arguments: returns the pipeline's arguments that hold texts, by a prefix of their names.
        rows: rows of its calls, for the reference.
        lora: layers that a LoRA changes.
        has_masks: True if the texts of a batch may have two lengths.
        is_named: True if its pipeline names its calls.
        token_shape: shape of a text's token.
        scale: argument that switches classifier-free guidance on.
    """

    build: Callable[[], Any]
    coverage: int
    unguided: float
    arguments: Callable[[list[torch.Tensor], str], dict[str, Any]]
    rows: Rows
    lora: tuple[str, ...] = ("to_k", "to_out.0")
    has_masks: bool = True
    is_named: bool = False
    token_shape: tuple[int, ...] = (TEXT_DIM,)
    scale: str = "guidance_scale"

    def texts(self, seed: int, *lengths: int) -> list[torch.Tensor]:
        """Return texts of these lengths, or all of the greatest one."""
        width = max(lengths)
        ones = texts(seed, *(lengths if self.has_masks else [width] * len(lengths)))
        return [one.unflatten(1, self.token_shape) for one in ones]

    def negative(self, ones: list[torch.Tensor]) -> NegativeText:
        return negative_text(ones) if self.has_masks else NegativeText(torch.stack(ones))


def _z_image_arguments(ones: list[torch.Tensor], prefix: str) -> dict[str, Any]:
    return {f"{prefix}prompt_embeds": ones}


def _z_image_row(call: Call, row: int) -> Call:
    one = {name: call[name][row : row + 1] for name in ("x", "t", "cap_feats")}
    residuals = call.get("controlnet_block_samples") or {}
    of_row = {block: one[row : row + 1] for block, one in residuals.items()}
    return call | one | {"controlnet_block_samples": of_row}


def _z_image_two(call: Call, text: torch.Tensor) -> Call:
    two = {"x": call["x"] * 2, "t": call["t"].repeat(2), "cap_feats": [*call["cap_feats"], text]}
    residuals: dict[int, torch.Tensor] = {}
    for block, one in call["controlnet_block_samples"].items():
        of_image = torch.zeros_like(one)  # a ControlNet sees the prompt alone
        image = _z_image_image(call, 0)
        of_image[:, image] = one[:, image]
        residuals[block] = torch.cat([one, of_image])
    return call | two | {"controlnet_block_samples": residuals}


def _z_image_image(call: Call, _text_length: int) -> slice:
    _, _, height, width = call["x"][0].shape
    return slice(0, -(-height * width // 4 // 32) * 32)


def _lumina2_arguments(ones: list[torch.Tensor], prefix: str) -> dict[str, Any]:
    # Texts that are given together must have one shape in this pipeline.
    filled = functional.pad(pad_sequence(ones, batch_first=True), (0, 0, 0, 50))[:, :50]
    return {
        f"{prefix}prompt_embeds": filled,
        f"{prefix}prompt_attention_mask": mask(50, *(len(one) for one in ones)).long(),
    }


def _lumina2_texts(call: Call) -> list[torch.Tensor]:
    masks = call["encoder_attention_mask"].bool()
    return [row[of_row] for row, of_row in zip(call["encoder_hidden_states"], masks, strict=True)]


def _lumina2_row(call: Call, row: int) -> Call:
    names = ("hidden_states", "timestep", "encoder_hidden_states", "encoder_attention_mask")
    return call | {name: call[name][row : row + 1] for name in names}


def _lumina2_two(call: Call, text: torch.Tensor) -> Call:
    of_text = _lumina2_arguments([text], "")
    two = {name: torch.cat([call[name]] * 2) for name in ("hidden_states", "timestep")}
    pairs = zip(("encoder_hidden_states", "encoder_attention_mask"), of_text.values(), strict=True)
    return call | two | {name: torch.cat([call[name], one]) for name, one in pairs}


def _lumina2_image(call: Call, text_length: int) -> slice:
    height, width = call["hidden_states"].shape[2:]
    return slice(text_length, text_length + height * width // 4)


def _flux2_arguments(ones: list[torch.Tensor], prefix: str) -> dict[str, Any]:
    return {f"{prefix}prompt_embeds": torch.stack(ones)}


def _flux2_row(call: Call, row: int) -> Call:
    names = ("hidden_states", "timestep", "encoder_hidden_states")
    one = {name: call[name][row : row + 1] for name in names}
    guidance = call.get("guidance")
    return call | one | {"guidance": None if guidance is None else guidance[row : row + 1]}


def _flux2_two(call: Call, text: torch.Tensor) -> Call:
    both = pad_sequence([call["encoder_hidden_states"][0], text], batch_first=True)
    ids = torch.cartesian_prod(*[torch.arange(1)] * 3, torch.arange(both.shape[1]))
    names = ("hidden_states", "timestep", "guidance")
    two = {name: None if call[name] is None else torch.cat([call[name]] * 2) for name in names}
    return call | two | {"encoder_hidden_states": both, "txt_ids": ids}


def _flux2_image(call: Call, _text_length: int) -> slice:
    return slice(call["encoder_hidden_states"].shape[1], None)


def _krea2_arguments(ones: list[torch.Tensor], prefix: str) -> dict[str, Any]:
    embeds, masks = _lumina2_arguments([one.flatten(1) for one in ones], "").values()
    return {
        f"{prefix}prompt_embeds": embeds.unflatten(2, ones[0].shape[1:]),
        f"{prefix}prompt_embeds_mask": masks.bool(),
    }


def _krea2_two(call: Call, text: torch.Tensor) -> Call:
    names = ("hidden_states", "timestep", "encoder_hidden_states", "encoder_attention_mask")
    two = {name: torch.cat([call[name]] * 2) for name in names}
    of_text = zip(names[2:], _krea2_arguments([text], "").values(), strict=True)
    return call | two | {name: torch.cat([call[name], one]) for name, one in of_text}


def _qwen21_texts(call: Call) -> list[torch.Tensor]:
    masks = call["encoder_hidden_states_mask"].bool()
    return [row[of_row] for row, of_row in zip(call["encoder_hidden_states"], masks, strict=True)]


def _qwen21_row(call: Call, row: int) -> Call:
    names = ("hidden_states", "timestep", "encoder_hidden_states", "encoder_hidden_states_mask")
    # By hand no keys are kept.
    of_row = {name: call[name][row : row + 1] for name in names}
    return call | of_row | {"kv_cache": None, "kv_cache_mode": None}


def _qwen21_two(call: Call, text: torch.Tensor) -> Call:
    names = ("hidden_states", "timestep", "encoder_hidden_states", "encoder_hidden_states_mask")
    two = {name: torch.cat([call[name]] * 2) for name in names}
    of_text = zip(names[2:], _krea2_arguments([text], "").values(), strict=True)
    return call | two | {name: torch.cat([call[name], one]) for name, one in of_text}


def _fibo2_arguments(ones: list[torch.Tensor], prefix: str) -> dict[str, Any]:
    embeds, masks = _krea2_arguments(ones, prefix).items()
    return {embeds[0]: embeds[1].transpose(1, 2), masks[0]: masks[1]}


def _fibo2_masked(call: Call) -> Call:
    """Return a call with the mask that the pipeline leaves out of texts of one length."""
    embeds, masks = call["encoder_hidden_states"], call["encoder_attention_mask"]
    is_text = torch.ones(len(embeds), embeds.shape[2], dtype=torch.bool) if masks is None else masks
    return call | {"encoder_attention_mask": is_text}


def _fibo2_texts(call: Call) -> list[torch.Tensor]:
    tokens = call["encoder_hidden_states"].transpose(1, 2)
    return _lumina2_texts(_fibo2_masked(call) | {"encoder_hidden_states": tokens})


def _fibo2_row(call: Call, row: int) -> Call:
    images = call["context_latents"]
    of_row = None if images is None else [image[row : row + 1] for image in images]
    return _lumina2_row(_fibo2_masked(call), row) | {"context_latents": of_row}


def _fibo2_two(call: Call, text: torch.Tensor) -> Call:
    two = {name: torch.cat([call[name]] * 2) for name in ("hidden_states", "timestep")}
    names = ("encoder_hidden_states", "encoder_attention_mask")
    of_text = zip(names, _fibo2_arguments([*_fibo2_texts(call), text], "").values(), strict=True)
    images = call["context_latents"]
    both = None if images is None else [image.repeat(2, 1, 1, 1) for image in images]
    return call | two | dict(of_text) | {"context_latents": both}


def _fibo2_image(call: Call, _text_length: int) -> slice:
    images = [call["hidden_states"], *(call["context_latents"] or ())]
    num_tokens = sum(image.shape[2] * image.shape[3] // 4 for image in images)
    # Texts of up to 4 tokens have 2 gist tokens, up to 22 tokens 4, longer ones 6. They stand
    # before the image, or behind it in a call whose texts differ in their number.
    lengths = call["encoder_attention_mask"].sum(1).tolist()
    gists = {2 if length <= 4 else 4 if length <= 22 else 6 for length in lengths}
    start = gists.pop() if len(gists) == 1 else 0
    return slice(start, start + num_tokens)


def _ernie_texts(call: Call) -> list[torch.Tensor]:
    pairs = zip(call["text_bth"], call["text_lens"], strict=True)
    return [row[:length] for row, length in pairs]


def _ernie_row(call: Call, row: int) -> Call:
    names = ("hidden_states", "timestep", "text_bth", "text_lens")
    return call | {name: call[name][row : row + 1] for name in names}


def _ernie_two(call: Call, text: torch.Tensor) -> Call:
    ones = [*_ernie_texts(call), text]
    two = {name: torch.cat([call[name]] * 2) for name in ("hidden_states", "timestep")}
    lengths = torch.tensor([len(one) for one in ones])
    return call | two | {"text_bth": pad_sequence(ones, batch_first=True), "text_lens": lengths}


def _ernie_image(call: Call, _text_length: int) -> slice:
    height, width = call["hidden_states"].shape[2:]
    return slice(0, height * width)


def _ideogram4_arguments(ones: list[torch.Tensor], prefix: str) -> dict[str, Any]:
    # Its unconditional pass has no text.
    of_text = {} if prefix else {"prompt": ones}
    return {**of_text, "max_sequence_length": 50, "guidance_schedule": None}


def _ideogram4_texts(call: Call) -> list[torch.Tensor]:
    pairs = zip(call["encoder_hidden_states"], call["indicator"], strict=True)
    return [row[role == 3] for row, role in pairs]


IDEOGRAM4 = ("position_ids", "segment_ids", "indicator", "encoder_hidden_states")


def _ideogram4_row(call: Call, row: int) -> Call:
    names = ("hidden_states", "timestep", *IDEOGRAM4)
    return call | {name: call[name][row : row + 1] for name in names}


def _ideogram4_two(call: Call, text: torch.Tensor) -> Call:
    prepare: Any = Ideogram4Pipeline._prepare_ids
    ids = prepare([len(text)], 4, 4, 50, torch.device("cpu"))
    other = (*ids, functional.pad(text, (0, 0, 50 - len(text), 16))[None])
    two = {name: torch.cat([call[name]] * 2) for name in ("hidden_states", "timestep")}
    pairs = zip(IDEOGRAM4, other, strict=True)
    return call | two | {name: torch.cat([call[name], one]) for name, one in pairs}


FAMILIES = {
    "Z-Image": Family(
        tiny_sequence.z_image_pipeline,
        2,
        0.0,
        _z_image_arguments,
        Rows(lambda call: call["cap_feats"], _z_image_row, _z_image_two, _z_image_image, list),
    ),
    "Lumina 2": Family(
        tiny_sequence.lumina2_pipeline,
        2,
        1.0,
        _lumina2_arguments,
        Rows(_lumina2_texts, _lumina2_row, _lumina2_two, _lumina2_image, torch.stack),
    ),
    "Flux 2": Family(
        tiny_sequence.klein_pipeline,
        4,
        1.0,
        _flux2_arguments,
        Rows(
            lambda call: list(call["encoder_hidden_states"]),
            _flux2_row,
            _flux2_two,
            _flux2_image,
            torch.stack,
            Flux2Attention,
        ),
        lora=("to_k", "add_k_proj", "to_qkv_mlp_proj"),
        has_masks=False,
        is_named=True,
    ),
    "Krea 2": Family(
        tiny_sequence.krea2_pipeline,
        2,
        0.0,
        _krea2_arguments,
        Rows(_lumina2_texts, _lumina2_row, _krea2_two, _flux2_image, torch.stack, Krea2Attention),
        lora=("to_k", "to_out.0", "to_gate"),
        token_shape=(2, TEXT_DIM // 2),
    ),
    "Fibo 2": Family(
        fibo2_pipeline,
        7,
        1.0,
        _fibo2_arguments,
        Rows(
            _fibo2_texts,
            _fibo2_row,
            _fibo2_two,
            _fibo2_image,
            torch.stack,
            BriaFibo2Attention,
        ),
        token_shape=(NUM_TEXTS, TEXT_DIM // NUM_TEXTS),
    ),
    "Ideogram 4": Family(
        tiny_sequence.ideogram4_pipeline,
        2,
        1.0,
        _ideogram4_arguments,
        Rows(
            _ideogram4_texts,
            _ideogram4_row,
            _ideogram4_two,
            lambda _call, _length: slice(50, None),
            torch.stack,
            Ideogram4Attention,
        ),
    ),
    "ERNIE-Image": Family(
        tiny_sequence.ernie_image_pipeline,
        2,
        1.0,
        _z_image_arguments,
        Rows(_ernie_texts, _ernie_row, _ernie_two, _ernie_image, torch.stack, ErnieImageAttention),
    ),
    "Qwen-Image 2.1": Family(
        tiny_sequence.qwen_image21_pipeline,
        2,
        1.0,
        _krea2_arguments,
        Rows(
            _qwen21_texts,
            _qwen21_row,
            _qwen21_two,
            _flux2_image,
            torch.stack,
            QwenImage21Attention,
        ),
        is_named=True,
        scale="true_cfg_scale",
    ),
}
all_families = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))


def negatives(family: Family, rows: int = 1) -> list[torch.Tensor]:
    return family.texts(2, *NEGATIVE_LENGTHS)[:rows]


def render(pipeline: Any, family: Family, rows: int = 1, **arguments: Any) -> torch.Tensor:
    """Return latents after two steps, of noise from seed i in row i."""
    call: dict[str, Any] = {
        **family.arguments(family.texts(1, *PROMPT_LENGTHS[:rows]), ""),
        family.scale: family.unguided,
        "height": 64,
        "width": 64,
        "num_inference_steps": 2,
        "generator": [torch.Generator().manual_seed(row) for row in range(rows)],
        "output_type": "latent",
        "return_dict": False,
    }
    return pipeline(**{**call, **arguments})[0]
