"""`nagfarm list`, `pick`, `prune` and the choice of `export` through the command line."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.cli.main import main
from jobs.cli.outputs.list_clips import HEADERS
from jobs.cli.pattern.command import EXIT_FINDINGS, EXIT_OK, EXIT_REFUSED
from jobs.ending import ExitCode
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.overview.clip_table import COLUMNS
from jobs.records.commit import (
    JSON,
    commit_record,
    committed_ids,
    upload_clip,
    write_failure,
    write_quarantine,
)
from jobs.records.keys import name_key, record_key
from jobs.records.lease import Lease
from jobs.records.schema import FailureRecord, QuarantineRecord
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from jobs.types import ClipSpec
from pipelines.catalog.files import sources
from tests.builders import weights
from tests.builders.records import failure_of, quarantine_of, record_of
from tests.builders.unsafe import UNSAFE, unsafe_characters

ROWS = [
    {"name": "fox-1", "prompt": "a red fox", "seed": 1, "negative_prompt": "rain"},
    {"name": "fox-2", "prompt": "a red fox", "seed": 2, "method": "vsf"},
    {"name": "cat", "prompt": 'a cat, "black"', "seed": 1, "meta": {"shot": "12"}},
    {"name": "dog", "prompt": "a dog", "seed": 1},
    {"name": "owl", "prompt": "an owl", "seed": 2},
]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the only model of the catalog, `tiny`."""
    folder = tmp_path / "models"
    weights.write_model(folder / "weights")
    (folder / "tiny.yaml").write_text(weights.YAML.format(source="./weights"))
    (tmp_path / "nothing").mkdir()
    monkeypatch.setattr(sources, "PACKAGED_CONFIGS", tmp_path / "nothing")
    return folder


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write(tmp_path / "spring.jsonl", ROWS)


@pytest.fixture
def clips(manifest: Path, models: Path) -> list[ClipSpec]:
    return specs_of(manifest, models)


@pytest.fixture
def store(tmp_path: Path, clips: list[ClipSpec]) -> Store:
    """An output with three committed clips, one that failed, and one that is quarantined."""
    (tmp_path / "out").mkdir()
    store = open_store((tmp_path / "out").as_uri(), StoreConfig())
    for clip in clips[:3]:
        commit(store, clip)
    dog, owl = clips[3:]
    given = {"model": dog.model.name, "request": dog.request}
    write_failure(store, replace(failure_of(dog.clip_id), name="dog", **given))
    given = {"model": owl.model.name, "request": owl.request}
    write_quarantine(store, replace(quarantine_of(owl.clip_id), name="owl", **given))
    return store


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps({"model": "tiny", **row}) + "\n" for row in rows))
    return path


def specs_of(manifest: Path, models: Path) -> list[ClipSpec]:
    return list(open_manifest(manifest, ModelCatalog(models)).specs())


def commit(store: Store, of: ClipSpec) -> None:
    body = of.clip_id.encode()
    clip = upload_clip(store, of.clip_id, body)
    record = record_of(store, body, of.clip_id)
    record = replace(record, name=of.name, request=of.request, tokens=of.tokens, meta=of.meta)
    assert commit_record(store, clip, replace(record, model=of.model))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> "Runner":
    return Runner(capsys)


class Runner:
    """Runs a command and returns its lines, or its error if another exit code is expected."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.aside = ""

    def __call__(self, *arguments: str | Path, code: int = EXIT_OK) -> str:
        assert main([str(one) for one in arguments]) == code
        captured = self._capsys.readouterr()
        self.aside = captured.err
        assert "Traceback" not in captured.err
        return captured.err if code in (EXIT_REFUSED, ExitCode.BUSY) else captured.out


# list


def test_list_prints_a_table_sorted_by_name_with_every_state(
    store: Store, clips: list[ClipSpec], run: Runner
) -> None:
    header, *rows, counts = run("list", store.uri).splitlines()
    assert " ".join(header.split()) == " ".join(HEADERS)
    assert [row.split()[0] for row in rows] == ["cat", "dog", "fox-1", "fox-2", "owl"]
    assert rows[1].split()[-2:] == ["failed", clips[3].clip_id]
    assert "a dog" in rows[1]
    assert rows[2].split()[-1].startswith(f"clips/{clips[0].clip_id}/")
    assert counts.startswith("5 clips: 3 committed, 1 quarantined, 1 failed, ")


def test_list_narrows_the_choice(store: Store, run: Runner) -> None:
    text = run("list", store.uri, "--prompt", "*FOX", "--seed", "2..9", "--method", "vsf")
    assert text.splitlines()[1].startswith("fox-2")
    assert "\n1 clip of 5: 1 committed, " in text
    assert run("list", store.uri, "--clip", "wolf").startswith("0 clips of 5")


def test_csv_and_json_have_every_column(store: Store, clips: list[ClipSpec], run: Runner) -> None:
    table = list(csv.DictReader(io.StringIO(run("list", store.uri, "--csv"))))
    documents = json.loads(run("list", store.uri, "--json"))
    assert [row["clip_id"] for row in table] == sorted(clip.clip_id for clip in clips)
    assert [row["clip_id"] for row in documents] == [row["clip_id"] for row in table]
    for row, document in zip(table, documents, strict=True):
        assert list(row) == list(document) == list(COLUMNS)
    cat = next(row for row in documents if row["name"] == "cat")
    assert (cat["prompt"], cat["seed"], cat["meta"]) == ('a cat, "black"', 1, {"shot": "12"})
    assert store.exists(cat["key"])
    owl = next(row for row in table if row["name"] == "owl")
    assert (owl["state"], owl["key"], owl["error_type"]) == ("quarantined", "", "OutOfMemoryError")
    assert json.loads(run("list", store.uri, "--json", "--clip", "wolf")) == []


def test_a_record_that_cannot_be_read_is_told_beside_the_result(
    store: Store, clips: list[ClipSpec], run: Runner
) -> None:
    store.put(record_key(clips[0].clip_id), b"{", JSON)
    documents = json.loads(run("list", store.uri, "--json", code=EXIT_FINDINGS))
    assert len(documents) == 4
    assert f"cannot be read: records/{clips[0].clip_id}.json: not valid JSON" in run.aside


def test_a_strangers_text_is_escaped_and_json_says_the_same(
    store: Store, clips: list[ClipSpec], run: Runner
) -> None:
    record = replace(failure_of("1" * 32), name=UNSAFE, message=UNSAFE)
    write_failure(store, record)
    for option in ((), ("--csv",), ("--json",)):
        text = run("list", store.uri, *option)
        assert not unsafe_characters(text)
    (one,) = [row for row in json.loads(text) if row["clip_id"] == "1" * 32]
    assert (one["name"], one["message"]) == (UNSAFE, UNSAFE)


def test_no_text_of_the_csv_is_a_formula(
    store: Store, clips: list[ClipSpec], run: Runner, tmp_path: Path
) -> None:
    formula = '=HYPERLINK("http://x","y")'
    write_failure(store, replace(failure_of("1" * 32), name=formula, message="-1+cmd|' /C x'!A0"))
    output = tmp_path / "table.csv"
    run("records", store.uri, "--to", "csv", "--output", str(output))
    for text in (run("list", store.uri, "--csv"), output.read_text()):
        rows = {row["clip_id"]: row for row in csv.DictReader(io.StringIO(text))}
        one = rows["1" * 32]
        assert (one["name"], one["message"]) == (f"'{formula}", "'-1+cmd|' /C x'!A0")
        assert rows[clips[0].clip_id]["name"] == "fox-1"


@pytest.mark.parametrize("command", [["list"], ["pick", "--seed", "1"], ["prune", "--keep", "x"]])
def test_an_output_without_a_run_is_refused(
    command: list[str], tmp_path: Path, run: Runner
) -> None:
    (tmp_path / "empty").mkdir()
    error = run(command[0], tmp_path / "empty", *command[1:], code=EXIT_REFUSED)
    assert "expected the output of a run" in error


# pick


def picked(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_picks_are_a_manifest_of_the_same_clips(
    store: Store, clips: list[ClipSpec], models: Path, run: Runner, tmp_path: Path
) -> None:
    path = tmp_path / "again.jsonl"
    path.write_text(run("pick", store.uri, "cat", "fox-1", "owl"))
    assert "3 rows of 3 clips; save them as a .jsonl" in run.aside
    again = specs_of(path, models)
    assert [spec.clip_id for spec in again] == [clips[i].clip_id for i in (2, 0, 4)]
    assert [spec.name for spec in again] == ["cat", "fox-1", "owl"]
    assert again[0].meta == {"shot": "12"}


def test_picks_have_other_seeds_steps_and_values(store: Store, run: Runner) -> None:
    rows = picked(run("pick", store.uri, "fox-1", "--seeds", "2", "--steps", "7"))
    assert [(row["seed"], row["num_inference_steps"]) for row in rows] == [(2, 7), (3, 7)]
    rows = picked(run("pick", store.uri, "cat", "--set", "nag_scale=4", "--set", "width=64"))
    assert [(row["nag_scale"], row["width"], row["name"]) for row in rows] == [
        (4.0, 64, "cat-changed")
    ]
    (row,) = picked(run("pick", store.uri, "cat", "--set", "loras=none"))
    assert row["loras"] == "none"


def test_names_come_from_a_file_or_stdin_and_may_be_exported_files(
    store: Store, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picks.txt"
    path.write_text("# good ones\ncat.mp4\n\n  fox-2\n")
    rows = picked(run("pick", store.uri, "--names", path))
    assert [row["name"] for row in rows] == ["cat", "fox-2"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"fox-1.mp4\n")))
    assert [row["name"] for row in picked(run("pick", store.uri, "--names", "-"))] == ["fox-1"]


def test_options_choose_picks_without_names(store: Store, run: Runner) -> None:
    rows = picked(run("pick", store.uri, "--prompt", "*fox*", "--seeds", "5..6"))
    assert [(row["name"], row["seed"]) for row in rows] == [
        ("fox-1-s5", 5), ("fox-1-s6", 6), ("fox-2-s5", 5), ("fox-2-s6", 6),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected names or ids of clips"),
        (("fox",), "no clip has the name or id 'fox'; did you mean 'fox-"),
        (("--seed", "9"), "these options choose no clip"),
        (("cat", "--seeds", "0"), "--seeds: expected 1 to 10,000 seeds, got 0"),
        (("cat", "--seeds", "1..99999"), "--seeds: expected 1 to 10,000 seeds, got 99,999"),
        (("cat", "--seeds", "123456"), "got 123,456; the one seed 123456 is 123456..123456"),
        (("cat", "--steps", "0"), "--steps: expected at least 1, got 0"),
        (("cat", "--seeds", "x"), "--seeds: expected seeds such as"),
        (("cat", "--set", "seed=3"), "not the name or the seed"),
        (("cat", "--set", "guidance=nag"), "--set: guidance holds several values"),
        (("cat", "--set", "meta={}"), "--set: meta holds several values"),
        (("cat", "--set", "nag_scale"), "--set: expected FIELD=VALUE"),
        (("cat", "--set", "nag_scael=3"), "did you mean 'nag_scale'"),
        (("cat", "--set", "width=wide"), "--set: width must be a whole number"),
        (("cat", "--names", "/nowhere/picks"), "--names: /nowhere/picks cannot be read: No such"),
        (("cat", "--names", "/dev/zero"), "expected a regular file"),
    ],
)
def test_wrong_picks_are_refused_and_nothing_is_printed(
    arguments: tuple[str, ...], message: str, store: Store, run: Runner
) -> None:
    assert message in run("pick", store.uri, *arguments, code=EXIT_REFUSED)


# prune


def let_age(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))


@pytest.fixture
def changed(tmp_path: Path, store: Store, models: Path) -> Path:
    """A manifest with other settings for the foxes, whose clips are committed too."""
    path = write(tmp_path / "new.jsonl", [{**row, "num_inference_steps": 3} for row in ROWS[:2]])
    for clip in specs_of(path, models):
        commit(store, clip)
    let_age(tmp_path / "out")
    return path


def test_prune_lists_what_a_manifest_does_not_name_and_removes_it_on_request(
    store: Store, changed: Path, models: Path, clips: list[ClipSpec], run: Runner
) -> None:
    store.put(name_key(clips[0].clip_id, "vixen"), b"{}", JSON)
    let_age(changed.parent / "out")
    command = ("prune", store.uri, "--keep", changed, "--models", models)
    before = set(store.keys(""))
    text = run(*command)
    assert f"2 clips of {changed} stay" in text
    assert f"5 clips that {changed} does not name, 0.0 MB:" in text
    assert [clip.clip_id in text for clip in clips] == [True] * 5
    assert "nothing was removed; --delete removes these clips" in text
    assert set(store.keys("")) == before, "the lease is not even taken"
    assert "removed 5 clips, " in run(*command, "--delete")
    kept = {clip.clip_id for clip in specs_of(changed, models)}
    assert committed_ids(store) == kept
    left = {key for key in store.keys("") if not key.startswith("lease/")}
    assert left == {key for key in before if any(clip_id in key for clip_id in kept)}
    assert f"nothing to remove: {changed} names every clip" in run(*command, "--delete")
    store.put(record_key("1" * 32), b"{}", JSON)
    text = run(*command)
    assert "nothing to remove\nspared: 1 clip younger than --older-than" in text
    store.delete(record_key("1" * 32))
    assert run("verify", store.uri, "--manifest", changed, "--models", models)


def test_the_clips_of_each_kept_manifest_stay(
    store: Store, changed: Path, manifest: Path, models: Path, run: Runner
) -> None:
    keep = ("--keep", changed, "--keep", manifest)
    text = run("prune", store.uri, *keep, "--models", models, "--delete")
    assert f"7 clips of {changed}, {manifest} stay" in text
    assert len(committed_ids(store)) == 5


def test_young_clips_and_those_that_cannot_be_read_are_spared(
    store: Store, changed: Path, models: Path, clips: list[ClipSpec], run: Runner, tmp_path: Path
) -> None:
    store.put(record_key(clips[0].clip_id), b'{"schema_version": 2}', JSON)
    let_age(tmp_path / "out")
    store.put(name_key(clips[1].clip_id, "young"), b"{}", JSON)
    command = ("prune", store.uri, "--keep", changed, "--models", models, "--delete")
    text = run(*command, code=EXIT_FINDINGS)
    assert "spared: 1 clip younger than --older-than" in text
    assert f"spared: {clips[0].clip_id}: records/{clips[0].clip_id}.json: schema_version" in text
    assert {clips[0].clip_id, clips[1].clip_id} <= committed_ids(store)
    assert "removed 3 clips" in text


def test_nothing_is_removed_by_the_manifest_of_another_output(
    store: Store, models: Path, run: Runner, tmp_path: Path
) -> None:
    let_age(tmp_path / "out")
    other = write(tmp_path / "other.jsonl", [{"prompt": "a ship"}])
    for delete in ((), ("--delete",)):
        command = ("prune", store.uri, "--keep", other, "--models", models, *delete)
        assert "has none of the 1 clips" in run(*command, code=EXIT_REFUSED)
    assert len(committed_ids(store)) == 3


def test_nothing_is_removed_if_the_ids_of_a_manifest_are_not_known(
    store: Store, models: Path, run: Runner, tmp_path: Path
) -> None:
    (models / "gone.yaml").write_text(weights.YAML.format(source="./nowhere"))
    broken = write(tmp_path / "gone.jsonl", [*ROWS, {"prompt": "x", "model": "gone"}])
    random = write(tmp_path / "random.jsonl", [*ROWS, {"prompt": "x", "seed": "random"}])
    for path, message in ((broken, "nothing can be pruned"), (random, "has random seeds")):
        command = ("prune", store.uri, "--keep", path, "--models", models, "--delete")
        assert message in run(*command, code=EXIT_REFUSED)
    assert len(committed_ids(store)) == 3


def test_nothing_is_removed_beside_a_run_and_a_look_says_that_it_is_under_way(
    store: Store, changed: Path, models: Path, run: Runner
) -> None:
    lease = Lease.take(store, "20260131-120000-abcdef", 60)
    command = ("prune", store.uri, "--keep", changed, "--models", models)
    assert run(*command).startswith("a run is under way, and this may change: ")
    assert "20260131-120000-abcdef" in run(*command, "--delete", code=ExitCode.BUSY)
    assert len(committed_ids(store)) == 5
    lease.release()
    assert "removed" in run(*command, "--delete")


# export


def test_export_chooses_clips_and_names_their_files(
    store: Store, run: Runner, tmp_path: Path
) -> None:
    run("export", store.uri, tmp_path / "foxes", "--prompt", "*fox", "--name", "{name}_{method}")
    assert sorted(path.name for path in (tmp_path / "foxes").iterdir()) == [
        "fox-1_nag.mp4", "fox-2_vsf.mp4",
    ]  # fmt: skip


def test_records_of_the_fixture_are_of_the_kinds_that_are_written(store: Store) -> None:
    kinds = {FailureRecord: "failures/", QuarantineRecord: "quarantine/"}
    for kind, prefix in kinds.items():
        (key,) = store.keys(prefix)
        assert kind.from_json(store.get(key)).request is not None
