"""The places where the YAMLs of models and the weights that they name are found.

Both come with nagfarm or from elsewhere: a folder, or for weights the hub. Loads without torch.
"""

import os
import re
from importlib import resources
from pathlib import Path

from pipelines.errors import ModelConfigError

MODELS_VARIABLE = "NAGFARM_MODELS"
PACKAGED_CONFIGS = Path(str(resources.files("configs")))
PACKAGED_WEIGHTS = Path(str(resources.files("pipelines"))) / "shapes" / "weights"


def model_paths(models_folder: Path | None = None) -> dict[str, Path]:
    """Return the YAML of each model name: the packaged ones, and those of the user's folders.

    The folder that the environment's NAGFARM_MODELS names replaces packaged models of the same
    name, and `models_folder` those of both.

    Args:
        models_folder: folder of the user's models.

    Raises:
        ModelConfigError: a folder does not exist.
    """
    folders = [PACKAGED_CONFIGS / "models"]
    if usual := os.environ.get(MODELS_VARIABLE):
        folders.append(_existing(Path(usual), f" of {MODELS_VARIABLE}"))
    if models_folder is not None:
        folders.append(_existing(models_folder, ""))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def _existing(folder: Path, origin: str) -> Path:
    try:
        found = folder.expanduser() if origin else folder  # a shell has expanded an option
        is_there = found.is_dir()
    except (OSError, RuntimeError) as error:  # a name that is too long, an unknown ~user
        raise ModelConfigError(f"the folder of models{origin} {folder}: {error}") from error
    if not is_there:
        raise ModelConfigError(f"the folder of models{origin} {found} does not exist")
    return found


_HUB_ADDRESS = re.compile(
    r"https?://(www\.)?huggingface\.co/(?P<id>[^/]+/[^/?#]+)"
    r"(/(resolve|blob|tree)/(?P<revision>[^/?#]+)(/(?P<file>[^?#]+))?)?"
)


def check_source(source: str, revision: str | None) -> None:
    """Refuse an address, a `package:` source that could lead out, and a revision of no use.

    Raises:
        ModelConfigError: the source is one of these, or has a revision and is not on the hub.
    """
    if "://" in source:
        match = _HUB_ADDRESS.match(source)
        keys = {"source": "id", "revision": "revision", "weight_name": "file"}
        written = ", ".join(
            f"{key}: {match[group]}" for key, group in keys.items() if match and match[group]
        )
        raise ModelConfigError(
            f"source must be a hub id, a folder or a file, not the address {source}"
            + (f"; write {written}" if written else "")
        )
    if source.startswith("package:") and not re.fullmatch(r"package:[a-z0-9][a-z0-9._-]*", source):
        raise ModelConfigError(f"a packaged model is package:NAME, not {source!r}")
    if revision is not None and (source.startswith("package:") or _is_path(source)):
        raise ModelConfigError(
            f"revision: {revision} is for a source on the hub; the revision of {source} is made of "
            "its files: leave it out"
        )


def _is_path(source: str) -> bool:
    return source.startswith((".", "/", "~")) or source.endswith(".safetensors")


def resolve_source(source: str, path: Path) -> str | Path:
    """Return the place of the weights: an absolute path, or the hub id unchanged.

    A path begins with `.`, `/` or `~`, or ends in `.safetensors`.

    Args:
        source: the `source` of a model or a LoRA.
        path: path of the YAML that it was read from.

    Raises:
        ModelConfigError: the source looks like a folder and cannot be one.
    """
    if source.startswith("package:"):
        return PACKAGED_WEIGHTS / source.removeprefix("package:")
    if _is_path(source):
        try:
            place = (path.parent / Path(source).expanduser()).resolve()
            place.exists()  # reads the name, which `resolve` does not refuse
        # An unknown ~user, a null byte, a name that is too long.
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelConfigError(f"{path}: source {source!r} is not a path: {error}") from error
        return place
    return source


def public_source(source: str, path: Path, folder: Path) -> str:
    """Return the source of weights without a path of this machine: `folder:NAME` for a folder.

    Args:
        source: the `source` of a model or a LoRA.
        path: path of the YAML that it was read from.
        folder: the folder that was found for it.
    """
    return f"folder:{folder.name}" if is_local(source, path) else source


def is_local(source: str, path: Path) -> bool:
    """Return True for a folder or file of the machine, False for the hub's and the package's."""
    return not source.startswith("package:") and isinstance(resolve_source(source, path), Path)
