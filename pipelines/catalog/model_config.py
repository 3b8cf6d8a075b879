"""What a model is: one YAML in configs/models, read into a `ModelConfig`. Loads without torch.

Decides the schema of a model's YAML and where models are looked for. What the weights' folder must hold is decided
in `loading`, what no YAML may hold in `config_files`.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal, cast

from omegaconf import DictConfig, ListConfig, OmegaConf

from nag.errors import NagParameterError
from nag.params import NagParams, NasaParams, VsfParams
from pipelines.catalog.config_files import INVALID, one_line, read_file
from pipelines.errors import ModelConfigError, RequestError
from pipelines.frame_checks.limits import FrameLimits
from pipelines.parallel_config import ParallelConfig
from pipelines.request import CFG_METHODS, GenerationRequest, GuidanceMethod

PACKAGED_CONFIGS = Path(str(resources.files("configs")))
PACKAGED_WEIGHTS = Path(str(resources.files("pipelines"))) / "shapes" / "weights"


@dataclass(frozen=True)
class SchedulerConfig:
    """Which diffusers scheduler denoises, by class name, and its flow shift. None keeps what the folder says."""

    name: Literal["UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"] | None = None
    flow_shift: float | None = None


@dataclass(frozen=True)
class SamplingDefaults:
    """What a manifest's row need not say."""

    num_inference_steps: int
    guidance_scale: float
    num_frames: int
    height: int
    width: int
    fps: float

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


@dataclass(frozen=True)
class ShapeGrid:
    """The sizes that a model can render: `num_frames = k * num_frames + 1`, height and width multiples."""

    num_frames: int
    height: int
    width: int


@dataclass(frozen=True)
class LoraConfig:
    """One LoRA of a model.

    Args:
        name: of the adapter, any that no other LoRA of the model has; decides no pixel.
        source: as a model's: a hub id, a folder, or `package:NAME`.
        weight: factor of its change, finite and not 0; negative turns it round.
        weight_name: the file in the folder. Unsaid: `pytorch_lora_weights.safetensors`, or the only .safetensors file.
        revision: the hub's commit or tag.
        component: of models with two transformers, the one that it changes, such as `transformer_2` for Wan 2.2's low
            noise; "all" changes each transformer that the model has.
    """

    name: str
    source: str
    weight: float = 1.0
    weight_name: str | None = None
    revision: str | None = None
    component: Literal["all", "transformer", "transformer_2"] = "all"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ModelConfigError(
                f"a LoRA's name is made of letters, digits, _ and -, not {self.name!r}"
            )
        check_source(self.source)
        if not math.isfinite(self.weight) or self.weight == 0:
            raise ModelConfigError(
                f"the weight of the LoRA {self.name} must be finite and not 0, not {self.weight}"
            )
        if self.weight_name is not None and not re.fullmatch(
            r"[\w-][\w. -]*\.safetensors", self.weight_name
        ):
            raise ModelConfigError(
                f"weight_name of the LoRA {self.name} must be a .safetensors file of its folder, not {self.weight_name}"
            )


@dataclass(frozen=True)
class ModelConfig:
    """One model.

    Args:
        name: what manifests call it; the YAML's file name.
        family: which code drives it.
        source: a hub id such as `Wan-AI/Wan2.1-T2V-1.3B-Diffusers`, a folder, or `package:NAME` for weights that
            come with nagfarm. A relative folder is relative to the YAML.
        revision: the hub's commit or tag; for a folder None, and its content's fingerprint is taken.
        dtype: of the transformer and the text encoder; the VAE is float32 on CPU and where `vae_dtype` says so.
        max_sequence_length: tokens of text, padded or cut to it.
        method: what the negative prompt does where a manifest does not say. `sampling.guidance_scale`, `nag`, `vsf` and
            `nasa` are the defaults of the methods that use them, whether they are this one or a manifest's.
        decode_timestep: of LTX autoencoders that finish denoising while they decode (0.9.1 and later); else unused.
        decode_noise_scale: share of noise mixed into the latents before such an autoencoder decodes them.
        loras: LoRAs on the transformers, added up in this order.
        fuse_loras: adds the LoRAs to the weights once instead of computing them beside these in every step. Faster;
            equal but for rounding, which in bfloat16 is visible.
        first_block_cache: a step in which the output of the transformer's first block has changed by this share or less
            takes over what the other blocks added before. Other pictures, the more so the higher; None is off.
        compile: compiles the transformers' blocks when they are first used at a size. Equal but for rounding.
        vae_tiling: decodes large frames in overlapping tiles, which takes less memory and more time.
        frame_checks: beyond which a rendered clip is no picture and fails.
        parallel: on how many devices a clip is rendered where a manifest does not say.
    """

    name: str
    family: Literal["wan", "ltx"]
    source: str
    grid: ShapeGrid
    sampling: SamplingDefaults
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
    loras: tuple[LoraConfig, ...] = ()
    fuse_loras: bool = False
    first_block_cache: float | None = None
    compile: bool = False
    vae_tiling: bool = False
    frame_checks: FrameLimits = field(default_factory=FrameLimits)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        if not 1 <= self.max_sequence_length <= 4096:
            raise ModelConfigError(
                f"max_sequence_length must be between 1 and 4096, not {self.max_sequence_length}"
            )
        check_source(self.source)
        if self.family == "ltx" and self.scheduler.flow_shift is not None:
            raise ModelConfigError(
                "LTX shifts its schedule by the number of tokens: leave scheduler.flow_shift out"
            )
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
        for name, share in (
            ("decode_timestep", self.decode_timestep),
            ("decode_noise_scale", self.decode_noise_scale),
        ):
            if not 0 <= share <= 1:
                raise ModelConfigError(f"{name} must be between 0 and 1, not {share}")
        if self.first_block_cache is not None and not 0 < self.first_block_cache < 1:
            raise ModelConfigError(
                f"first_block_cache must be between 0 and 1, such as 0.08, or null, not {self.first_block_cache}"
            )

    def check_request(self, request: GenerationRequest) -> None:
        """Refuses a request that is off this model's grid, naming the nearest sizes that work.

        Raises:
            RequestError
        """
        if self.family == "ltx" and request.sampling.flow_shift is not None:
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


def model_paths(models_folder: Path | None = None) -> dict[str, Path]:
    """Model name to YAML: those that come with nagfarm, and those in `models_folder`, which win.

    Raises:
        ModelConfigError: there is no such folder.
    """
    if models_folder is not None and not models_folder.is_dir():
        raise ModelConfigError(f"the folder of models {models_folder} does not exist")
    folders = [PACKAGED_CONFIGS / "models", *([models_folder] if models_folder else [])]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def load_model_config(path: Path) -> ModelConfig:
    """Reads and checks one model's YAML.

    Raises:
        ModelConfigError: it is missing, too large, not YAML, has unknown keys or values outside their range.
    """
    try:
        loaded = read_file(path)
        merged = OmegaConf.merge(
            OmegaConf.structured(ModelConfig), {"name": path.stem}, loaded, _read_loras(loaded)
        )
        config = OmegaConf.to_object(merged)
        if merged.name != path.stem:
            raise ModelConfigError(
                f"a model is called as its file is, {path.stem}, not {merged.name}"
            )
    except OSError as error:
        raise ModelConfigError(f"cannot read the model config {path}: {error.strerror}") from error
    except (*INVALID, NagParameterError, ModelConfigError) as error:
        raise ModelConfigError(f"{path}: {one_line(error)}") from error
    assert isinstance(config, ModelConfig)
    return config


def _read_loras(loaded: DictConfig) -> dict[str, tuple[LoraConfig, ...]]:
    """The entries of `loras`, checked one by one: OmegaConf does not know what a tuple of dataclasses is made of."""
    if "loras" not in loaded:
        return {}
    entries = loaded["loras"]
    if not isinstance(entries, ListConfig) or not all(
        isinstance(entry, DictConfig) for entry in entries
    ):
        raise ModelConfigError(
            f"loras must be a list of LoRAs, each with a name and a source, not {entries!r}"
        )
    loras = [
        OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(LoraConfig), entry))
        for entry in entries
    ]
    return {"loras": tuple(cast("list[LoraConfig]", loras))}


def check_source(source: str) -> None:
    """Raises ModelConfigError for a `package:` that could lead out of the package."""
    if source.startswith("package:") and not re.fullmatch(r"package:[a-z0-9][a-z0-9._-]*", source):
        raise ModelConfigError(f"a packaged model is package:NAME, not {source!r}")


def resolve_source(config: ModelConfig | LoraConfig, path: Path) -> str | Path:
    """Where the weights are: an absolute folder, or a hub id unchanged.

    Args:
        path: the YAML that `config` was read from.
    """
    if config.source.startswith("package:"):
        return PACKAGED_WEIGHTS / config.source.removeprefix("package:")
    if config.source.startswith((".", "/", "~")):
        try:
            return (path.parent / Path(config.source).expanduser()).resolve()
        except (
            RuntimeError,
            ValueError,
            OSError,
        ) as error:  # an unknown ~user, a null byte, a name too long
            raise ModelConfigError(
                f"{path}: source {config.source!r} is no folder: {error}"
            ) from error
    return config.source
