"""A copy of a model in another float precision: a YAML in a folder of derived models."""

from pathlib import Path

from omegaconf import OmegaConf

from jobs.errors import RefusedError
from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_config import ModelConfig

OTHER_DTYPE = {"float32": "bfloat16", "bfloat16": "float32", "float16": "float32"}


def variant_name(config: ModelConfig) -> str:
    return f"{config.name}-{OTHER_DTYPE[config.dtype]}"


def write_variant(config: ModelConfig, folder: Path) -> None:
    """Write the YAML of the model in its other precision.

    Raises:
        RefusedError: the model does not come with nagfarm, so that its relative paths would break
            in another folder.
    """
    path = model_paths().get(config.name)
    if path is None:
        raise RefusedError(
            f"{config.name} does not come with nagfarm: leave the slice precision out (--slice)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    dtype = OTHER_DTYPE[config.dtype]
    changed = {"dtype": dtype, "description": f"{config.name} in {dtype}, for a benchmark"}
    OmegaConf.save(
        OmegaConf.merge(OmegaConf.load(path), changed), folder / f"{variant_name(config)}.yaml"
    )
