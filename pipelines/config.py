"""What a model is: one YAML in configs/models, read into a `ModelConfig`. Loads without torch.

Decides the schema of a model's YAML and where models are looked for. What the weights' folder must hold is decided
in `loading`.
"""

import re
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from nag.errors import NagParameterError
from nag.params import NagParams, NasaParams, VsfParams
from pipelines.errors import ModelConfigError, RequestError
from pipelines.types import CFG_METHODS, GenerationRequest, GuidanceMethod

PACKAGED_CONFIGS = Path(str(resources.files("configs")))
PACKAGED_WEIGHTS = Path(str(resources.files("pipelines"))) / "shapes" / "weights"
MAX_CONFIG_BYTES = 1_000_000


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


@dataclass(frozen=True)
class ShapeGrid:
    """The sizes that a model can render: `num_frames = k * num_frames + 1`, height and width multiples."""

    num_frames: int
    height: int
    width: int


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
        decode_timestep: of LTX autoencoders that finish denoising while they decode (0.9.1 and later); else unused.
        decode_noise_scale: share of noise mixed into the latents before such an autoencoder decodes them.
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
    nag: NagParams = field(default_factory=NagParams)
    decode_timestep: float = 0.0
    decode_noise_scale: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.max_sequence_length <= 4096:
            raise ModelConfigError(f"max_sequence_length must be between 1 and 4096, not {self.max_sequence_length}")
        if self.source.startswith("package:") and not re.fullmatch(r"package:[a-z0-9][a-z0-9._-]*", self.source):
            raise ModelConfigError(f"a packaged model is package:NAME, not {self.source!r}")
        if self.family == "ltx" and self.scheduler.flow_shift is not None:
            raise ModelConfigError("LTX shifts its schedule by the number of tokens: leave scheduler.flow_shift out")
        if min(self.grid.num_frames, self.grid.height, self.grid.width) < 1:
            raise ModelConfigError(f"the grid's entries must be at least 1, not {self.grid}")

    def check_request(self, request: GenerationRequest) -> None:
        """Refuses a request that is off this model's grid, naming the nearest sizes that work.

        Raises:
            RequestError
        method: what the negative prompt does where a manifest does not say. `sampling.guidance_scale`, `nag`, `vsf` and
            `nasa` are the defaults of the methods that use them, whether they are this one or a manifest's.
        """
        if self.family == "ltx" and request.sampling.flow_shift is not None:
            raise RequestError(f"{self.name} shifts its schedule by the number of tokens: leave flow_shift out")
        shape = request.shape
        if (shape.num_frames - 1) % self.grid.num_frames:
            below = (shape.num_frames - 1) // self.grid.num_frames * self.grid.num_frames + 1
            raise RequestError(
                f"num_frames must be a multiple of {self.grid.num_frames} plus 1 for {self.name}: "
                f"{below} or {below + self.grid.num_frames}, not {shape.num_frames}"
            )
        for axis, size, step in (("height", shape.height, self.grid.height), ("width", shape.width, self.grid.width)):
            if size % step:
                below = size // step * step
                nearest = f"{below} or {below + step}" if below else f"{step}"
                raise RequestError(f"{axis} must be a multiple of {step} for {self.name}: {nearest}, not {size}")


def model_paths(models_folder: Path | None = None) -> dict[str, Path]:
    """Model name to YAML: those that come with nagfarm, and those in `models_folder`, which win.
    method: GuidanceMethod = "nag"

    vsf: VsfParams = field(default_factory=VsfParams)
    nasa: NasaParams = field(default_factory=NasaParams)
    Raises:
        ModelConfigError: there is no such folder.
    """
    if models_folder is not None and not models_folder.is_dir():
        raise ModelConfigError(f"the folder of models {models_folder} does not exist")
    folders = [PACKAGED_CONFIGS / "models", *([models_folder] if models_folder else [])]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def load_model_config(path: Path) -> ModelConfig:
    """Reads and checks one model's YAML.
        if self.method in CFG_METHODS and self.sampling.guidance_scale <= 1:
            raise ModelConfigError(
                f"sampling.guidance_scale must be above 1 for the method {self.method}, "
                f"not {self.sampling.guidance_scale}"
            )

    Raises:
        ModelConfigError: it is missing, too large, not YAML, has unknown keys or values outside their range.
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ModelConfigError(f"larger than {MAX_CONFIG_BYTES:,} bytes")
        loaded = OmegaConf.load(path)
        refuse_interpolations(OmegaConf.to_container(loaded))
        merged = OmegaConf.merge(OmegaConf.structured(ModelConfig), {"name": path.stem}, loaded)
        config = OmegaConf.to_object(merged)
    except OSError as error:
        raise ModelConfigError(f"cannot read the model config {path}: {error.strerror}") from error
    except (OmegaConfBaseException, YAMLError, NagParameterError, ModelConfigError, ValueError, TypeError) as error:
        raise ModelConfigError(f"{path}: {one_line(error)}") from error
    assert isinstance(config, ModelConfig)
    return config


def refuse_interpolations(value: object) -> None:
    """Refuses OmegaConf's `${...}`, which could carry the environment's secrets into a record.

    Raises:
        ValueError: a text holds one.
    """
    if isinstance(value, dict):
        for entry in value.values():
            refuse_interpolations(entry)
    elif isinstance(value, list):
        for entry in value:
            refuse_interpolations(entry)
    elif isinstance(value, str) and "${" in value:
        raise ValueError(f"{value!r}: interpolations are refused, write the value itself")


def one_line(error: Exception) -> str:
    """What OmegaConf or PyYAML says over several lines: what is wrong, then which key."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(line for line in lines if not line.startswith("object_type")) or type(error).__name__


def resolve_source(config: ModelConfig, path: Path) -> str | Path:
    """Where the weights are: an absolute folder, or a hub id unchanged.

    Args:
        path: the YAML that `config` was read from.
    """
    if config.source.startswith("package:"):
        return PACKAGED_WEIGHTS / config.source.removeprefix("package:")
    if config.source.startswith((".", "/", "~")):
        return (path.parent / Path(config.source).expanduser()).resolve()
    return config.source
