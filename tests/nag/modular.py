"""Tiny modular pipelines, and clips of them and of the stock ones with the same request."""

from collections.abc import Callable
from typing import Any

import torch


def modular(build: Callable[[], Any], blocks: Any, guider: Any) -> Any:
    stock = build()
    pipeline = blocks().init_pipeline()
    parts = {
        name: getattr(stock, name)
        for name in ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")
    }
    pipeline.update_components(**parts, guider=guider)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def modular_clip(pipeline: Any, **arguments: Any) -> torch.Tensor:
    call: dict[str, Any] = {
        "prompt": "a red cat",
        "negative_prompt": "a dog",
        "height": 32,
        "width": 32,
        "num_frames": 5,
        "num_inference_steps": 2,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "pt",
        "output": "videos",
    }
    return torch.stack(list(pipeline(**call | arguments)))


def stock_clip(pipeline: Any, guidance_scale: float) -> torch.Tensor:
    return pipeline(
        prompt="a red cat",
        negative_prompt="a dog",
        height=32,
        width=32,
        num_frames=5,
        num_inference_steps=2,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).frames
