"""How a run is carried out: `configs/base.yaml`, a profile, and `key=value` from the command line. Loads without torch.

Nothing here changes what a clip shows; what does is in the model's YAML or the manifest, and decides its id. How
strongly its frames are compressed is decided here and written into its record: an id covers frames, not compression.
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from jobs.errors import ConfigError
from pipelines.config import MAX_CONFIG_BYTES, PACKAGED_CONFIGS, one_line, refuse_interpolations


@dataclass(frozen=True)
class WorkerConfig:
    """How many actors, and what each one reserves.

    Args:
        count: None takes as many as the cluster has devices: GPUs, or on CPU its cores over `num_cpus`.
        num_cpus: cores that an actor on CPU reserves; also torch's threads in it.
        load_timeout_s: how long an actor may take to load its model.
        spool_clips: finished clips that may wait for encode and upload while the next one denoises.
    """

    count: int | None = None
    num_cpus: int = 1
    load_timeout_s: float = 1800.0
    spool_clips: int = 2

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ConfigError(f"workers.count must be at least 1, not {self.count}")
        if self.num_cpus < 1:
            raise ConfigError(f"workers.num_cpus must be at least 1, not {self.num_cpus}")
        if not self.load_timeout_s > 0:
            raise ConfigError(f"workers.load_timeout_s must be above 0, not {self.load_timeout_s}")
        if self.spool_clips < 1:
            raise ConfigError(f"workers.spool_clips must be at least 1, not {self.spool_clips}")


@dataclass(frozen=True)
class RetryPolicy:
    """When a clip is given up, a worker set aside, a run stopped.

    Args:
        max_attempts: attempts at one clip, the first included, where its failures may pass.
        max_failures_of_worker: a worker that fails so many clips in a row is replaced.
        max_given_up_share: a run that gives up more than this share of its clips stops; 1 never does.
        min_clips_to_stop: clips that must have ended before that share counts.
    """

    max_attempts: int = 3
    max_failures_of_worker: int = 3
    max_given_up_share: float = 0.5
    min_clips_to_stop: int = 20

    def __post_init__(self) -> None:
        for name in ("max_attempts", "max_failures_of_worker", "min_clips_to_stop"):
            if getattr(self, name) < 1:
                raise ConfigError(f"retry.{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.max_given_up_share <= 1:
            raise ConfigError(f"retry.max_given_up_share must be between 0 and 1, not {self.max_given_up_share}")


@dataclass(frozen=True)
class EncodingConfig:
    """libx264's settings. `crf` is its constant rate factor, 0 (lossless) to 51."""

    crf: int = 16
    preset: str = "medium"

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise ConfigError(f"encoding.crf must be between 0 and 51, not {self.crf}")
        presets = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
        if self.preset not in presets:
            raise ConfigError(f"encoding.preset must be one of {', '.join(presets)}, not {self.preset!r}")


@dataclass(frozen=True)
class StoreConfig:
    """How S3 is reached. Credentials come from the environment or the instance's role, never from here.

    Args:
        endpoint_url: None takes AWS_ENDPOINT_URL, or else AWS itself.
        max_attempts: of one request, by botocore's adaptive retry.
    """

    endpoint_url: str | None = None
    region: str | None = None
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 60.0
    max_attempts: int = 8

    def __post_init__(self) -> None:
        if self.endpoint_url is not None and not self.endpoint_url.startswith(("http://", "https://")):
            raise ConfigError(f"store.endpoint_url must begin with http:// or https://, not {self.endpoint_url!r}")
        if self.max_attempts < 1:
            raise ConfigError(f"store.max_attempts must be at least 1, not {self.max_attempts}")
        if not (self.connect_timeout_s > 0 and self.read_timeout_s > 0):
            raise ConfigError("store.connect_timeout_s and store.read_timeout_s must be above 0")


@dataclass(frozen=True)
class RunConfig:
    """Everything about a run that does not change a pixel."""

    workers: WorkerConfig = field(default_factory=WorkerConfig)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    store: StoreConfig = field(default_factory=StoreConfig)


def load_config(profile: Path | None = None, overrides: list[str] | None = None) -> RunConfig:
    """Merges base.yaml, a profile's YAML and `key=value` overrides, the later winning.

    Raises:
        ConfigError: a file is missing or not YAML, a key is unknown, a value has the wrong type or range.
    """
    layers = [OmegaConf.structured(RunConfig)]
    for path in (PACKAGED_CONFIGS / "base.yaml", *([profile] if profile else [])):
        try:
            if path.stat().st_size > MAX_CONFIG_BYTES:
                raise ConfigError(f"{path} is larger than {MAX_CONFIG_BYTES:,} bytes")
            layers.append(OmegaConf.load(path))
        except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
            raise ConfigError(f"cannot read the configuration {path}: {error}") from error
    for override in overrides or []:
        if "=" not in override:
            raise ConfigError(f"{override!r} is not key=value, such as workers.count=2")
    try:
        layers.append(OmegaConf.from_dotlist(overrides or []))
        for layer in layers[1:]:
            refuse_interpolations(OmegaConf.to_container(layer))
        config = OmegaConf.to_object(OmegaConf.merge(*layers))
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:
        raise ConfigError(f"configuration: {one_line(error)}") from error
    assert isinstance(config, RunConfig)
    return config
