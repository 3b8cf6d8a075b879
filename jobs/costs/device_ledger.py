"""The ledger of the devices that a run holds, from the events of its dispatch loop.

Decides what becomes of the time of a worker that ends. The driver keeps it, so that a worker that
dies takes no count with it. Pure: callers pass the time.
"""

from collections import defaultdict
from dataclasses import dataclass

from jobs.costs.held_devices import HeldDevices
from jobs.costs.run_cost import DeviceHours, HeldStage, RunCost, Waste
from jobs.settings.cost_config import CostConfig
from jobs.types import ClipDone, ClipFailed

HOUR_S = 3600.0
WorkerKey = tuple[int, int]  # number of the pool, number of the worker in it
Parts = defaultdict[str, float]


@dataclass(frozen=True)
class DevicesHeld:
    """A worker has got its devices.

    Args:
        num_devices: number of its devices; a fraction if workers share one.
    """

    worker: WorkerKey
    model: str
    num_devices: float


@dataclass(frozen=True)
class DevicesReady:
    """A worker has loaded its model.

    Args:
        label: its name in later events.
        device: name of its device.
    """

    worker: WorkerKey
    label: str
    device: str


@dataclass(frozen=True)
class DevicesFreed:
    """A worker has ended.

    Args:
        is_lost: True if it failed.
    """

    worker: WorkerKey
    is_lost: bool


DeviceEvent = DevicesHeld | DevicesReady | DevicesFreed


class DeviceLedger:
    """The devices that the workers of a run hold.

    Times are seconds of a clock that never goes back.

    Args:
        prices: prices of devices.
    """

    def __init__(self, prices: CostConfig | None = None) -> None:
        self._prices = prices or CostConfig()
        self._held: dict[WorkerKey, HeldDevices] = {}
        self._labels: dict[str, WorkerKey] = {}
        self._clips: dict[str, WorkerKey] = {}  # holder of each clip, by clip_id
        self._last_device: dict[str, str] = {}  # by model
        self._ended: defaultdict[tuple[str, str], Parts] = defaultdict(lambda: Parts(float))
        self._end: float | None = None

    def change(self, event: DeviceEvent, now: float) -> None:
        """Take in the begin, the readiness or the end of a worker."""
        match event:
            case DevicesHeld(worker, model, num_devices):
                self._held[worker] = HeldDevices(model, num_devices, now)
            case DevicesReady(worker, label, device):
                if (held := self._held.get(worker)) is not None:
                    held.ready(label, device, now)
                    self._labels[label] = worker
                    self._last_device[held.model] = device
            case DevicesFreed(worker, is_lost):
                if (held := self._held.pop(worker, None)) is not None:
                    _add(self._ended[held.model, held.device], held, now, _end_part(is_lost))
                    self._labels.pop(held.label, None)

    def clip_started(self, label: str, clip_id: str, now: float) -> None:
        worker = self._labels.get(label)
        if worker is not None:
            self._clips[clip_id] = worker
            self._held[worker].clip_started(clip_id, now)

    def clip_returned(self, clip_id: str) -> None:
        if (held := self._holder(clip_id)) is not None:
            held.clip_returned(clip_id)

    def clip_done(self, done: ClipDone, now: float) -> None:
        if (held := self._holder(done.clip_id)) is not None:
            held.clip_done(done, now)

    def clip_failed(self, failed: ClipFailed, now: float) -> None:
        """Count a failed attempt; that of a lost worker is in the worker's own loss already."""
        if (held := self._holder(failed.clip_id)) is not None:
            held.clip_failed(failed, now)

    def end(self, now: float) -> None:
        """End the run: from now on no time passes, and clips that are under way are wasted."""
        if self._end is None:
            self._end = now

    def cost(self, now: float) -> RunCost:
        """Return the cost up to now."""
        rows = defaultdict[tuple[str, str], Parts](lambda: Parts(float))
        for (model, device), parts in self._ended.items():
            for name, time_s in parts.items():
                rows[model, device or self._last_device.get(model, "")][name] += time_s
        under_way: HeldStage | Waste = "running" if self._end is None else "stopped"
        until = now if self._end is None else self._end
        for held in self._held.values():
            device = held.device or self._last_device.get(held.model, "")
            _add(rows[held.model, device], held, until, under_way)
        return RunCost.of(
            (
                DeviceHours.of(
                    model,
                    device,
                    {name: time_s / HOUR_S for name, time_s in parts.items()},
                    self._prices.price_of(device),
                )
                for (model, device), parts in sorted(rows.items())
            ),
            self._prices.currency,
        )

    def _holder(self, clip_id: str) -> HeldDevices | None:
        """Return the worker that has a clip, and forget that it has it."""
        worker = self._clips.pop(clip_id, None)
        return None if worker is None else self._held.get(worker)


def _end_part(is_lost: bool) -> Waste:
    return "lost" if is_lost else "stopped"


def _add(parts: Parts, held: HeldDevices, now: float, under_way: HeldStage | Waste) -> None:
    for name, time_s in held.split(now, under_way).items():
        parts[name] += time_s
