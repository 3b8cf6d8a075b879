"""The notes of ranks and the report of their faults. One real fault is in `test_short`."""

import os
from pathlib import Path
from typing import Any

from tests.chaos.harness.rank_notes import RankNotes, write_note
from tests.chaos.harness.rank_report import (
    growth_per_rebuild,
    read_sessions,
    row,
    sums,
    table,
    write_session,
)
from tests.chaos.harness.rank_workload import GROUPS, RankWorkload


def fault(files: dict[str, tuple[int, int]], renders_after_s: float = 5.0) -> dict[str, Any]:
    return {
        "num_others": 1,
        "num_kept": 1,
        "is_released": False,
        "num_left_behind": 0,
        "renders_after_s": renders_after_s,
        "committed_after_s": 2 * renders_after_s,
        "files": files,
    }


def session(faults: list[dict[str, Any]], lost: tuple[str, ...] = ()) -> dict[str, Any]:
    audit = {"num_planned": 30, "num_committed": 30 - len(lost), "lost": lost}
    return {
        "model": "shapes-wan",
        "parallel": "ulysses 2",
        "size": 2,
        "signal": "SIGKILL",
        "rank": 1,
        "is_double": False,
        "num_faults": len(faults),
        "faults": faults,
        "files_at_end": {},
        "audit": {**audit, "duplicated": (), "mismatched": (), "orphans": ()},
        "problems": [],
        "load_average": 21.4,
    }


def test_each_note_is_read_once_in_the_order_of_its_moment(tmp_path: Path) -> None:
    notes = RankNotes(tmp_path)
    write_note(tmp_path, 0)
    write_note(tmp_path, 0, 7)
    assert [(note.rank, note.clip, note.step) for note in notes.read()] == [
        (0, None, -1),
        (0, 7, -1),
    ]
    last = notes.read()[-1].moment_s
    write_note(tmp_path, 0, 7, 0)
    assert [(note.pid, note.clip, note.step) for note in notes.since(last)] == [(os.getpid(), 7, 0)]
    assert len(notes.read()) == 3


def test_a_note_that_is_not_complete_yet_is_read_later(tmp_path: Path) -> None:
    notes = RankNotes(tmp_path)
    (tmp_path / "11").write_text("5.0 1 - -1\n6.0 1 3")
    assert [note.moment_s for note in notes.read()] == [5.0]
    (tmp_path / "11").write_text("5.0 1 - -1\n6.0 1 3 4\n")
    assert [(note.moment_s, note.clip, note.step) for note in notes.read()] == [
        (5.0, None, -1),
        (6.0, 3, 4),
    ]


def test_the_process_of_a_rank_is_the_one_that_joined_last(tmp_path: Path) -> None:
    (tmp_path / "11").write_text("5.0 0 - -1\n")
    (tmp_path / "12").write_text("5.1 1 - -1\n")
    (tmp_path / "13").write_text("9.0 1 - -1\n")
    assert RankNotes(tmp_path).members() == {0: 11, 1: 13}


def test_each_row_of_a_groups_manifest_asks_for_the_group(tmp_path: Path) -> None:
    rows = list(RankWorkload.make(3, GROUPS[4], tmp_path).rows())
    assert [one["seed"] for one in rows] == [0, 1, 2]
    assert all(one["parallel"] == {"ulysses": 2, "ring": 2, "across_hosts": False} for one in rows)


def test_growth_counts_only_processes_that_lived_through_several_rebuilds() -> None:
    faults = [
        fault({"rank 0": (10, 50 + 2 * index), "rank 1": (20 + index, 90)}) for index in range(6)
    ]
    assert growth_per_rebuild(session(faults)) == {"rank 0": [2.0]}


def test_a_row_shows_the_number_of_faults_and_their_cost() -> None:
    cells = row(
        session([fault({"coordinator": (1, 60)}, 4.0), fault({"coordinator": (1, 61)}, 6.0)])
    )
    assert cells == (
        "shapes-wan, ulysses 2", "SIGKILL", "1", "2", "2", "30 of 30", "0", "0", "0", "0", "2 of 2",
        "5.0 s", "6.0 s", "10.0 s", "12.0 s", "-", "-", "21",
    )  # fmt: skip


def test_a_lost_clip_is_shown_in_the_row_and_in_the_sums() -> None:
    broken = session([fault({})], lost=("clip-1",))
    assert "NOT AS EXPECTED" in row(broken)[0]
    assert "1 clips lost" in sums([broken])


def test_an_unfinished_session_is_kept_but_not_shown(tmp_path: Path) -> None:
    report = tmp_path / "faults"
    write_session(report, "first", session([fault({})]))
    write_session(report, "second", {**session([fault({})]), "audit": None})
    assert set(read_sessions(report)) == {"first", "second"}
    text = report.with_suffix(".md").read_text()
    assert table([session([fault({})])]) in text
