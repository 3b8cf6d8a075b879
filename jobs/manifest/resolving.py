"""The clip that a row asks for, before its texts are tokenized.

The value of a field comes from the row, or else from the axes, the manifest's defaults, or the
model's YAML. Most rows differ from an earlier one in prompt, seed, name and notes alone. Such rows
share a kind, whose other values are checked once.
"""

import re
from collections.abc import Mapping
from typing import Any

from jobs.clip_id import broken_clip, identify
from jobs.errors import RowValueError, UnknownModelError
from jobs.inputs.checked_inputs import CheckedInputs
from jobs.manifest.fields import RANDOM
from jobs.manifest.lines import SourceLocation
from jobs.manifest.rows import (
    Catalog,
    CatalogedModel,
    Given,
    Row,
    choose_parallel,
    defaults_without_cfg,
    make_request,
    model_defaults,
    name_model,
    with_loras,
)
from jobs.manifest.tables.meta import META
from jobs.manifest.walk.identifying import Resolved, RowKind
from jobs.types import BrokenClip
from nag.errors import NagParameterError
from pipelines.catalog.clip_rules import check_request
from pipelines.catalog.folder_facts import check_by_facts, needs_facts
from pipelines.errors import PipelineError, RequestError
from pipelines.request import check_prompt_and_seed

FREE_FIELDS = frozenset({"prompt", "seed", "name", META})  # rows of one kind may differ in these
MAX_KINDS = 1024  # kept at once
# Values of a model's YAML, and those in their place without classifier-free guidance.
Defaults = tuple[dict[str, Any], dict[str, Any]]


class Resolver:
    """Resolves the rows of one walk.

    Args:
        run_name: name of the manifest, with which the names of clips without one begin.
        defaults: values of the fields that a row may leave out.
        inputs: the images and videos that rows name.
    """

    def __init__(
        self,
        run_name: str,
        defaults: Mapping[str, Given],
        catalog: Catalog,
        inputs: CheckedInputs,
    ) -> None:
        self._run_name = run_name
        self._reserved = re.compile(rf"{re.escape(run_name)}-[0-9]{{6,}}")
        self._given = defaults
        self._defaults = {name: given.value for name, given in defaults.items()}
        self._seed = self._defaults.get("seed", 0)
        self._catalog = catalog
        self._inputs = inputs
        self._models: dict[str, tuple[CatalogedModel, Defaults]] = {}
        self._kinds: dict[tuple[object, ...], RowKind] = {}

    def resolve(self, index: int, row: Row) -> Resolved | BrokenClip:
        """Return the clip of a row.

        Raises:
            ManifestError: the row is wrong.
        """
        values = row.values
        key = tuple([entry for entry in values.items() if entry[0] not in FREE_FIELDS])
        seed = values.get("seed", self._seed)
        try:
            kind = self._kinds.get(key)
            if kind is None or (prompt := self._value(values, "prompt")) is None:
                kind = self._keep(key, self._new_kind(values))
                prompt = kind.request.prompt
            else:
                check_prompt_and_seed(prompt, 0 if seed == RANDOM else seed)
        except RowValueError as error:
            raise row.location.refuse(str(error)) from error
        except (RequestError, NagParameterError) as error:
            raise self.location_at_fault(row, error.fields).refuse(str(error)) from error
        except UnknownModelError as error:
            raise self.location_at_fault(row, ("model",)).refuse(str(error)) from error
        except PipelineError as error:
            message = str(self.location_at_fault(row, ("model",)).refuse(str(error)))
            model: str = self._value(values, "model")
            return broken_clip(self._name_of(row, index), model, error, message)
        meta = self._value(values, META) or {}
        name = self._name_of(row, index)
        return Resolved(kind, name, prompt, None if seed == RANDOM else seed, meta)

    def is_random(self, row: Row) -> bool:
        """Return True if the seed of a row is drawn."""
        return row.values.get("seed", self._seed) == RANDOM

    def location_at_fault(self, row: Row, fields: tuple[str, ...]) -> SourceLocation:
        """Return the line of the first of `fields` that the manifest gives, or else of the row."""
        for field in fields:
            if field in row.values:
                return row.location_of(field)
            if field in self._given:
                return self._given[field].location
        return row.location

    def _value(self, values: Mapping[str, Any], name: str) -> Any:
        return values[name] if name in values else self._defaults.get(name)

    def _new_kind(self, values: Mapping[str, Any]) -> RowKind:
        given = {**self._defaults, **values}
        model, fallback = self._model(name_model(given))
        given = with_loras(given, model)
        if given.get("seed") == RANDOM:
            given["seed"] = 0  # until it is drawn
        request = make_request(self._inputs.resolve(given), *fallback)
        check_request(model.config, request)
        if needs_facts(model.config, request):
            check_by_facts(model.config, model.facts, request)
        self._inputs.check(request)
        parallel = choose_parallel(given, model, request)
        identity = identify(model.identity, model.loras, request)
        return RowKind(identity, request, parallel, model.tokenizer)

    def _model(self, name: str) -> tuple[CatalogedModel, Defaults]:
        if name not in self._models:
            model = self._catalog.get(name)
            model.tokenizer.read(())  # a broken one is a fault of the model
            config = model.config
            self._models[name] = model, (model_defaults(config), defaults_without_cfg(config))
        return self._models[name]

    def _keep(self, key: tuple[object, ...], kind: RowKind) -> RowKind:
        if len(self._kinds) >= MAX_KINDS:
            self._kinds.clear()
        self._kinds[key] = kind
        return kind

    def _name_of(self, row: Row, index: int) -> str:
        own = f"{self._run_name}-{index:06d}"
        if "name" not in row.values:
            return own
        given = row.values["name"]
        if given != own and self._reserved.fullmatch(given):
            raise row.location_of("name").refuse(
                f"name {given!r} is reserved for rows without a name; the name of this row "
                f"would be {own!r}"
            )
        return given
