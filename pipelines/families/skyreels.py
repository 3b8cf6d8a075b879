"""SkyReels V2: Wan 2.1 trained further, with pipelines of its own, from a text or from images.

With diffusion forcing each frame has a timestep and a scheduler of its own, and a long clip is
rendered in parts (`pipelines.diffusion_forcing`).
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from diffusers import (
    SkyReelsV2DiffusionForcingImageToVideoPipeline,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2ImageToVideoPipeline,
    SkyReelsV2Pipeline,
)

from pipelines.families.diffusers_model import seeded
from pipelines.families.wan import WanModel
from pipelines.families.wan_inputs import WanImageToVideoModel, image_arguments
from pipelines.request import GenerationRequest, TextEmbeddings
from pipelines.video_model import OnStep

# Makes the noise on the frames that a part begins with another draw than that of the latents.
CONDITION_SEED_MASK = 0x5C1F_0A0D


class SkyReelsModel(WanModel):
    """Drives `SkyReelsV2Pipeline`."""

    pipeline_class = SkyReelsV2Pipeline


class SkyReelsImageToVideoModel(WanImageToVideoModel):
    """Drives `SkyReelsV2ImageToVideoPipeline`, with a first image, or with a first and a last one.

    As in Wan 2.1 the images are further channels, and the image encoder sees them too.
    """

    pipeline_class = SkyReelsV2ImageToVideoPipeline


class SkyReelsForcingModel(SkyReelsModel):
    """Drives `SkyReelsV2DiffusionForcingPipeline`.

    It draws the noise of all parts itself, in their order, from one CPU generator with the clip's
    seed. It cannot take noise: its `prepare_latents` then returns another number of values than the
    pipeline expects.
    """

    pipeline_class = SkyReelsV2DiffusionForcingPipeline

    def _start(self, request: GenerationRequest) -> dict[str, Any]:
        generator = seeded(request.sampling.seed)
        return {"num_frames": request.shape.num_frames, "generator": generator}

    def _call_arguments(
        self, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> dict[str, Any]:
        return {
            **super()._call_arguments(request, embeddings),
            "prompt": None,  # it has no default
            "fps": request.fps,
            **asdict(self.config.diffusion_forcing),
        }

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        num_parts = self.config.diffusion_forcing.num_parts(
            request.shape.num_frames, self.pipeline.vae_scale_factor_temporal
        )
        steps = _StepsOfParts(self.pipeline, num_parts, request.sampling.num_steps, on_step)
        with _default_seed(request.sampling.seed ^ CONDITION_SEED_MASK, self.torch_device):
            return super().denoise(request, embeddings, steps)


class SkyReelsForcingImageToVideoModel(SkyReelsForcingModel):
    """Drives `SkyReelsV2DiffusionForcingImageToVideoPipeline`.

    The images stand for latents: the first one for the first latent, the last one for a further
    latent at the end, which is cut off.
    """

    pipeline_class = SkyReelsV2DiffusionForcingImageToVideoPipeline

    def _call_arguments(
        self, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> dict[str, Any]:
        return {**super()._call_arguments(request, embeddings), **image_arguments(embeddings)}

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        latents = super().denoise(request, embeddings, on_step)
        return latents if embeddings.inputs.last_image is None else latents[:, :, :-1]


class _StepsOfParts:
    """Reports the steps of all parts as the share of the clip's steps that is done.

    A pipeline counts the steps of each part from 0, and an asynchronous schedule has more of them.
    """

    def __init__(self, pipeline: Any, num_parts: int, num_steps: int, on_step: OnStep) -> None:
        self._pipeline, self._on_step = pipeline, on_step
        self._num_parts, self._num_steps = num_parts, num_steps
        self._part = -1

    def __call__(self, step_of_part: int) -> None:
        if step_of_part == 0:
            self._part += 1
        of_part = self._pipeline.num_timesteps
        num_done = self._part * of_part + step_of_part + 1
        num_steps = num_done * self._num_steps // (self._num_parts * of_part)
        self._on_step(max(num_steps - 1, 0))


@contextmanager
def _default_seed(seed: int, device: torch.device) -> Generator[None]:
    """Seed torch's default generators while the context is open.

    Diffusers draws the noise of `addnoise_condition` from that of the device.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
