"""The road of a clip through a simulated worker: device, encoding, store, and the driver's turn.

Decides when each stage ends, and to which reason the time of an idle device is charged. Loads
without torch.
"""

from collections.abc import Callable

from jobs.simulation.farm import Farm
from jobs.simulation.worker import HeldClip, SimulatedWorker


class Rendering:
    """Renders the clips of simulated workers.

    Args:
        room: number of clips that a worker may hold at once.
        is_plan_over: returns True if no further clip will come.
        die: lets a worker die with its clips.
        end_clip: tells the schedule that a clip is done.
    """

    def __init__(
        self,
        farm: Farm,
        room: int,
        *,
        is_plan_over: Callable[[], bool],
        die: Callable[[SimulatedWorker], None],
        end_clip: Callable[[SimulatedWorker, HeldClip], None],
    ) -> None:
        self._farm, self._clock, self._room = farm, farm.clock, room
        self._is_plan_over, self._die, self._end_clip = is_plan_over, die, end_clip

    def begin_next(self, worker: SimulatedWorker) -> None:
        """Let the device begin the next clip of its queue, if it is free."""
        if worker.computing is not None:
            return
        if not worker.queue:
            if worker.idle_since is None:
                is_over = self._is_plan_over()
                worker.idle_since = self._clock.now
                worker.idle_for = worker.reason_to_idle(self._room, is_plan_over=is_over)
            return
        self._end_idleness(worker)
        clip = worker.computing = worker.queue.popleft()
        worker.computing_since = self._clock.now
        worker.enter(clip, "denoise")
        device_s, draw = clip.times.device_s, self._farm.random.random
        failures = self._farm.conditions.failures
        if failures and draw() < failures:
            self._clock.after(draw() * device_s, self._die, worker)
        else:
            self._clock.after(device_s, self._leave_device, worker, clip)

    def end(self, worker: SimulatedWorker) -> None:
        """Charge the time of a device up to the end of its worker."""
        if worker.computing is not None:
            self._farm.busy_s += len(worker.nodes) * (self._clock.now - worker.computing_since)
        self._end_idleness(worker)

    def _end_idleness(self, worker: SimulatedWorker) -> None:
        if worker.idle_since is not None:
            idle_s = len(worker.nodes) * (self._clock.now - worker.idle_since)
            self._farm.lost_s[worker.idle_for] += idle_s
            worker.idle_since = None

    def _leave_device(self, worker: SimulatedWorker, clip: HeldClip) -> None:
        if worker.is_gone:
            return
        self._farm.busy_s += len(worker.nodes) * clip.times.device_s
        worker.computing = None
        worker.enter(clip, "encode")
        self._clock.after(clip.times.host_s, self.upload, worker, clip)
        self.begin_next(worker)

    def upload(self, worker: SimulatedWorker, clip: HeldClip) -> None:
        """Upload a clip that is encoded."""
        if worker.is_gone:
            return
        worker.enter(clip, "upload")
        if not (store_s := self._farm.store_s(clip.times.num_bytes)):
            self._clock.after(clip.times.upload_s, self._answer, worker, clip)
            return
        at_least_s = self._clock.now + clip.times.upload_s

        def taken() -> None:
            self._clock.at(max(at_least_s, self._clock.now), self._answer, worker, clip)

        self._farm.store.serve(worker, store_s, taken)

    def _answer(self, worker: SimulatedWorker, clip: HeldClip) -> None:
        """Let the answer of a worker wait until the driver has time for it."""
        clip.is_answered = True
        driver_s = self._farm.conditions.driver_s
        self._farm.driver.serve(worker, driver_s, lambda: self._end_clip(worker, clip))
