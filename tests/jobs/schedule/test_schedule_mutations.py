"""Mistakes planted in the schedule, one at a time, each of which the simulated cluster must find.

A mistake that no simulated run finds would mean that an invariant is not checked.
"""

import inspect
import random
from collections.abc import Callable
from typing import Any

import pytest

import jobs.schedule.clips
import jobs.schedule.pool
from jobs.schedule.clips import Clips
from jobs.schedule.pool import Pool, standing_of
from jobs.schedule.pooled_worker import LoadedWorker
from jobs.schedule.recruiting import Recruiting
from jobs.schedule.retry import decide
from jobs.schedule.schedule import Schedule
from jobs.schedule.slots import Slots
from jobs.schedule.workers import Workers
from tests.fakes.simulated_cluster import SPECS, SimulatedCluster

MAX_RUNS = 4_000

MISTAKES: dict[str, tuple[Any, str, str]] = {
    "clips that are not charged are forgotten with their worker": (
        Clips,
        "self._requeue(attempt, is_bystander=clip_id in loss.bystanders)",
        "pass",
    ),
    "a stall is charged to all clips of the worker": (
        Clips,
        "if clip_id in loss.attributed:",
        "if True:",
    ),
    "a preemption is charged": (
        Workers,
        "is_charged = not (event.is_preempted or worker.is_draining)",
        "is_charged = True",
    ),
    "an attempt is not counted": (
        Clips,
        "replace(attempt, number=number, failures=failures)",
        "replace(attempt, failures=failures)",
    ),
    "the plan ends with its first clip": (
        Clips,
        "self._is_plan_over = event.spec is None",
        "self._is_plan_over = True",
    ),
    "a clip in flight is not noted": (
        Clips,
        "self._pool.change(number).take(attempt, now)",
        "pass",
    ),
    "a run goes on after its end": (Schedule, "if isinstance(command, ev.Halt):", "if False:"),
    "a stopped run starts clips": (
        Schedule,
        "if self.is_finished or self._stop_order:",
        "if self.is_finished:",
    ),
    "a stalled clip is ignored": (Workers, "if not stalls:", "if True:"),
    "a worker without heartbeats is ignored": (
        Workers,
        "(silent_s := now - worker.heard_at) > heartbeat_timeout_s",
        "(silent_s := now - worker.heard_at) < 0",
    ),
    "a draining worker gets more clips": (Workers, "if heartbeat.is_draining:", "if False:"),
    "a worker is replaced while it has clips in flight": (
        standing_of,
        "is_retired=is_retiring and not worker.attempts",
        "is_retired=is_retiring",
    ),
    "a clip that was handed back is forgotten": (
        Clips,
        "self._waiting.appendleft(attempt)",
        "pass",
    ),
    "the only clip of a worker is recalled": (
        LoadedWorker,
        "queued if self.is_computing else queued[1:]",
        "queued",
    ),
    "a clip is recalled twice": (Clips, "self._pool.change(number).recalled.add(clip_id)", "pass"),
    "one worker too many": (
        Recruiting,
        "len(self._pool.workers) < self.num_wanted",
        "len(self._pool.workers) <= self.num_wanted",
    ),
    "the back-off from the store is ignored": (
        LoadedWorker,
        "isinstance(self.state, Paused) and self.state.until <= now",
        "isinstance(self.state, Paused)",
    ),
    "a worker that has changed keeps its place": (
        Pool,
        "self._changed.add(number)\n        return self.loaded[number]",
        "return self.loaded[number]",
    ),
    "a worker never takes clips again after a back-off": (
        Pool,
        "self._pauses and self._pauses[0][0] <= now",
        "False",
    ),
    "a suspect shares its worker": (
        Slots,
        "attempt.is_suspect and not _is_idle(order)",
        "False",
    ),
    "an encoded clip is rendered on another node": (
        Slots,
        "if node is not None and (node in self._pool.leader_nodes or self._is_filling):",
        "if False:",
    ),
    "a worker holds more clips than it has room for": (
        LoadedWorker,
        "len(self.attempts) < room",
        "True",
    ),
    "a clip is quarantined because the store refused it": (
        decide,
        'if last.failure_class == "store":',
        'if last.failure_class == "store" and not last.may_pass_on_retry:',
    ),
    "a clip is tried once more than its budget": (
        decide,
        "num_alike >= (budget",
        "num_alike > (budget",
    ),
    "a clip that failed its frame checks is retried without exact attention": (
        decide,
        'uses_exact_attention=any(failed.failure_class == "clip" for failed in failures)',
        "uses_exact_attention=False",
    ),
}


def plant(monkeypatch: pytest.MonkeyPatch, target: Any, right: str, wrong: str) -> None:
    """Give a class, or a function that one module uses, the code of itself with one mistake."""
    name: str = target.__name__
    source = inspect.getsource(target)
    assert source.count(right) == 1, (
        f"expected {right!r} once in {name}, got {source.count(right)}: update the mistake"
    )
    namespace = dict(vars(inspect.getmodule(target)))
    exec(compile(source.replace(right, wrong), f"<{name} with a mistake>", "exec"), namespace)
    if not inspect.isclass(target):
        user = jobs.schedule.clips if target is decide else jobs.schedule.pool
        monkeypatch.setattr(user, name, namespace[name])
        return
    # methods only: objects must stay instances of the original class
    for attribute, value in vars(namespace[name]).items():
        if inspect.isfunction(value) or isinstance(value, property):
            monkeypatch.setattr(target, attribute, value)


def finds_mistake(run: Callable[[random.Random], None]) -> bool:
    for seed in range(MAX_RUNS):
        try:
            run(random.Random(seed))
        except (AssertionError, KeyError, ValueError):
            return True
    return False


def run_once(chance: random.Random) -> None:
    num_clips = chance.randrange(13)
    choices = [chance.randrange(100) for _ in range(chance.randrange(60))]
    cluster = SimulatedCluster(num_clips, chance.randrange(1, 5), choices)
    cluster.run()
    ended = [*cluster.done, *cluster.quarantined]
    assert len(set(ended)) == len(ended)
    assert cluster.halt is not None or set(ended) == {one.clip_id for one in SPECS[:num_clips]}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_planted_mistake_is_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, *MISTAKES[mistake])
    assert finds_mistake(run_once)


def test_without_a_mistake_no_simulated_run_fails() -> None:
    for seed in range(500):
        run_once(random.Random(seed))
