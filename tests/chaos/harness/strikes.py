"""Strikes at one rank of a group that renders, one after the other, and what is measured of each.

Decides when a strike falls, what counts as recovered, and what is sampled. A strike falls at a random step of a random
clip, once the clip that was struck before is committed; a double one hits any rank a second time while the group forms
anew. All waiting is for what the ranks note or what is in the store.
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
from tests.chaos.harness.runner import Scene, SceneError

STRIKE_WITHIN_S = 0.05  # after what is waited for: about a step
AGAIN_WITHIN_S = 10.0  # about as long as a group takes to form anew
WAIT_S = 600.0  # for a group to form on a machine that may be busy with other things; one that takes longer hangs


@dataclass(frozen=True)
class Strike:
    """One strike, and what came of it.

    Args:
        rank: that was struck.
        clip_id: what it denoised.
        step: how many steps of it were done.
        num_others: ranks of the group that were not struck.
        num_kept: of these, those whose process went on.
        again_after_s: when a process of a rank was struck for the second time; None where it was not.
        is_released: the coordinator too was made anew.
        num_left_behind: processes of ranks that are not of the group, right before it.
        formed_after_s: from the strike to the next generation of the group.
        renders_after_s: from the strike to the next step that the group did.
        committed_after_s: from the strike to the commit of the clip that it hit.
        attempt: that committed it.
        files: open descriptors right before the strike, by who and process.
    """

    rank: int
    clip_id: str
    step: int
    num_others: int
    num_kept: int
    again_after_s: float | None
    is_released: bool
    num_left_behind: int
    formed_after_s: float
    renders_after_s: float
    committed_after_s: float
    attempt: int
    files: dict[str, tuple[int, int]]


class Striker:
    """Strikes at one group.

    Args:
        scene: the run.
        rank: to be struck.
        number: the signal.
        on_strike: is told of each that is over.
        is_double: each is followed by one at any process of a rank, one that loads too, within `AGAIN_WITHIN_S`.
    """

    def __init__(
        self,
        scene: Scene,
        rank: int,
        number: signal.Signals,
        on_strike: Callable[[Strike], None],
        *,
        is_double: bool = False,
    ) -> None:
        assert isinstance(scene.workload, RankWorkload)
        self._scene = scene
        self._notes = RankNotes(scene.workload.notes)
        self._rank = rank
        self._number = number
        self._on_strike = on_strike
        self._is_double = is_double
        self.num_strikes = 0  # those too that are not over
        specs = open_manifest(
            scene.manifest, ModelCatalog(scene.farm.models), model=scene.workload.model
        ).specs()
        self._specs: dict[int, ClipSpec] = {spec.request.sampling.seed: spec for spec in specs}

    def strike(self, count: int) -> int:
        """Strikes so many times, or until the clips are out; returns how often it did."""
        for struck in range(count):
            if not (self._wait_for_moment() and self._strike_once()):
                return struck
        return count

    def sample_files(self) -> dict[str, tuple[int, int]]:
        """Process and open descriptors of each rank and of the coordinator."""
        pids = {f"rank {rank}": pid for rank, pid in self._notes.members().items()}
        pids |= dict.fromkeys((COORDINATOR,), *self._processes("GroupActor"))
        found: dict[str, tuple[int, int]] = {}
        for name, pid in pids.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                found[name] = pid, psutil.Process(pid).num_fds()
        return found

    def _wait_for_moment(self) -> bool:
        """Waits for a random step of a clip that begins from now on, and a random part of that step."""
        dice = self._scene.random
        step, looked_at_s = dice.randrange(NUM_STEPS), time.monotonic()

        def is_there() -> bool:
            has_begun = False
            for note in self._notes.since(looked_at_s):
                has_begun = has_begun or (
                    note.rank == 0 and note.clip is not None and note.step == -1
                )
                if has_begun and note.rank == 0 and note.step >= step - 1:
                    return True
            return False

        is_so = self._scene.wait_until(is_there, "a clip to strike at", WAIT_S)
        return is_so and not self._scene.driver.ends_within(dice.uniform(0, STRIKE_WITHIN_S))

    def _strike_once(self) -> bool:
        """Strikes, and waits until all is well again; False where the run ended first."""
        scene, members, files = self._scene, self._notes.members(), self.sample_files()
        num_left_behind = len(self._rank_processes()) - len(members)
        hit = next(
            note
            for note in reversed(self._notes.look())
            if note.rank == 0 and note.clip is not None
        )
        assert hit.clip is not None
        spec = self._specs[hit.clip]
        moment_s, moment = time.monotonic(), time.time()
        try:
            os.kill(members[self._rank], self._number)
        except ProcessLookupError as error:
            raise SceneError(f"rank {self._rank} was gone before it was struck") from error
        self.num_strikes += 1
        struck = {members[self._rank]}
        again_after_s = None
        if self._is_double:
            if scene.driver.ends_within(scene.random.uniform(0, AGAIN_WITHIN_S)):
                return False
            struck |= self._strike_any(struck)
            again_after_s = time.monotonic() - moment_s
        what = f"after {self._number.name} to rank {self._rank}"
        if not scene.wait_until(
            lambda: len(self._again(moment_s)) == 2, f"the next step {what}", WAIT_S
        ):
            return False
        if not scene.wait_until(
            lambda: self._is_committed(spec), f"the clip's commit {what}", WAIT_S
        ):
            return False
        record, now = read_record(scene.store, spec.clip_id), self._notes.members()
        formed_s, renders_s = self._again(moment_s)
        others = [rank for rank, process in members.items() if process not in struck]
        strike = Strike(
            rank=self._rank,
            clip_id=spec.clip_id,
            step=hit.step + 1,
            num_others=len(others),
            num_kept=sum(members[rank] == now[rank] for rank in others),
            again_after_s=again_after_s,
            is_released=[files[COORDINATOR][0]] != self._processes("GroupActor"),
            num_left_behind=num_left_behind,
            formed_after_s=formed_s - moment_s,
            renders_after_s=renders_s - moment_s,
            committed_after_s=datetime.fromisoformat(record.committed_at).timestamp() - moment,
            attempt=record.attempt,
            files=files,
        )
        self._on_strike(strike)
        return True

    def _strike_any(self, struck: Collection[int]) -> set[int]:
        """Strikes a process of a rank that was not struck; returns which, or none where there is none any more."""
        processes = [process for process in self._rank_processes() if process not in struck]
        self._scene.random.shuffle(processes)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, self._number)
                return {process}
        return set()

    def _again(self, moment_s: float) -> tuple[float, ...]:
        """When a generation was formed since, and when its leader did its first step, as far as they have come."""
        leaders = [note for note in self._notes.since(moment_s) if note.rank == 0]
        formed = next((index for index, note in enumerate(leaders) if note.clip is None), None)
        if formed is None:
            return ()
        steps = (note.moment_s for note in leaders[formed:] if note.step >= 0)
        return (leaders[formed].moment_s, *list(steps)[:1])

    def _is_committed(self, spec: ClipSpec) -> bool:
        """Asks the store only once the clip's last step was noted: to ask all the time takes what is measured."""
        number, last = spec.request.sampling.seed, NUM_STEPS - 1
        is_denoised = any(note.clip == number and note.step == last for note in self._notes.look())
        return is_denoised and self._scene.store.exists(record_key(spec.clip_id))

    def _rank_processes(self) -> list[int]:
        return self._processes("LeaderActor", "FollowerActor")

    def _processes(self, *actors: str) -> list[int]:
        return [
            process.pid
            for node in self._scene.farm.nodes
            for name in actors
            for process in node.actors(name)
        ]
