"""The claims of runs in notes on the cluster: which ones count, and what strangers may write."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from jobs.errors import ClusterLostError
from jobs.plan.group_capacity import RankResources
from jobs.settings.worker_config import WorkerConfig
from jobs.shares.board import FORGOTTEN, NoBoard, ShareBoard, board_for
from jobs.shares.run_claims import MAX_BYTES, KindClaim, RunClaim, parse_note

GPU = RankResources(4, 0.5, {"disk": 1.0}, {"zone": "!in(a, b)"})
CLAIM = RunClaim("one", 2.0, (KindClaim(GPU, 1, 3, 8), KindClaim(RankResources(2), 4, 0, 1)))
DEAD_S = 15.0


@dataclass
class FakeNotes:
    """The notes of a cluster."""

    may_grow: bool = True
    notes: dict[str, bytes] = field(default_factory=dict[str, bytes])
    is_lost: bool = False

    def write_note(self, name: str, text: bytes) -> None:
        if self.is_lost:
            raise ClusterLostError("no answer")
        self.notes[name] = text

    def remove_note(self, name: str) -> None:
        self.notes.pop(name, None)

    def read_notes(self, prefix: str) -> dict[str, bytes]:
        return {name: text for name, text in self.notes.items() if name.startswith(prefix)}

    def free(self) -> dict[str, dict[str, float]]:
        return {"node": {"GPU": 2.0}}


def board_of(notes: FakeNotes, run: str) -> ShareBoard:
    board = ShareBoard(notes, run, dead_s=DEAD_S)
    board.publish(RunClaim(run, 2.0, CLAIM.kinds))
    return board


def test_a_claim_is_read_as_it_was_written() -> None:
    assert RunClaim.read("one", parse_note(json.dumps(CLAIM.to_json()).encode())) == CLAIM


def test_a_run_is_seen_once_it_is_known_to_live_and_until_it_is_silent() -> None:
    notes = FakeNotes()
    one, two = board_of(notes, "one"), board_of(notes, "two")
    for board in (two, one):
        board.beat(0.0)
    assert one.others() == [], "the note may be that of a dead run"
    for board in (two, one):
        board.beat(1.0)
    assert [claim.run for claim in one.others()] == ["two"]
    assert one.others()[0].kinds == CLAIM.kinds
    assert one.free() == {"node": {"GPU": 2.0}}
    one.beat(1.0 + DEAD_S)
    assert len(one.others()) == 1
    one.beat(1.1 + DEAD_S)
    assert one.others() == []
    two.beat(30.0)
    one.beat(30.0)
    assert len(one.others()) == 1, "it was only suspended"
    one.beat(30.1 + FORGOTTEN * DEAD_S)
    assert set(notes.notes) == {"run-claim/one"}


def test_runs_that_come_and_go_are_told_once() -> None:
    notes = FakeNotes()
    one, two = board_of(notes, "one"), board_of(notes, "two")
    assert one.news() == []
    for now in (0.0, 1.0):
        two.beat(now)
        one.beat(now)
    assert one.news() == ["sharing the cluster with 1 other run (workers.share)"]
    assert one.news() == []
    one.beat(2 + DEAD_S)
    assert one.news() == ["no other run shares the cluster any more"]


def test_the_thread_writes_and_at_the_end_removes_the_claim_also_after_a_cluster_was_away() -> None:
    notes = FakeNotes(is_lost=True)
    board = ShareBoard(notes, "one", beat_s=0.001)
    board.publish(CLAIM)
    with board:
        assert not notes.notes
        notes.is_lost = False
        while not notes.notes:
            board.news()
    assert not notes.notes


def test_only_a_run_that_shares_a_cluster_with_others_writes_claims() -> None:
    assert isinstance(board_for(FakeNotes(may_grow=False), "one", WorkerConfig()), NoBoard)
    alone = WorkerConfig(share="first_come")
    assert isinstance(board_for(FakeNotes(), "one", alone), NoBoard)
    assert isinstance(board_for(FakeNotes(), "one", WorkerConfig()), ShareBoard)


def changed(**values: Any) -> dict[str, Any]:
    note: dict[str, Any] = json.loads(json.dumps(CLAIM.to_json()))
    for name, value in values.items():
        part: Any = note if name in note else note["kinds"][0]
        (part if name in part else part["reserved"])[name] = value
    return note


@pytest.mark.parametrize(
    "note",
    [
        None,
        [],
        {},
        {"weight": 1},
        changed(weight=0),
        changed(weight=float("inf")),
        changed(weight=-1),
        changed(weight=10**400),
        changed(weight=float("nan")),
        changed(weight="2"),
        changed(kinds=[1]),
        changed(degree=0),
        changed(degree=10**9),
        changed(num_held=-1),
        changed(num_wanted=1.5),
        changed(num_cpus=0),
        changed(num_gpus=-1),
        changed(num_gpus=float("nan")),
        changed(others={"disk": "much"}),
        changed(others={"disk": -1}),
        changed(others={"disk": 10**400}),
        changed(others={"disk": 1e308}),
        changed(num_gpus=10**400),
        changed(labels={"zone": "in("}),
        changed(labels={"zone": 7}),
        changed(labels={"": "a"}),
    ],
)
def test_a_note_that_is_no_claim_counts_for_nothing(note: object) -> None:
    assert RunClaim.read("one", parse_note(json.dumps(note).encode())) is None


@pytest.mark.parametrize("text", [b"", b"\xff", b"{", b"[" * 10_000, b" " * MAX_BYTES + b"1"])
def test_a_note_that_cannot_be_read_counts_for_nothing(text: bytes) -> None:
    assert parse_note(text) is None
