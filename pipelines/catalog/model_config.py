"""The schema of a model's YAML. Loads without torch.

`model_yaml` reads one. `lora_config` is the schema of a LoRA, `sources` decides where YAMLs and
weights are found, `model_folder` what the weights' folder must hold.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from nag.params import NagParams, NasaParams, VsfParams
from pipelines.catalog.files.sources import check_source
from pipelines.catalog.keys.lora_config import LoraConfig
from pipelines.catalog.keys.ltx2_guidance import Ltx2Guidance
from pipelines.catalog.keys.memory_config import (
    Offload,
    Quantization,
    StorageDtype,
)
from pipelines.catalog.keys.pipeline_classes import (
    DEFAULTS,
    PIPELINE_CLASSES,
    Family,
    PipelineClass,
)
from pipelines.catalog.keys.scheduler_config import SchedulerConfig
from pipelines.catalog.keys.second_stage import SecondStage
from pipelines.catalog.model_rules import check_model
from pipelines.diffusion_forcing import DiffusionForcing
from pipelines.errors import ModelConfigError
from pipelines.frame_checks.limits import FrameLimits
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GuidanceMethod, VideoShape


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
        if self.guidance_scale_2 is not None and not 1 <= self.guidance_scale_2 < math.inf:
            raise ModelConfigError(
                f"sampling.guidance_scale_2 must be at least 1, not {self.guidance_scale_2}"
            )
        if self.strength is not None and not 0 < self.strength <= 1:
            raise ModelConfigError(
                f"sampling.strength must be above 0 and at most 1, not {self.strength}"
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
            (0.9.1 and later), 0 to 1; unused in other LTX models.
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
        check_source(self.source, self.revision)
        check_model(self)

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
