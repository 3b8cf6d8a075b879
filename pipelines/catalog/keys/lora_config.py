"""The schema of one LoRA in a model's YAML. Loads without torch."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from omegaconf import DictConfig, ListConfig, OmegaConf

from pipelines.catalog.files.config_files import schema
from pipelines.catalog.files.sources import check_source
from pipelines.errors import ModelConfigError, RequestError
from pipelines.lora_choice import NAME_PATTERN, NO_LORAS, LoraChoice, WrittenChoice


@dataclass(frozen=True)
class LoraConfig:
    """One LoRA of a model.

    Args:
        name: name of the adapter, unique in the model; changes no pixel.
        source: hub id, folder, or `package:NAME`, as for a model; or a .safetensors file.
        weight: factor of its change, finite and not 0; a negative one reverses the change.
        weight_name: file in the folder or in a folder inside it; None for
            `pytorch_lora_weights.safetensors`, or the only .safetensors file.
        revision: commit or tag on the hub.
        component: transformer that it changes, such as `transformer_2` for Wan 2.2's low noise;
            "all" changes each transformer of the model.
        by_default: True if it is on for rows that choose no LoRAs.
    """

    name: str
    source: str
    weight: float = 1.0
    weight_name: str | None = None
    revision: str | None = None
    component: Literal["all", "transformer", "transformer_2"] = "all"
    by_default: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME_PATTERN, self.name) or self.name == NO_LORAS:
            raise ModelConfigError(
                f"a LoRA's name is made of letters, digits, _ and -, and is not {NO_LORAS}; "
                f"got {self.name!r}"
            )
        check_source(self.source, self.revision)
        if not math.isfinite(self.weight) or self.weight == 0:
            raise ModelConfigError(
                f"the weight of the LoRA {self.name} must be finite and not 0, not {self.weight}"
            )
        if self.weight_name is not None:
            if self.is_file:
                raise ModelConfigError(
                    f"the source of the LoRA {self.name} is a file: leave weight_name out"
                )
            parts = self.weight_name.split("/")
            if not (
                self.weight_name.endswith(".safetensors")
                and self.weight_name.isprintable()
                and all(part.strip(".") for part in parts)
            ):
                raise ModelConfigError(
                    f"weight_name of the LoRA {self.name} must be a .safetensors file of its "
                    f"folder, such as fast.safetensors or high/fast.safetensors, not "
                    f"{self.weight_name}"
                )

    @property
    def is_file(self) -> bool:
        """Return True if the source names a file, not a folder."""
        return self.source.endswith(".safetensors")


def default_choice(loras: Sequence[LoraConfig]) -> tuple[LoraChoice, ...]:
    """Return the LoRAs that are on for rows that choose none."""
    return tuple(LoraChoice(lora.name, lora.weight) for lora in loras if lora.by_default)


def choose_loras(
    loras: Sequence[LoraConfig], written: WrittenChoice | None, weight: float | None
) -> tuple[LoraChoice, ...] | None:
    """Return the LoRAs that a row chooses, in the model's order; None for the model's own choice.

    The order in which a row names them decides nothing, and neither does one with the weight 0.

    Args:
        loras: LoRAs of the model's YAML.
        written: choice of the row; None for the LoRAs that are on by default.
        weight: weight of the LoRAs for which `written` gives none; None for that of the YAML.

    Raises:
        RequestError: the model has no such LoRA.
    """
    if written is None and weight is None:
        return None
    declared = [lora.name for lora in loras]
    if not declared:
        field = "loras" if written is not None else "lora_weight"
        raise RequestError.of(f"the model declares no LoRAs: leave {field} out", field, "model")
    if written is None:
        written = tuple((lora.name, None) for lora in loras if lora.by_default)
        if not written:
            raise RequestError.of(
                "lora_weight would have no effect: the model has no LoRA that is on by default; "
                f"choose some with loras, of {', '.join(declared)}, or write loras: {NO_LORAS}",
                "lora_weight",
            )
    weights = dict(written)
    for name in weights:
        if name not in declared:
            raise RequestError.of(
                f"the model declares no LoRA {name[:40]!r}; it has {', '.join(declared)}", "loras"
            )
    chosen: list[LoraChoice] = []
    for lora in loras:
        if lora.name in weights:
            own = weights[lora.name]
            given = own if own is not None else weight
            chosen.append(LoraChoice(lora.name, lora.weight if given is None else given))
    found = tuple(choice for choice in chosen if choice.weight)
    return None if found == default_choice(loras) else found


def read_loras(loaded: DictConfig) -> dict[str, tuple[LoraConfig, ...]]:
    """Return the checked entries of `loras`; OmegaConf does not know the type inside a tuple."""
    if "loras" not in loaded:
        return {}
    entries = loaded["loras"]
    if not isinstance(entries, ListConfig) or not all(
        isinstance(entry, DictConfig) for entry in entries
    ):
        raise ModelConfigError(
            f"loras must be a list of LoRAs, each with a name and a source, not {entries!r}"
        )
    loras = [OmegaConf.to_object(OmegaConf.merge(schema(LoraConfig), entry)) for entry in entries]
    return {"loras": tuple(cast("list[LoraConfig]", loras))}
