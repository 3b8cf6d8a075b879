"""Faults of the ranks of a group that renders, injected one after the other and measured.

A signal goes to one rank at a random step of a random clip, once the clip that the last one hit is
committed. A double fault hits any rank a second time while the group forms anew. All waiting is for
notes of the ranks or for objects in the store.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

import psutil

from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.records.commit import read_record
from jobs.records.keys import record_key
from jobs.types import ClipSpec
from tests.chaos.harness.rank_notes import RankNotes
from tests.chaos.harness.rank_report import COORDINATOR
from tests.chaos.harness.rank_workload import NUM_STEPS, RankWorkload
from tests.chaos.harness.runner import ScenarioError, ScenarioRun

INJECT_WITHIN_S = 0.05  # after the awaited note: about a step
AGAIN_WITHIN_S = 10.0  # about as long as a group takes to form anew
WAIT_S = 600.0  # for a group to form on a busy machine; a group that takes longer hangs


@dataclass(frozen=True)
class RankFault:
    """One fault of one rank, and its cost.

    Args:
        rank: rank that got the signal.
        clip_id: id of the clip that it denoised.
        step: number of steps of that clip that were done.
        num_others: number of ranks of the group that got no signal.
        num_kept: number of those whose process went on.
        again_after_s: seconds until the second signal of a double fault; None for a single one.
        is_released: True if the coordinator was started anew too.
        num_left_behind: number of processes of ranks that were not in the group, right before the
            fault.
        renders_after_s: seconds from the fault to the next step that the group did.
        committed_after_s: seconds from the fault to the commit of the clip that it hit.
        attempt: number of the attempt that committed the clip.
        files: process id and open descriptors right before the fault, by the process's name.
    """

    rank: int
    clip_id: str
    step: int
    num_others: int
    num_kept: int
    again_after_s: float | None
    is_released: bool
    num_left_behind: int
    renders_after_s: float
    committed_after_s: float
    attempt: int
    files: dict[str, tuple[int, int]]


class RankFaultInjector:
    """The injection of one kind of fault into one group.

    Args:
        rank: rank that gets the signal.
        number: the signal.
        on_fault: callback for each fault, once the clip that it hit is committed.
        is_double: True if each signal is followed, within `AGAIN_WITHIN_S`, by one to any process
            of a rank, also one that still loads.
    """

    def __init__(
        self,
        run: ScenarioRun,
        rank: int,
        number: signal.Signals,
        on_fault: Callable[[RankFault], None],
        *,
        is_double: bool = False,
    ) -> None:
        assert isinstance(run.workload, RankWorkload)
        self._run = run
        self._notes = RankNotes(run.workload.notes)
        self._rank = rank
        self._number = number
        self._on_fault = on_fault
        self._is_double = is_double
        self.num_faults = 0  # counts a fault from its signal on
        specs = open_manifest(
            run.manifest, ModelCatalog(run.farm.models), model=run.workload.model
        ).specs()
        self._specs: dict[int, ClipSpec] = {spec.request.sampling.seed: spec for spec in specs}

    def inject(self, count: int) -> int:
        """Inject `count` faults, or fewer if the run ends first; return the number."""
        for injected in range(count):
            if not (self._wait_for_moment() and self._inject_once()):
                return injected
        return count

    def sample_files(self) -> dict[str, tuple[int, int]]:
        """Return the process id and the open descriptors of each rank and of the coordinator."""
        pids = {f"rank {rank}": pid for rank, pid in self._notes.members().items()}
        pids |= dict.fromkeys((COORDINATOR,), *self._processes("GroupActor"))
        found: dict[str, tuple[int, int]] = {}
        for name, pid in pids.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                found[name] = pid, psutil.Process(pid).num_fds()
        return found

    def _wait_for_moment(self) -> bool:
        """Wait for a random moment in a random step of a clip that begins from now on."""
        rng = self._run.random
        step, waits_since_s = rng.randrange(NUM_STEPS), time.monotonic()

        def is_there() -> bool:
            has_begun = False
            for note in self._notes.since(waits_since_s):
                has_begun = has_begun or (
                    note.rank == 0 and note.clip is not None and note.step == -1
                )
                if has_begun and note.rank == 0 and note.step >= step - 1:
                    return True
            return False

        is_so = self._run.wait_until(is_there, "a clip that begins", WAIT_S)
        return is_so and not self._run.driver.ends_within(rng.uniform(0, INJECT_WITHIN_S))

    def _inject_once(self) -> bool:
        """Inject a fault and await its clip's commit; return False if the run ends first."""
        run, members, files = self._run, self._notes.members(), self.sample_files()
        num_left_behind = len(self._rank_processes()) - len(members)
        hit = next(
            note
            for note in reversed(self._notes.read())
            if note.rank == 0 and note.clip is not None
        )
        assert hit.clip is not None
        spec = self._specs[hit.clip]
        moment_s, moment = time.monotonic(), time.time()
        try:
            os.kill(members[self._rank], self._number)
        except ProcessLookupError as error:
            raise ScenarioError(f"rank {self._rank} was gone before its fault") from error
        self.num_faults += 1
        killed = {members[self._rank]}
        again_after_s = None
        if self._is_double:
            if run.driver.ends_within(run.random.uniform(0, AGAIN_WITHIN_S)):
                return False
            killed |= self._signal_any_but(killed)
            again_after_s = time.monotonic() - moment_s
        event = f"after {self._number.name} to rank {self._rank}"
        if not run.wait_until(
            lambda: self._first_step_again(moment_s) is not None, f"the next step {event}", WAIT_S
        ):
            return False
        if not run.wait_until(
            lambda: self._is_committed(spec), f"the clip's commit {event}", WAIT_S
        ):
            return False
        record, now = read_record(run.store, spec.clip_id), self._notes.members()
        renders_s = self._first_step_again(moment_s)
        assert renders_s is not None
        others = [rank for rank, process in members.items() if process not in killed]
        fault = RankFault(
            rank=self._rank,
            clip_id=spec.clip_id,
            step=hit.step + 1,
            num_others=len(others),
            num_kept=sum(members[rank] == now[rank] for rank in others),
            again_after_s=again_after_s,
            is_released=[files[COORDINATOR][0]] != self._processes("GroupActor"),
            num_left_behind=num_left_behind,
            renders_after_s=renders_s - moment_s,
            committed_after_s=datetime.fromisoformat(record.committed_at).timestamp() - moment,
            attempt=record.attempt,
            files=files,
        )
        self._on_fault(fault)
        return True

    def _signal_any_but(self, killed: Collection[int]) -> set[int]:
        """Send the signal to any other process of a rank; return it, or nothing if none is left."""
        processes = [process for process in self._rank_processes() if process not in killed]
        self._run.random.shuffle(processes)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, self._number)
                return {process}
        return set()

    def _first_step_again(self, moment_s: float) -> float | None:
        """Return the moment of the leader's first step after the group was formed anew."""
        leaders = [note for note in self._notes.since(moment_s) if note.rank == 0]
        formed = next((index for index, note in enumerate(leaders) if note.clip is None), None)
        if formed is None:
            return None
        return next((note.moment_s for note in leaders[formed:] if note.step >= 0), None)

    def _is_committed(self, spec: ClipSpec) -> bool:
        """Return True if the clip is committed.

        The store is asked only after the clip's last step: many requests would slow what is
        measured.
        """
        number, last = spec.request.sampling.seed, NUM_STEPS - 1
        is_denoised = any(note.clip == number and note.step == last for note in self._notes.read())
        return is_denoised and self._run.store.exists(record_key(spec.clip_id))

    def _rank_processes(self) -> list[int]:
        return self._processes("LeaderActor", "FollowerActor")

    def _processes(self, *actors: str) -> list[int]:
        return [
            process.pid
            for node in self._run.farm.nodes
            for name in actors
            for process in node.actors(name)
        ]
