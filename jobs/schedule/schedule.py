"""The state machine of a run, without Ray, clocks or I/O: it answers events with commands.

Routes each event to the worker half (`workers`) or to the clip half (`clips`), and stops the run
on request. `jobs/cluster/dispatcher.py` carries the commands out, so that every order of events
can be tested by the thousand. Loads without torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobs.errors import DeadlineReachedError, StoppedError
from jobs.schedule import events as ev
from jobs.schedule.clips import Clips
from jobs.schedule.events import Command, Event
from jobs.schedule.giving_back import num_placed
from jobs.schedule.pace import Pace
from jobs.schedule.pool import Pool
from jobs.schedule.run_deadline import RunDeadline
from jobs.schedule.workers import Workers
from jobs.settings.run_config import RunConfig


@dataclass(frozen=True)
class StopOrder:
    """The reason to stop, and the moment until which clips in flight may finish."""

    error: StoppedError
    until: float


class Schedule:
    """The clips of one kind of worker, on a pool of them.

    Args:
        num_workers: number of workers to keep.
        is_computing_elsewhere: returns True if a worker of another kind computes a clip.
        pace: expected times of the clips, in a run that has a deadline.
    """

    def __init__(
        self,
        config: RunConfig,
        num_workers: int,
        is_computing_elsewhere: Callable[[], bool] = lambda: False,
        pace: Pace | None = None,
    ) -> None:
        self._config = config
        self._now = 0.0
        self._stop_order: StopOrder | None = None
        self._others_wait = False  # workers of other kinds, for places
        self._is_yielding = False
        self._pool = Pool(
            config.workers.spool_clips + 1, config.stall.first_s, is_computing_elsewhere
        )
        self._run_deadline = RunDeadline(pace)
        self._clips = Clips(config.retry, self._pool, self._run_deadline)
        self._workers = Workers(config, num_workers, self._pool, self._clips, self._run_deadline)
        self._handlers: dict[type[Event], Callable[[Any, float], list[Command]]] = {
            ev.Planned: self._clips.planned,
            ev.PlanWaits: self._clips.plan_waits,
            ev.WorkerReady: self._workers.ready,
            ev.RoomSeen: self._room_seen,
            ev.WorkerPlaced: self._workers.recruiting.placed,
            ev.WorkerNotLoaded: self._workers.recruiting.not_loaded,
            ev.HeartbeatReceived: self._workers.heartbeat,
            ev.ClipEnded: self._workers.clip_ended,
            ev.ClipReturned: self._clips.returned,
            ev.WorkerLost: self._workers.lost,
            ev.NodesDraining: self._workers.nodes_draining,
            ev.StopRequested: self._request_stop,
            ev.TimeLeft: self._time_left,
            ev.Tick: self._tick,
        }

    @property
    def is_finished(self) -> bool:
        """Return True if nothing is left to start and nothing is in flight."""
        return self._clips.is_finished

    @property
    def is_computing(self) -> bool:
        """Return True if a worker was computing a clip at its last heartbeat."""
        return self._pool.is_computing

    @property
    def num_workers(self) -> int:
        """Return the number of workers that hold a place or are to get one."""
        return max(self._workers.recruiting.num_wanted, len(self._pool.workers))

    @property
    def num_placed(self) -> int:
        """Return the number of workers that have their devices."""
        return num_placed(self._pool)

    @property
    def num_usable(self) -> int:
        """Return the number of workers that could render if no other run wanted devices."""
        num_usable = self._workers.recruiting.num_usable
        if not self._clips.is_plan_over:
            return num_usable
        return min(num_usable, self._clips.num_useful_workers)

    @property
    def has_more_clips(self) -> bool:
        """Return True if the plan may have clips that no worker has got yet."""
        return not self._clips.is_plan_over

    @property
    def num_done(self) -> int:
        """Return the number of clips that were committed."""
        return self._clips.num_done

    def start(self, now: float) -> list[Command]:
        """Return the first commands, before any event.

        Args:
            now: seconds of a clock that is never set back.
        """
        self._now = now
        return self._next_commands()

    def handle(self, event: Event, now: float) -> list[Command]:
        """Return the commands that follow from an event; none follow after `Halt`.

        Events from workers that were already replaced change nothing.

        Args:
            now: seconds of the clock of `start`.
        """
        self._pass_time(now)
        commands = self._handlers[type(event)](event, now)
        commands += self._workers.stop_retired()
        commands += self._check_stop_order()
        for index, command in enumerate(commands):
            if isinstance(command, ev.Halt):
                return commands[: index + 1]
        if isinstance(event, ev.HeartbeatReceived) and not commands:
            return []  # a large farm sends hundreds of heartbeats; the next tick assigns clips
        return commands + self._next_commands()

    def _pass_time(self, now: float) -> None:
        """Move the clock on; a long gap means that the driver itself slept, so it is left out."""
        gap_s = now - self._now
        if gap_s > self._config.stall.heartbeat_timeout_s / 2:
            self._workers.exclude_gap(gap_s)
        self._now = now

    def _tick(self, event: ev.Tick, now: float) -> list[Command]:
        self._clips.pass_time()
        return self._workers.check_deadlines(event, now)

    def _room_seen(self, event: ev.RoomSeen, now: float) -> list[Command]:
        self._others_wait = event.others_wait
        return self._workers.recruiting.room_seen(event, now)

    def _request_stop(self, event: ev.StopRequested, now: float) -> list[Command]:
        self._order_stop(StoppedError(event.reason), now)
        return []

    def _time_left(self, event: ev.TimeLeft, now: float) -> list[Command]:
        """Take back clips that would end too late; at the deadline, stop the run."""
        self._run_deadline.set(now + event.seconds)
        if event.seconds <= 0:
            self._order_stop(DeadlineReachedError("at the deadline"), now)
            return []
        if not event.has_clips:
            self._clips.end_plan()
        return self._clips.recall_late(now)

    def _order_stop(self, error: StoppedError, now: float) -> None:
        if self._stop_order is None:
            self._stop_order = StopOrder(error, now + self._config.workers.drain_s)

    def _check_stop_order(self) -> list[Command]:
        """Halt a stopped run once its clips in flight have ended, or had enough time to."""
        order = self._stop_order
        if order is None or self.is_finished or (self._now < order.until and self._pool.is_busy):
            return []
        return [ev.Halt(order.error)]

    def _next_commands(self) -> list[Command]:
        """Return starts of workers that are missing, then of clips on workers that have room.

        At the end of the plan, workers that no clip can use give their places to other kinds.
        """
        if self.is_finished or self._stop_order:
            return []
        recruiting = self._workers.recruiting
        self._limit_workers()
        commands = recruiting.recruit(self._now)
        commands += self._clips.assign(self._now, recruiting.num_wanted)
        if self._limit_workers():
            commands += recruiting.release(self._clips.nodes_in_use)
        return commands

    def _limit_workers(self) -> bool:
        """Keep only useful workers once others wait at the plan's end; return True from then on."""
        self._is_yielding |= self._others_wait and self._clips.is_plan_over
        if self._is_yielding:
            self._workers.recruiting.limit(self._clips.num_useful_workers)
        return self._is_yielding
