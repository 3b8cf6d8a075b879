"""Encoders of images and of words that further pipelines begin with, at tiny size."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKLCosmos,
    PriorTransformer,
    SanaControlNetModel,
    UnCLIPScheduler,
)
from PIL import Image
from torch.nn import functional
from transformers import (
    BatchEncoding,
    BatchFeature,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from tests.builders.tiny import TEXT_DIM, shared
from tests.builders.tiny_images import clip_text_encoder, clip_tokenizer
from tests.builders.tiny_joint import randomized

IMAGE_DIM, IMAGE_PX = 8, 8
NUM_LETTERS = 6


class ToImagePx:
    """Stands for an image processor, whose stock classes need torchvision."""

    def preprocess(self, images: Any, **_: Any) -> BatchFeature:
        if isinstance(images, Image.Image):
            images = torch.from_numpy(np.array(images)).permute(2, 0, 1)[None] / 255
        return BatchFeature({"pixel_values": functional.interpolate(images, (IMAGE_PX, IMAGE_PX))})


def siglip() -> SiglipVisionModel:
    """Build an image encoder that gives four tokens an image."""
    torch.manual_seed(3)
    config = SiglipVisionConfig(
        hidden_size=IMAGE_DIM,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=IMAGE_PX,
        patch_size=IMAGE_PX // 2,
    )
    return SiglipVisionModel(config).eval()


class TextAndImageEncoder(torch.nn.Module):
    """Stands for a text encoder that sees images too; its texts come as embeddings."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.vision_tower = shared(siglip)


def sana_vae() -> AutoencoderDC:
    """Build Sana's autoencoder with a latent for each 4 px, not 32."""
    torch.manual_seed(2)
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()),
    ).eval()


def sana_control_net(transformer: Any) -> SanaControlNetModel:
    torch.manual_seed(5)
    names = (
        "in_channels", "out_channels", "num_attention_heads", "attention_head_dim",
        "num_cross_attention_heads", "cross_attention_head_dim", "cross_attention_dim",
        "caption_channels", "sample_size",
    )  # fmt: skip
    config = {name: transformer.config[name] for name in names}
    return randomized(SanaControlNetModel(num_layers=1, **config))


def cosmos_vae() -> AutoencoderKLCosmos:
    torch.manual_seed(2)
    return AutoencoderKLCosmos(
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=1,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
        latents_mean=None,
        latents_std=None,
    ).eval()


def unclip_prior() -> dict[str, Any]:
    """Return the parts that make an image's embedding from a prompt."""
    torch.manual_seed(1)
    tokens = shared(clip_tokenizer)
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=TEXT_DIM,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=tokens.model_max_length,
        projection_dim=TEXT_DIM,
    )
    prior = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        embedding_dim=TEXT_DIM,
        num_embeddings=tokens.model_max_length,
    )
    return {
        "prior_tokenizer": tokens,
        "prior_text_encoder": CLIPTextModelWithProjection(config).eval(),
        "prior": prior.eval(),
        "prior_scheduler": UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample"
        ),
        "tokenizer": tokens,
        "text_encoder": shared(clip_text_encoder),
    }


class ChatTokenizer:
    """Stands for Kolors' tokenizer, which needs a file: a token for each letter."""

    def __call__(self, words: str | list[str], **_: Any) -> BatchEncoding:
        rows = [words] if isinstance(words, str) else words
        letters = [one.ljust(NUM_LETTERS)[:NUM_LETTERS] for one in rows]
        ids = torch.tensor([[ord(letter) % 32 for letter in one] for one in letters])
        return BatchEncoding(
            {
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                "position_ids": torch.arange(NUM_LETTERS).expand_as(ids),
            }
        )


class ChatEncoder(torch.nn.Module):
    """Stands for Kolors' text encoder, which gives its tokens first and its rows second."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = torch.nn.ModuleList(torch.nn.Embedding(32, width) for _ in range(2))

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(hidden_states=[layer(input_ids.T) for layer in self.layers])
