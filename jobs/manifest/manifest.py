"""A manifest: a YAML, JSONL or CSV file that says which clips there are to be. Loads without torch.

A field's value is the row's, or else the axes', or else the manifest's default, or else the model's YAML's.

Rows are streamed and can be walked again; a million of them are never held. What is held is one 16-byte digest a clip
and one a given name, to find duplicates. `flat` and `yaml_manifest` read; here a row becomes a `ClipSpec`, and every
fault a `ManifestError` with file and line.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jobs.errors import ManifestError, UnknownModelError
from jobs.manifest.clip_id import clip_id
from jobs.manifest.digests import DIGEST_BYTES, DigestSet
from jobs.manifest.flat_manifest import FlatFile, open_flat_file, read_csv, read_jsonl
from jobs.manifest.lines import Place
from jobs.manifest.rows import (
    PARALLEL,
    Given,
    Row,
    RowValueError,
    check_name,
    make_request,
    model_defaults,
)
from jobs.manifest.values_file import ReadS3
from jobs.manifest.yaml_manifest import YamlFile, open_yaml_file
from jobs.text import shown
from jobs.types import ClipSpec, ModelIdentity
from nag.errors import NagParameterError
from pipelines.catalog.model_config import ModelConfig
from pipelines.context_parallel.divisibility import check_parallel
from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.errors import PipelineError, RequestError
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GenerationRequest

MAX_RUN_NAME_CHARACTERS = 100  # leaves room for the index in a clip's name


class CatalogedModel(Protocol):
    @property
    def config(self) -> ModelConfig: ...

    @property
    def identity(self) -> ModelIdentity: ...

    @property
    def geometry(self) -> ModelGeometry: ...


class Catalog(Protocol):
    """What a manifest asks of `jobs.manifest.model_catalog.ModelCatalog`."""

    def get(self, name: str, /) -> CatalogedModel: ...


@dataclass(frozen=True)
class RepeatedRow:
    """A row without a name of its own whose clip an earlier row has already asked for."""

    clip_id: str
    place: Place


@dataclass(frozen=True, eq=False)
class Manifest:
    """The clips of one manifest.

    Args:
        digest: SHA-256 of the manifest's bytes, followed by the SHA-256 of each file that an axis names.
        defaults: fields that a row need not give.
    """

    name: str
    output: str | None
    path: Path
    digest: str
    defaults: dict[str, Given]
    _source: FlatFile | YamlFile
    _catalog: Catalog

    def specs(self) -> Iterator[ClipSpec]:
        """Every clip once, in the manifest's order.

        Raises:
            ManifestError: at the first row that is wrong.
        """
        return (row for row in self.rows() if isinstance(row, ClipSpec))

    def rows(self) -> Iterator[ClipSpec | RepeatedRow]:
        """Every row, as the clip that it asks for or as a repeat of an earlier one.

        A clip has the name of the first row that asks for it. Rows without a name may repeat it; a later row that
        gives it a name is refused, as one of the two names would be lost.

        Raises:
            ManifestError: at the first row that is wrong; at the end when there was no row at all.
        """
        clips, names = DigestSet(), DigestSet()
        index = -1
        for index, (row, spec) in enumerate(self._resolved_rows()):
            is_named = "name" in row.values
            if is_named and not names.add(_name_digest(spec.name)):
                first = self._place_of_first(
                    lambda spec, name=spec.name: spec.name == name, before=index
                )
                raise _place_of("name", row).refuse(
                    f"the name {spec.name!r} is taken by the clip at {first}"
                )
            if clips.add(bytes.fromhex(spec.clip_id)):
                yield spec
                continue
            if is_named:
                first = self._place_of_first(
                    lambda spec, key=spec.clip_id: spec.clip_id == key, before=index
                )
                raise _place_of("name", row).refuse(
                    f"the clip {spec.name!r} is the same as the one at {first}; one clip has one name"
                )
            yield RepeatedRow(spec.clip_id, row.place)
        if index < 0:
            raise Place(str(self.path), 1).refuse("expected at least one clip, there is none")

    def _resolved_rows(self) -> Iterator[tuple[Row, ClipSpec]]:
        defaults = {name: given.value for name, given in self.defaults.items()}
        models: dict[str, tuple[CatalogedModel, dict[str, Any]]] = {}
        for index, row in enumerate(self._source.rows()):
            try:
                given = defaults | row.values
                model_name = _model_name(given)
                if model_name not in models:
                    model = self._catalog.get(model_name)
                    models[model_name] = model, model_defaults(model.config)
                model, fallback = models[model_name]
                request = make_request(given, fallback)
                model.config.check_request(request)
                parallel = _parallel(given, model, request)
                name = self._name_of(row, index)
            except RowValueError as error:
                raise row.place.refuse(str(error)) from error
            except (RequestError, NagParameterError) as error:
                raise self._place_of_first_given(row, error.fields).refuse(str(error)) from error
            except (UnknownModelError, PipelineError) as error:
                raise self._place_of_first_given(row, ("model",)).refuse(str(error)) from error
            yield (
                row,
                ClipSpec(clip_id(model.identity, request), name, model.identity, request, parallel),
            )

    def _name_of(self, row: Row, index: int) -> str:
        own = f"{self.name}-{index:06d}"
        given = row.values.get("name", own)
        if given != own and re.fullmatch(rf"{re.escape(self.name)}-[0-9]{{6,}}", given):
            raise _place_of("name", row).refuse(
                f"name {given!r} is of the kind that rows without a name get; this row's is {own!r}"
            )
        return given

    def _place_of_first_given(self, row: Row, fields: tuple[str, ...]) -> Place:
        """Return the line of the first of `fields` that the manifest gives, or else of the row."""
        for field in fields:
            if field in row.values:
                return _place_of(field, row)
            if field in self.defaults:
                return self.defaults[field].place
        return row.place

    def _place_of_first(self, matches: Callable[[ClipSpec], bool], before: int) -> Place:
        """Looks again for a row that was seen: lines are not remembered."""
        for index, (row, spec) in enumerate(self._resolved_rows()):
            if index < before and matches(spec):
                return _place_of("name", row)
        raise ManifestError(f"{self.path}:1: the file changed after it was opened; plan it again")


def open_manifest(
    path: Path,
    catalog: Catalog,
    read_s3: ReadS3 | None = None,
    *,
    output: str | None = None,
    model: str | None = None,
) -> Manifest:
    """Opens a manifest by its suffix: .yaml or .yml with axes, .jsonl or .csv with one clip a row.

    A YAML manifest is read at once; the rows of the others are read by `Manifest.specs`.

    Args:
        path: the manifest; files that its axes name lie in its folder or below.
        catalog: knows the models.
        read_s3: reads the object at an `s3://` URI; without it such an axis is refused.
        output: where clips go; wins over the manifest's own.
        model: the model of rows that name none; wins over the manifest's own.

    Raises:
        ManifestError: the file cannot be read, or what does not belong to a single row is wrong.
    """
    start = Place(str(path), 1)
    name, defaults = Given(path.stem, start), dict[str, Given]()
    source: FlatFile | YamlFile
    match path.suffix.lower():
        case ".yaml" | ".yml":
            source = open_yaml_file(path, read_s3)
            name, defaults, output = source.name or name, source.defaults, output or source.output
        case ".jsonl":
            source = open_flat_file(path, read_jsonl)
        case ".csv":
            source = open_flat_file(path, read_csv)
        case suffix:
            raise start.refuse(
                f"expected a manifest in .yaml, .yml, .jsonl or .csv, not {shown(suffix)}"
            )
    if model is not None:
        defaults = defaults | {"model": Given(model, start)}
    try:
        check_name(name.value, MAX_RUN_NAME_CHARACTERS)
    except RowValueError as error:
        raise name.place.refuse(f"{error} (a manifest without a name takes the file's)") from error
    return Manifest(name.value, output, path, source.digest, defaults, source, catalog)


def _model_name(values: Mapping[str, Any]) -> str:
    if "model" not in values:
        raise RowValueError("model is missing: give one for all clips, or one in every row")
    return values["model"]


def _parallel(
    given: Mapping[str, Any], model: CatalogedModel, request: GenerationRequest
) -> ParallelConfig:
    """The group that a row asks for, or else its model's YAML; the geometry is read where there is one."""
    parallel = given.get(PARALLEL, model.config.parallel)
    if parallel.degree == 1:
        return parallel
    try:
        check_parallel(parallel, model.geometry, request.shape, model.config)
    except RequestError as error:
        if PARALLEL in given:
            raise
        remedy = "a row may ask for another group, or for one device with parallel: {}"
        message = f"{error} (the model's YAML asks for it; {remedy})"
        raise RequestError.of(message, *error.fields, "model") from error
    return parallel


def _place_of(field: str, row: Row) -> Place:
    return row.find_place(field) or row.place


def _name_digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=DIGEST_BYTES).digest()
