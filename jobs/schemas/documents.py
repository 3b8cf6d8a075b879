"""The documents that have a JSON Schema, by the name under which people ask for it.

`python -m jobs.schemas.documents` writes the schemas into docs/reference/schemas; `nagfarm schema
NAME` prints one.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jobs.manifest.reference import json_schema
from jobs.records.names import NameRecord
from jobs.records.run_file import RunFile
from jobs.records.run_status import RunStatus, RunSummary
from jobs.records.schema import ClipRecord, FailureRecord, QuarantineRecord
from jobs.records.scores.score_record import ScoreRecord
from jobs.schemas.dataclass_schema import Schema, schema_of
from pipelines.catalog.model_config import ModelConfig

FOLDER = Path("docs", "reference", "schemas")
NUMBERS = {"type": "object", "additionalProperties": {"type": "number"}}


def _record() -> Schema:
    """Return the schema of a clip's record, whose JSON also has the sums of its timings."""
    schema = schema_of(ClipRecord, "nagfarm record of a clip", is_written_by_people=False)
    about = {"description": "seconds per stage; always the sums of timings"}
    schema["properties"]["stage_totals_s"] = NUMBERS | about
    schema["required"].append("stage_totals_s")
    return schema


def _model() -> Schema:
    """Return the schema of a model's YAML, whose name is by default that of its file."""
    schema = schema_of(ModelConfig, "nagfarm model", is_written_by_people=True)
    schema["required"].remove("name")
    return schema


def _written(cls: type[Any], title: str) -> Callable[[], Schema]:
    return partial(schema_of, cls, f"nagfarm {title}", is_written_by_people=False)


DOCUMENTS: dict[str, tuple[Callable[[], Schema], str]] = {
    "manifest": (json_schema, "a manifest in YAML; #/$defs/clip is a row in JSONL"),
    "model": (_model, "the YAML of a model"),
    "record": (_record, "records/<clip_id>.json"),
    "failure": (
        _written(FailureRecord, "record of a failure"),
        "failures/<clip_id>/<run_id>-<attempt>.json",
    ),
    "quarantine": (
        _written(QuarantineRecord, "record of a quarantine"),
        "quarantine/<clip_id>.json",
    ),
    "name": (_written(NameRecord, "further name of a clip"), "names/<clip_id>/<name>.json"),
    "score": (
        _written(ScoreRecord, "figures of a clip by one measure"),
        "scores/<clip_id>/<measure>-<digest>.json",
    ),
    "run": (_written(RunFile, "description of a run"), "runs/<run_id>/run.json"),
    "status": (_written(RunStatus, "status of a run"), "runs/<run_id>/status.json"),
    "summary": (_written(RunSummary, "summary of a run"), "runs/<run_id>/summary.json"),
}

OWN = tuple(name for name in DOCUMENTS if name != "manifest")  # its file is the manifest's own


def schema_text(name: str) -> str:
    """Return the JSON Schema of a document as text."""
    make, _ = DOCUMENTS[name]
    return json.dumps(make(), indent=2, ensure_ascii=False) + "\n"


def file_name(name: str) -> str:
    return f"{name}.schema.json"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in OWN:
        (FOLDER / file_name(name)).write_text(schema_text(name), encoding="utf-8")


if __name__ == "__main__":
    main()
