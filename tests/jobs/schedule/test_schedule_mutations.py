"""Would the nights of `night.py` notice? Mistakes are planted in the schedule, one at a time, and each has to be found.

A mistake that no night finds would mean that an invariant is not looked at.
"""

import inspect
import random
from collections.abc import Callable
from typing import Any

import pytest

import jobs.schedule.pool
import jobs.schedule.retry
import jobs.schedule.schedule
import tests.fakes.simulated_cluster
from tests.fakes.simulated_cluster import SPECS, Night

MAX_NIGHTS = 4_000

MISTAKES = {
    "clips that nobody blames are forgotten with their worker": (
        "Schedule",
        "self._waiting.append(replace(attempt, number=attempt.number + 1, num_bystander_losses=num_bystander_losses))",
        "pass",
    ),
    "a stall is charged to all clips of the worker": (
        "Schedule",
        "if clip_id not in charged:",
        "if False:",
    ),
    "a preemption is charged": (
        "Schedule",
        "is_charged = not (is_preempted or workers[number].is_draining)",
        "is_charged = True",
    ),
    "a try is not counted": (
        "Schedule",
        "replace(attempt, number=number, failures=failures, uses_exact_attention=uses_exact_attention)",
        "replace(attempt, failures=failures, uses_exact_attention=uses_exact_attention)",
    ),
    "the plan ends with its first clip": (
        "Schedule",
        "self._is_plan_over = spec is None",
        "self._is_plan_over = True",
    ),
    "what a worker holds is not written down": (
        "Schedule",
        "self._pool.workers[number].take(attempt, self._now)",
        "pass",
    ),
    "a run goes on after its end": ("Schedule", "if isinstance(command, Halt):", "if False:"),
    "a run that is told to stop goes on": (
        "Schedule",
        "if self.is_finished or self._stop:",
        "if self.is_finished:",
    ),
    "a clip that hangs is left alone": ("Schedule", "if stalls:", "if False:"),
    "a worker without a word is left alone": (
        "Schedule",
        "worker.is_ready and silent_s > self._config.stall.heartbeat_timeout_s",
        "False",
    ),
    "a worker that is told to end gets more": (
        "Schedule",
        "if heartbeat.is_draining:",
        "if False:",
    ),
    "a worker is replaced with clips in its hands": (
        "Schedule",
        "worker.retires is not None and not worker.attempts",
        "worker.retires is not None",
    ),
    "one worker too many": (
        "Schedule",
        "len(self._pool.workers) < self._recruiting.num_wanted",
        "len(self._pool.workers) <= self._recruiting.num_wanted",
    ),
    "the store's refusal is not waited for": ("PooledWorker", " and self.paused_until <= now", ""),
    "a clip that may kill shares its worker": (
        "Places",
        "self._workers[number].is_idle if attempt.is_suspect else",
        "",
    ),
    "a clip that waits on a disk is rendered elsewhere": (
        "Places",
        "if attempt.node is not None and (attempt.node in self._ready_nodes or self._is_filling):",
        "if False:",
    ),
    "a worker holds more than it has room for": (
        "Places",
        "len(worker.attempts) < self._room",
        "True",
    ),
    "a clip is given up for the store's sake": (
        "decide",
        'if last.failure_class == "store":',
        'if last.failure_class == "store" and not last.may_pass_on_retry:',
    ),
    "a clip is tried once more than its budget": (
        "decide",
        "num_alike >= (budget",
        "num_alike > (budget",
    ),
    "what was no picture is rendered as before": (
        "decide",
        'uses_exact_attention=any(failed.failure_class == "clip" for failed in failures)',
        "uses_exact_attention=False",
    ),
}


def plant(monkeypatch: pytest.MonkeyPatch, name: str, right: str, wrong: str) -> None:
    """Replaces a class or a function by itself with one mistake."""
    homes: dict[str, tuple[Any, Any]] = {
        "Schedule": (jobs.schedule.schedule, tests.fakes.simulated_cluster),
        "PooledWorker": (jobs.schedule.pool, jobs.schedule.schedule),
        "Places": (jobs.schedule.pool, jobs.schedule.pool),
        "decide": (jobs.schedule.retry, jobs.schedule.schedule),
    }
    home, user = homes[name]
    source = inspect.getsource(getattr(home, name))
    assert source.count(right) == 1, (
        f"{right!r} is not in {name} just once; the mistake has to follow the code"
    )
    namespace = dict(vars(home))
    exec(compile(source.replace(right, wrong), f"<{name} with a mistake>", "exec"), namespace)
    monkeypatch.setattr(user, name, namespace[name])


def fails(night: Callable[[random.Random], None]) -> bool:
    for seed in range(MAX_NIGHTS):
        try:
            night(random.Random(seed))
        except (AssertionError, KeyError, ValueError):
            return True
    return False


def one_night(chance: random.Random) -> None:
    num_clips = chance.randrange(13)
    chances = [chance.randrange(100) for _ in range(chance.randrange(60))]
    night = Night(num_clips, chance.randrange(1, 5), chances)
    night.run()
    ended = [*night.done, *night.quarantined]
    assert len(set(ended)) == len(ended)
    assert night.halt is not None or set(ended) == {one.clip_id for one in SPECS[:num_clips]}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_planted_mistake_is_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, *MISTAKES[mistake])
    assert fails(one_night)


def test_without_a_mistake_nothing_is_found() -> None:
    for seed in range(500):
        one_night(random.Random(seed))
