"""The rules that a model's YAML keeps as a whole, beyond those of each key. Loads without torch."""

import math
from collections import Counter
from typing import TYPE_CHECKING

from pipelines.catalog.keys.ltx2_guidance import NO_FURTHER_GUIDANCE
from pipelines.catalog.keys.memory_config import check_memory_keys
from pipelines.catalog.keys.pipeline_classes import LTX, PIPELINE_CLASSES
from pipelines.catalog.keys.second_stage import SCALE
from pipelines.diffusion_forcing import DiffusionForcing
from pipelines.errors import ModelConfigError
from pipelines.request import CFG_METHODS

if TYPE_CHECKING:
    from pipelines.catalog.model_config import ModelConfig

LTX_PIXELS = 32  # the pipelines of diffusers take multiples of it alone


def check_model(config: "ModelConfig") -> None:
    """Refuse values out of their ranges, and keys that contradict each other or do nothing.

    Raises:
        ModelConfigError: the message names the key, and what to write instead.
    """
    if not 1 <= config.max_sequence_length <= 4096:
        raise ModelConfigError(
            f"max_sequence_length must be between 1 and 4096, not {config.max_sequence_length}"
        )
    _check_pipeline(config)
    _check_scheduler(config)
    _check_guidance(config)
    _check_second_stage(config)
    if config.method in CFG_METHODS and config.sampling.guidance_scale <= 1:
        raise ModelConfigError(
            f"sampling.guidance_scale must be above 1 for the method {config.method}, "
            f"not {config.sampling.guidance_scale}"
        )
    if min(config.grid.num_frames, config.grid.height, config.grid.width) < 1:
        raise ModelConfigError(f"the grid's entries must be at least 1, not {config.grid}")
    if repeated := [
        name for name, count in Counter(lora.name for lora in config.loras).items() if count > 1
    ]:
        raise ModelConfigError(f"two LoRAs are called {repeated[0]}; each needs a name of its own")
    if config.fuse_loras and not config.loras:
        raise ModelConfigError("fuse_loras: true needs loras")
    _check_shares(config)
    _check_unread(config)
    check_memory_keys(config)
    if config.download_gb is not None and not 0 < config.download_gb < math.inf:
        raise ModelConfigError(
            "download_gb must be a number above 0, such as 28.9, or null if it is not known, "
            f"not {config.download_gb}"
        )


def _check_pipeline(config: "ModelConfig") -> None:
    if config.pipeline is None:
        return
    known = [one.name for one in PIPELINE_CLASSES.values() if one.family == config.family]
    if config.pipeline not in known:
        raise ModelConfigError(
            f"pipeline must be one of {', '.join(known)} for the family {config.family}, "
            f"not {config.pipeline!r}"
        )


def _check_scheduler(config: "ModelConfig") -> None:
    scheduler, steps = config.scheduler, config.sampling.num_inference_steps
    if config.family in LTX and scheduler.flow_shift is not None:
        raise ModelConfigError(
            "LTX shifts its schedule by the number of tokens: leave scheduler.flow_shift out"
        )
    if config.pipeline == "LTXConditionPipeline" and (
        scheduler.name not in (None, "FlowMatchEulerDiscreteScheduler")
        or scheduler.stochastic_sampling
    ):
        raise ModelConfigError(
            "LTXConditionPipeline has a noise level for each token, which only "
            "scheduler.name: FlowMatchEulerDiscreteScheduler without stochastic_sampling takes"
        )
    if config.pipeline_class.has_forcing and (
        scheduler.name not in (None, "UniPCMultistepScheduler") or scheduler.levels
    ):
        raise ModelConfigError(
            f"{config.pipeline_class.name} gives each frame a timestep and a scheduler, which "
            "only scheduler.name: UniPCMultistepScheduler without a list can do"
        )
    if config.diffusion_forcing != DiffusionForcing() and not config.pipeline_class.has_forcing:
        raise ModelConfigError(
            f"{config.pipeline_class.name} has no diffusion forcing: leave diffusion_forcing out"
        )
    if scheduler.levels and steps != len(scheduler.levels):
        raise ModelConfigError(
            f"sampling.num_inference_steps must be {len(scheduler.levels)}, as many as "
            f"scheduler.{scheduler.levels_key} lists, not {steps}"
        )
    if (
        config.family != "wan"
        and scheduler.name == "DPMSolverMultistepScheduler"
        and not scheduler.levels
    ):
        raise ModelConfigError(
            "scheduler.name: LTX pipelines give their scheduler noise levels, which "
            "DPMSolverMultistepScheduler does not take; list them in scheduler.sigmas"
        )


def _check_guidance(config: "ModelConfig") -> None:
    if config.family != "ltx2" and config.ltx2_guidance != NO_FURTHER_GUIDANCE:
        raise ModelConfigError(f"ltx2_guidance is for the family ltx2, not for {config.family}")
    if config.sampling.guidance_rescale and not config.pipeline_class.takes_rescale:
        raise ModelConfigError(
            f"{config.pipeline_class.name} has no guidance_rescale: leave it out of sampling"
        )


def _check_second_stage(config: "ModelConfig") -> None:
    stage = config.second_stage
    if stage is None:
        return
    if not config.pipeline_class.has_second_stage:
        able = (one.name for one in PIPELINE_CLASSES.values() if one.has_second_stage)
        raise ModelConfigError(
            f"second_stage needs pipeline: {' or '.join(able)}, not {config.pipeline_class.name}"
        )
    if config.family == "ltx2" and not stage.levels:
        raise ModelConfigError(
            "LTX-2 has no denoise_strength: list the noise levels of second_stage in sigmas"
        )
    least = SCALE * LTX_PIXELS
    if config.grid.height % least or config.grid.width % least:
        raise ModelConfigError(
            f"grid.height and grid.width must be multiples of {least} with second_stage, since "
            f"its first stage has half of a clip's size in multiples of {LTX_PIXELS}, not "
            f"{config.grid.height} and {config.grid.width}"
        )


def _check_shares(config: "ModelConfig") -> None:
    for name, share in (
        ("decode_timestep", config.decode_timestep),
        ("decode_noise_scale", config.decode_noise_scale),
        ("image_cond_noise_scale", config.image_cond_noise_scale),
    ):
        if not 0 <= share <= 1:
            raise ModelConfigError(f"{name} must be between 0 and 1, not {share}")
    if config.boundary_ratio is not None and not 0 <= config.boundary_ratio <= 1:
        raise ModelConfigError(
            f"boundary_ratio must be between 0 and 1, not {config.boundary_ratio}"
        )
    if not 0 <= config.conditioning_scale <= 10:
        raise ModelConfigError(
            f"conditioning_scale must be between 0 and 10, not {config.conditioning_scale}"
        )
    if config.first_block_cache is not None and not config.pipeline_class.has_block_cache:
        raise ModelConfigError(
            f"first_block_cache does not know the blocks of {config.pipeline_class.name}: "
            "leave it out"
        )
    if config.first_block_cache is not None and not 0 < config.first_block_cache < 1:
        raise ModelConfigError(
            "first_block_cache must be between 0 and 1, such as 0.08, or null, "
            f"not {config.first_block_cache}"
        )


def _check_unread(config: "ModelConfig") -> None:
    """Refuse keys that the pipeline class would leave unread."""
    pipeline, sampling = config.pipeline_class, config.sampling
    is_ltx, has_second = config.family in LTX, "transformer_2" in pipeline.components
    is_condition = pipeline.name == "LTXConditionPipeline"
    for key, is_set, is_read in (
        ("sampling.guidance_scale_2", sampling.guidance_scale_2 is not None, has_second),
        ("sampling.strength", sampling.strength is not None, pipeline.takes_strength),
        ("boundary_ratio", config.boundary_ratio is not None, has_second),
        ("conditioning_scale", config.conditioning_scale != 1, pipeline.name == "WanVACEPipeline"),
        ("image_cond_noise_scale", config.image_cond_noise_scale != 0, is_condition),
        ("decode_timestep", config.decode_timestep != 0, is_ltx),
        ("decode_noise_scale", config.decode_noise_scale != 0, is_ltx),
        ("gguf_2", config.gguf_2 is not None, has_second),
    ):
        if is_set and not is_read:
            raise ModelConfigError(f"{key} does nothing with {pipeline.name}: leave it out")
