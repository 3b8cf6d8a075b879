"""Marks in the queue of a device's work, by which the work is waited for, and its times.

Loads without torch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol, Self


class DeviceMark(Protocol):
    """The point in a device's queue behind the work that was queued before it."""

    def wait(self) -> float:
        """Wait until the device has come here, from any thread.

        Returns:
            The moment at which it was here, by `time.monotonic`.
        """
        ...

    def seconds_since(self, earlier: Self) -> float:
        """Return the seconds by the device's own clock between two marks that it has passed."""
        ...


@dataclass(frozen=True)
class HostMark:
    """A mark of a device without a queue, which works while the host waits: it has passed already.

    Args:
        at_s: the moment of the mark, by `time.monotonic`.
    """

    at_s: float

    @classmethod
    def now(cls) -> Self:
        return cls(time.monotonic())

    def wait(self) -> float:
        return self.at_s

    def seconds_since(self, earlier: Self) -> float:
        return self.at_s - earlier.at_s


@dataclass(frozen=True)
class DeviceTime:
    """The time of a worker's device from the end of its last clip to the end of this one.

    The first clip of a worker counts from its own begin, and so does one after a clip that failed
    on the device.

    Args:
        busy_s: seconds in the clip's stages `text`, `denoise` and `decode`.
        idle_s: seconds between stages, and between the clips.
    """

    busy_s: float
    idle_s: float

    def __post_init__(self) -> None:
        if min(self.busy_s, self.idle_s) < 0:
            raise ValueError(f"busy_s and idle_s must be 0 or more, not {self}")

    def __add__(self, other: DeviceTime) -> DeviceTime:
        return DeviceTime(self.busy_s + other.busy_s, self.idle_s + other.idle_s)

    @property
    def busy_share(self) -> float | None:
        """The share of the time in which the device was busy; None without any time."""
        all_s = self.busy_s + self.idle_s
        return self.busy_s / all_s if all_s > 0 else None
