"""The Shapes models under one interface for training, distillation and measurement."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, cast

import torch
from diffusers import LTXPipeline, WanImageToVideoPipeline, WanPipeline
from transformers import T5Tokenizer

from pipelines.shapes.training import ltx, wan, wan_i2v
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.training.text import EncodedCaptions, TextEncoder
from pipelines.shapes.world import ShapesClip


@dataclass(frozen=True)
class ShapesModel:
    """The functions in which the families differ; `wan` and `ltx` define and describe them.

    Args:
        latent_shape: shape of the latents of one clip, (C, F, H, W).
        velocity: function of a transformer (compiled or not), noisy latents (B, C, F, H, W), sigmas
            (B,) and captions.
        learns_made_latents: True if the decoder has a last course on what the transformer makes.
        base: the packaged model that a training starts from and shares its other parts with; None
            for a training from nothing.
    """

    name: str
    family: Literal["wan", "ltx"]
    latent_shape: tuple[int, int, int, int]
    pipeline_class: Any
    train_autoencoder: Callable[[Running], Any]
    encode_clips: Callable[[Any, torch.Tensor], torch.Tensor]
    training_latents: Callable[[Any, list[ShapesClip]], torch.Tensor]
    build_transformer: Callable[[int], Any]
    velocity: Callable[[Any, torch.Tensor, torch.Tensor, EncodedCaptions], torch.Tensor]
    build_scheduler: Callable[[], Any]
    assemble: Callable[[Any, Any, Any, Any], Any]
    learns_made_latents: bool = False
    base: str | None = None

    @property
    def takes_image(self) -> bool:
        return self.pipeline_class is WanImageToVideoPipeline


@dataclass(frozen=True, eq=False)
class TrainedParts:
    """The parts of a pipeline during training."""

    autoencoder: Any
    tokenizer: T5Tokenizer
    text_encoder: TextEncoder
    transformer: Any


def _model(
    name: str, family: Literal["wan", "ltx"], pipeline_class: Any, module: ModuleType
) -> ShapesModel:
    parts = cast("Any", module)
    return ShapesModel(
        name=name,
        family=family,
        latent_shape=parts.LATENT_SHAPE,
        pipeline_class=pipeline_class,
        train_autoencoder=parts.train_autoencoder,
        encode_clips=parts.encode_clips,
        training_latents=parts.training_latents,
        build_transformer=parts.build_transformer,
        velocity=parts.velocity,
        build_scheduler=parts.build_scheduler,
        assemble=parts.assemble,
        learns_made_latents=getattr(parts, "LEARNS_MADE_LATENTS", False),
        base=getattr(parts, "BASE", None),
    )


MODELS = {
    model.name: model
    for model in (
        _model("shapes-wan", "wan", WanPipeline, wan),
        _model("shapes-ltx", "ltx", LTXPipeline, ltx),
    )
}
IMAGE_MODELS = {
    model.name: model
    for model in (_model("shapes-wan-i2v", "wan", WanImageToVideoPipeline, wan_i2v),)
}
