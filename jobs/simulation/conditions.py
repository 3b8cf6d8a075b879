"""The conditions of a simulated run, and the times of the clips and workers in it.

Decides which values are refused. `measured` and `predicted` find the times. Loads without torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jobs.errors import RefusedError
from jobs.plan.buckets import PlanBucket
from pipelines.parallel_config import ParallelConfig
from pipelines.request import VideoShape

MAX_DEVICES = 4096
DEVICES_PER_MACHINE = 8
MIN_STORE_RATE = 0.01  # a second; with less, hours pass in which nothing but heartbeats happens
DRIVER_S = 0.005  # seconds of the driver for a clip: the goal of `python -m benchmarks.dispatch`


class ClipKind(NamedTuple):
    """The clips that take equally long, as in a plan's buckets."""

    model: str
    shape: VideoShape
    num_inference_steps: int
    parallel: ParallelConfig

    @classmethod
    def of(cls, bucket: PlanBucket) -> "ClipKind":
        return cls(bucket.model, bucket.shape, bucket.num_inference_steps, bucket.parallel)


class ClipTimes(NamedTuple):
    """The times of one clip, and the size of its MP4.

    Args:
        device_s: seconds from its begin on the device to the begin of the next clip there.
        host_s: seconds of encoding and checking, beside the device.
        upload_s: seconds of the upload, as long as the store is below its limits.
    """

    device_s: float
    host_s: float = 0.0
    upload_s: float = 0.0
    num_bytes: int = 0


@dataclass(frozen=True)
class Timings:
    """The times from which a simulation draws.

    Args:
        clips: times of clips of each kind.
        starts_s: seconds from asking for a worker until it takes clips, by model.
        sources: lines for people that say where the times come from.
    """

    clips: Mapping[ClipKind, Sequence[ClipTimes]]
    starts_s: Mapping[str, Sequence[float]]
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conditions:
    """The farm and the faults of a simulated run.

    Args:
        num_devices: number of devices, eight in a machine.
        failures: share of the attempts in which the worker dies, at a random moment.
        preemptions: preemptions of each device an hour, on average. Its replacement is there at
            once and starts a worker.
        store_requests_per_s: requests that the store answers in a second; None for no limit.
        store_bytes_per_s: bytes that the store takes in a second; None for no limit.
        driver_s: seconds that the driver works for each clip, one clip after another.
        losses_s: moments at which the worker that has computed for longest is killed.
        seed: seed of all random choices.
    """

    num_devices: int
    failures: float = 0.0
    preemptions: float = 0.0
    store_requests_per_s: float | None = None
    store_bytes_per_s: float | None = None
    driver_s: float = DRIVER_S
    losses_s: tuple[float, ...] = field(default=())
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.num_devices <= MAX_DEVICES:
            raise RefusedError(
                f"--simulate: expected 1 to {MAX_DEVICES:,} devices, got {self.num_devices:,}"
            )
        if not 0 <= self.failures < 1:
            raise RefusedError(
                f"--failures: expected a share of the attempts below 1, got {self.failures:g}"
            )
        if not 0 <= self.preemptions < math.inf:
            raise RefusedError(
                f"--preemptions: expected a number of at least 0, got {self.preemptions:g}"
            )
        for option, limit, unit in (
            ("--store-requests", self.store_requests_per_s, 1),
            ("--store-megabytes", self.store_bytes_per_s, 1e6),
        ):
            if limit is not None and not MIN_STORE_RATE <= limit / unit < math.inf:
                raise RefusedError(
                    f"{option}: expected a number of at least {MIN_STORE_RATE:g}, "
                    f"got {limit / unit:g}"
                )
