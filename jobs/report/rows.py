"""One clip of an output as a row of the gallery, and as the details behind it.

Decides which facts the gallery can show, filter and sort. A pure function of what the store holds
of a clip.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from jobs.overview.clips import OutputClip
from jobs.overview.manifest_row import manifest_row, request_row, row_line
from jobs.records.keys import poster_key, refused_clip_key, thumbnail_key
from jobs.records.listing import ClipObjects
from jobs.records.schema import ClipRecord, FailureRecord
from jobs.records.strict_json import from_dataclass
from jobs.report.scripts import INTERNED, PLAIN, STAGES
from nag.params import NagParams
from pipelines.clip_inputs import InputFiles
from pipelines.request import GenerationRequest

MAX_MESSAGE = 500  # characters of a failure's first line in a row; the details have all of it
TIME_DIGITS = 4
DIGEST_DIGITS = 6
ALWAYS_SHOWN = {"nag_scale", "nag_tau", "nag_alpha", "vsf_scale", "vsf_bias", "nasa_scale"}
EMPTY_ROW: dict[str, Any] = dict.fromkeys((*PLAIN, *INTERNED))


@dataclass(frozen=True)
class Entry:
    """A clip in the gallery: its row, and the details that the page loads on demand."""

    row: Mapping[str, Any]
    details: Mapping[str, Any]


def seen_of(clip: ClipObjects) -> str:
    """Return the fingerprint of a clip's objects, as the store lists them."""
    listed = sorted(f"{one.stored.key} {one.stored.num_bytes} {one.stored.modified_at}"
                    for one in clip.objects)  # fmt: skip
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:16]


def entry_of(clip: OutputClip, seen: str) -> Entry:
    """Return a clip's place in the gallery.

    Args:
        seen: fingerprint of its objects; empty to read it again at the next refresh.
    """
    keys = {one.stored.key for one in clip.objects.objects}
    row = {**EMPTY_ROW, "meta": {}, "stages": {}, "scores": {}, "seen": seen}
    row |= {"id": clip.clip_id, "name": clip.name, "state": clip.state}
    row["names"] = list(clip.names) if len(clip.names) > 1 else None
    row["num_failures"] = len(clip.failures)
    if (last := clip.quarantine or (clip.failures[-1] if clip.failures else None)) is not None:
        is_attempt = isinstance(last, FailureRecord)
        row |= {
            "run_id": last.run_id,
            "worker": last.worker or None,
            "failed_at": last.failed_at if is_attempt else last.quarantined_at,
            "failure_class": last.failure_class,
            "error_type": last.error_type,
            "message": first_line(last.message),
        }
    if clip.request is not None:
        row |= _requested(clip.request)
    row |= {"model": clip.model_name or None}
    row["scores"] = {name: float(f"{value:.6g}") for name, value in clip.figures.items()}
    if clip.record is not None:
        row |= _committed(clip.record)
    if clip.record is not None and clip.state == "committed":
        own = clip.clip_id, clip.record.sha256
        row["key"] = clip.record.key
        for name, key in (("poster", poster_key(*own)), ("thumbnail", thumbnail_key(*own))):
            row[name] = key if key in keys else None
    details = {
        "record": None if clip.record is None else clip.record.to_json().decode(),
        "row": _row_line(clip),
        "quarantine": from_dataclass(clip.quarantine),
        "failures": [_failure(failure, keys) for failure in clip.failures],
    }
    return Entry(row, details)


def _requested(request: GenerationRequest) -> dict[str, Any]:
    """Return the facts of a request."""
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "method": request.method,
        "guidance": guidance_text(request),
        "loras": ", ".join(f"{one.name} {one.weight:g}" for one in request.loras or ()),
        "inputs": inputs_text(request.inputs),
        "seed": str(request.sampling.seed),
        "steps": request.sampling.num_inference_steps,
        "fps": request.fps,
        "num_frames": request.shape.num_frames,
        "width": request.shape.width,
        "height": request.shape.height,
    }


def _committed(record: ClipRecord) -> dict[str, Any]:
    """Return the facts of a record, besides those of its request."""
    totals_s = record.stage_totals_s
    return {
        "loras": loras_text(record),
        "sound": None if record.audio is None else str(record.audio),
        "run_id": record.run_id,
        "worker": f"{record.worker.host}:{record.worker.pid}",
        "device": record.worker.device,
        "host": record.worker.host,
        "committed_at": record.committed_at,
        "attempts": record.attempt,
        "num_devices": record.parallel.degree,
        "busy_s": round(record.device_time.busy_s, TIME_DIGITS),
        "idle_s": round(record.device_time.idle_s, TIME_DIGITS),
        "peak_memory_bytes": record.peak_memory_bytes,
        "num_bytes": record.num_bytes,
        "meta": dict(record.meta),
        "stages": {name: round(totals_s[name], TIME_DIGITS) for name in STAGES if name in totals_s},
    }


def _row_line(clip: OutputClip) -> str | None:
    """Return the line of a manifest that asks for a clip; None if its request is not known."""
    if clip.record is not None:
        return row_line(manifest_row(clip.record))
    if clip.request is None:
        return None
    row = request_row(clip.model_name, clip.request, clip.output)
    return row_line({"name": clip.name, **row})


def _failure(failure: FailureRecord, keys: set[str]) -> dict[str, Any]:
    key = refused_clip_key(failure.clip_id, failure.run_id, failure.attempt)
    return {**from_dataclass(failure), "clip": key if key in keys else None}


def guidance_text(request: GenerationRequest) -> str:
    """Return the guidance parameters that have an effect, such as "nag_scale 9, nag_alpha 0.25"."""
    parts: list[str] = []
    if request.has_cfg:
        parts.append(f"guidance_scale {request.sampling.guidance_scale:g}")
    if (params := request.attention_params) is not None:
        for one in fields(params):
            value = getattr(params, one.name)
            if one.name in ALWAYS_SHOWN or value != getattr(NagParams, one.name, None):
                parts.append(f"{one.name} {value if isinstance(value, str) else f'{value:g}'}")
    if request.sampling.flow_shift is not None:
        parts.append(f"flow_shift {request.sampling.flow_shift:g}")
    return ", ".join(parts)


def inputs_text(inputs: InputFiles) -> str:
    """Return the images and videos of a clip, such as "shoes.png 3fa9c1".

    The beginning of the digest tells files of one name apart.
    """
    return ", ".join(f"{file.name} {file.sha256[:DIGEST_DIGITS]}" for file in inputs.files())


def loras_text(record: ClipRecord) -> str:
    """Return the LoRAs of a clip with their weights, such as "style 0.8, detail 1"."""
    chosen = record.request.loras
    if chosen is not None:
        return ", ".join(f"{one.name} {one.weight:g}" for one in chosen)
    return ", ".join(
        f"{one.source.rpartition('/')[2].removeprefix('folder:')} {one.weight:g}"
        for one in record.model.loras
    )


def first_line(message: str) -> str:
    """Return the first line of a message, cut."""
    line = message.strip().partition("\n")[0]
    return line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]}..."
