"""An output as Parquet and CSV: every field, exact values, and what strangers may have written."""

import csv
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import StoreUnavailableError
from jobs.overview.clips import OutputClip, Unreadable, read_clips
from jobs.records.commit import JSON, write_failure, write_quarantine
from jobs.records.keys import name_key, record_key
from jobs.records.schema import ClipRecord, WorkerIdentity
from jobs.run.closing import write_tables
from jobs.tables import files
from jobs.tables.columns import CLIP_COLUMNS, LEFT_OUT, STAGE_COLUMNS, without_none
from jobs.tables.files import ClipTables, Format
from jobs.tables.writing import EndedClips, add_clips, write_run_tables
from jobs.types import AudioFacts, LoraIdentity, StageTiming
from pipelines.catalog.keys.ltx2_guidance import Ltx2Guidance
from pipelines.clip_inputs import InputFile, InputFiles
from pipelines.diffusion_forcing import DiffusionForcing
from pipelines.lora_choice import LoraChoice
from pipelines.texts import RequestTokens, Tokens
from tests.builders.records import AT_S, RUN_ID, commit, failure_of, quarantine_of
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore, Trouble

TIMINGS = (
    StageTiming("load", AT_S - 10, 4.0),
    StageTiming("denoise", AT_S + 0.123456, 0.1, 0),
    StageTiming("denoise", AT_S + 0.3, 0.2, 1),
    StageTiming("check", AT_S + 1, 0.25),
    StageTiming("check", AT_S + 2, 0.5),
)
OTHER_RUN = "20260201-120000-abcdef"


def full(store: MemoryStore) -> ClipRecord:
    """Commit a clip whose record has a value in every field."""
    record = commit(store, spec('a fox,\n"quoted" 狐 🦊'))
    request = replace(
        record.request,
        negative_prompt="",
        method="cfg+nag",
        sampling=replace(
            record.request.sampling,
            seed=2**63 - 1,
            flow_shift=0.1,
            guidance_scale=3.0,
            guidance_scale_2=1.5,
            strength=0.75,
            guidance_rescale=0.7,
        ),
        loras=(LoraChoice("style", 0.5),),
        inputs=InputFiles(
            image=InputFile("0" * 64, "first 狐.png"),
            last_image=InputFile("1" * 64, "last.png"),
            reference_images=(InputFile("a" * 64, "face.png"), InputFile("b" * 64, "hat.png")),
            video=InputFile("c" * 64, "in.mp4"),
            mask=InputFile("d" * 64, "mask.png"),
            fit="contain",
        ),
    )
    lora = LoraIdentity("folder:style", "abc", -0.25, "all")
    full = replace(
        record,
        request=request,
        model=replace(
            record.model,
            loras=(lora,),
            first_block_cache=0.08,
            stochastic_sampling=True,
            boundary_ratio=0.875,
            diffusion_forcing=DiffusionForcing(97, 17, 20, 5, 5),
            ltx2_guidance=Ltx2Guidance(1.0, 3.0, (28,), 0.5, 2.0, 7.0, 0.25),
        ),
        tokens=RequestTokens(Tokens(3, "ab"), Tokens(4, "cd"), Tokens(5, "ef")),
        meta={"shot": "12", "take": "b"},
        timings=TIMINGS,
        fps=0.1 + 0.2,
        audio=AudioFacts("aac", 24_000, 2, 0.3),
        host_memory_bytes=2**53 + 1,
        worker=WorkerIdentity("host-a", "node-a", "NVIDIA H100 80GB HBM3", 7),
        versions={"torch": "2.13.0"},
    )
    store.put(record_key(full.clip_id), full.to_json(), JSON)
    return full


def tables_of(
    store: MemoryStore, folder: Path, form: Format = "parquet"
) -> list[OutputClip | Unreadable]:
    with ClipTables(folder / f"records.{form}", folder / f"stages.{form}", form) as tables:
        return list(add_clips(tables, read_clips(store)))


def rows_of(folder: Path, table: str = "records") -> list[dict[str, Any]]:
    return pq.read_table(folder / f"{table}.parquet").to_pylist(maps_as_pydicts="strict")


def leaves(cls: type[Any], parent: str = "") -> set[str]:
    """Return the path of each field of a record, with the fields of dataclasses in its place."""
    found: set[str] = set()
    hints = get_type_hints(cls)
    for one in fields(cls):
        path, hint = f"{parent}{one.name}", without_none(hints[one.name])
        if not path.startswith(LEFT_OUT) or path in ("names", "run_id"):
            if is_dataclass(hint) and isinstance(hint, type):
                found |= leaves(hint, f"{path}.")
            else:
                found.add(path)
    return found


def test_every_field_of_a_record_is_a_column_of_its_own_name() -> None:
    paths = {column.path for column in CLIP_COLUMNS if column.path}
    assert leaves(ClipRecord) <= paths | {"name", "run_id", "clip_id"}
    for columns in (CLIP_COLUMNS, STAGE_COLUMNS):
        names = [column.name for column in columns]
        assert len(set(names)) == len(names)
        assert all(name.isidentifier() and name.islower() for name in names)


def test_the_values_of_a_record_are_exact_and_typed(tmp_path: Path) -> None:
    store = MemoryStore()
    record = full(store)
    store.put(name_key(record.clip_id, "vixen"), b"{}", JSON)
    tables_of(store, tmp_path)
    (row,) = rows_of(tmp_path)
    for column in CLIP_COLUMNS:
        value: Any = record
        if not column.path or column.path in LEFT_OUT:
            continue
        for part in column.path.split("."):
            value = getattr(value, part)
        if column.name == "committed_at":
            value = datetime(2026, 1, 31, 12, tzinfo=UTC)
        if isinstance(value, tuple):
            value = [vars(entry) if is_dataclass(entry) else entry for entry in value]
        if isinstance(value, Mapping):
            value = dict(value)
        assert value is not None, f"{column.path} has no value to prove anything with"
        assert row[column.name] == value, column.name
    assert (row["seed"], row["fps"], row["host_memory_bytes"]) == (2**63 - 1, 0.1 + 0.2, 2**53 + 1)
    assert (row["state"], row["name"], row["names"]) == ("committed", record.name, ["vixen"])
    assert (row["image"], row["image_sha256"]) == ("first 狐.png", "0" * 64)
    assert row["denoise_s"] == pytest.approx(0.3)
    assert (row["check_s"], row["upload_s"], row["num_failures"]) == (0.75, None, 0)


def test_the_types_of_the_columns_are_those_that_other_programs_expect(tmp_path: Path) -> None:
    store = MemoryStore()
    full(store)
    tables_of(store, tmp_path)
    schema = pq.read_schema(tmp_path / "records.parquet")
    word = pa.dictionary(pa.int32(), pa.string())
    expected = {
        "prompt": pa.string(), "seed": pa.int64(), "fps": pa.float64(), "denoise_s": pa.float64(),
        "model_compile": pa.bool_(), "method": word, "state": word, "failure_class": word,
        "committed_at": pa.timestamp("us", "UTC"), "quarantined_at": pa.timestamp("us", "UTC"),
        "meta": pa.map_(pa.string(), pa.string()), "names": pa.list_(pa.string()),
    }  # fmt: skip
    assert {name: schema.field(name).type for name in expected} == expected
    stages = pq.read_schema(tmp_path / "stages.parquet")
    assert stages.field("started_at").type == pa.timestamp("us", "UTC")
    assert stages.field("stage").type == word
    assert schema.metadata[b"nagfarm.schema_version"] == b"1"


def test_failed_quarantined_and_damaged_clips_have_rows_too(tmp_path: Path) -> None:
    store = MemoryStore()
    damaged = commit(store, spec("gone"))
    store.delete(damaged.key)
    write_quarantine(store, quarantine_of("1" * 32))
    tried = replace(failure_of("1" * 32, "first"), timings=TIMINGS[:2])
    write_failure(store, tried)
    write_failure(store, failure_of("1" * 32, "second", AT_S + 1, attempt=2))
    write_failure(store, failure_of("2" * 32, "alone"))
    tables_of(store, tmp_path)
    rows = {row["clip_id"]: row for row in rows_of(tmp_path)}
    assert {row["clip_id"]: row["state"] for row in rows.values()} == {
        damaged.clip_id: "damaged", "1" * 32: "quarantined", "2" * 32: "failed",
    }  # fmt: skip
    quarantined, failed = rows["1" * 32], rows["2" * 32]
    assert (quarantined["message"], quarantined["num_failures"]) == ("second", 2)
    assert quarantined["quarantine_reason"] == "failed on 3 workers"
    assert [one["message"] for one in quarantined["failures"]] == ["first", "second"]
    assert (failed["failure_class"], failed["run_id"]) == ("memory", RUN_ID)
    assert failed["failed_at"] == datetime(2026, 1, 31, 12, tzinfo=UTC)
    request = failure_of("2" * 32).request
    assert request is not None
    assert (failed["prompt"], failed["seed"]) == (request.prompt, request.sampling.seed)
    assert (failed["model_source"], failed["quarantine_reason"]) == (None, None)
    stages = rows_of(tmp_path, "stages")
    assert [(row["clip_id"], row["stage"], row["is_committed"]) for row in stages] == [
        ("1" * 32, "load", False), ("1" * 32, "denoise", False),
    ]  # fmt: skip


def test_each_stage_and_step_is_a_row(tmp_path: Path) -> None:
    store = MemoryStore()
    record = full(store)
    tables_of(store, tmp_path)
    rows = rows_of(tmp_path, "stages")
    assert [(row["stage"], row["step"], row["duration_s"]) for row in rows] == [
        (one.stage, one.step, one.duration_s) for one in TIMINGS
    ]
    assert rows[1]["started_at"] == datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
    assert {(row["clip_id"], row["run_id"], row["attempt"]) for row in rows} == {
        (record.clip_id, RUN_ID, 1)
    }


def test_csv_has_the_same_rows_with_nested_values_as_json(tmp_path: Path) -> None:
    store = MemoryStore()
    record = full(store)
    write_failure(store, failure_of("f" * 32, "alone"))
    tables_of(store, tmp_path, "csv")
    with (tmp_path / "records.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["clip_id"]: row for row in csv.DictReader(file)}
    row, failed = rows[record.clip_id], rows["f" * 32]
    assert list(row) == [column.name for column in CLIP_COLUMNS]
    assert row["prompt"] == record.request.prompt
    assert (row["seed"], row["host_memory_bytes"]) == (str(2**63 - 1), str(2**53 + 1))
    assert float(row["fps"]) == 0.1 + 0.2
    assert row["committed_at"] == "2026-01-31 12:00:00.000000Z"
    assert json.loads(row["meta"]) == {"shot": "12", "take": "b"}
    assert json.loads(row["model_loras"])[0]["weight"] == -0.25
    assert json.loads(failed["failures"])[0]["failed_at"] == "2026-01-31T12:00:00Z"
    text = (tmp_path / "records.csv").read_text(encoding="utf-8")
    assert ',"",' in text, "an empty negative prompt is a text, and a missing value is nothing"


def test_rows_are_written_in_groups_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 2)
    monkeypatch.setattr(files, "GROUP_ROWS", 4)
    store = MemoryStore()
    records = [commit(store, spec(f"clip {number}")) for number in range(10)]
    path = tmp_path / "records.parquet"
    with ClipTables(path, tmp_path / "stages.parquet", "parquet") as tables:
        for number, clip in enumerate(read_clips(store)):
            assert isinstance(clip, OutputClip)
            tables.add(clip)
            assert len(tables.clips._rows) < 2
            assert sum(one.num_rows for one in tables.clips._batches) < 4
            assert not path.exists(), number
    found = pq.ParquetFile(path)
    assert [found.metadata.row_group(index).num_rows for index in range(3)] == [4, 4, 2]
    ids = [row["clip_id"] for row in rows_of(tmp_path)]
    assert ids == sorted(record.clip_id for record in records)


def test_a_few_long_texts_end_a_batch_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH_CHARACTERS", 5_000)
    store = MemoryStore()
    for number in range(3):
        failure = replace(failure_of(f"{number:032x}"), traceback="x" * 4_990)
        write_failure(store, failure)
    with ClipTables(tmp_path / "a.parquet", tmp_path / "b.parquet", "parquet") as tables:
        for clip in read_clips(store):
            assert isinstance(clip, OutputClip)
            tables.add(clip)
            assert not tables.clips._rows


def test_an_error_on_the_way_leaves_an_older_table_and_no_rest(tmp_path: Path) -> None:
    store = MemoryStore()
    full(store)
    tables_of(store, tmp_path)
    before = (tmp_path / "records.parquet").read_bytes()

    def failing() -> Any:
        yield from read_clips(store)
        raise StoreUnavailableError("no answer")

    with (
        pytest.raises(StoreUnavailableError),
        ClipTables(tmp_path / "records.parquet", tmp_path / "stages.parquet", "parquet") as tables,
    ):
        list(add_clips(tables, failing()))
    assert (tmp_path / "records.parquet").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "records.parquet", "stages.parquet",
    ]  # fmt: skip


def test_values_that_no_table_can_hold_cost_one_row_and_no_table(tmp_path: Path) -> None:
    store = MemoryStore()
    good = full(store)
    others = [commit(store, spec(name)) for name in ("large", "late", "odd")]
    large = replace(others[0], peak_memory_bytes=2**63)
    late = replace(others[1], timings=(StageTiming("text", 1e300, 1.0),))
    odd = replace(others[2], meta={"note": "half \udc80"})
    for record in (large, late, odd):
        store.put(record_key(record.clip_id), record.to_json(), JSON)
    found = tables_of(store, tmp_path)
    lost = {one.clip_id: one.message for one in found if isinstance(one, Unreadable)}
    assert lost.keys() == {large.clip_id, late.clip_id}
    assert "peak_memory_bytes must be at most" in lost[large.clip_id]
    assert "started_at must be at most" in lost[late.clip_id]
    rows = {row["clip_id"]: row for row in rows_of(tmp_path)}
    assert rows.keys() == {good.clip_id, odd.clip_id}
    assert rows[odd.clip_id]["meta"] == {"note": r"half \udc80"}
    assert {row["clip_id"] for row in rows_of(tmp_path, "stages")} == {good.clip_id}


# the tables of a run


def ended(committed: set[str], num_failures: int = 0, num_quarantined: int = 0) -> EndedClips:
    return EndedClips(RUN_ID, committed, num_failures, num_quarantined)


def run_rows(store: MemoryStore, folder: Path, table: str = "records") -> list[dict[str, Any]]:
    (folder / f"{table}.parquet").write_bytes(store.get(f"runs/{RUN_ID}/{table}.parquet"))
    return rows_of(folder, table)


def test_a_run_writes_what_it_did_itself_and_nothing_of_other_runs(tmp_path: Path) -> None:
    store = MemoryStore()
    own, before, other = full(store), commit(store, spec("before")), commit(store, spec("other"))
    store.put(
        record_key(other.clip_id), replace(other, run_id=OTHER_RUN).to_json(), JSON
    )  # by the driver that took the output
    write_failure(store, failure_of(own.clip_id, "first try"))
    write_failure(store, replace(failure_of(own.clip_id, attempt=7), run_id=OTHER_RUN))
    write_failure(store, failure_of("1" * 32))
    write_quarantine(store, quarantine_of("1" * 32))
    write_quarantine(store, replace(quarantine_of("2" * 32), run_id=OTHER_RUN))
    write_quarantine(
        store, quarantine_of("3" * 32)
    )  # its model is broken, so that it was not tried
    counts = ended({own.clip_id, other.clip_id, "4" * 32}, num_failures=2, num_quarantined=2)
    assert write_run_tables(store, counts) == 3
    rows = {row["clip_id"]: row for row in run_rows(store, tmp_path)}
    assert before.clip_id not in rows
    assert {clip_id: (row["state"], row["num_failures"]) for clip_id, row in rows.items()} == {
        own.clip_id: ("committed", 1), "1" * 32: ("quarantined", 1), "3" * 32: ("quarantined", 0),
    }  # fmt: skip
    assert {row["clip_id"] for row in run_rows(store, tmp_path, "stages")} == {own.clip_id}


def test_a_run_lists_failures_and_quarantine_only_if_it_had_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, listed = MemoryStore(), set[str]()
    own, entries = full(store), store.entries

    def noted(prefix: str) -> Any:
        listed.add(prefix)
        return entries(prefix)

    monkeypatch.setattr(store, "entries", noted)
    assert write_run_tables(store, ended({own.clip_id})) == 1
    assert not listed & {"failures/", "quarantine/", "records/"}
    write_run_tables(store, ended({own.clip_id}, 1, 1))
    assert {"failures/", "quarantine/"} <= listed


def test_a_run_without_clips_has_empty_tables(tmp_path: Path) -> None:
    store = MemoryStore()
    assert write_run_tables(store, ended(set())) == 0
    assert run_rows(store, tmp_path) == []


def test_tables_that_cannot_be_written_are_named_with_the_remedy_and_harm_nothing() -> None:
    store = MemoryStore()
    own = full(store)
    troubles: list[Trouble | None] = ["unavailable"] * 20
    store.troubles.extend(troubles)
    (line,) = write_tables(store, ended({own.clip_id}))
    assert "tables of this run were not written" in line
    assert f"nagfarm records memory://store --run {RUN_ID}" in line


def test_a_signal_ends_the_writing_of_tables_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    own, chunks = full(store), store.chunks

    def interrupted(key: str) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return chunks(key)

    monkeypatch.setattr(store, "chunks", interrupted)
    (line,) = write_tables(store, ended({own.clip_id}))
    assert "not written: by SIGTERM" in line
    assert not list(store.keys("runs/"))
