"""One row of a manifest, its mappings `guidance` and `parallel`, and the request that it makes.

`guidance: {method: vsf, vsf_scale: 2}` means `method: vsf` and `vsf_scale: 2` beside the other
fields. `parallel: {ulysses: 2, ring: 2}` is one value: it replaces a default's or the model's as a
whole, and a field that it leaves out is 1. So `parallel: {}` asks for one device. CSV has the
fields of both as columns. `pipelines.context_parallel.divisibility` checks whether the model and
the size allow the group.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from jobs.errors import RowValueError
from jobs.manifest.field_values import check_value
from jobs.manifest.fields import (
    FIELDS,
    GUIDANCE,
    GUIDANCE_FIELDS,
    PARALLEL,
    PARALLEL_FIELDS,
    REQUEST_PARTS,
    RowLabels,
)
from jobs.manifest.lines import SourceLocation
from jobs.text import shown, unknown
from jobs.types import LoraIdentity, ModelIdentity
from pipelines.catalog.folder_facts import FolderFacts
from pipelines.catalog.keys.lora_config import choose_loras
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.tokenizer import Tokenizer
from pipelines.clip_inputs import NO_FILES
from pipelines.context_parallel.divisibility import check_parallel
from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.errors import ModelConfigError, RequestError
from pipelines.parallel_config import ParallelConfig
from pipelines.request import CFG_METHODS, GenerationRequest

# The defaults of fields that a model's YAML does not have.
FIXED_DEFAULTS = {
    "negative_prompt": "",
    "seed": 0,
    "text": "refuse",
    "loras": None,
    "audio": True,
    **vars(NO_FILES),
}
_PLAIN_FIELDS = tuple(name for name, one in FIELDS.items() if one.owner is GenerationRequest)
_PART_FIELDS = {
    part: tuple(one.name for one in fields(owner)) for part, owner in REQUEST_PARTS.items()
}
# A million rows share a few sizes and parameters.
_BUILDERS = {part: lru_cache(maxsize=1024)(owner) for part, owner in REQUEST_PARTS.items()}


@dataclass(frozen=True)
class Given:
    """A value and the line that gives it."""

    value: Any
    location: SourceLocation


def _no_location(_field: str) -> None:
    return None


class Row(NamedTuple):
    """The values of one row, each checked by itself.

    Args:
        location: line of the row.
        find_location: returns the line of one field, or None if it is the line of the row.
    """

    values: dict[str, Any]
    location: SourceLocation
    find_location: Callable[[str], SourceLocation | None] = _no_location

    def location_of(self, name: str) -> SourceLocation:
        """Return the line that gives field `name`, or else the line of the row."""
        return self.find_location(name) or self.location


NumberedRow = tuple[int, Row]  # with the number of the row in the manifest, from 0


class CatalogedModel(Protocol):
    """The part of a model of the catalog that a row needs."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def identity(self) -> ModelIdentity: ...

    @property
    def loras(self) -> Mapping[str, LoraIdentity]:
        """Return every LoRA of the model's YAML, by name."""
        ...

    @property
    def geometry(self) -> ModelGeometry: ...

    @property
    def facts(self) -> FolderFacts: ...

    @property
    def tokenizer(self) -> Tokenizer: ...


class Catalog(Protocol):
    """The part of `jobs.manifest.model_catalog.ModelCatalog` that a manifest needs."""

    def get(self, name: str, /) -> CatalogedModel: ...


def name_model(given: Mapping[str, Any]) -> str:
    """Return the name of a row's model."""
    if "model" not in given:
        raise RowValueError("model is missing: give one for all clips, or one in every row")
    return given["model"]


def model_defaults(config: ModelConfig) -> dict[str, Any]:
    """Return the values of the fields that a manifest leaves out, by the YAML of its model."""
    sections = (config.sampling, config.scheduler, config.nag, config.vsf, config.nasa, config)
    from_model = {
        name: getattr(section, name)
        for section in reversed(sections)
        for name, one in FIELDS.items()
        if one.owner is not RowLabels and hasattr(section, name)
    }
    return from_model | FIXED_DEFAULTS


def defaults_without_cfg(config: ModelConfig) -> dict[str, Any]:
    """Return the defaults of fields that act on classifier-free guidance, for clips without it."""
    off = {"guidance_scale": 1.0, "guidance_scale_2": None}
    return off if config.ltx2_guidance.num_passes else {**off, "guidance_rescale": 0.0}


def make_request(
    given: Mapping[str, Any], defaults: Mapping[str, Any], without_cfg: Mapping[str, Any]
) -> GenerationRequest:
    """Return the request of a row.

    Args:
        given: values of the row and of the manifest's defaults.
        defaults: values of the model (`model_defaults`).
        without_cfg: values in their place for the methods without classifier-free guidance
            (`defaults_without_cfg`). A given `guidance_scale` is used as it is, so that the
            request refuses it for such a method.

    Raises:
        RequestError, NagParameterError: a value is outside its range.
        RowValueError: the prompt is missing.
    """
    if "prompt" not in given:
        raise RowValueError("prompt is missing")
    values = {**defaults, **given}
    if values["method"] not in CFG_METHODS:
        values = {**defaults, **without_cfg, **given}
    parts = {
        part: build(*(values[name] for name in _PART_FIELDS[part]))
        for part, build in _BUILDERS.items()
    }
    return GenerationRequest(**{name: values[name] for name in _PLAIN_FIELDS}, **parts)


def check_guidance_field(name: str, others: Container[str]) -> None:
    """Refuse a key of `guidance` that is not one of its fields, or that stands beside it too.

    Args:
        others: names of the fields beside `guidance`.
    """
    if name in FIELDS and name not in GUIDANCE_FIELDS:
        raise RowValueError(f"{name} is not a field of {GUIDANCE}; give it beside {GUIDANCE}")
    if name not in GUIDANCE_FIELDS:
        raise RowValueError(unknown(f"field of {GUIDANCE}", name, GUIDANCE_FIELDS))
    if name in others:
        raise RowValueError(f"{name} is given twice, in {GUIDANCE} and beside it; give it once")


def with_guidance_fields(document: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON object in which the fields of `guidance` stand beside the others."""
    if GUIDANCE not in document:
        return document
    others = {name: value for name, value in document.items() if name != GUIDANCE}
    guidance = document[GUIDANCE]
    if not isinstance(guidance, dict):
        raise RowValueError(
            f'{GUIDANCE} must be an object, such as {{"method": "vsf"}}, not {shown(guidance)}'
        )
    for name in guidance:
        check_guidance_field(name, others)
    return others | guidance


def check_parallel_field(name: str) -> None:
    """Refuse a key of `parallel` that is not one of its fields."""
    if name not in PARALLEL_FIELDS:
        raise RowValueError(unknown(f"field of {PARALLEL}", name, PARALLEL_FIELDS))


def make_parallel(values: Mapping[str, Any]) -> ParallelConfig:
    """Return the value of `parallel` from fields whose types are checked.

    Raises:
        RowValueError: a value is outside its range, or two values contradict each other.
    """
    try:
        return ParallelConfig(**values)
    except ModelConfigError as error:
        raise RowValueError(str(error)) from error


def read_parallel(document: object) -> ParallelConfig:
    """Return the value of `parallel` from its JSON."""
    if not isinstance(document, dict):
        raise RowValueError(
            f'{PARALLEL} must be an object, such as {{"ulysses": 2}}, not {shown(document)}'
        )
    for name in document:
        check_parallel_field(name)
    return make_parallel({name: check_value(name, value) for name, value in document.items()})


def with_parallel(values: dict[str, Any]) -> dict[str, Any]:
    """Return the cells of a CSV row with the columns of `parallel`, if any, as one value."""
    given = {name: values[name] for name in PARALLEL_FIELDS if name in values}
    if not given:
        return values
    others = {name: value for name, value in values.items() if name not in given}
    return others | {PARALLEL: make_parallel(given)}


def with_loras(given: dict[str, Any], model: CatalogedModel) -> dict[str, Any]:
    """Return the values of a row with the LoRAs that it chooses among those of its model.

    Raises:
        RequestError: the model has no such LoRA.
    """
    written, weight = given.get("loras"), given.get("lora_weight")
    if written is None and weight is None:
        return given
    return {**given, "loras": choose_loras(model.config.loras, written, weight)}


def choose_parallel(
    given: Mapping[str, Any], model: CatalogedModel, request: GenerationRequest
) -> ParallelConfig:
    """Return the group that renders a row, by the row or else by the YAML of its model.

    The geometry of the model is read only if there is a group.
    """
    parallel = given.get(PARALLEL, model.config.parallel)
    if parallel.degree == 1:
        return parallel
    try:
        geometry = model.geometry
        if references := request.inputs.reference_images:  # a frame of tokens each
            geometry = replace(geometry, num_references=len(references))
        check_parallel(parallel, geometry, request.shape, model.config)
    except RequestError as error:
        if PARALLEL in given:
            raise
        remedy = "a row may ask for another group, or for one device with parallel: {}"
        message = f"{error} (the model's YAML asks for it; {remedy})"
        raise RequestError.of(message, *error.fields, "model") from error
    return parallel
