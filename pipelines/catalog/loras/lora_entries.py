"""Decide by the header of a file whether it is, as a whole, a LoRA of a model, and what it changes.

Plan, `doctor` and the worker ask the same function, so that a worker refuses no file that a plan
accepted. Each entry must have its place in the model, of its size: diffusers skips what it cannot
use, with a warning at most. Loads without torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from pipelines.catalog.files.safetensors_file import FLOAT_BYTES, SafetensorsHeader, read_header
from pipelines.catalog.files.weight_files import shown
from pipelines.catalog.loras.lora_names import (
    PEFT_PREFIX,
    Family,
    ModuleNames,
    Part,
    other_method,
    parse_name,
)
from pipelines.catalog.loras.lora_settings import LoraSettings, config_settings, metadata_settings
from pipelines.errors import ModelFolderError

Shape: TypeAlias = tuple[int, ...]
# Component -> name of a weight -> its shape.
TransformerShapes: TypeAlias = Mapping[str, Mapping[str, Shape]]

FLOATS = frozenset({*FLOAT_BYTES, "F8_E4M3", "F8_E5M2"})
_WHOLE: frozenset[Part] = frozenset({"bias", "diff", "diff_b"})
_FETCH_AGAIN = "the file is damaged or not a plain LoRA: fetch it again, or use another"
_TAKE_OUT = "take it out of this model's loras"


@dataclass(frozen=True)
class Matrices:
    """The change of a module's weight, `scale * up @ down`, by the names of the entries."""

    down: str
    up: str
    scale: float


@dataclass(frozen=True)
class Difference:
    """The change of one parameter, which the file holds whole: `scale * entry`."""

    entry: str
    scale: float


@dataclass(frozen=True)
class LoraLayers:
    """All that a LoRA changes: matrices by module, differences by parameter, named by diffusers."""

    matrices: Mapping[str, Matrices]
    differences: Mapping[str, Difference]


@dataclass
class _Module:
    """The entries of one module by their part, and its name in the file."""

    name_in_file: str
    entries: dict[Part, str] = field(default_factory=dict[Part, str])


def read_lora(
    title: str, path: Path, family: Family, targets: TransformerShapes
) -> dict[str, LoraLayers]:
    """Return a LoRA's change of each transformer in `targets`.

    Raises:
        ModelNotFoundError: the file is a git-lfs pointer.
        ModelFolderError: the file is broken, an entry is foreign, or the LoRA was made for another
            model.
    """
    header = read_header(path)
    if _is_of_peft(header):
        settings = config_settings(title, path)
    else:
        settings = metadata_settings(title, header)
    reader = _Reader(title, header, family, settings)
    return {component: reader.layers(component, shapes) for component, shapes in targets.items()}


def is_saved_by_peft(path: Path) -> bool:
    """Return True if the file beside it that PEFT writes decides the scale of a LoRA."""
    return _is_of_peft(read_header(path))


def _is_of_peft(header: SafetensorsHeader) -> bool:
    return any(name.startswith(PEFT_PREFIX) for name in header.entries)


class _Reader:
    """The header of one LoRA's file, read for one transformer after another."""

    def __init__(
        self, title: str, header: SafetensorsHeader, family: Family, settings: LoraSettings | None
    ) -> None:
        self._title = title
        self._header = header
        self._family: Family = family
        self._settings = settings
        for name, entry in header.entries.items():
            if entry.dtype not in FLOATS and not name.endswith(".alpha"):
                raise ModelFolderError(
                    f"{title}: {header.path} holds {name} as {entry.dtype}; a LoRA's numbers must "
                    f"be one of {', '.join(sorted(FLOATS))}"
                )

    def layers(self, component: str, shapes: Mapping[str, Shape]) -> LoraLayers:
        matrices: dict[str, Matrices] = {}
        differences: dict[str, Difference] = {}
        for name, module in self._modules(component, shapes).items():
            entries = module.entries
            scale = self._scale(name, module)
            if "down" in entries:
                shape = (self._shape(entries["up"])[0], *self._shape(entries["down"])[1:])
                self._check_shape(component, f"{name}.weight", shape, shapes)
                matrices[name] = Matrices(entries["down"], entries["up"], scale)
            for part in _WHOLE.intersection(entries):
                parameter = _parameter(name, part, shapes)
                self._check_shape(component, parameter, self._shape(entries[part]), shapes)
                if parameter in differences:
                    raise self._twice(entries[part])
                differences[parameter] = Difference(entries[part], scale if part == "bias" else 1.0)
        if not matrices:
            raise ModelFolderError(
                f"{self._title}: {self._header.path} holds no LoRA, only "
                f"{shown(sorted(self._header.entries))}"
            )
        changes = [(one.up, one.scale) for one in matrices.values()]
        changes += [(one.entry, one.scale) for one in differences.values()]
        if all(scale == 0 or self._header.is_zero(entry) for entry, scale in changes):
            raise ModelFolderError(
                f"{self._title} changes nothing: {self._header.path} holds zeros only"
            )
        return LoraLayers(matrices, differences)

    def _modules(self, component: str, shapes: Mapping[str, Shape]) -> dict[str, _Module]:
        """Return the entries of each module, by diffusers' name of the module."""
        names = ModuleNames(self._family, shapes)
        modules: dict[str, _Module] = {}
        absent: dict[str, _Module] = {}
        for entry in self._header.entries:
            parsed = parse_name(entry)
            if parsed is None:
                raise self._foreign(entry)
            name = names.find(parsed.module)
            if name is None:
                module = absent.setdefault(parsed.module, _Module(parsed.module))
            else:
                module = modules.setdefault(name, _Module(parsed.module))
            if parsed.part in module.entries:
                raise self._twice(entry)
            module.entries[parsed.part] = entry
        if wrong := [name for name, module in absent.items() if not self._is_zero(module)]:
            raise ModelFolderError(
                f"{self._title} was made for another model: {component} has no {shown(wrong)}; "
                f"{_TAKE_OUT}"
            )
        return modules

    def _is_zero(self, module: _Module) -> bool:
        """Return True if a module's entries change nothing, whatever the module is."""
        changing = [
            entry for part, entry in module.entries.items() if part not in ("down", "alpha")
        ]
        return bool(changing) and all(map(self._header.is_zero, changing))

    def _scale(self, name: str, module: _Module) -> float:
        """Return the factor of a module's matrices, and of the bias that belongs to them."""
        entries = module.entries
        if "down" not in entries and "up" not in entries and "bias" not in entries:
            return 1.0
        if "down" not in entries or "up" not in entries:
            raise ModelFolderError(
                f"{self._title}: one of the two matrices of {name} is missing; {_FETCH_AGAIN}"
            )
        down, up = self._shape(entries["down"]), self._shape(entries["up"])
        if len(down) < 2 or len(up) != len(down) or down[0] != up[1] or {*up[2:]} - {1}:
            raise ModelFolderError(
                f"{self._title}: the matrices of {name} are of unequal rank: {up} after {down}; "
                f"{_FETCH_AGAIN}"
            )
        rank = down[0]
        if rank == 0:
            raise ModelFolderError(f"{self._title}: the matrices of {name} are empty")
        if "alpha" not in entries:
            names = (module.name_in_file, name)
            return self._settings.scale(names, rank) if self._settings else 1.0
        if self._settings:
            raise ModelFolderError(
                f"{self._settings.place} and {entries['alpha']} both set a scale; take one of them "
                "out of the file"
            )
        alpha = self._header.number(entries["alpha"])
        if alpha is None or not math.isfinite(alpha):
            raise ModelFolderError(
                f"{self._title}: {entries['alpha']} must be one finite number; {_FETCH_AGAIN}"
            )
        return alpha / rank

    def _check_shape(
        self, component: str, parameter: str, shape: Shape, shapes: Mapping[str, Shape]
    ) -> None:
        expected = shapes.get(parameter)
        if shape != expected:
            found = "has no" if expected is None else f"has the shape {expected}, not {shape}, for"
            raise ModelFolderError(
                f"{self._title} was made for another model: {component} {found} {parameter}; "
                f"{_TAKE_OUT}"
            )

    def _shape(self, entry: str) -> Shape:
        return self._header.entries[entry].shape

    def _foreign(self, entry: str) -> ModelFolderError:
        if method := other_method(entry):
            return ModelFolderError(
                f"{self._title}: {self._header.path} is a {method}, not a plain LoRA (it holds "
                f"{entry}); only LoRAs can be used"
            )
        return ModelFolderError(
            f"{self._title}: {self._header.path} is not a LoRA: its entries must be named "
            f"MODULE.lora_A.weight, MODULE.lora_B.weight or as in docs/how-to/loras.md, not {entry}"
        )

    def _twice(self, entry: str) -> ModelFolderError:
        return ModelFolderError(
            f"{self._title}: {self._header.path} changes the same module twice, a second time by "
            f"{entry}; {_FETCH_AGAIN}"
        )


def _parameter(module: str, part: Part, shapes: Mapping[str, Shape]) -> str:
    """Return the parameter that an entry changes as a whole."""
    if part in ("bias", "diff_b"):
        return f"{module}.bias"
    return f"{module}.weight" if f"{module}.weight" in shapes else module
