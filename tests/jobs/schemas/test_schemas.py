"""The JSON Schemas agree with their dataclasses, with the committed files and with documents."""

import copy
import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jobs.cli.main import main
from jobs.errors import RecordError
from jobs.manifest.reference import SCHEMA_FILE
from jobs.records.names import NameRecord
from jobs.records.run_file import ManifestIdentity, RunFile
from jobs.records.run_status import RunStop, RunSummary
from jobs.records.schema import ClipRecord, FailureRecord, QuarantineRecord, utc_iso
from jobs.schemas.documents import DOCUMENTS, FOLDER, OWN, file_name, schema_text
from jobs.settings.run_config import RunConfig
from jobs.types import StageTiming
from pipelines.catalog.model_yaml import load_model_config
from pipelines.errors import ModelConfigError
from tests.builders.records import AT_S, RUN_ID, failure_of, quarantine_of, record_of
from tests.builders.specs import MODEL
from tests.fakes.store import MemoryStore
from tests.jobs.cli.test_status import status_of

ROOT = Path(__file__).parents[3]
CLIP_ID = "0123456789abcdef" * 2
MODELS = sorted((ROOT / "configs" / "models").glob("*.yaml"))
MARK = "# yaml-language-server: $schema="


def problems(name: str, document: object) -> list[str]:
    return [error.message for error in validator_of(name).iter_errors(document)]


@cache
def validator_of(name: str) -> Any:
    schema: dict[str, Any] = json.loads(schema_text(name))
    return jsonschema.Draft202012Validator(schema)


def full_record() -> ClipRecord:
    timings = (StageTiming("queue", AT_S, 0.5), StageTiming("denoise", AT_S, 1.0, 0))
    return replace(record_of(MemoryStore(), b"video", CLIP_ID), timings=timings)


def run_file() -> RunFile:
    return RunFile(
        run_id=RUN_ID,
        started_at=utc_iso(AT_S),
        output="s3://renders/spring",
        output_day=None,
        deadline=None,
        manifest=ManifestIdentity("spring", "0" * 64),
        num_clips=3,
        num_done_before=0,
        num_pending=3,
        config=RunConfig(),
        models=(MODEL,),
        versions={"torch": "2.13.0"},
        nodes=({"node_id": "a", "host": "host-a", "resources": {"CPU": 2.0}},),
    )


def documents() -> dict[str, dict[str, Any]]:
    """Return a document of each kind, as it lies in the store."""
    stopped = replace(status_of(), state="stopped", stop=RunStop("StoppedError", "by SIGTERM"))
    summary = RunSummary.of(stopped, {"denoise": 1.0}, 3)
    name = NameRecord(CLIP_ID, "vixen", {"shot": "12"}, utc_iso(AT_S))
    return {
        "record": json.loads(full_record().to_json()),
        "failure": json.loads(failure_of(CLIP_ID).to_json()),
        "quarantine": json.loads(quarantine_of(CLIP_ID).to_json()),
        "name": json.loads(name.to_json()),
        "run": json.loads(json.dumps(run_file().document())),
        "status": json.loads(stopped.to_json()),
        "summary": json.loads(json.dumps(asdict(summary))),
        "model": yaml.safe_load(MODELS[0].read_text()),
    }


@pytest.mark.parametrize("name", OWN)
def test_the_committed_schema_is_the_one_of_the_code(name: str) -> None:
    committed = (ROOT / FOLDER / file_name(name)).read_text(encoding="utf-8")
    assert committed == schema_text(name), "run python -m jobs.schemas.documents"
    jsonschema.Draft202012Validator.check_schema(json.loads(committed))


def test_each_document_is_valid_and_each_field_is_required_and_known() -> None:
    for name, document in documents().items():
        assert problems(name, document) == [], name
        assert problems(name, document | {"other": 1}), name
        if name == "model":
            continue
        for field in document:
            rest = {key: value for key, value in document.items() if key != field}
            assert problems(name, rest) == [f"{field!r} is a required property"], name


def test_schema_and_reader_agree_about_values_of_other_types() -> None:
    """Each field in turn becomes a text, a number, a list and null."""
    readers = {
        "record": ClipRecord.from_json,
        "failure": FailureRecord.from_json,
        "quarantine": QuarantineRecord.from_json,
    }
    num_refused = 0
    for name, read in readers.items():
        document = documents()[name]
        for path in paths_of(document):
            if path[0] in ("stage_totals_s", "key", "uri"):  # the reader compares them with others
                continue
            for value in ("no", 1, ["no"], None):
                changed = with_value(document, path, value)
                if problems(name, changed):
                    num_refused += 1
                    with pytest.raises(RecordError):
                        read(json.dumps(changed).encode())
    assert num_refused > 200


def paths_of(document: dict[str, Any]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, value in document.items():
        found.append((name,))
        if isinstance(value, dict) and name not in ("meta", "versions"):
            found += [(name, *path) for path in paths_of(value)]
    return found


def with_value(document: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    parent = changed
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = value
    return changed


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_the_yaml_of_each_model_is_valid_and_names_its_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert problems("model", yaml.safe_load(text)) == []
    named = (path.parent / text.partition("\n")[0].removeprefix(MARK)).resolve()
    assert named == ROOT / FOLDER / file_name("model")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")))
def test_each_example_is_valid_and_names_its_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert problems("manifest", yaml.safe_load(text)) == []
    named = (path.parent / text.partition("\n")[0].removeprefix(MARK)).resolve()
    assert named == ROOT / "docs" / "reference" / SCHEMA_FILE


@pytest.mark.parametrize(
    ("line", "field"),
    [("family: sora", "sora"), ("steps: 3", "steps"), ("grid: {num_frames: 4}", "height")],
)
def test_schema_and_reader_refuse_the_same_yaml(line: str, field: str, tmp_path: Path) -> None:
    whole = MODELS[0].read_text(encoding="utf-8")
    key = line.partition(":")[0]
    lines = [one for one in whole.splitlines() if not one.startswith(f"{key}:")]
    text = "\n".join([*lines, line])
    assert field in " ".join(problems("model", yaml.safe_load(text)))
    (tmp_path / MODELS[0].name).write_text(text)
    with pytest.raises(ModelConfigError):
        load_model_config(tmp_path / MODELS[0].name)


def test_the_command_prints_the_schema_of_each_document(capsys: pytest.CaptureFixture[str]) -> None:
    for name in DOCUMENTS:
        assert main(["schema", name]) == 0
        assert capsys.readouterr().out == schema_text(name)
