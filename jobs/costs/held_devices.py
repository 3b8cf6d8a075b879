"""The time for which one worker holds its devices, split into stages and waste.

Decides where each second goes. The driver's clock measures the whole, from the moment at which the
worker has its devices; the worker's own timings say how much of it a clip took. A part never
exceeds what is left of the whole, so the parts always add up to it. Pure: callers pass the time.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from jobs.costs.run_cost import HeldStage, Waste
from jobs.types import ClipDone, ClipFailed, StageTiming

DEVICE_STAGES: tuple[HeldStage, ...] = ("text", "denoise", "decode")
AFTER_DEVICE = ("check", "encode", "upload")  # stages of the host, behind those of the device


@dataclass(eq=False)
class HeldDevices:
    """The devices of one worker. Times are seconds of the driver's clock, which never goes back.

    Args:
        num_devices: devices that the worker holds; a fraction if workers share one.
        held_at: moment from which it holds them.
        label, device: name of the worker and of its device; empty until it is ready.
    """

    model: str
    num_devices: float
    held_at: float
    label: str = ""
    device: str = ""
    _is_ready: bool = field(default=False, init=False)
    _counted_to: float = field(default=0.0, init=False)  # the device's work is counted up to here
    _started: dict[str, float] = field(default_factory=dict[str, float], init=False)  # by clip_id
    _spent_s: defaultdict[str, float] = field(
        default_factory=lambda: defaultdict[str, float](float), init=False
    )

    def ready(self, label: str, device: str, now: float) -> None:
        """End the loading of the model."""
        self.label, self.device, self._is_ready, self._counted_to = label, device, True, now
        self._spend("load", now - self.held_at, now)

    def clip_started(self, clip_id: str, now: float) -> None:
        self._started[clip_id] = now

    def clip_returned(self, clip_id: str) -> None:
        self._started.pop(clip_id, None)

    def clip_done(self, done: ClipDone, now: float) -> None:
        """Count the device's stages of a committed clip; of one found committed there are none."""
        self._started.pop(done.clip_id, None)
        waste: Waste | None = "repeated" if done.was_already_committed else None
        self._count(done.timings, waste, now)

    def clip_failed(self, failed: ClipFailed, now: float) -> None:
        """Count the device time of a failed attempt; that of a clip in the spool is of use."""
        started = self._started.pop(failed.clip_id, now)
        stages = {timing.stage for timing in failed.timings}
        if failed.is_spooled:
            self._count(failed.timings, None, now)
        elif "queue" not in stages:  # the device never came to it
            return
        elif stages.intersection(AFTER_DEVICE):
            self._count(failed.timings, "failed", now)
        else:  # it failed on the device, in a stage or a step that has no timing of its own
            queued_s = sum(one.duration_s for one in failed.timings if one.stage == "queue")
            measured_s = sum(_device_seconds(failed.timings).values())
            self._spend("failed", max(now - started - queued_s, measured_s), now)
            self._counted_to = now

    def split(self, now: float, under_way: HeldStage | Waste) -> dict[str, float]:
        """Return the seconds of each part up to now, times the devices.

        Args:
            under_way: the part to which the work that is not counted yet belongs: a load, or the
                clips that the worker holds.
        """
        parts = dict(self._spent_s)
        left_s = self._left(now)
        if not self._is_ready:
            name = under_way if under_way == "lost" else "load"
            parts[name] = parts.get(name, 0.0) + left_s
        else:
            begin = max(self._counted_to, min(self._started.values(), default=now))
            busy_s = min(max(now - begin, 0.0), left_s)
            parts[under_way] = parts.get(under_way, 0.0) + busy_s
            parts["idle"] = left_s - busy_s
        return {name: time_s * self.num_devices for name, time_s in parts.items() if time_s}

    def _count(self, timings: Sequence[StageTiming], waste: Waste | None, now: float) -> None:
        """Count the stages of a clip that has passed the device."""
        stages_s = _device_seconds(timings)
        if not stages_s:
            return
        whole_s = sum(stages_s.values())
        factor = min(1.0, self._left(now) / whole_s) if whole_s else 0.0
        for stage, time_s in stages_s.items():
            self._spend(waste or stage, time_s * factor, now)
        end = max(one.started_at + one.duration_s for one in timings)
        device_end = max(
            one.started_at + one.duration_s for one in timings if one.stage in DEVICE_STAGES
        )
        self._counted_to = min(max(self._counted_to, now - (end - device_end)), now)

    def _spend(self, part: HeldStage | Waste, time_s: float, now: float) -> None:
        self._spent_s[part] += min(max(time_s, 0.0), self._left(now))

    def _left(self, now: float) -> float:
        """Return the seconds up to now that belong to no part yet."""
        return max(now - self.held_at - sum(self._spent_s.values()), 0.0)


def _device_seconds(timings: Sequence[StageTiming]) -> dict[HeldStage, float]:
    found = dict[HeldStage, float]()
    for stage in DEVICE_STAGES:
        if alike := [one.duration_s for one in timings if one.stage == stage]:
            found[stage] = sum(alike)
    return found
