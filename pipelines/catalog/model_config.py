"""The schema of a model's YAML. Loads without torch.

`model_yaml` reads one. `lora_config` is the schema of a LoRA, `sources` decides where YAMLs and
weights are found, `model_folder` what the weights' folder must hold.
"""

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal

from nag.params import NagParams, NasaParams, VsfParams
from pipelines.catalog.files.sources import check_source
from pipelines.catalog.lora_config import LoraConfig
from pipelines.catalog.ltx.guidance_config import NO_FURTHER_GUIDANCE, Ltx2Guidance
from pipelines.catalog.ltx.second_stage_config import SCALE, SecondStage
from pipelines.catalog.memory_config import Offload, Quantization, StorageDtype, check_memory_keys
from pipelines.catalog.pipeline_classes import (
    DEFAULTS,
    PIPELINE_CLASSES,
    Family,
    PipelineClass,
)
from pipelines.catalog.scheduler_config import SchedulerConfig
from pipelines.clip_inputs import INPUT_NAMES
from pipelines.diffusion_forcing import DiffusionForcing
from pipelines.errors import ModelConfigError, RequestError
from pipelines.frame_checks.limits import FrameLimits
from pipelines.parallel_config import ParallelConfig
from pipelines.request import CFG_METHODS, GenerationRequest, GuidanceMethod, VideoShape

LTX: tuple[Family, ...] = ("ltx", "ltx2")
LTX_PIXELS = 32  # the pipelines of diffusers take multiples of it alone


@dataclass(frozen=True)
class SamplingDefaults:
    """The defaults for fields that a manifest's row leaves out."""

    num_inference_steps: int
    guidance_scale: float
    num_frames: int
    height: int
    width: int
    fps: float
    guidance_scale_2: float | None = None
    strength: float | None = None
    guidance_rescale: float = 0.0

    @property
    def shape(self) -> VideoShape:
        return VideoShape(self.num_frames, self.height, self.width)

    def __post_init__(self) -> None:
        for name in ("num_inference_steps", "num_frames", "height", "width"):
            if getattr(self, name) < 1:
                raise ModelConfigError(
                    f"sampling.{name} must be at least 1, not {getattr(self, name)}"
                )
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ModelConfigError(f"sampling.fps must be a number above 0, not {self.fps}")
        if not math.isfinite(self.guidance_scale):
            raise ModelConfigError(
                f"sampling.guidance_scale must be a finite number, not {self.guidance_scale}"
            )
        if not 0 <= self.guidance_rescale <= 1:
            raise ModelConfigError(
                f"sampling.guidance_rescale must be between 0 and 1, not {self.guidance_rescale}"
            )


@dataclass(frozen=True)
class ShapeGrid:
    """The sizes that a model can render.

    Frames must be `k * num_frames + 1`; height and width must be multiples.
    """

    num_frames: int
    height: int
    width: int


@dataclass(frozen=True)
class ModelConfig:
    """One model.

    Args:
        name: name in manifests; the YAML's file name.
        family: architecture, which decides the code that drives the model.
        pipeline: pipeline class of diffusers, such as `WanImageToVideoPipeline`, which decides the
            inputs of a clip; null for text to video.
        source: hub id such as `Wan-AI/Wan2.1-T2V-1.3B-Diffusers`, folder, or `package:NAME` for
            weights that come with nagfarm. A relative folder is relative to the YAML.
        revision: commit or tag on the hub; None for a folder, whose fingerprint is taken.
        dtype: dtype of the transformer and the text encoder; the VAE is float32 on CPU and where
            `vae_dtype` says so.
        max_sequence_length: tokens to which a text is padded or cut, 1 to 4096.
        method: default guidance method. `sampling.guidance_scale`, `nag`, `vsf` and `nasa` are the
            defaults of the methods that use them, also where a manifest chooses the method.
        decode_timestep: timestep for LTX autoencoders that finish denoising while they decode
            (0.9.1 and later), 0 to 1; unused in others.
        decode_noise_scale: share of noise mixed into the latents before such an autoencoder decodes
            them, 0 to 1.
        image_cond_noise_scale: share of new noise on the images of an `LTXConditionPipeline` in
            each step, 0 to 1, for more motion.
        loras: LoRAs on the transformers, added up in this order.
        fuse_loras: add the LoRAs to the weights once, instead of computing them in every step. This
            is faster, and equal but for rounding, which in bfloat16 is visible.
        first_block_cache: change of the first block's output, as a share, up to which a step reuses
            the other blocks' last result, 0 to 1. It changes the pictures, more with a higher
            share; None is off.
        compile: compile the transformers' blocks at the first use of a size; equal but for
            rounding.
        vae_tiling: decode large frames in overlapping tiles, which takes less memory and more time.
        vae_memory_format: torch's memory format of the autoencoder's convolutions. GPUs may compute
            some faster with `channels_last_3d`; equal but for rounding.
        vae_compile: compile the autoencoder's decoder at the first use of a size; equal but for
            rounding.
        frame_checks: limits beyond which a rendered clip fails.
        parallel: default number of devices for one clip.
        boundary_ratio: share of the noise schedule below which the second transformer of a model
            with two takes over, 0 to 1; None keeps the folder's.
        conditioning_scale: strength with which VACE follows its video and images, 0 to 10.
        diffusion_forcing: schedule of a pipeline with diffusion forcing (SkyReels V2).
        offload: weights that wait in the host's memory until they are needed. `text_encoder` is on
            the device only while it embeds texts; with `model` one component at a time is there,
            also of two transformers; with `group` the text encoder waits, and the transformers'
            blocks are there one after another. Equal, bit for bit; CUDA devices alone.
        layerwise_casting: dtype of eight bits in which the transformers' layers are kept between
            their uses, but for embeddings and norms; they compute in `dtype`. It halves their
            memory and changes the pixels. `float8_e4m3fn` is finer, `float8_e5m2` has more range.
        ltx2_guidance: guidance of LTX-2 beside classifier-free guidance: passes away from weak
            predictions, and values for the sound.
        quantization: way in which the transformers' linear layers are quantized while they are
            read: `int8_weight_only` and `float8_weight_only` by the library torchao,
            `bitsandbytes_8bit` and `bitsandbytes_4bit` (NF4) by bitsandbytes, on CUDA devices
            alone. It changes the pixels and needs `dtype: bfloat16`.
        gguf: GGUF file of the transformer, relative to the YAML, in place of the folder's weights.
            Each layer is dequantized while it computes. It changes the pixels. For Wan and LTX,
            by the library gguf.
        gguf_2: GGUF file of the second transformer of a model with two.
        second_stage: latent upsampler and steps with which an LTX model denoises a clip again, at
            twice the size; the first stage has half of the clip's height and width.
        licence: licence of the weights, by its SPDX id or by the name that the hub gives it; for
            people.
        download_gb: size of the files that a machine downloads, in GB (1e9 bytes), above 0; for
            people. None if it is not known.
    """

    name: str
    family: Family
    source: str
    grid: ShapeGrid
    sampling: SamplingDefaults
    pipeline: str | None = None
    revision: str | None = None
    description: str = ""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    vae_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Literal["cuda", "cpu", "auto"] = "auto"
    max_sequence_length: int = 512
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    method: GuidanceMethod = "nag"
    nag: NagParams = field(default_factory=NagParams)
    vsf: VsfParams = field(default_factory=VsfParams)
    nasa: NasaParams = field(default_factory=NasaParams)
    decode_timestep: float = 0.0
    decode_noise_scale: float = 0.0
    image_cond_noise_scale: float = 0.0
    loras: tuple[LoraConfig, ...] = ()
    fuse_loras: bool = False
    first_block_cache: float | None = None
    compile: bool = False
    vae_tiling: bool = False
    vae_memory_format: Literal["contiguous_format", "channels_last_3d"] = "contiguous_format"
    vae_compile: bool = False
    frame_checks: FrameLimits = field(default_factory=FrameLimits)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    boundary_ratio: float | None = None
    conditioning_scale: float = 1.0
    diffusion_forcing: DiffusionForcing = field(default_factory=DiffusionForcing)
    ltx2_guidance: Ltx2Guidance = field(default_factory=Ltx2Guidance)
    second_stage: SecondStage | None = None
    offload: Offload = "none"
    layerwise_casting: StorageDtype | None = None
    quantization: Quantization | None = None
    gguf: str | None = None
    gguf_2: str | None = None
    licence: str = ""
    download_gb: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_sequence_length <= 4096:
            raise ModelConfigError(
                f"max_sequence_length must be between 1 and 4096, not {self.max_sequence_length}"
            )
        check_source(self.source)
        self._check_pipeline()
        self._check_scheduler()
        self._check_guidance()
        self._check_second_stage()
        if self.method in CFG_METHODS and self.sampling.guidance_scale <= 1:
            raise ModelConfigError(
                f"sampling.guidance_scale must be above 1 for the method {self.method}, "
                f"not {self.sampling.guidance_scale}"
            )
        if min(self.grid.num_frames, self.grid.height, self.grid.width) < 1:
            raise ModelConfigError(f"the grid's entries must be at least 1, not {self.grid}")
        if repeated := [
            name for name, count in Counter(lora.name for lora in self.loras).items() if count > 1
        ]:
            raise ModelConfigError(
                f"two LoRAs are called {repeated[0]}; each needs a name of its own"
            )
        if self.fuse_loras and not self.loras:
            raise ModelConfigError("fuse_loras: true needs loras")
        self._check_shares()
        check_memory_keys(self)
        if self.download_gb is not None and not 0 < self.download_gb < math.inf:
            raise ModelConfigError(
                "download_gb must be a number above 0, such as 28.9, or null if it is not known, "
                f"not {self.download_gb}"
            )

    @property
    def gguf_files(self) -> dict[str, str]:
        """The GGUF file of each transformer that has one."""
        files = {"transformer": self.gguf, "transformer_2": self.gguf_2}
        return {component: file for component, file in files.items() if file is not None}

    @property
    def fits_as_read(self) -> bool:
        """True if the weights are for the device as the files have them, all at once."""
        return self.offload == "none" and self.layerwise_casting is None

    @property
    def can_be_sharded(self) -> bool:
        """True if the transformers' weights stay on their device, as a group of ranks needs it."""
        return self.offload in ("none", "text_encoder")

    def _check_scheduler(self) -> None:
        scheduler, steps = self.scheduler, self.sampling.num_inference_steps
        if self.family in LTX and scheduler.flow_shift is not None:
            raise ModelConfigError(
                "LTX shifts its schedule by the number of tokens: leave scheduler.flow_shift out"
            )
        if self.pipeline == "LTXConditionPipeline" and (
            scheduler.name not in (None, "FlowMatchEulerDiscreteScheduler")
            or scheduler.stochastic_sampling
        ):
            raise ModelConfigError(
                "LTXConditionPipeline has a noise level for each token, which only "
                "scheduler.name: FlowMatchEulerDiscreteScheduler without stochastic_sampling takes"
            )
        if self.pipeline_class.has_forcing and (
            scheduler.name not in (None, "UniPCMultistepScheduler") or scheduler.levels
        ):
            raise ModelConfigError(
                f"{self.pipeline_class.name} gives each frame a timestep and a scheduler, which "
                "only scheduler.name: UniPCMultistepScheduler without a list can do"
            )
        if self.diffusion_forcing != DiffusionForcing() and not self.pipeline_class.has_forcing:
            raise ModelConfigError(
                f"{self.pipeline_class.name} has no diffusion forcing: leave diffusion_forcing out"
            )
        if scheduler.levels and steps != len(scheduler.levels):
            raise ModelConfigError(
                f"sampling.num_inference_steps must be {len(scheduler.levels)}, as many as "
                f"scheduler.{scheduler.levels_key} lists, not {steps}"
            )
        if (
            self.family != "wan"
            and scheduler.name == "DPMSolverMultistepScheduler"
            and not scheduler.levels
        ):
            raise ModelConfigError(
                "scheduler.name: LTX pipelines give their scheduler noise levels, which "
                "DPMSolverMultistepScheduler does not take; list them in scheduler.sigmas"
            )

    def _check_guidance(self) -> None:
        if self.family != "ltx2" and self.ltx2_guidance != NO_FURTHER_GUIDANCE:
            raise ModelConfigError(f"ltx2_guidance is for the family ltx2, not for {self.family}")
        if self.sampling.guidance_rescale and not self.pipeline_class.takes_rescale:
            raise ModelConfigError(
                f"{self.pipeline_class.name} has no guidance_rescale: leave it out of sampling"
            )

    def _check_second_stage(self) -> None:
        stage = self.second_stage
        if stage is None:
            return
        if not self.pipeline_class.has_second_stage:
            able = (one.name for one in PIPELINE_CLASSES.values() if one.has_second_stage)
            raise ModelConfigError(
                f"second_stage needs pipeline: {' or '.join(able)}, not {self.pipeline_class.name}"
            )
        if self.family == "ltx2" and not stage.levels:
            raise ModelConfigError(
                "LTX-2 has no denoise_strength: list the noise levels of second_stage in sigmas"
            )
        least = SCALE * LTX_PIXELS
        if self.grid.height % least or self.grid.width % least:
            raise ModelConfigError(
                f"grid.height and grid.width must be multiples of {least} with second_stage, since "
                f"its first stage has half of a clip's size in multiples of {LTX_PIXELS}, not "
                f"{self.grid.height} and {self.grid.width}"
            )

    def _check_shares(self) -> None:
        for name, share in (
            ("decode_timestep", self.decode_timestep),
            ("decode_noise_scale", self.decode_noise_scale),
            ("image_cond_noise_scale", self.image_cond_noise_scale),
        ):
            if not 0 <= share <= 1:
                raise ModelConfigError(f"{name} must be between 0 and 1, not {share}")
        if self.boundary_ratio is not None and not 0 <= self.boundary_ratio <= 1:
            raise ModelConfigError(
                f"boundary_ratio must be between 0 and 1, not {self.boundary_ratio}"
            )
        if not 0 <= self.conditioning_scale <= 10:
            raise ModelConfigError(
                f"conditioning_scale must be between 0 and 10, not {self.conditioning_scale}"
            )
        if self.first_block_cache is not None and not self.pipeline_class.has_block_cache:
            raise ModelConfigError(
                f"first_block_cache does not know the blocks of {self.pipeline_class.name}: "
                "leave it out"
            )
        if self.first_block_cache is not None and not 0 < self.first_block_cache < 1:
            raise ModelConfigError(
                "first_block_cache must be between 0 and 1, such as 0.08, or null, "
                f"not {self.first_block_cache}"
            )

    @property
    def pipeline_class(self) -> PipelineClass:
        """The pipeline class that renders, with the rules for its folder and its inputs."""
        return PIPELINE_CLASSES[self.pipeline or DEFAULTS[self.family]]

    def at_once(self, shape: VideoShape) -> VideoShape:
        """Return the part of a clip that the transformer sees in one step."""
        if not self.pipeline_class.has_forcing:
            return shape
        return replace(
            shape, num_frames=min(shape.num_frames, self.diffusion_forcing.base_num_frames)
        )

    def _check_pipeline(self) -> None:
        if self.pipeline is None:
            return
        known = [one.name for one in PIPELINE_CLASSES.values() if one.family == self.family]
        if self.pipeline not in known:
            raise ModelConfigError(
                f"pipeline must be one of {', '.join(known)} for the family {self.family}, "
                f"not {self.pipeline!r}"
            )

    def check_request(self, request: GenerationRequest) -> None:
        """Refuse a request that is off this model's grid, and name the nearest sizes that work.

        Raises:
            RequestError: a size is off the grid, the steps or `flow_shift` do not fit the
                scheduler, or an input is missing or not one of the model.
        """
        self._check_inputs(request)
        self.scheduler.check_steps(self.name, request.sampling)
        self._check_strength(request)
        self._check_rescale(request)
        if not (request.audio or self.pipeline_class.has_audio):
            raise RequestError.of(f"{self.name} makes no sound: leave audio out", "audio", "model")
        if self.family in LTX and request.sampling.flow_shift is not None:
            raise RequestError.of(
                f"{self.name} shifts its schedule by the number of tokens: leave flow_shift out",
                "flow_shift",
            )
        shape = request.shape
        if (shape.num_frames - 1) % self.grid.num_frames:
            below = (shape.num_frames - 1) // self.grid.num_frames * self.grid.num_frames + 1
            raise RequestError.of(
                f"num_frames must be a multiple of {self.grid.num_frames} plus 1 for {self.name}: "
                f"{below} or {below + self.grid.num_frames}, not {shape.num_frames}",
                "num_frames",
            )
        for axis, size, step in (
            ("height", shape.height, self.grid.height),
            ("width", shape.width, self.grid.width),
        ):
            if size % step:
                below = size // step * step
                nearest = f"{below} or {below + step}" if below else f"{step}"
                raise RequestError.of(
                    f"{axis} must be a multiple of {step} for {self.name}: {nearest}, not {size}",
                    axis,
                )

    def _check_strength(self, request: GenerationRequest) -> None:
        strength, takes_one = request.sampling.strength, self.pipeline_class.takes_strength
        if takes_one and strength is None:
            raise RequestError.of(f"strength is missing: {self.name} needs one", "strength")
        if strength is not None and not takes_one:
            raise RequestError.of(
                f"{self.name} takes no strength, which is for video to video: leave it out",
                "strength",
            )

    def _check_rescale(self, request: GenerationRequest) -> None:
        if not request.sampling.guidance_rescale:
            return
        if not self.pipeline_class.takes_rescale:
            raise RequestError.of(
                f"{self.pipeline_class.name} of {self.name} has no guidance_rescale: leave it out",
                "guidance_rescale",
                "model",
            )
        if not (request.has_cfg or self.ltx2_guidance.num_passes):
            raise RequestError.of(
                f"guidance_rescale is {request.sampling.guidance_rescale:g}, but the method "
                f"{request.method} runs no classifier-free guidance that it could act on: leave it "
                "out, or use the method cfg or cfg+nag",
                "guidance_rescale",
                "method",
            )

    def _check_inputs(self, request: GenerationRequest) -> None:
        pipeline, given = self.pipeline_class, request.inputs.given()
        for name in INPUT_NAMES:
            if name in pipeline.required_inputs and name not in given:
                raise RequestError.of(f"{name} is missing: {self.name} begins with one", name)
            if name in given and name not in pipeline.required_inputs | pipeline.optional_inputs:
                raise RequestError.of(f"{self.name} takes no {name}: leave it out", name, "model")
