"""The names of exported files, made of the values of a clip: `{name}_{seed}`.

Decides which values there are and how each is written. Every value comes from a record, and so from
whoever can write to the store: it is made safe before it is put in.
"""

import re
from dataclasses import dataclass

from jobs.errors import RefusedError
from jobs.export.file_names import safe_part
from jobs.records.schema import ClipRecord
from jobs.text import shown, unknown

FIELDS = {
    "name": "name of the clip; one with several names becomes several files",
    "id": "id of the clip",
    "model": "name of the model",
    "method": "guidance method",
    "seed": "seed",
    "steps": "number of denoising steps",
    "scale": "strength of the guidance: guidance_scale, nag_scale, vsf_scale or nasa_scale",
    "prompt": "first 60 characters of the prompt",
    "negative_prompt": "first 60 characters of the negative prompt; none without one",
    "size": "width x height, such as 832x480",
    "frames": "number of frames",
    "fps": "frames per second",
    "run": "the run that rendered it",
    "date": "day of the commit in UTC, such as 2026-01-31",
    "meta.NOTE": "a note of the clip; none without it",
}
NOTE = "meta."
NONE = "none"  # in the place of a value that a clip does not have
MAX_PART_CHARACTERS = 60
_FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class NameTemplate:
    """A pattern of file names, without suffix.

    Raises:
        RefusedError: it has an unknown field, a brace alone, or characters that no file name has.
    """

    text: str = "{name}"

    def __post_init__(self) -> None:
        for field in _FIELD.findall(self.text):
            if field not in FIELDS and not (field.startswith(NOTE) and field != NOTE):
                raise RefusedError(f"--name: {unknown('field', field, FIELDS)}")
        rest = _FIELD.sub("", self.text)
        if not re.fullmatch(r"[A-Za-z0-9._-]*", rest) or self.text.startswith((".", "-")):
            raise RefusedError(
                "--name: expected letters, digits, '.', '_', '-' and fields such as {name} and "
                f"{{seed}}, not beginning with '.' or '-', got {shown(self.text)}"
            )
        if not _FIELD.search(self.text):
            raise RefusedError(
                f"--name: expected a field such as {{name}}, got {shown(self.text)}: all clips "
                "would have the same name"
            )

    @property
    def is_name(self) -> bool:
        """Return True if files have the names of their clips as they are."""
        return self.text == "{name}"

    def fill(self, name: str, record: ClipRecord) -> str:
        """Return the name of a clip's file.

        Args:
            name: one of the clip's names.
        """
        if self.is_name:
            return name
        return _FIELD.sub(lambda found: _value(found[1], name, record), self.text)


def _value(field: str, name: str, record: ClipRecord) -> str:
    if field == "name":
        return safe_part(name)
    if field.startswith(NOTE):
        value = record.meta.get(field.removeprefix(NOTE), "")
    else:
        value = _values(record)[field]
    return safe_part(value[:MAX_PART_CHARACTERS]) or NONE


def _values(record: ClipRecord) -> dict[str, str]:
    request, sampling = record.request, record.request.sampling
    return {
        "id": record.clip_id,
        "model": record.model.name,
        "method": request.method,
        "seed": str(sampling.seed),
        "steps": str(sampling.num_inference_steps),
        "scale": _scale(record),
        "prompt": request.prompt.strip(),
        "negative_prompt": request.negative_prompt.strip(),
        "size": f"{record.width}x{record.height}",
        "frames": str(record.num_frames),
        "fps": f"{record.fps:g}",
        "run": record.run_id,
        "date": record.committed_at[:10],
    }


def _scale(record: ClipRecord) -> str:
    request = record.request
    scales = {
        "cfg": request.sampling.guidance_scale,
        "cfg+nag": request.nag.nag_scale,
        "nag": request.nag.nag_scale,
        "vsf": request.vsf.vsf_scale,
        "nasa": request.nasa.nasa_scale,
    }
    scale = scales.get(request.method)
    return "" if scale is None else f"{scale:g}"
