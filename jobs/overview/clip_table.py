"""A clip of an output as one row of a table: the columns of `nagfarm list`.

Decides the columns, their order and their texts. `jobs.tables` has whole records, with stages.
"""

import json
from typing import Any

from jobs.escaping import csv_text
from jobs.overview.clips import OutputClip
from jobs.records.schema import FailureRecord

COLUMNS = {
    "name": "first name of the clip",
    "clip_id": "id of the clip",
    "state": "committed, damaged, quarantined or failed",
    "model": "name of the model",
    "method": "guidance method",
    "prompt": "prompt",
    "negative_prompt": "negative prompt",
    "seed": "seed",
    "num_inference_steps": "denoising steps",
    "guidance_scale": "scale of classifier-free guidance",
    "width": "pixels",
    "height": "pixels",
    "num_frames": "frames",
    "fps": "frames per second",
    "sound": "codec, sample rate and channels of its sound; empty without sound",
    "key": "key of the MP4 in the output; empty without a record",
    "uri": "URI of the MP4, as its record has it",
    "num_bytes": "size of the MP4",
    "run_id": "the run that committed, quarantined or last failed at the clip",
    "at": "time of the commit, the quarantine or the last failure",
    "failure_class": "class of the failure of a clip without a record",
    "error_type": "class of its error",
    "message": "text of its error",
    "names": "every name of the clip",
    "meta": "notes of its row",
}


def table_row(clip: OutputClip) -> dict[str, Any]:
    """Return the value of each column as JSON; a value that is not known is None."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"name": clip.name, "clip_id": clip.clip_id, "state": clip.state}
    row |= {"model": clip.model_name or None, "names": list(clip.names), "key": ""}
    if clip.request is not None:
        row |= {
            name: getattr(part, name)
            for part in (clip.request, clip.request.shape, clip.request.sampling)
            for name in COLUMNS
            if hasattr(part, name)
        }
    if (record := clip.record) is not None:
        row |= {name: getattr(record, name) for name in ("key", "uri", "num_bytes", "run_id")}
        row["sound"] = None if record.audio is None else str(record.audio)
        return row | {"at": record.committed_at, "meta": dict(record.meta)}
    last = clip.quarantine or clip.failures[-1]
    row |= {name: getattr(last, name) for name in ("failure_class", "error_type", "message")}
    at = last.failed_at if isinstance(last, FailureRecord) else last.quarantined_at
    return row | {"run_id": last.run_id, "at": at}


def text_cells(row: dict[str, Any]) -> list[str]:
    """Return a row's values as texts for CSV: names between spaces, notes as JSON.

    No text is one that a spreadsheet would run as a formula.
    """
    return [_text(value) for value in row.values()]


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case list():
            return csv_text(" ".join(map(str, value)))
        case dict():
            return json.dumps(value, ensure_ascii=False) if value else ""
        case str():
            return csv_text(value)
        case _:
            return str(value)
