"""Pipelines of models with text and image in one sequence, at tiny size, with random weights.

They have no encoders: texts come as embeddings.
"""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    ErnieImagePipeline,
    ErnieImageTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    Ideogram4Pipeline,
    Ideogram4Transformer2DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from torch.nn import functional

from tests.builders import tiny
from tests.builders.tiny import TEXT_DIM
from tests.builders.tiny_joint import finished, randomized


def z_image_transformer() -> ZImageTransformer2DModel:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "in_channels": 4,
        "dim": 24,
        "n_layers": 2,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": TEXT_DIM,
        "axes_dims": [4, 4, 4],
        "axes_lens": [200, 8, 8],
    }
    return randomized(ZImageTransformer2DModel(**config))


def z_image_pipeline(pipeline_class: Any = ZImagePipeline, vae: Any = None) -> Any:
    return finished(
        pipeline_class(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=vae,
            text_encoder=None,
            tokenizer=None,
            transformer=z_image_transformer(),
        )
    )


def lumina2_pipeline() -> Any:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "hidden_size": 48,
        "num_layers": 2,
        "num_refiner_layers": 1,
        "num_attention_heads": 4,
        "num_kv_heads": 2,
        "multiple_of": 8,
        "axes_dim_rope": (4, 4, 4),
        "axes_lens": (100, 8, 8),
        "cap_feat_dim": TEXT_DIM,
    }
    empty: Any = None
    return finished(
        Lumina2Pipeline(
            transformer=randomized(Lumina2Transformer2DModel(**config)),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=empty,
            text_encoder=empty,
            tokenizer=empty,
        )
    )


def krea2_pipeline() -> Any:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "in_channels": 16,
        "num_layers": 2,
        "attention_head_dim": 12,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 24,
        "timestep_embed_dim": 8,
        "text_hidden_dim": TEXT_DIM // 2,
        "num_text_layers": 2,
        "text_num_attention_heads": 2,
        "text_num_key_value_heads": 2,
        "text_intermediate_size": 16,
        "num_layerwise_text_blocks": 1,
        "num_refiner_text_blocks": 1,
        "axes_dims_rope": (4, 4, 4),
    }
    empty: Any = None
    return finished(
        Krea2Pipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=empty,
            text_encoder=empty,
            tokenizer=empty,
            transformer=randomized(Krea2Transformer2DModel(**config)),
        )
    )


class TinyIdeogram4(Ideogram4Pipeline):
    """Ideogram 4 whose prompts are embeddings (T, D), or texts that it makes such of."""

    def encode_prompt(
        self, prompt: Any, grid_h: int, grid_w: int, max_sequence_length: int, device: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        ones = [torch.ones(len(one), TEXT_DIM) if isinstance(one, str) else one for one in prompt]
        lengths = [len(one) for one in ones]
        ids = self._prepare_ids(lengths, grid_h, grid_w, max_sequence_length, device)
        before = [max_sequence_length - length for length in lengths]
        texts = [
            functional.pad(one, (0, 0, filler, grid_h * grid_w))
            for one, filler in zip(ones, before, strict=True)
        ]
        return torch.stack(texts), *ids


def ideogram4_pipeline() -> Any:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "in_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 12,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "adaln_dim": 8,
        "llm_features_dim": TEXT_DIM,
        "mrope_section": (2, 2, 2),
    }
    empty: Any = None
    return finished(
        TinyIdeogram4(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=empty,
            text_encoder=empty,
            tokenizer=empty,
            transformer=randomized(Ideogram4Transformer2DModel(**config)),
            unconditional_transformer=randomized(Ideogram4Transformer2DModel(**config)),
        )
    )


class SchedulerOfTensors(FlowMatchEulerDiscreteScheduler):
    """Takes ERNIE-Image's tensor of sigmas without the warning of NumPy 2."""

    def set_timesteps(self, *args: Any, sigmas: Any = None, **kwargs: Any) -> None:
        super().set_timesteps(*args, sigmas=sigmas.tolist(), **kwargs)


def ernie_image_pipeline() -> Any:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "hidden_size": 24,
        "num_attention_heads": 2,
        "num_layers": 2,
        "ffn_hidden_size": 24,
        "in_channels": 4,
        "out_channels": 4,
        "text_in_dim": TEXT_DIM,
        "rope_axes_dim": (4, 4, 4),
    }
    empty: Any = None
    return finished(
        ErnieImagePipeline(
            transformer=randomized(ErnieImageTransformer2DModel(**config)),
            vae=empty,
            text_encoder=empty,
            tokenizer=empty,
            scheduler=SchedulerOfTensors(),
            pe=empty,
            pe_tokenizer=empty,
        )
    )


class QwenProcessor:
    """Stands for the processor of texts and images, which embeddings leave unused."""

    def __init__(self) -> None:
        self.tokenizer = self

    def apply_chat_template(self, *_: Any, **__: Any) -> list[list[int]]:
        return [[0]]

    def encode(self, _text: str) -> list[int]:
        return [0]


def qwen_image21_pipeline() -> Any:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 12,
        "num_attention_heads": 2,
        "context_in_dim": TEXT_DIM,
        "axes_dims_rope": (4, 4, 4),
    }
    empty: Any = None
    parts: dict[str, Any] = {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": empty,
        "text_encoder": empty,
        "processor": QwenProcessor(),
        "transformer": randomized(QwenImage21Transformer2DModel(**config)),
    }
    return finished(QwenImage21Pipeline(**parts))


def flux2_transformer(**changes: Any) -> Flux2Transformer2DModel:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "in_channels": 16,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": TEXT_DIM,
        "axes_dims_rope": (4, 4, 4, 4),
        "guidance_embeds": False,
    }
    return randomized(Flux2Transformer2DModel(**{**config, **changes}))


def klein_pipeline(pipeline_class: Any = Flux2KleinPipeline, **changes: Any) -> Any:
    torch.manual_seed(2)
    config: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (4,) * 4,
        "latent_channels": 4,
        "norm_num_groups": 2,
    }
    return finished(
        pipeline_class(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=AutoencoderKLFlux2(**config).eval(),
            text_encoder=None,
            tokenizer=None,
            transformer=flux2_transformer(**changes),
        )
    )


def with_chat(pipeline: Any) -> Any:
    """Give a pipeline an encoder of messages, and the tokenizer that writes them."""
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    pipeline.register_modules(text_encoder=tiny.text_encoder(), tokenizer=tokenizer)
    return pipeline
