"""How a run is carried out: `configs/base.yaml`, a profile, and `key=value` from the command line. Loads without torch.

Nothing here changes what a clip shows; what does is in the model's YAML or the manifest, and decides its id. How
strongly its frames are compressed is decided here and written into its record: an id covers frames, not compression.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf

from jobs.errors import ConfigError, FailureClass
from pipelines.catalog.config_files import INVALID, one_line, read_file, read_overrides
from pipelines.catalog.model_config import PACKAGED_CONFIGS


@dataclass(frozen=True)
class WorkerConfig:
    """How many actors, what each one reserves, and when it is replaced without a fault.

    Args:
        count: None takes as many as the cluster has devices: GPUs, or on CPU its cores over `num_cpus`.
        num_cpus: cores that an actor on CPU reserves; also torch's threads in it.
        load_timeout_s: how long an actor may take to load its model.
        spool_clips: finished clips that may wait for encode and upload while the next one denoises.
        spool_folder: on each machine, where encoded clips wait for the store. None takes one of the user's own in the
            folder for temporary files; give another where that one is small or kept in memory.
        recycle_after_clips: an actor that has rendered so many is replaced when it is idle; None never.
        recycle_growth_bytes: an actor whose memory grew by more than this since its first clip is replaced; None never.
        drain_s: what is in flight may still take when the run is told to stop. `ray job stop` kills three seconds
            after it asked, unless RAY_JOB_STOP_WAIT_TIME_S says otherwise.
    """

    count: int | None = None
    num_cpus: int = 1
    load_timeout_s: float = 1800.0
    spool_clips: int = 2
    spool_folder: str | None = None
    recycle_after_clips: int | None = 1000
    recycle_growth_bytes: int | None = 8 * 1024**3
    drain_s: float = 2.0

    def __post_init__(self) -> None:
        refuse_below("workers", self, 1, "count", "num_cpus", "spool_clips", "recycle_after_clips")
        refuse_below("workers", self, 1, "recycle_growth_bytes")
        refuse_below("workers", self, 0, "drain_s")
        refuse_below("workers", self, 1, "load_timeout_s")


@dataclass(frozen=True)
class StallPolicy:
    """When a worker that does not move is killed. A deadline is learnt from the slowest that was measured.

    Args:
        heartbeat_interval_s: how often each worker is asked what it is at.
        heartbeat_timeout_s: a worker that does not answer for so long is taken for stopped.
        first_s: what a step or a stage may take on a worker that has finished no clip, or before one of its kind was
            measured; it may compile.
        factor: of what the slowest step of a clip of that kind takes, or the stage.
        min_s: below which no deadline is set.
        store_s: what the store may take for one upload, or one answer, with all the client's retries.
    """

    heartbeat_interval_s: float = 5.0
    heartbeat_timeout_s: float = 60.0
    first_s: float = 900.0
    factor: float = 10.0
    min_s: float = 60.0
    store_s: float = 3600.0

    def __post_init__(self) -> None:
        refuse_below("stall", self, 0.1, "heartbeat_interval_s", "first_s", "min_s", "store_s")
        refuse_below("stall", self, 2, "heartbeat_timeout_s")
        refuse_below("stall", self, 1, "factor")
        if self.first_s < self.min_s:
            raise ConfigError(
                f"stall.first_s must be at least stall.min_s, {self.min_s:g}, not {self.first_s:g}"
            )
        if self.heartbeat_timeout_s < 2 * self.heartbeat_interval_s:
            raise ConfigError(
                f"stall.heartbeat_timeout_s must be at least twice stall.heartbeat_interval_s, {2 * self.heartbeat_interval_s:g}, "
                f"not {self.heartbeat_timeout_s:g}"
            )


@dataclass(frozen=True)
class RetryPolicy:
    """When a clip is given up, a worker set aside, a node kept off, a run stopped.

    Args:
        max_failed_workers: a clip that failed on so many different workers is given up.
        max_lost_workers: a clip whose worker died so many times is given up; a preemption does not count.
        max_stalls: a clip that stalled so many times is given up.
        max_memory_failures: a clip that ran out of memory so many times is given up.
        max_frame_check_failures: a clip that came out black, frozen or NaN so many times is given up; from the second on it is
            rendered with the safer setting.
        max_failures_of_worker: a worker that fails so many clips in a row is replaced.
        max_losses_of_node: a node that lost so many workers with clips that then passed elsewhere, and none done there
            in between, gets no new workers while others are to be had.
        max_quarantined_share: a run that gives up more than this share of a model's clips stops; 1 never does.
        min_clips_to_stop: clips that must have ended before that share counts.
        max_quarantined: a run that gives up more clips of a model than this stops; None never does.
        back_off_s: a worker that the store refuses for now waits so long, then twice as long, and so on.
        max_back_off_s: but never longer than this.
        max_outage_s: a store that has taken nothing for so long stops the run; clips that wait are on disk.
    """

    max_failed_workers: int = 3
    max_lost_workers: int = 3
    max_stalls: int = 2
    max_memory_failures: int = 2
    max_frame_check_failures: int = 2
    max_failures_of_worker: int = 3
    max_losses_of_node: int = 3
    max_quarantined_share: float = 0.5
    min_clips_to_stop: int = 20
    max_quarantined: int | None = None
    back_off_s: float = 1.0
    max_back_off_s: float = 60.0
    max_outage_s: float = 1800.0

    def __post_init__(self) -> None:
        refuse_below(
            "retry",
            self,
            1,
            "max_failed_workers",
            "max_lost_workers",
            "max_stalls",
            "max_memory_failures",
        )
        refuse_below(
            "retry",
            self,
            1,
            "max_frame_check_failures",
            "max_failures_of_worker",
            "max_losses_of_node",
        )
        refuse_below("retry", self, 1, "min_clips_to_stop")
        refuse_below("retry", self, 0, "max_quarantined", "max_outage_s")
        refuse_below("retry", self, 0.1, "back_off_s")
        if self.max_back_off_s < self.back_off_s:
            raise ConfigError(
                f"retry.max_back_off_s must be at least retry.back_off_s, {self.back_off_s:g}, "
                f"not {self.max_back_off_s:g}"
            )
        if not 0 <= self.max_quarantined_share <= 1:
            raise ConfigError(
                f"retry.max_quarantined_share must be between 0 and 1, not {self.max_quarantined_share}"
            )

    def budget(self, failure_class: FailureClass) -> int:
        """How many failures of a class, of those that may pass, one clip is allowed."""
        budgets: dict[FailureClass, int] = {
            "worker": self.max_lost_workers,
            "stall": self.max_stalls,
            "memory": self.max_memory_failures,
            "clip": self.max_frame_check_failures,
        }
        return budgets.get(failure_class, 1)


@dataclass(frozen=True)
class EncodingConfig:
    """libx264's settings. `crf` is its constant rate factor, 0 (lossless) to 51."""

    crf: int = 16
    preset: str = "medium"

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise ConfigError(f"encoding.crf must be between 0 and 51, not {self.crf}")
        presets = (
            "ultrafast",
            "superfast",
            "veryfast",
            "faster",
            "fast",
            "medium",
            "slow",
            "slower",
            "veryslow",
        )
        if self.preset not in presets:
            raise ConfigError(
                f"encoding.preset must be one of {', '.join(presets)}, not {self.preset!r}"
            )


@dataclass(frozen=True)
class StoreConfig:
    """How S3 is reached. Credentials come from the environment or the instance's role, never from here.

    Args:
        endpoint_url: None takes AWS_ENDPOINT_URL, or else AWS itself.
        max_attempts: of one request, by botocore's adaptive retry. An endpoint that accepts and never answers
            holds a request for so many times `read_timeout_s`.
        lease_s: for how long a driver takes an output; it renews in time while it lives. Nobody else renders into it.
    """

    endpoint_url: str | None = None
    region: str | None = None
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 60.0
    max_attempts: int = 8
    lease_s: float = 60.0

    def __post_init__(self) -> None:
        if self.endpoint_url is not None and not self.endpoint_url.startswith(
            ("http://", "https://")
        ):
            raise ConfigError(
                f"store.endpoint_url must begin with http:// or https://, not {self.endpoint_url!r}"
            )
        if (
            self.endpoint_url is not None
            and "@" in self.endpoint_url.partition("://")[2].partition("/")[0]
        ):
            raise ConfigError(
                "store.endpoint_url holds a password; give credentials in the environment instead"
            )
        if self.max_attempts < 1:
            raise ConfigError(f"store.max_attempts must be at least 1, not {self.max_attempts}")
        if not (self.connect_timeout_s > 0 and self.read_timeout_s > 0):
            raise ConfigError("store.connect_timeout_s and store.read_timeout_s must be above 0")
        refuse_below("store", self, 3, "lease_s")


@dataclass(frozen=True)
class RunConfig:
    """Everything about a run that does not change a pixel."""

    workers: WorkerConfig = field(default_factory=WorkerConfig)
    stall: StallPolicy = field(default_factory=StallPolicy)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    store: StoreConfig = field(default_factory=StoreConfig)


def refuse_below(section: str, config: object, least: float, *names: str) -> None:
    """Raises ConfigError where a value of a section is below `least`, or no finite number; None is no value."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not (value >= least and math.isfinite(value)):
            raise ConfigError(f"{section}.{name} must be at least {least}, not {value}")


def load_config(profile: Path | None = None, overrides: list[str] | None = None) -> RunConfig:
    """Merges base.yaml, a profile's YAML and `key=value` overrides, the later winning.

    Raises:
        ConfigError: a file is missing or not YAML, a key is unknown, a value has the wrong type or range.
    """
    layers = [OmegaConf.structured(RunConfig)]
    for path in (PACKAGED_CONFIGS / "base.yaml", *([profile] if profile else [])):
        try:
            layers.append(read_file(path))
        except (OSError, *INVALID) as error:
            raise ConfigError(f"cannot read the configuration {path}: {one_line(error)}") from error
    try:
        layers.append(read_overrides(overrides or []))
        config = OmegaConf.to_object(OmegaConf.merge(*layers))
    except INVALID as error:
        raise ConfigError(f"configuration: {one_line(error)}") from error
    assert isinstance(config, RunConfig)
    return config
