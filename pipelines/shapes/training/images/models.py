"""The Shapes image models under one interface for training, distillation and measurement.

Shape suffixes: B images, C latent channels, H and W latent cells, L tokens, D text channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import torch

from pipelines.shapes.training.images import flux, sd3, sdxl
from pipelines.shapes.training.images.latents import ImageText
from pipelines.shapes.training.images.text import TextParts


@dataclass(frozen=True)
class ImageModel:
    """The functions in which the architectures differ; each module describes its own.

    Args:
        denoiser: name of the denoiser in its pipeline.
        encode: function of a pipeline and captions; it returns the text as the pipeline's own call
            makes it.
        velocity: function of a denoiser (compiled or not), noisy latents (B, C, H, W), sigmas (B,)
            and text; it returns the flow, noise minus latents.
        words: function of a pipeline and captions; it returns False for each token that is
            filler, (B, L), as the pipeline itself does not tell. None where it is not needed.
        set_timesteps: function of a scheduler and a number of steps, as the pipeline's call does.
        call_arguments: arguments that every call of the pipeline and `nag.guide` need.
        guidance_argument: the argument of classifier-free guidance in the pipeline's call; 1 turns
            it off.
    """

    name: str
    pipeline_class: Any
    denoiser: str
    build_denoiser: Callable[[int], Any]
    encode: Callable[[Any, list[str]], ImageText]
    velocity: Callable[[Any, torch.Tensor, torch.Tensor, ImageText], torch.Tensor]
    assemble: Callable[[TextParts, Any, Any], Any]
    set_timesteps: Callable[[Any, int], None]
    call_arguments: dict[str, Any]
    guidance_argument: str
    words: Callable[[Any, list[str]], torch.Tensor] | None = None


def _model(name: str, module: ModuleType) -> ImageModel:
    parts = cast("Any", module)
    return ImageModel(
        name=name,
        pipeline_class=parts.PIPELINE_CLASS,
        denoiser=parts.DENOISER,
        build_denoiser=parts.build_denoiser,
        encode=parts.encode,
        velocity=parts.velocity,
        assemble=parts.assemble,
        set_timesteps=parts.set_timesteps,
        call_arguments=parts.CALL_ARGUMENTS,
        guidance_argument=parts.GUIDANCE_ARGUMENT,
        words=getattr(parts, "words", None),
    )


MODELS = {
    model.name: model
    for model in (
        _model("shapes-sdxl", sdxl),
        _model("shapes-sd3", sd3),
        _model("shapes-flux", flux),
    )
}
