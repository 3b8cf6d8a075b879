"""Prove that the weights of a folder are those that its configs ask for, before they are loaded.

A component is built on torch's meta device, which takes no memory, and compared with the headers of
its files. Transformers gives random values to a weight that a file lacks, and only logs it.
"""

import re
from collections.abc import Container
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines import ltx2

from pipelines.catalog.files.safetensors_file import read_header
from pipelines.catalog.files.weight_files import read_json, shown, weight_files
from pipelines.catalog.keys.pipeline_classes import COMPONENTS_WITH_WEIGHTS
from pipelines.errors import ModelFolderError

_MODULES = {"diffusers": diffusers, "transformers": transformers, "ltx2": ltx2}
# Older versions of transformers saved these names, which transformers replaces when it loads them.
_RENAMED = {
    "CLIPVisionModel": ((r"^vision_model\.", ""),),
    "Gemma3ForConditionalGeneration": (
        (r"^language_model\.lm_head\.", "lm_head."),
        (r"^language_model\.model\.", "model.language_model."),
        (r"^(model\.)?vision_tower\.(vision_model\.)?", "model.vision_tower."),
        (r"^multi_modal_projector\.", "model.multi_modal_projector."),
    ),
}


def check_weight_shapes(folder: Path, without: Container[str] = ()) -> None:
    """Refuse a folder, already accepted by `check_folder`, in which a weight is missing or unlike.

    Args:
        without: components whose weights are read from another file.

    Raises:
        ModelFolderError: a weight is missing or has another shape than its component's.
    """
    index = read_json(folder / "model_index.json")
    for component in COMPONENTS_WITH_WEIGHTS:
        if component not in without and index.get(component) not in (None, [None, None]):
            library, class_name = index[component]
            check_component_shapes(folder / component, getattr(_MODULES[library], class_name))


def check_component_shapes(folder: Path, model_class: Any) -> None:
    """Refuse the folder of one component in which a weight is missing or unlike its class's.

    Raises:
        ModelFolderError: a weight is missing or has another shape.
    """
    class_name = model_class.__name__
    found = {
        _renamed(name, class_name): shape
        for path in weight_files(folder)
        for name, shape in read_header(path).shapes.items()
    }
    names: dict[int, list[str]] = {}
    parameters: dict[int, torch.nn.Parameter] = {}
    # A parameter may have several names, such as the embedding of T5; a file holds it once.
    for name, parameter in _build(folder, model_class).named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
        parameters[id(parameter)] = parameter
    missing: list[str] = []
    for key, parameter in parameters.items():
        shape = tuple(parameter.shape)
        shapes = [found[name] for name in names[key] if name in found]
        if not shapes:
            missing.append(names[key][0])
        elif shape not in shapes:
            raise ModelFolderError(
                f"{folder}: {names[key][0]} has the shape {shapes[0]}, and config.json asks for "
                f"{shape}: the files belong to different models; fetch the folder again"
            )
    if missing:
        raise ModelFolderError(
            f"{folder} lacks {shown(missing)}, which config.json asks for; fetch the folder again"
        )


def _renamed(name: str, class_name: str) -> str:
    for old, new in _RENAMED.get(class_name, ()):
        name = re.sub(old, new, name)
    return name


def _build(folder: Path, model_class: Any) -> Any:
    """Return a component without memory for its weights."""
    is_of_diffusers = bool(issubclass(model_class, diffusers.ModelMixin))
    try:
        with torch.device("meta"):
            if is_of_diffusers:
                return model_class.from_config(model_class.load_config(folder))
            model = model_class(model_class.config_class.from_pretrained(folder))
            model.tie_weights()
            return model
    except (ValueError, TypeError, KeyError, RuntimeError, OSError, AttributeError) as error:
        raise ModelFolderError(
            f"{folder}: no {model_class.__name__} can be built from its config.json: {error}"
        ) from error
