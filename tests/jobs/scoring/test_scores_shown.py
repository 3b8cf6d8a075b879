"""Scores in the tables and in the gallery: the newest of each measure, and no large vectors."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.overview.clips import OutputClip, Unreadable, read_clips
from jobs.records.commit import JSON
from jobs.records.listing import list_clips
from jobs.records.scores.score_record import as_base64, write_score
from jobs.report.gallery import Gallery
from jobs.report.links import PlainLinks
from jobs.report.rows import entry_of, seen_of
from jobs.report.scripts import part_document, rows_of
from jobs.report.target import Target
from jobs.tables.files import ClipTables
from jobs.tables.writing import add_clips
from tests.builders.records import commit, score_of
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    """An output of two clips, of which the first has scores."""
    store = MemoryStore()
    first = commit(store, spec("fox")).clip_id
    commit(store, spec("owl"))
    write_score(store, score_of(first, "clip", "a", 9, prompt=20.123456789))
    write_score(store, score_of(first, "clip", "b", 12, prompt=31.5, negative=2.0))
    write_score(store, score_of(first, "vqa", "c", 10, negative_seen=0.25))
    vectors = as_base64(np.ones((4, 768), np.float32))
    large = replace(score_of(first, "fid", "d", 11), num_vectors=4, vectors=vectors)
    write_score(store, large)
    return store


def clips_of(store: MemoryStore) -> dict[str, OutputClip]:
    found = list(read_clips(store, with_scores=True))
    assert not [one for one in found if isinstance(one, Unreadable)]
    return {one.name: one for one in found if isinstance(one, OutputClip)}


def test_the_newest_figure_of_each_measure_counts(store: MemoryStore) -> None:
    clips = clips_of(store)
    assert clips["fox-0"].figures == {
        "clip.prompt": 31.5, "clip.negative": 2.0, "vqa.negative_seen": 0.25
    }  # fmt: skip
    assert [one.measure for one in clips["fox-0"].scores] == ["clip", "vqa", "clip"]
    assert clips["owl-0"].figures == {}
    assert all(not one.scores for one in read_clips(store) if isinstance(one, OutputClip)), (
        "commands that do not ask for scores read none"
    )


def test_scores_are_a_map_of_numbers_in_parquet_and_json_in_csv(
    store: MemoryStore, tmp_path: Path
) -> None:
    for form in ("parquet", "csv"):
        with ClipTables(tmp_path / f"r.{form}", tmp_path / f"s.{form}", form) as tables:
            list(add_clips(tables, read_clips(store, with_scores=True)))
    rows = pq.read_table(tmp_path / "r.parquet").to_pylist()
    by_name = {row["name"]: row["scores"] for row in rows}
    assert dict(by_name["fox-0"])["clip.prompt"] == 31.5
    assert by_name["owl-0"] is None
    assert '{""clip.negative"": 2.0, ""clip.prompt"": 31.5' in (tmp_path / "r.csv").read_text()


def test_a_new_score_is_shown_by_the_next_refresh_of_the_gallery(store: MemoryStore) -> None:
    gallery = Gallery(store, Target(store, is_output=True), PlainLinks("../"))
    assert gallery.refresh().num_read == 2
    owl = clips_of(store)["owl-0"]
    write_score(store, score_of(owl.clip_id, "clip", "e", 13, prompt=1 / 3))
    assert gallery.refresh().num_read == 1
    listed = {one.clip_id: one for one in list_clips(store, kinds=("record", "score"))}
    entries = [entry_of(one, seen_of(listed[one.clip_id])) for one in clips_of(store).values()]
    part = part_document([entry.row for entry in entries], None)
    fox, owl_row = part["columns"]["name"].index("fox-0"), part["columns"]["name"].index("owl-0")
    scores = part["columns"]["scores"]
    assert (scores["clip.prompt"][fox], scores["clip.prompt"][owl_row]) == (31.5, 0.333333)
    assert scores["vqa.negative_seen"][owl_row] is None
    assert [row["scores"] for row in rows_of(part)] == [entry.row["scores"] for entry in entries]


def test_a_gallery_without_scores_has_no_column_of_them() -> None:
    store = MemoryStore()
    commit(store, spec("fox"))
    (clip,) = clips_of(store).values()
    assert "scores" not in part_document([entry_of(clip, "").row], None)["columns"]


def test_a_damaged_score_is_named_and_hides_no_clip(store: MemoryStore) -> None:
    fox = clips_of(store)["fox-0"]
    store.put(fox.scores[0].key, b'{"schema_version": 1}', JSON)
    found = list(read_clips(store, with_scores=True))
    (trouble,) = [one for one in found if isinstance(one, Unreadable)]
    assert trouble.key == fox.scores[0].key
    assert len(found) == 3
