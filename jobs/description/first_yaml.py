"""The first YAML of a model, made from its folder: the keys that the folder decides, filled in.

Reads configs and headers of weights, without torch. The size of a clip, the steps and the guidance
are not in a folder: they begin with values of the family, marked for a person to decide.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pipelines.catalog.files.safetensors_file import read_header
from pipelines.catalog.files.weight_files import PICKLES, read_json, weight_files
from pipelines.catalog.keys.pipeline_classes import (
    DEFAULTS,
    PIPELINE_CLASSES,
    Family,
    PipelineClass,
)
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.catalog.model_folder import check_folder
from pipelines.context_parallel.geometry import read_geometry
from pipelines.errors import ModelFolderError, ModelNotFoundError

DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True)
class FamilyDefaults:
    """The values of a family's own pages, with which a YAML begins."""

    max_sequence_length: int
    sampling: SamplingDefaults


FAMILIES: dict[Family, FamilyDefaults] = {
    "wan": FamilyDefaults(512, SamplingDefaults(50, 5.0, 81, 480, 832, 16)),
    "ltx": FamilyDefaults(256, SamplingDefaults(40, 3.0, 161, 512, 768, 24)),
    "ltx2": FamilyDefaults(1024, SamplingDefaults(40, 3.0, 121, 512, 768, 24)),
}


def first_yaml(folder: Path, name: str) -> str:
    """Return the YAML of a folder as diffusers saves it; `load_model_config` reads it.

    Args:
        folder: folder with model_index.json and a folder for each component.
        name: name of the model, for the comment at its head.

    Raises:
        ModelNotFoundError: the folder does not exist, or does not hold a pipeline.
        ModelFolderError: nagfarm does not drive its pipeline class, or cannot load its weights.
    """
    pipeline, others = _pipeline_of(folder)
    check_folder(folder, pipeline)
    family = FAMILIES[pipeline.family]
    grid = _grid(folder, pipeline, family)
    sampling = _fitted(family.sampling, grid)
    dtype, vae_dtype = (_dtype(folder / part) for part in ("transformer", "vae"))
    saved = read_json(folder / "scheduler" / "scheduler_config.json")
    shift = saved.get("flow_shift", saved.get("shift"))
    is_default = pipeline.name == DEFAULTS.get(pipeline.family)
    lines = [
        f"# {name}.yaml, made by nagfarm models --init; decide the lines that say so",
        'description: ""                 # decide: one line for nagfarm models',
        'licence: ""                     # decide: as the model\'s page states it',
        f"family: {pipeline.family}",
        f"pipeline: {'null' if is_default else pipeline.name}"
        + (f"  # the folder also fits {', '.join(others)}" if others else ""),
        f"source: {json.dumps(str(folder.resolve()), ensure_ascii=False)}",
        f"dtype: {dtype}  # of the transformer's file"
        + ("; bfloat16 takes half the memory" if dtype == "float32" else ""),
        f"vae_dtype: {vae_dtype}  # of the autoencoder's file",
        "device: auto",
        f"max_sequence_length: {family.max_sequence_length}  # decide: tokens of the model's page",
        f"grid: {_mapping(grid)}  # by the configs of the folder",
        f"scheduler: {{name: null}}  # as saved: {saved.get('_class_name')}"
        + (f" with a shift of {shift}" if isinstance(shift, int | float) else ""),
        "# decide: size, steps and scale of the model's page; these are those of its family",
        f"sampling: {_mapping(sampling)}",
        "method: cfg+nag  # decide: nag, with a guidance_scale of 1, for a distilled model",
        "nag: {nag_scale: 9.0, nag_tau: 2.5, nag_alpha: 0.25}  # decide: not measured on it",
    ]
    return "\n".join(lines) + "\n"


def _mapping(values: ShapeGrid | SamplingDefaults) -> str:
    """Return values as a mapping of YAML in one line, without those that are None."""
    parts = [f"{name}: {value:g}" for name, value in vars(values).items() if value is not None]
    return "{" + ", ".join(parts) + "}"


def _pipeline_of(folder: Path) -> tuple[PipelineClass, list[str]]:
    """Return the pipeline class of a folder, and the names of others that it fits."""
    _refuse_other_forms(folder)
    named = read_json(folder / "model_index.json").get("_class_name")
    fitting = [one for one in PIPELINE_CLASSES.values() if named in one.folders]
    if not fitting:
        raise ModelFolderError(
            f"{folder}: model_index.json is for {named!r}; nagfarm drives "
            f"{', '.join(PIPELINE_CLASSES)}"
        )
    own = next((one for one in fitting if one.name == named), fitting[0])
    return own, [one.name for one in fitting if one is not own]


def _refuse_other_forms(folder: Path) -> None:
    """Refuse anything but a folder with model_index.json, and name the remedy."""
    remedy = (
        "expected a folder as diffusers saves it, with model_index.json: load it in Python with "
        "the pipeline's from_single_file and write it with save_pretrained(FOLDER)"
    )
    try:
        is_file, is_folder = folder.is_file(), folder.is_dir()
    except OSError as error:
        raise ModelNotFoundError(f"{folder} cannot be read: {error.strerror}") from error
    if is_file:
        raise ModelNotFoundError(f"{folder} is one file, such as a checkpoint; {remedy}")
    if not is_folder:
        raise ModelNotFoundError(f"the folder {folder} does not exist")
    if not (folder / "model_index.json").is_file():
        kinds = ("*.safetensors", *PICKLES)
        if found := sorted(path.name for kind in kinds for path in folder.glob(kind)):
            raise ModelNotFoundError(f"{folder} holds {found[0]} and no model_index.json; {remedy}")
        raise ModelNotFoundError(
            f"{folder} holds no model_index.json; name the folder that does, such as a snapshot "
            "of the Hugging Face cache"
        )


def _grid(folder: Path, pipeline: PipelineClass, family: FamilyDefaults) -> ShapeGrid:
    probe = ModelConfig(
        name="model",
        family=pipeline.family,
        pipeline=pipeline.name,
        source="./",
        grid=ShapeGrid(1, 1, 1),
        sampling=family.sampling,
        max_sequence_length=family.max_sequence_length,
    )
    found = read_geometry(folder, probe)
    return ShapeGrid(found.frames_per_token, found.height_per_token, found.width_per_token)


def _fitted(sampling: SamplingDefaults, grid: ShapeGrid) -> SamplingDefaults:
    """Return the sizes on the grid that are nearest below those of the family."""
    return SamplingDefaults(
        sampling.num_inference_steps,
        sampling.guidance_scale,
        (sampling.num_frames - 1) // grid.num_frames * grid.num_frames + 1,
        max(sampling.height // grid.height, 1) * grid.height,
        max(sampling.width // grid.width, 1) * grid.width,
        sampling.fps,
    )


def _dtype(component: Path) -> str:
    """Return the dtype of most values of a component's weights."""
    sizes: Counter[str] = Counter()
    for shard in weight_files(component):
        for entry in read_header(shard).entries.values():
            sizes[entry.dtype] += entry.stop - entry.start
    ((most, _),) = sizes.most_common(1)
    if most not in DTYPES:
        raise ModelFolderError(
            f"{component}: its weights are {most}, expected {', '.join(DTYPES)}: name the folder "
            "of the weights before they were quantized"
        )
    return DTYPES[most]
