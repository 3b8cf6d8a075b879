"""Prove by the names and shapes of its entries that a file is a LoRA of a model.

Diffusers skips entries that it cannot use, with a warning at most; here each entry must have its
place, or the file is refused. Only diffusers' converter knows the names in the layout of the
model's first publisher: for these, `pipelines.families.lora_adapters` proves the rest when they are
loaded. Loads without torch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pipelines.catalog.weight_files import SafetensorsHeader, read_header
from pipelines.errors import ModelFolderError

Shape: TypeAlias = tuple[int, ...]
# Component -> name of a weight -> its shape.
TransformerShapes: TypeAlias = Mapping[str, Mapping[str, Shape]]


@dataclass(frozen=True)
class KeyLayout:
    """The names of a LoRA's entries.

    Args:
        prefix: start of each name.
        down: endings of the matrix that reads the input.
        up: endings of the matrix that writes the output.
        others: endings of further entries.
        has_model_names: True if the part between is the module's name in diffusers' transformer.
    """

    prefix: str
    down: tuple[str, ...]
    up: tuple[str, ...]
    others: tuple[str, ...]
    has_model_names: bool


_DIFFUSERS = KeyLayout(
    "transformer.", ("lora_A.weight",), ("lora_B.weight",), ("lora_B.bias",), has_model_names=True
)
KEY_LAYOUTS: dict[str, tuple[KeyLayout, ...]] = {
    "wan": (
        _DIFFUSERS,
        KeyLayout(  # Wan's own repository: CausVid, lightx2v
            "diffusion_model.",
            ("lora_A.weight", "lora_down.weight"),
            ("lora_B.weight", "lora_up.weight"),
            ("alpha", "diff", "diff_b"),
            has_model_names=False,
        ),
        KeyLayout(  # musubi
            "lora_unet_",
            ("lora_down.weight",),
            ("lora_up.weight",),
            ("alpha",),
            has_model_names=False,
        ),
    ),
    "ltx": (
        _DIFFUSERS,
        KeyLayout(
            "diffusion_model.",
            ("lora_A.weight",),
            ("lora_B.weight",),
            ("lora_B.bias",),
            has_model_names=True,
        ),
    ),
}
# The settings saved by PEFT that a plain LoRA may have. Any other must be unset: it can change the
# model's own weights, bring further layers or import a module.
PLAIN_SETTINGS = frozenset({
    "r", "lora_alpha", "lora_dropout", "lora_bias", "rank_pattern", "alpha_pattern",
    "target_modules", "use_rslora",
    "peft_version", "base_model_name_or_path", "revision", "task_type", "inference_mode",
    "auto_mapping",
    "megatron_core", "qalora_group_size",  # have an effect only with refused settings
})  # fmt: skip
FIXED_SETTINGS: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, "gaussian"),
}
_FETCH_AGAIN = "the file is damaged or not a plain LoRA: fetch it again, or use another"
_TAKE_OUT = "take it out of this model's loras"


def check_lora(
    title: str,
    path: Path,
    family: Literal["wan", "ltx"],
    targets: Mapping[str, Mapping[str, Shape]],
) -> None:
    """Refuse a file that is not, as a whole, a LoRA of the transformers in `targets`.

    Raises:
        ModelFolderError: an entry is foreign, or the LoRA was made for another model.
    """
    header = read_header(path)
    _check_settings(path, header)
    layouts = KEY_LAYOUTS[family]
    layout = next(
        (one for one in layouts if any(key.startswith(one.prefix) for key in header.shapes)),
        layouts[0],
    )
    endings = (*layout.down, *layout.up, *layout.others)
    modules: dict[str, dict[str, Shape]] = {}
    foreign: list[str] = []
    for key, shape in header.shapes.items():
        ending = next((ending for ending in endings if key.endswith(f".{ending}")), None)
        if ending is None or not key.startswith(layout.prefix):
            foreign.append(key)
        else:
            modules.setdefault(key[len(layout.prefix) : -len(ending) - 1], {})[ending] = shape
    if foreign:
        raise ModelFolderError(
            f"{title}: {path} is not a LoRA for {family}: its entries must be named "
            f"{layout.prefix}MODULE.{' or '.join(endings)}, not {shown(foreign)}"
        )
    ranks = [_check_matrices(title, module, parts, layout) for module, parts in modules.items()]
    if not any(ranks):
        raise ModelFolderError(
            f"{title}: {path} holds no LoRA, only {shown(sorted(header.shapes))}"
        )
    if layout.has_model_names:
        for component, shapes in targets.items():
            _check_modules(title, component, modules, shapes, layout)


def _check_settings(path: Path, header: SafetensorsHeader) -> None:
    try:
        saved: Any = json.loads(header.metadata.get("lora_adapter_metadata") or "{}")
        settings = [(str(key).removeprefix("transformer."), value) for key, value in saved.items()]
    except (ValueError, AttributeError, RecursionError) as error:
        raise ModelFolderError(f"{path}: its lora_adapter_metadata is not a JSON object") from error
    for key, value in settings:
        is_allowed = (
            value in FIXED_SETTINGS[key]
            if key in FIXED_SETTINGS and value
            else key in PLAIN_SETTINGS
        )
        if value and not is_allowed:
            raise ModelFolderError(
                f"{path} is not a plain LoRA: its lora_adapter_metadata sets {key} to {value!r}; "
                "only LoRAs without this setting can be used"
            )


def _check_matrices(title: str, module: str, parts: Mapping[str, Shape], layout: KeyLayout) -> int:
    """Return the rank of one module's matrices; 0 for a module with only a bias."""
    down = next((parts[ending] for ending in layout.down if ending in parts), None)
    up = next((parts[ending] for ending in layout.up if ending in parts), None)
    if down is None and up is None:
        return 0
    if down is None or up is None:
        raise ModelFolderError(
            f"{title}: one of the two matrices of {module} is missing; {_FETCH_AGAIN}"
        )
    if len(down) < 2 or len(up) < 2 or down[0] != up[1]:
        raise ModelFolderError(
            f"{title}: the matrices of {module} are of unequal rank: {up} after {down}; "
            f"{_FETCH_AGAIN}"
        )
    return down[0]


def _check_modules(
    title: str,
    component: str,
    modules: Mapping[str, Mapping[str, Shape]],
    shapes: Mapping[str, Shape],
    layout: KeyLayout,
) -> None:
    """Check that each module exists and has the LoRA's size, where a layout names modules."""
    if absent := [module for module in modules if f"{module}.weight" not in shapes]:
        raise ModelFolderError(
            f"{title} was made for another model: {component} has no {shown(absent)}; {_TAKE_OUT}"
        )
    for module, parts in modules.items():
        weight = shapes[f"{module}.weight"]
        changed = (
            (parts[layout.up[0]][0], *parts[layout.down[0]][1:])
            if layout.up[0] in parts
            else weight
        )
        if changed != weight:
            raise ModelFolderError(
                f"{title} was made for another model: {component}'s {module} is {weight}, "
                f"not {changed}; {_TAKE_OUT}"
            )


def shown(names: list[str]) -> str:
    """Return the first three names, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
