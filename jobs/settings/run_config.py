"""The settings of a run: `configs/base.yaml`, a profile, and `key=value` from the command line.

No setting changes the pixels of a clip, so none is part of its id. How much its frames are
compressed is set here and written into its record. Loads without torch.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from jobs.errors import ConfigError
from jobs.redaction import SECRET_ENDINGS
from jobs.settings.cost_config import CostConfig
from jobs.settings.store_config import StoreConfig, check_at_least
from jobs.settings.worker_config import WorkerConfig
from jobs.text import unknown
from pipelines.catalog.files.config_files import (
    INVALID,
    one_line,
    read_file,
    read_overrides,
    schema,
)
from pipelines.catalog.files.sources import PACKAGED_CONFIGS

MAX_NOTIFY_S = 3600
NOTIFICATIONS = ("started", "finished", "stopped", "failures")
ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# libx264's presets, fastest first
PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
)  # fmt: skip


@dataclass(frozen=True)
class StallPolicy:
    """The deadlines after which a stalled worker is killed, learnt from measured durations.

    Args:
        heartbeat_interval_s: seconds between two heartbeats of a worker.
        heartbeat_timeout_s: seconds without a heartbeat after which a worker counts as stalled.
        first_s: deadline in seconds of a step or a stage of a worker that has not yet finished a
            clip, or before a clip of that kind was measured; the model may compile.
        factor: deadline as a multiple of the slowest step, or of the stage, of such a clip; the
            median over the clips measured.
        min_s: lower bound of every deadline, in seconds.
        store_s: seconds that the store may take for one upload or one answer, with all retries of
            the client.
    """

    heartbeat_interval_s: float = 5.0
    heartbeat_timeout_s: float = 60.0
    first_s: float = 900.0
    factor: float = 10.0
    min_s: float = 60.0
    store_s: float = 3600.0

    def __post_init__(self) -> None:
        check_at_least("stall", self, 0.1, "heartbeat_interval_s", "first_s", "min_s", "store_s")
        check_at_least("stall", self, 2, "heartbeat_timeout_s")
        check_at_least("stall", self, 1, "factor")
        if self.first_s < self.min_s:
            raise ConfigError(
                f"stall.first_s must be at least stall.min_s, {self.min_s:g}, got {self.first_s:g}"
            )
        if self.heartbeat_timeout_s < 2 * self.heartbeat_interval_s:
            raise ConfigError(
                "stall.heartbeat_timeout_s must be at least twice stall.heartbeat_interval_s, "
                f"{2 * self.heartbeat_interval_s:g}, got {self.heartbeat_timeout_s:g}"
            )


@dataclass(frozen=True)
class RetryPolicy:
    """The limits at which a clip is quarantined, a worker replaced, a node cordoned, a run stopped.

    Args:
        max_failed_workers: number of different workers on which a clip may fail until it is
            quarantined.
        max_lost_workers, max_stalls, max_memory_failures: deaths of its worker (preemptions do not
            count), stalls, out-of-memory failures until a clip is quarantined.
        max_frame_check_failures: black, frozen or NaN results until a clip is quarantined; from the
            second attempt on it is rendered with exact attention.
        max_failures_of_worker: failures in a row after which a worker is replaced.
        max_losses_of_node: workers lost with clips that then passed elsewhere, and no clip done on
            the node in between, after which it gets no new workers while other nodes can have them.
        max_quarantined_share: share of a model's clips in quarantine above which no more of them
            are tried; 1 tries all.
        min_clips_to_stop: number of ended clips from which that share counts.
        max_quarantined: number of a model's clips in quarantine above which no more of them are
            tried; None tries all.
        back_off_s: seconds that a worker waits after the store refused its clip; doubled each time.
        max_back_off_s: upper bound of that wait, in seconds.
        max_outage_s: seconds of an outage of the store after which the run stops; clips that wait
            stay on disk.
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
        check_at_least("retry", self, 1, "max_failed_workers", "max_lost_workers", "max_stalls")
        check_at_least("retry", self, 1, "max_memory_failures", "max_failures_of_worker")
        check_at_least("retry", self, 1, "max_frame_check_failures")
        check_at_least("retry", self, 1, "max_losses_of_node", "min_clips_to_stop")
        check_at_least("retry", self, 0, "max_quarantined", "max_outage_s")
        check_at_least("retry", self, 0.1, "back_off_s")
        if self.max_back_off_s < self.back_off_s:
            raise ConfigError(
                f"retry.max_back_off_s must be at least retry.back_off_s, {self.back_off_s:g}, "
                f"got {self.max_back_off_s:g}"
            )
        if not 0 <= self.max_quarantined_share <= 1:
            raise ConfigError(
                "retry.max_quarantined_share must be between 0 and 1, "
                f"got {self.max_quarantined_share}"
            )


@dataclass(frozen=True)
class EncodingConfig:
    """The settings of libx264, and of AAC for clips with sound.

    Args:
        crf: constant rate factor, 0 (lossless) to 51.
        preset: one of libx264's presets, `ultrafast` to `veryslow`.
        audio_kbit_s: bit rate of the sound in kbit/s, 32 to 512; AAC takes less at a low sample
            rate.
    """

    crf: int = 16
    preset: str = "medium"
    audio_kbit_s: int = 192

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise ConfigError(f"encoding.crf must be between 0 and 51, got {self.crf}")
        if self.preset not in PRESETS:
            raise ConfigError(
                f"encoding.preset must be one of {', '.join(PRESETS)}, got {self.preset!r}"
            )
        if not 32 <= self.audio_kbit_s <= 512:
            raise ConfigError(
                f"encoding.audio_kbit_s must be between 32 and 512, got {self.audio_kbit_s}"
            )


@dataclass(frozen=True)
class NotifyConfig:
    """The messages that a run sends to a webhook. The webhook's URL is a secret, and so no setting.

    Args:
        webhook_variable: variable of the driver's environment that holds the URL; without a value
            nothing is sent. Its name ends like that of a secret, so that the value is masked.
        events: the messages to send.
        failures: failed attempts of a run at which it sends a message, once; None sends none.
        timeout_s: seconds that the webhook may take for an answer.
        end_s: seconds for which messages that are still to be sent may delay the end of a run.
    """

    webhook_variable: str = "NAGFARM_WEBHOOK_URL"
    events: tuple[str, ...] = NOTIFICATIONS
    failures: int | None = 10
    timeout_s: float = 10.0
    end_s: float = 10.0

    def __post_init__(self) -> None:
        name = self.webhook_variable
        if not (ENVIRONMENT_NAME.fullmatch(name) and name.upper().endswith(SECRET_ENDINGS)):
            raise ConfigError(  # does not repeat what may be the URL itself
                "notify.webhook_variable must be the name of an environment variable that ends in "
                f"{', '.join(SECRET_ENDINGS)}, such as NAGFARM_WEBHOOK_URL; its value is the URL"
            )
        for event in self.events:
            if event not in NOTIFICATIONS:
                raise ConfigError(f"notify.events: {unknown('event', event, NOTIFICATIONS)}")
        check_at_least("notify", self, 1, "failures", "timeout_s")
        check_at_least("notify", self, 0, "end_s")
        for setting in ("timeout_s", "end_s"):
            if getattr(self, setting) > MAX_NOTIFY_S:  # a socket takes no time without end
                raise ConfigError(f"notify.{setting} must be at most {MAX_NOTIFY_S}")


@dataclass(frozen=True)
class RunConfig:
    """The settings of a run that do not change a pixel.

    Args:
        extra_columns: columns or fields of a manifest that become notes in a clip's record.
    """

    workers: WorkerConfig = field(default_factory=WorkerConfig)
    stall: StallPolicy = field(default_factory=StallPolicy)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    notify: NotifyConfig = field(default_factory=NotifyConfig)
    costs: CostConfig = field(default_factory=CostConfig)
    extra_columns: tuple[str, ...] = ()


def load_config(profile: Path | None = None, overrides: list[str] | None = None) -> RunConfig:
    """Merge base.yaml, a profile's YAML and `key=value` overrides; later values win.

    Raises:
        ConfigError: a file is missing or not YAML, a key is unknown, a value has the wrong type or
            range.
    """
    layers = [schema(RunConfig)]
    for path in (PACKAGED_CONFIGS / "base.yaml", *([profile] if profile else [])):
        try:
            layers.append(read_file(path))
        except (OSError, *INVALID) as error:
            reason = error.strerror if isinstance(error, OSError) else one_line(error)
            raise ConfigError(f"cannot read the configuration {path}: {reason}") from error
    try:
        layers.append(read_overrides(overrides or []))
        for layer in layers[1:]:
            _check_extra_columns(layer)
        config = OmegaConf.to_object(OmegaConf.merge(*layers))
    except INVALID as error:
        raise ConfigError(f"configuration: {one_line(error)}") from error
    assert isinstance(config, RunConfig)
    return config


def _check_extra_columns(layer: DictConfig) -> None:
    names = layer.get("extra_columns", ())
    if not isinstance(names, ListConfig | tuple):
        example = names if names not in ("", None) else "NAME"
        raise ConfigError(
            f"configuration: extra_columns must be a list, such as extra_columns=[{example}]"
        )
