"""The mapping `guidance`, in which a row of YAML or JSONL may give its guidance fields together.

`guidance: {method: vsf, vsf_scale: 2}` says what `method: vsf` and `vsf_scale: 2` say beside the other fields. Here the
two ways become one; which fields there are and what they may hold is decided in `rows`.
"""

from collections.abc import Container
from typing import Any

from jobs.manifest.rows import FIELD_TYPES, GUIDANCE, GUIDANCE_FIELDS, RowValueError
from jobs.text import shown, unknown


def check_guidance_field(name: str, others: Container[str]) -> None:
    """Refuses a key of `guidance` that is none of its fields, or that is given beside it too.

    Args:
        others: the fields beside `guidance`.
    """
    if name in FIELD_TYPES and name not in GUIDANCE_FIELDS:
        raise RowValueError(f"{name} is no field of guidance; give it beside guidance")
    if name not in GUIDANCE_FIELDS:
        raise RowValueError(unknown("field of guidance", name, GUIDANCE_FIELDS))
    if name in others:
        raise RowValueError(f"{name} is given twice, in guidance and beside it; give it once")


def with_guidance_fields(document: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with the fields of its `guidance` among its own."""
    if GUIDANCE not in document:
        return document
    others = {name: value for name, value in document.items() if name != GUIDANCE}
    guidance = document[GUIDANCE]
    if not isinstance(guidance, dict):
        raise RowValueError(
            f'guidance must be an object, such as {{"method": "vsf"}}, not {shown(guidance)}'
        )
    for name in guidance:
        check_guidance_field(name, others)
    return others | guidance
