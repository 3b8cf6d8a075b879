"""The settings that PEFT saves with a LoRA, and the scale that follows from them.

Diffusers keeps them in the file's metadata, PEFT in `adapter_config.json` beside the file. Settings
that would change the model by other means than LoRA's formula are refused. Loads without torch.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.catalog.files.safetensors_file import SafetensorsHeader
from pipelines.catalog.files.weight_files import read_json
from pipelines.errors import ModelFolderError

CONFIG_NAME = "adapter_config.json"
METADATA_KEY = "lora_adapter_metadata"
_METADATA_PREFIX = "transformer."  # diffusers applies the settings that begin with it
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
MAX_VALUE = 2**31
PEFT_DEFAULT = 8  # PEFT 0.21 uses it for `r` and `lora_alpha`


@dataclass(frozen=True)
class LoraSettings:
    """The saved settings that decide the scale of a LoRA's matrices.

    Args:
        place: LoRA and place of the settings, for messages.
        rank: rank of all modules but those in `ranks`.
        alpha: alpha of all modules but those in `alphas`.
        is_rank_stabilized: True to divide alpha by the square root of the rank.
        ranks, alphas: values of single modules, by the whole name or its last parts.
    """

    place: str
    rank: float = PEFT_DEFAULT
    alpha: float = PEFT_DEFAULT
    is_rank_stabilized: bool = False
    ranks: Mapping[str, float] = field(default_factory=dict[str, float])
    alphas: Mapping[str, float] = field(default_factory=dict[str, float])

    def scale(self, names: tuple[str, ...], rank: int) -> float:
        """Return the factor of a module's matrices.

        Args:
            names: names of the module, in the file and in diffusers.
            rank: rank of the matrices.

        Raises:
            ModelFolderError: the settings have another rank.
        """
        if (saved := _of_module(self.ranks, names, self.rank)) != rank:
            raise ModelFolderError(
                f"{self.place} has the rank {saved:g} for {names[-1]}, whose matrices are of rank "
                f"{rank}; fetch the LoRA again, or use another"
            )
        alpha = _of_module(self.alphas, names, self.alpha)
        return alpha / (math.sqrt(rank) if self.is_rank_stabilized else rank)


def metadata_settings(title: str, header: SafetensorsHeader) -> LoraSettings | None:
    """Return the settings in a file's metadata, or None if it has none.

    Raises:
        ModelFolderError: the settings are not those of a plain LoRA.
    """
    place = f"{title}: {METADATA_KEY} of {header.path}"
    try:
        saved: Any = json.loads(header.metadata.get(METADATA_KEY) or "{}")
        items: list[tuple[Any, Any]] = list(saved.items())
    except (ValueError, AttributeError, RecursionError) as error:
        raise ModelFolderError(f"{place} is not a JSON object") from error
    settings: dict[str, Any] = {}
    for key, value in items:
        name = str(key).removeprefix(_METADATA_PREFIX)
        _check_setting(place, name, value)
        if str(key).startswith(_METADATA_PREFIX):
            settings[name] = value
    return _settings(place, settings) if settings else None


def config_settings(title: str, lora: Path) -> LoraSettings:
    """Return the settings that PEFT saved beside a LoRA's file.

    Raises:
        ModelFolderError: they are missing, or not those of a plain LoRA.
    """
    path = lora.parent / CONFIG_NAME
    if not path.exists():
        raise ModelFolderError(
            f"{title}: {lora} was saved by PEFT, and its scale stands in {CONFIG_NAME}, which is "
            "missing beside it: fetch that file too"
        )
    settings, place = read_json(path), f"{title}: {path}"
    for key, value in settings.items():
        _check_setting(place, key, value)
    return _settings(place, settings)


def _check_setting(place: str, name: str, value: object) -> None:
    is_allowed = (
        value in FIXED_SETTINGS[name]
        if name in FIXED_SETTINGS and value
        else name in PLAIN_SETTINGS
    )
    if value and not is_allowed:
        raise ModelFolderError(
            f"{place} sets {name} to {value!r:.80}: it is not a plain LoRA; only LoRAs without "
            "this setting can be used"
        )


def _settings(place: str, settings: Mapping[str, Any]) -> LoraSettings:
    return LoraSettings(
        place,
        _positive(place, "r", settings.get("r", PEFT_DEFAULT)),
        _positive(place, "lora_alpha", settings.get("lora_alpha", PEFT_DEFAULT)),
        bool(settings.get("use_rslora")),
        _pattern(place, "rank_pattern", settings.get("rank_pattern")),
        _pattern(place, "alpha_pattern", settings.get("alpha_pattern")),
    )


def _positive(place: str, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MAX_VALUE:
        raise ModelFolderError(f"{place}: {name} must be a number above 0, not {value!r:.80}")
    return float(value)


def _pattern(place: str, name: str, pattern: Any) -> dict[str, float]:
    """Return the values of single modules; PEFT reads the names as regular expressions."""
    if not pattern:
        return {}
    if not isinstance(pattern, dict):
        raise ModelFolderError(f"{place}: {name} must be an object, not {pattern!r:.80}")
    for module in pattern:
        if not re.fullmatch(r"\^?[\w.]+", str(module)):
            raise ModelFolderError(
                f"{place}: {name} has the regular expression {module!r:.80}; only names of modules "
                "can be used"
            )
    return {str(key): _positive(place, f"{name}.{key}", value) for key, value in pattern.items()}


def _of_module(values: Mapping[str, float], names: tuple[str, ...], default: float) -> float:
    """Return the first value whose key is one of the names, or the last parts of one."""
    for key, value in values.items():
        for name in names:
            if name == key.removeprefix("^") or name.endswith(f".{key}"):
                return value
    return default
