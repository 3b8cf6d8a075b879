"""The second stage of an LTX model: its latent upsampler, its schedulers and its requests.

The drivers of the pipelines call it: they know the latents of their stages.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import LTX2LatentUpsamplePipeline, LTXLatentUpsamplePipeline
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel

from pipelines.catalog.keys.second_stage import SCALE, SecondStage
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.upsampler_files import UpsamplerWeights
from pipelines.families.schedulers import ClipSchedulers
from pipelines.families.weight_shapes import check_component_shapes
from pipelines.request import GenerationRequest, VideoShape

_UPSAMPLERS: dict[str, tuple[Any, Any]] = {  # the model, and the pipeline with its arithmetic
    "ltx": (LTXLatentUpsamplerModel, LTXLatentUpsamplePipeline),
    "ltx2": (LTX2LatentUpsamplerModel, LTX2LatentUpsamplePipeline),
}
# Makes the noise of the second stage another draw than that of the first, from the same seed.
SECOND_STAGE_SEED_MASK = 0x25_7A6E


@dataclass(frozen=True)
class Schedule:
    """The schedule of the second stage as a pipeline is asked for it.

    Args:
        num_steps: steps that are taken.
        start: noise level that the upsampled latents get; None where `denoise_strength` decides.
        arguments: `num_inference_steps`, and what else the pipeline takes for its schedule.
    """

    num_steps: int
    start: float | None
    arguments: dict[str, Any]


class SecondStageRunner:
    """The upsampler of one loaded model, and the schedule of its second stage."""

    def __init__(self, config: ModelConfig, saved_scheduler: Any, upsampler: Any) -> None:
        """Take over a loaded upsampler; `load` loads one from a folder."""
        assert config.second_stage is not None
        self._stage: SecondStage = config.second_stage
        self._upsampler = upsampler
        self._arithmetic = _UPSAMPLERS[config.family][1](vae=None, latent_upsampler=upsampler)
        self.schedule = _schedule(config.family, self._stage)
        levels = self._stage.levels
        if levels and config.family == "ltx":
            levels = (1.0, *levels)  # the pipeline skips the steps before `denoise_strength`
        scheduler = replace(config.scheduler, sigmas=levels, timesteps=(), flow_shift=None)
        self._schedulers = ClipSchedulers(scheduler, saved_scheduler)

    @classmethod
    def load(
        cls,
        config: ModelConfig,
        saved_scheduler: Any,
        weights: UpsamplerWeights,
        device: torch.device,
    ) -> "SecondStageRunner":
        """Load the safetensors that `catalog.upsampler_files` accepted."""
        model_class = _UPSAMPLERS[config.family][0]
        check_component_shapes(weights.folder, model_class)
        upsampler = model_class.from_pretrained(
            weights.folder,
            dtype=getattr(torch, config.dtype),
            use_safetensors=True,
            local_files_only=True,
        )
        return cls(config, saved_scheduler, upsampler.to(device).eval())

    def first(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request of the first stage: the clip at half of its height and width."""
        shape = request.shape
        half = VideoShape(shape.num_frames, shape.height // SCALE, shape.width // SCALE)
        return replace(request, shape=half)

    def scheduler(self, request: GenerationRequest) -> Any:
        """Return a new scheduler for the second stage of one clip."""
        return self._schedulers.build(None, request.sampling.seed ^ SECOND_STAGE_SEED_MASK)

    def guidance_scale(self, request: GenerationRequest) -> float:
        """Return the strength of classifier-free guidance of a clip in the second stage."""
        own = self._stage.guidance_scale
        return request.sampling.guidance_scale if own is None or not request.has_cfg else own

    def upsample(self, latents_BCFHW: torch.Tensor) -> torch.Tensor:
        """Double height and width of latents that are as the autoencoder decodes them."""
        latents = latents_BCFHW.to(self._upsampler.dtype)
        found = self._upsampler(latents)
        if self._stage.adain_factor:
            found = self._arithmetic.adain_filter_latent(found, latents, self._stage.adain_factor)
        if self._stage.tone_map_compression_ratio:
            found = self._arithmetic.tone_map_latents(found, self._stage.tone_map_compression_ratio)
        return found


def _schedule(family: str, stage: SecondStage) -> Schedule:
    count, levels = stage.num_steps, stage.levels
    if not levels:
        arguments = {
            "num_inference_steps": stage.num_inference_steps,
            "denoise_strength": stage.denoise_strength,
        }
        return Schedule(count, None, arguments)
    if family == "ltx":  # one level is before them, and the pipeline rounds the steps down
        strength = (count + 0.5) / (count + 1)
        return Schedule(
            count, None, {"num_inference_steps": count + 1, "denoise_strength": strength}
        )
    return Schedule(count, levels[0], {"num_inference_steps": count})
