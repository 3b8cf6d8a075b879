"""Find a model's LoRAs and prove by names and shapes that they were made for this model.

It decides which files count as LoRAs. Diffusers skips entries that it cannot use, with a warning at
most; here each entry must have its place, or the file is refused. Only diffusers' converter knows
the names in the layout of the model's first publisher: for these, `lora_adapters` proves the rest
when they are loaded. Loads without torch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pipelines.catalog.model_config import LoraConfig, ModelConfig, resolve_source
from pipelines.catalog.weight_files import SafetensorsHeader, file_digest, hub_folder, read_header
from pipelines.errors import ModelFolderError, ModelNotFoundError

DEFAULT_WEIGHT_NAME = "pytorch_lora_weights.safetensors"  # as diffusers saves them
Shape: TypeAlias = tuple[int, ...]
# Component -> name of a weight -> its shape.
TransformerShapes: TypeAlias = Mapping[str, Mapping[str, Shape]]


@dataclass(frozen=True)
class LoraWeights:
    """A LoRA's file that is fit to load, and its revision."""

    path: Path
    revision: str


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
        KeyLayout(
            "lora_unet_",
            ("lora_down.weight",),
            ("lora_up.weight",),
            ("alpha",),
            has_model_names=False,
        ),  # musubi
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
PLAIN_SETTINGS = frozenset(
    {
        "r",
        "lora_alpha",
        "lora_dropout",
        "lora_bias",
        "rank_pattern",
        "alpha_pattern",
        "target_modules",
        "use_rslora",
    }
    | {
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "task_type",
        "inference_mode",
        "auto_mapping",
    }
    | {"megatron_core", "qalora_group_size"}  # have an effect only with refused settings
)
FIXED_SETTINGS: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, "gaussian"),
}


def inspect_loras(
    config: ModelConfig, config_path: Path, transformers: TransformerShapes
) -> tuple[LoraWeights, ...]:
    """Check the LoRAs that a model's YAML names.

    Args:
        config: model of the LoRAs.
        config_path: path of its YAML; relative folders are relative to it.
        transformers: shapes of the model's transformers.

    Returns:
        The files in the YAML's order. A file's revision is its digest; for a file of the hub the
        commit stands before it.

    Raises:
        ModelNotFoundError: a file is not on this machine; the message has the command that fetches
            it.
        ModelFolderError: a file is broken, unsafe, or made for another model.
    """
    return tuple(_inspect_lora(config, lora, config_path, transformers) for lora in config.loras)


def verify_loras(
    config: ModelConfig, loras: tuple[LoraWeights, ...], transformers: TransformerShapes
) -> None:
    """Prove, on the machine that loads them, that the LoRAs are those that were inspected.

    Raises:
        ModelNotFoundError: a file does not exist on this machine.
        ModelFolderError: a file is broken here, or holds another LoRA.
    """
    for lora, weights in zip(config.loras, loras, strict=True):
        title = lora_title(config, lora)
        if not weights.path.is_file():
            raise ModelNotFoundError(f"{title}: {weights.path} does not exist on this machine")
        check_lora(title, weights.path, config.family, _targets(title, lora, transformers))
        if not weights.revision.endswith(found := file_digest(weights.path)):
            raise ModelFolderError(
                f"{title}: {weights.path} holds {found} here, not {weights.revision}"
            )


def lora_title(config: ModelConfig, lora: LoraConfig) -> str:
    """Return the name of a LoRA in messages."""
    return f"{config.name}: LoRA {lora.name}"


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


def _inspect_lora(
    config: ModelConfig, lora: LoraConfig, config_path: Path, transformers: TransformerShapes
) -> LoraWeights:
    title = lora_title(config, lora)
    source = resolve_source(lora, config_path)
    if isinstance(source, Path):
        if not source.is_dir():
            raise ModelNotFoundError(f"{title}: the folder {source} does not exist")
        folder, commit = source, ""
    else:
        folder = hub_folder(title, source, lora.revision, lora.weight_name)
        commit = f"{folder.name}/"
    path = folder / (lora.weight_name or _only_weight_name(title, folder))
    if not path.is_file():
        raise ModelNotFoundError(f"{title}: {path} does not exist")
    check_lora(title, path, config.family, _targets(title, lora, transformers))
    return LoraWeights(path, f"{commit}{file_digest(path)}")


def _only_weight_name(title: str, folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if DEFAULT_WEIGHT_NAME in names:
        return DEFAULT_WEIGHT_NAME
    if len(names) != 1:
        found = f"holds {', '.join(names)}" if names else "holds no .safetensors file"
        raise ModelFolderError(f"{title}: {folder} {found}; say in weight_name which file is meant")
    return names[0]


def _targets(title: str, lora: LoraConfig, transformers: TransformerShapes) -> TransformerShapes:
    if lora.component == "all":
        return transformers
    if lora.component not in transformers:
        raise ModelFolderError(
            f"{title} is for {lora.component}, and the model has {' and '.join(transformers)}"
        )
    return {lora.component: transformers[lora.component]}


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
                f"{path} is not a plain LoRA: its lora_adapter_metadata sets {key} to {value!r}"
            )


def _check_matrices(title: str, module: str, parts: Mapping[str, Shape], layout: KeyLayout) -> int:
    """Return the rank of one module's matrices; 0 for a module with only a bias."""
    down = next((parts[ending] for ending in layout.down if ending in parts), None)
    up = next((parts[ending] for ending in layout.up if ending in parts), None)
    if down is None and up is None:
        return 0
    if down is None or up is None:
        raise ModelFolderError(f"{title}: one of the two matrices of {module} is missing")
    if len(down) < 2 or len(up) < 2 or down[0] != up[1]:
        raise ModelFolderError(
            f"{title}: the matrices of {module} are of unequal rank: {up} after {down}"
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
            f"{title} was made for another model: {component} has no {shown(absent)}"
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
                f"not {changed}"
            )


def shown(names: list[str]) -> str:
    """Return the first three names, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
