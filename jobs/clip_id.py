"""The id of a clip. Loads without torch.

An id is a hash of everything that decides the pixels: the model's identity and the whole request.
It never depends on the clip's name, its row in a manifest, a worker or a clock.

Every value counts as it is written. A `nag_tau` that has no effect because `nag_scale` is 1 or the
negative prompt is empty still makes another id. The model decides which values have an effect, and
that may change with the model. An id that is too fine costs one more render; an id that is too
coarse serves the wrong clip.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, get_args, get_type_hints

from jobs.types import BrokenClip, LoraIdentity, ModelIdentity
from pipelines.request import GenerationRequest

CLIP_ID_SCHEMA = 2  # raise it when the same values begin to give other pixels
NUM_HEX_DIGITS = 32

# Fields of `ModelIdentity` that were added after the first clips had ids. Their defaults stand for
# the behaviour before them. A field with its default is left out of the id, so that old clips keep
# their ids and are not rendered again. Every further field belongs here.
LATER_FIELDS = frozenset({"first_block_cache", "compile", "vae_tiling"})
_LATER_DEFAULTS = {
    field.name: field.default for field in fields(ModelIdentity) if field.name in LATER_FIELDS
}

_ENCODE = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
).encode


def clip_id(model: ModelIdentity, request: GenerationRequest) -> str:
    """Return 32 hex digits of the SHA-256 of the canonical JSON of `model` and `request`."""
    of_request = _canonical(replace(request, loras=None))
    del of_request["loras"]  # names, for LoRAs that are part of `model`
    document = {"schema": CLIP_ID_SCHEMA, "model": _model(model), "request": of_request}
    return hashlib.sha256(_ENCODE(document).encode("ascii")).hexdigest()[:NUM_HEX_DIGITS]


def identify(
    model: ModelIdentity, loras: Mapping[str, LoraIdentity], request: GenerationRequest
) -> ModelIdentity:
    """Return the identity of a model with the LoRAs that a request chooses.

    Args:
        loras: every LoRA of the model, by name.
    """
    if request.loras is None:
        return model
    chosen = (replace(loras[one.name], weight=one.weight) for one in request.loras)
    return replace(model, loras=tuple(chosen))


def stand_in_id(name: str) -> str:
    """Return an id for a clip whose model is missing or broken, so that it has no id of its own.

    It follows from the clip's name alone. So a later plan whose model is whole finds it again.
    """
    return hashlib.sha256(f"no model\0{name}".encode()).hexdigest()[:NUM_HEX_DIGITS]


def broken_clip(name: str, model: str, error: Exception, message: str) -> BrokenClip:
    """Return the clip of a row whose model is missing or broken, under its stand-in id."""
    return BrokenClip(
        clip_id=stand_in_id(name),
        name=name,
        failure_class="request",
        error_type=type(error).__name__,
        message=message,
        model=model,
    )


def _model(model: ModelIdentity) -> dict[str, Any]:
    document = _canonical(model)
    for name, default in _LATER_DEFAULTS.items():
        if document[name] == default:
            del document[name]
    return document


def _canonical(value: Any) -> dict[str, Any]:
    """Return a dataclass as nested dictionaries, so that every field counts, also later ones."""
    document: dict[str, Any] = {}
    for name, is_float in _fields(type(value)):
        entry = getattr(value, name)
        if is_float and entry is not None:
            entry = float(entry) + 0.0  # 8 is 8.0, and -0.0 + 0.0 is 0.0
        elif is_dataclass(entry):
            entry = _canonical(entry)
        elif isinstance(entry, tuple):
            entry = [_canonical(one) for one in entry]
        document[name] = entry
    return document


@cache
def _fields(kind: type[Any]) -> tuple[tuple[str, bool], ...]:
    """Return the name of each field of a dataclass, and True if the field is a float."""
    hints = get_type_hints(kind)
    return tuple(
        (field.name, float in (hints[field.name], *get_args(hints[field.name])))
        for field in fields(kind)
    )
