"""Pipelines of further models with joint attention, at tiny size, random and without encoders."""

import re
import warnings
from typing import Any

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    BriaFiboPipeline,
    BriaFiboTransformer2DModel,
    ChromaPipeline,
    ChromaTransformer2DModel,
    CogVideoXDDIMScheduler,
    CogView3PlusPipeline,
    CogView3PlusTransformer2DModel,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    MochiPipeline,
    MochiTransformer3DModel,
)

from tests.builders import tiny
from tests.builders.tiny_joint import HEADS, POOLED_DIM, TEXT_DIM, finished, randomized

LAYER_DIM, NUM_LAYERS = 10, 4  # layers of an encoder that a model takes all

WITHOUT: dict[str, Any] = {"vae": None, "text_encoder": None, "tokenizer": None}


def _pipeline(pipeline_class: Any, transformer: Any, **parts: Any) -> Any:
    scheduler = parts.pop("scheduler", None) or FlowMatchEulerDiscreteScheduler()
    transformer = randomized(transformer)
    return finished(pipeline_class(scheduler=scheduler, transformer=transformer, **WITHOUT | parts))


def auraflow_pipeline() -> Any:
    torch.manual_seed(0)
    transformer = AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=2,
        num_single_dit_layers=2,
        joint_attention_dim=TEXT_DIM,
        caption_projection_dim=24,
        pos_embed_max_size=64,
        **HEADS,
    )
    return _pipeline(AuraFlowPipeline, transformer)


def chroma_pipeline() -> Any:
    torch.manual_seed(0)
    with warnings.catch_warnings():  # its class imports FluxPosEmbed from an old place
        warnings.simplefilter("ignore", FutureWarning)
        transformer = ChromaTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            joint_attention_dim=TEXT_DIM,
            axes_dims_rope=(4, 4, 4),
            approximator_num_channels=16,
            approximator_hidden_dim=16,
            approximator_layers=1,
            **HEADS,
        )
    return _pipeline(ChromaPipeline, transformer)


def mochi_pipeline() -> Any:
    torch.manual_seed(0)
    transformer = MochiTransformer3DModel(
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=4,
        text_embed_dim=TEXT_DIM,
        time_embed_dim=8,
        num_attention_heads=2,
        attention_head_dim=16,
    )
    return _pipeline(MochiPipeline, transformer)


def _cogview(model_class: Any, **changes: Any) -> Any:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "text_embed_dim": TEXT_DIM,
        "time_embed_dim": 8,
        "condition_dim": 4,
        "pos_embed_max_size": 8,
        "sample_size": 8,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
    }
    return model_class(**{**config, **changes})


def cogview3_pipeline() -> Any:
    return _pipeline(
        CogView3PlusPipeline,
        _cogview(CogView3PlusTransformer2DModel),
        scheduler=CogVideoXDDIMScheduler(),
    )


def cogview4_pipeline(**changes: Any) -> Any:
    transformer = _cogview(CogView4Transformer2DModel, rope_axes_dim=(8, 8), **changes)
    return _pipeline(CogView4Pipeline, transformer)


def hidream_pipeline(**changes: Any) -> Any:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "patch_size": 2,
        "in_channels": 4,
        "num_layers": 2,
        "num_single_layers": 2,
        "caption_channels": [TEXT_DIM, LAYER_DIM],
        "text_emb_dim": POOLED_DIM,
        "num_routed_experts": 2,
        "num_activated_experts": 1,
        "axes_dims_rope": (4, 2, 2),  # the first half of each head
        "max_resolution": (8, 8),
        "llama_layers": [0, 2, 1, 2],
        "num_attention_heads": 2,
        "attention_head_dim": 16,
    }
    names = [f"{name}_{number}" for name in ("text_encoder", "tokenizer") for number in (2, 3, 4)]
    transformer = HiDreamImageTransformer2DModel(**{**config, **changes})
    pipeline = _pipeline(HiDreamImagePipeline, transformer, **dict.fromkeys(names))
    pipeline.default_sample_size = 8  # it scales all sizes to this area
    return pipeline


class FiboOfSeeds(BriaFiboPipeline):
    """Takes for a prompt the seed of embeddings, their rows, the row, and the tokens of a text."""

    num_layers = NUM_LAYERS

    def get_prompt_embeds(self, prompt: Any, *_: Any, **__: Any) -> Any:
        found: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for one in prompt:
            seed, rows, row, length, num_tokens = map(int, re.findall(r"\d+", one))
            first, second = (torch.Generator().manual_seed(seed) for _ in range(2))
            embeds = torch.randn(rows, length, TEXT_DIM, generator=first)
            layers = torch.randn(self.num_layers, rows, length, LAYER_DIM, generator=second)
            found.append((embeds[row], layers[:, row], torch.arange(length) < num_tokens))
        embeds, layers, masks = (torch.stack(ones) for ones in zip(*found, strict=True))
        return embeds, tuple(layers.unbind(1)), masks


def fibo_pipeline(pipeline_class: Any = FiboOfSeeds) -> Any:
    torch.manual_seed(0)
    transformer = BriaFiboTransformer2DModel(
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        joint_attention_dim=TEXT_DIM,
        axes_dims_rope=[4, 4, 4],
        text_encoder_dim=LAYER_DIM,
        num_attention_heads=HEADS["num_attention_heads"],
        attention_head_dim=HEADS["attention_head_dim"],
    )
    return _pipeline(pipeline_class, transformer, text_encoder=tiny.text_encoder())
