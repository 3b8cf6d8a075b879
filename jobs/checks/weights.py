"""The checks of weights: their path, whether they are whole, and whether their digest is known.

`check_weights` hashes no large file and loads no torch, so it can be asked of every node.
"""

from dataclasses import dataclass
from pathlib import Path

from jobs.checks.machine import Check
from jobs.manifest.model_catalog import ModelCatalog
from jobs.text import counted
from pipelines.catalog.files.file_digests import are_known
from pipelines.catalog.files.sources import PACKAGED_CONFIGS, resolve_source
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights, check_folder, inspect_model, pipeline_files
from pipelines.errors import ModelNotFoundError, PipelineError
from pipelines.families.worker_weights import verify_weights


@dataclass(frozen=True)
class ModelQuestion:
    """A model that a node shall have.

    Args:
        config: the model.
        path: path of its YAML, to which relative folders are relative.
        weights: the weights that the driver found, which workers load; None if it has none.
        is_asked_for: True if the user named the model.
    """

    config: ModelConfig
    path: Path
    weights: ModelWeights | None
    is_asked_for: bool


def check_weights(model: ModelQuestion) -> Check:
    """Look for a model's weights where a worker would load them."""
    name = model.config.name
    try:
        if (folder := _unhashed(model)) is not None:
            message = f"{name}: {folder} is whole; its digest is not known there: the first worker "
            return Check("weights", None, f"{message}hashes it, or `nagfarm doctor` on that node")
        if model.weights is None:
            weights = inspect_model(model.config, model.path)
        else:
            weights = verify_weights(model.config, model.weights)
    except ModelNotFoundError as error:
        is_ok = False if model.is_asked_for or model.weights is not None else None
        return Check("weights", is_ok=is_ok, message=str(error))
    except (PipelineError, OSError) as error:
        return Check("weights", is_ok=False, message=str(error))
    return Check("weights", is_ok=True, message=f"{name}: {weights.folder}, {weights.revision}")


def _unhashed(model: ModelQuestion) -> Path | None:
    """Return the folder of weights that are whole and whose digest takes long, if they are here."""
    if model.weights is not None and model.weights.described is not None:
        return None  # the driver has a description alone, which the node's weights must prove
    loras = [lora.path for lora in model.weights.loras] if model.weights else []
    if model.weights is None:
        source = resolve_source(model.config.source, model.path)
        folder = source if isinstance(source, Path) else None
    else:
        folder = model.weights.folder
    if folder is None or not folder.is_dir():
        return None
    check_folder(folder, model.config.pipeline_class, without=model.config.gguf_files)
    is_snapshot = model.weights is not None and model.weights.revision == folder.name
    files = [*([] if is_snapshot else pipeline_files(folder)), *loras]
    return None if are_known([file for file in files if file.exists()]) else folder


def check_own_weights(catalog: ModelCatalog) -> list[Check]:
    """Look for the weights of every model on this machine, and for each single weight's shape.

    Packaged models whose weights are missing share one note: most machines need a few of them.
    """
    from pipelines.families.weight_shapes import check_weight_shapes

    missing: list[str] = []

    def check(name: str) -> Check | None:
        try:
            model = catalog.get(name)
            model.tokenizer.read(())
            if model.weights.described is not None:
                only = f"{name}: only its description is here, in {model.weights.folder}"
                return Check("weights", is_ok=None, message=only)
            check_weight_shapes(model.weights.folder, model.config.gguf_files)
        except ModelNotFoundError as error:
            if catalog.path(name).is_relative_to(PACKAGED_CONFIGS):
                missing.append(name)
                return None
            return Check("weights", is_ok=None, message=str(error))
        except PipelineError as error:
            return Check("weights", is_ok=False, message=str(error))
        return Check("weights", is_ok=True, message=f"{name}: here and complete")

    found = [one for name in catalog.names() if (one := check(name)) is not None]
    if missing:
        message = (
            f"{counted(len(missing), 'packaged model')} without weights here; nagfarm models "
            "lists them with the commands that download them"
        )
        found.append(Check("weights", is_ok=None, message=message))
    return found
