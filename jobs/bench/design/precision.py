"""A copy of a model in another float precision: a YAML in a folder of derived models."""

from pathlib import Path

from omegaconf import OmegaConf

from jobs.bench.design.options import REPORT
from jobs.errors import RefusedError
from jobs.whole_files import writing_for, written_for
from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_config import ModelConfig

OTHER_DTYPE = {"float32": "bfloat16", "bfloat16": "float32", "float16": "float32"}


def variant_name(config: ModelConfig) -> str:
    return f"{config.name}-{OTHER_DTYPE[config.dtype]}"


def write_variant(config: ModelConfig, folder: Path) -> None:
    """Write the YAML of the model in its other precision.

    Raises:
        RefusedError: the model does not come with nagfarm, so that its relative paths would break
            in another folder; or the folder cannot be written.
    """
    path = model_paths().get(config.name)
    if path is None:
        raise RefusedError(
            f"{config.name} does not come with nagfarm: leave the slice precision out (--slice)"
        )
    with writing_for(REPORT, folder):
        folder.mkdir(parents=True, exist_ok=True)
    dtype = OTHER_DTYPE[config.dtype]
    changed = {"dtype": dtype, "description": f"{config.name} in {dtype}, for a benchmark"}
    merged = OmegaConf.merge(OmegaConf.load(path), changed)
    with written_for(REPORT, folder / f"{variant_name(config)}.yaml") as unfinished:
        OmegaConf.save(merged, unfinished)
