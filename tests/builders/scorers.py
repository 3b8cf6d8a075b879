"""Folders of measures' weights: real transformers classes at tiny size, with random weights."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForQuestionAnswering,
    BlipImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    ViltConfig,
    ViltForQuestionAnswering,
    ViltImageProcessorPil,
)

SIDE_PX = 16
WIDTH = 16
WORDS = (
    "is", "there", "a", "the", "red", "blue", "green", "yellow", "circle", "square", "triangle",
    "fox", "snow", "moving", "left", "right", "on", "black", "white", "background", "yes", "no",
    "?", ",",
)  # fmt: skip
LAYERS: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
VISION: dict[str, Any] = {**LAYERS, "image_size": SIDE_PX, "patch_size": 8}


def clip_folder(folder: Path) -> Path:
    """Save a CLIPModel with its processors."""
    torch.manual_seed(0)
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), ",</w>", "?</w>"]
    ids = {token: at for at, token in enumerate([*vocabulary, "<|startoftext|>", "<|endoftext|>"])}
    end = ids["<|endoftext|>"]
    text = {**LAYERS, "vocab_size": len(ids), "max_position_embeddings": 24, "eos_token_id": end}
    text |= {"bos_token_id": end - 1, "pad_token_id": end}
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    CLIPTokenizer(vocab=ids, merges=[]).save_pretrained(folder)
    size = {"shortest_edge": SIDE_PX}
    crop = {"height": SIDE_PX, "width": SIDE_PX}
    CLIPImageProcessorPil(size=size, crop_size=crop).save_pretrained(folder)
    return folder


def siglip_folder(folder: Path) -> Path:
    """Save a SiglipModel with its image processor, and the tokenizer of `clip_folder`."""
    clip_folder(folder)
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    text = {**LAYERS, "vocab_size": 64, "max_position_embeddings": 12, "projection_size": WIDTH}
    SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)).save_pretrained(folder)
    size = {"height": SIDE_PX, "width": SIDE_PX}
    SiglipImageProcessorPil(size=size).save_pretrained(folder)
    return folder


def bert_tokenizer() -> BertTokenizer:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return BertTokenizer(vocab={token: at for at, token in enumerate(tokens)})


def _blip_config() -> BlipConfig:
    tokenizer = bert_tokenizer()
    text = {
        **LAYERS,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 48,
        "encoder_hidden_size": WIDTH,
        "bos_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return BlipConfig(text_config=text, vision_config=VISION, projection_dim=8)


def _save_blip_processors(folder: Path) -> None:
    bert_tokenizer().save_pretrained(folder)
    BlipImageProcessorPil(size={"height": SIDE_PX, "width": SIDE_PX}).save_pretrained(folder)


def blip_folder(folder: Path) -> Path:
    """Save a BlipForQuestionAnswering with its processors."""
    torch.manual_seed(0)
    BlipForQuestionAnswering(_blip_config()).save_pretrained(folder)
    _save_blip_processors(folder)
    return folder


def vilt_folder(folder: Path, answers: tuple[str, ...] = ("no", "yes")) -> Path:
    """Save a ViltForQuestionAnswering, whose answers are fixed, with its processors."""
    torch.manual_seed(0)
    config_class: Any = ViltConfig  # its types lack what every config takes
    config = config_class(
        **VISION,
        vocab_size=len(bert_tokenizer()),
        max_position_embeddings=24,
        num_labels=len(answers),
        id2label=dict(enumerate(answers)),
        label2id={answer: at for at, answer in enumerate(answers)},
    )
    ViltForQuestionAnswering(config).save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    processor_class: Any = ViltImageProcessorPil
    processor_class(size={"shortest_edge": SIDE_PX}, size_divisor=8, do_pad=True).save_pretrained(
        folder
    )
    return folder


def dino_folder(folder: Path) -> Path:
    """Save a Dinov2Model with an image processor."""
    torch.manual_seed(0)
    config_class: Any = Dinov2Config
    config = config_class(**{**VISION, "mlp_ratio": 2}, drop_path_rate=0.0)
    Dinov2Model(config).save_pretrained(folder)
    size = {"height": SIDE_PX, "width": SIDE_PX}
    CLIPImageProcessorPil(size=size, do_center_crop=False).save_pretrained(folder)
    return folder


def reward_folder(folder: Path) -> Path:
    """Save ImageReward's tensors under the names of its authors, of tiny size."""
    torch.manual_seed(0)
    config: Any = _blip_config()
    config.vision_config.layer_norm_eps = 1e-6
    config.save_pretrained(folder)
    _save_blip_processors(folder)
    width, wide = WIDTH, 2 * WIDTH
    vision = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + (SIDE_PX // 8) ** 2, width),
        "patch_embed.proj.weight": (width, 3, 8, 8),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "blocks.0.norm1.weight": (width,),
        "blocks.0.norm1.bias": (width,),
        "blocks.0.norm2.weight": (width,),
        "blocks.0.norm2.bias": (width,),
        "blocks.0.attn.qkv.weight": (3 * width, width),
        "blocks.0.attn.qkv.bias": (3 * width,),
        "blocks.0.attn.proj.weight": (width, width),
        "blocks.0.attn.proj.bias": (width,),
        "blocks.0.mlp.fc1.weight": (wide, width),
        "blocks.0.mlp.fc1.bias": (wide,),
        "blocks.0.mlp.fc2.weight": (width, wide),
        "blocks.0.mlp.fc2.bias": (width,),
    }
    text = BlipForQuestionAnswering(config).text_encoder.state_dict()
    tensors = {
        f"blip.visual_encoder.{name}": torch.randn(shape) / 4 for name, shape in vision.items()
    }
    tensors |= {
        f"blip.text_encoder.{name}": torch.randn_like(tensor) / 4
        for name, tensor in text.items()
        if not name.startswith("pooler.")
    }
    tensors["blip.vision_proj.weight"] = torch.zeros(4, width)
    sizes = (width, 8, 4, 1)
    for at, (given, made) in zip((0, 2, 4), pairwise(sizes), strict=True):
        tensors[f"mlp.layers.{at}.weight"] = torch.randn(made, given)
        tensors[f"mlp.layers.{at}.bias"] = torch.randn(made)
    save_file(tensors, folder / "ImageReward.safetensors")
    return folder


def picture(seed: int, height: int = 24, width: int = 40) -> np.ndarray:
    """Return a picture of random colours, (H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pictures(num: int, seed: int = 0) -> np.ndarray:
    return np.stack([picture(seed + at) for at in range(num)])
