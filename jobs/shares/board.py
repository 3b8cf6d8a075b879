"""The claims of the runs on a cluster, in notes that each run writes for the others.

A thread writes this run's claim and reads those of others in every beat. A claim counts once it was
seen to change, and no longer than `dead_s` after that: so a run that died takes no share, and no
clock is compared with another machine's.
"""

import contextlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from jobs.errors import ClusterLostError
from jobs.settings.worker_config import WorkerConfig
from jobs.shares.run_claims import RunClaim, parse_note
from jobs.side_thread import SideThread
from jobs.text import counted

PREFIX = "run-claim/"
BEAT_S = 1.0
DEAD_S = 15.0
FORGOTTEN = 20  # times `dead_s`; then any run removes the claim
END_S = 0.5  # for the last note, which others would soon ignore anyway


class Notes(Protocol):
    """The part of `JoinedCluster` that a board needs."""

    @property
    def may_grow(self) -> bool: ...

    def write_note(self, name: str, text: bytes) -> None: ...

    def remove_note(self, name: str) -> None: ...

    def read_notes(self, prefix: str) -> dict[str, bytes]: ...

    def free(self) -> dict[str, dict[str, float]]: ...


@dataclass
class Seen:
    """A claim of another run, and the time at which it last changed.

    Args:
        has_changed: True once it was seen to change, so that its run lives.
    """

    text: bytes
    at_s: float
    has_changed: bool = False


class ShareBoard:
    """The claims of runs; it reads and writes them inside a `with` block.

    Args:
        notes: the cluster.
        run_id: id of this run.
        beat_s: seconds between two beats.
        dead_s: seconds without a change after which a run counts as dead.
    """

    def __init__(
        self, notes: Notes, run_id: str, beat_s: float = BEAT_S, dead_s: float = DEAD_S
    ) -> None:
        self._notes, self._name = notes, PREFIX + run_id
        self._beat_s, self._dead_s = beat_s, dead_s
        self._claim: RunClaim | None = None
        self._others: Sequence[RunClaim] = ()
        self._free: Mapping[str, Mapping[str, float]] = {}
        self._seen: dict[str, Seen] = {}
        self._num_beats = 0
        self._num_told = 0
        self._is_over = threading.Event()
        self._thread = SideThread("sharing", self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(END_S)  # a lost cluster may hold it

    def publish(self, claim: RunClaim) -> None:
        self._claim = claim

    def others(self) -> Sequence[RunClaim]:
        return self._others

    def free(self) -> Mapping[str, Mapping[str, float]]:
        return self._free

    def news(self) -> list[str]:
        """Return a line for people if other runs have come or gone since the last call.

        Raises:
            SideThreadError: the thread has died.
        """
        self._thread.check()
        num_others = len(self._others)
        if num_others == self._num_told:
            return []
        self._num_told = num_others
        if not num_others:
            return ["no other run shares the cluster any more"]
        return [f"sharing the cluster with {counted(num_others, 'other run')} (workers.share)"]

    def beat(self, now: float) -> None:
        """Write this run's claim and read those of others.

        Args:
            now: seconds of a clock that is never set back.

        Raises:
            ClusterLostError: the cluster does not answer now.
        """
        if self._claim is not None:
            self._num_beats += 1
            note = {"beat": self._num_beats, **self._claim.to_json()}
            self._notes.write_note(self._name, json.dumps(note).encode())
        found = self._notes.read_notes(PREFIX)
        found.pop(self._name, None)
        self._seen = {name: self._look_at(name, text, now) for name, text in found.items()}
        for name, seen in self._seen.items():
            if now - seen.at_s > FORGOTTEN * self._dead_s:
                self._notes.remove_note(name)
        alive = {
            name.removeprefix(PREFIX): seen.text
            for name, seen in self._seen.items()
            if seen.has_changed and now - seen.at_s <= self._dead_s
        }
        claims = [RunClaim.read(run, parse_note(text)) for run, text in alive.items()]
        free = self._notes.free() if alive else {}
        self._others, self._free = [one for one in claims if one is not None], free

    def _look_at(self, name: str, text: bytes, now: float) -> Seen:
        seen = self._seen.get(name)
        if seen is None:
            return Seen(text, now)
        return seen if seen.text == text else Seen(text, now, has_changed=True)

    def _work(self) -> None:
        while not self._is_over.wait(self._beat_s):
            try:
                self.beat(time.monotonic())
            except ClusterLostError:  # the watch on the cluster judges it
                continue
        with contextlib.suppress(ClusterLostError):
            self._notes.remove_note(self._name)


class NoBoard:
    """The board of a run that keeps its devices, or has a cluster to itself: it shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def publish(self, claim: RunClaim) -> None:
        pass

    def others(self) -> Sequence[RunClaim]:
        return ()

    def free(self) -> Mapping[str, Mapping[str, float]]:
        return {}

    def news(self) -> list[str]:
        return []


def board_for(cluster: Notes, run_id: str, workers: WorkerConfig) -> ShareBoard | NoBoard:
    """Return the board of a run."""
    is_shared = cluster.may_grow and workers.share == "fair"
    return ShareBoard(cluster, run_id) if is_shared else NoBoard()
