"""Stock pipelines with the transformers of published models, at their real size.

They hold a transformer with random weights and a scheduler, and no autoencoder and no text encoder:
give them embeddings, and ask for latents.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)

from pipelines.context_parallel.geometry import ModelGeometry

TEXT_CHANNELS = 4096  # the text encoders of Wan and LTX
IMAGE_CHANNELS = 1280  # the image encoder of Wan 2.1


def build_pipeline(
    geometry: ModelGeometry, device: torch.device, dtype: torch.dtype = torch.bfloat16
) -> Any:
    """Return a pipeline whose transformer has this geometry; open settings are as published.

    Args:
        device: the weights are made on it; on "meta" they take no memory.
        dtype: dtype of the weights, but for those that diffusers keeps in float32 on loading.
    """
    sizes: dict[str, Any] = {
        "num_layers": geometry.num_layers,
        "num_attention_heads": geometry.num_heads,
        "attention_head_dim": geometry.head_dim,
    }
    transformer: Any
    with device, default_dtype(dtype), torch.random.fork_rng([]):
        torch.manual_seed(0)
        if geometry.family == "wan":
            transformer = _wan_transformer(geometry, sizes)
        else:
            transformer = LTXVideoTransformer3DModel(**sizes, cross_attention_dim=geometry.width)
    _keep_in_float32(transformer)
    transformer.eval().requires_grad_(requires_grad=False)
    nothing: Any = None
    if geometry.family == "wan":
        steps: Any = UniPCMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
        )
        if geometry.num_control_layers:
            return WanVACEPipeline(nothing, nothing, nothing, steps, transformer=transformer)
        return WanPipeline(nothing, nothing, nothing, steps, transformer=transformer)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return LTXPipeline(scheduler, nothing, nothing, nothing, transformer)


def _wan_transformer(geometry: ModelGeometry, sizes: dict[str, Any]) -> Any:
    """Return the transformer, with keys for images or with layers for a control video."""
    sizes = {**sizes, "ffn_dim": geometry.ffn_dim}
    if num_control := geometry.num_control_layers:
        sizes["num_layers"] -= num_control
        return WanVACETransformer3DModel(**sizes, vace_layers=list(range(num_control)))
    if geometry.num_image_tokens:
        sizes |= {"image_dim": IMAGE_CHANNELS, "added_kv_proj_dim": geometry.width}
    return WanTransformer3DModel(**sizes)


def _keep_in_float32(transformer: Any) -> None:
    names = set(transformer._keep_in_fp32_modules or ())
    for path, parameter in transformer.named_parameters():
        if names & set(path.split(".")):
            parameter.data = parameter.data.float()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Generator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
