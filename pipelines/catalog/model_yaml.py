"""Read the YAML of a model. Loads without torch.

`model_config` is its schema, and `config_files` decides what no YAML may hold.
"""

from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf

from nag.errors import NagParameterError
from pipelines.catalog.files.config_files import INVALID, one_line, read_file, schema
from pipelines.catalog.keys.lora_config import read_loras
from pipelines.catalog.keys.scheduler_config import check_lists
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.errors import ModelConfigError

EXAMPLES = {
    "family": "wan",
    "source": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "grid": "{num_frames: 4, height: 16, width: 16}",
    "sampling": "{num_inference_steps: 25, guidance_scale: 5.0, num_frames: 81, height: 480, "
    "width: 832, fps: 16}",
}  # for each key without a default


def _check_mandatory(loaded: DictConfig) -> None:
    """Refuse a YAML that lacks a key without a default, and show one.

    Raises:
        ModelConfigError: a key is missing.
    """
    missing = [key for key in EXAMPLES if key not in loaded]
    missing += [
        f"{key}.{one.name}"
        for key, part in (("grid", ShapeGrid), ("sampling", SamplingDefaults))
        if isinstance(given := loaded.get(key), DictConfig)
        for one in fields(part)
        if one.default is MISSING and one.name not in given
    ]
    if missing:
        key = missing[0].partition(".")[0]
        raise ModelConfigError(
            f"it lacks {', '.join(missing)}; write for example {key}: {EXAMPLES[key]}, or let "
            "nagfarm models --init FOLDER write the YAML of a folder of weights"
        )


def _check_mappings(loaded: DictConfig) -> None:
    """Refuse a plain value where the schema has a mapping, and name the mapping's keys.

    Raises:
        ModelConfigError: there is one.
    """
    for key, hint in get_type_hints(ModelConfig).items():
        kinds = (hint, *get_args(hint)) if get_origin(hint) is not tuple else ()
        part = next((kind for kind in kinds if is_dataclass(kind)), None)
        given = loaded.get(key)
        if part is not None and given is not None and not isinstance(given, DictConfig):
            known = ", ".join(one.name for one in fields(part))
            raise ModelConfigError(f"{key} must be a mapping of {known}, not {given!r}")


def load_model_config(path: Path) -> ModelConfig:
    """Read and check one model's YAML.

    Raises:
        ModelConfigError: the file is missing, too large, or not YAML, or has unknown keys or values
            outside their range.
    """
    try:
        loaded = read_file(path)
        check_lists(loaded)
        _check_mappings(loaded)
        _check_mandatory(loaded)
        merged = OmegaConf.merge(
            schema(ModelConfig), {"name": path.stem}, loaded, read_loras(loaded)
        )
        config = OmegaConf.to_object(merged)
        if merged.name != path.stem:
            raise ModelConfigError(
                f"a model's name must be its file's name, {path.stem}, not {merged.name}"
            )
    except OSError as error:
        raise ModelConfigError(f"cannot read the model config {path}: {error.strerror}") from error
    except (*INVALID, NagParameterError, ModelConfigError) as error:
        raise ModelConfigError(f"{path}: {one_line(error)}") from error
    assert isinstance(config, ModelConfig)
    return config
