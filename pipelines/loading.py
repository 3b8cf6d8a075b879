"""Finds a model's folder and proves, before anything is started, that it can be loaded and is safe to load.

Loads without torch: it reads names, sizes, JSON and safetensors headers. Only weights in safetensors and classes of
diffusers and transformers are accepted; a folder cannot bring code of its own.
"""

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.config import ModelConfig, resolve_source
from pipelines.errors import ModelFolderError, ModelNotFoundError

PIPELINE_CLASSES = {"wan": "WanPipeline", "ltx": "LTXPipeline"}
COMPONENT_CLASSES: dict[str, dict[str, frozenset[str]]] = {
    family: {
        "tokenizer": frozenset({"T5Tokenizer", "T5TokenizerFast"}),
        "text_encoder": frozenset({encoder}),
        "vae": frozenset({vae}),
        "transformer": frozenset({transformer}),
        "scheduler": frozenset({"UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"}),
        **({"transformer_2": frozenset({transformer})} if family == "wan" else {}),
    }
    for family, encoder, vae, transformer in (
        ("wan", "UMT5EncoderModel", "AutoencoderKLWan", "WanTransformer3DModel"),
        ("ltx", "T5EncoderModel", "AutoencoderKLLTXVideo", "LTXVideoTransformer3DModel"),
    )
}
COMPONENTS_WITH_WEIGHTS = ("text_encoder", "vae", "transformer", "transformer_2")
OPTIONAL_COMPONENTS = ("transformer_2",)
MAX_JSON_BYTES = 64_000_000  # a large vocabulary's tokenizer.json is 17 MB
MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own limit
LOCAL_REVISION = "sha256:"  # what a folder's revision begins with


@dataclass(frozen=True)
class ModelWeights:
    """A folder that was found fit to load, and what its content is called."""

    folder: Path
    revision: str


def inspect_model(config: ModelConfig, config_path: Path) -> ModelWeights:
    """Checks the weights that a model's YAML names.

    Args:
        config: the model.
        config_path: the YAML it was read from; relative folders are relative to it.

    Returns:
        The folder, and as revision the hub's commit or the fingerprint of a local folder.

    Raises:
        ModelNotFoundError: not on this machine; the message says how to get it.
        ModelFolderError: broken, incomplete or unsafe.
    """
    source = resolve_source(config, config_path)
    if isinstance(source, Path):
        if not source.is_dir():
            raise ModelNotFoundError(f"{config.name}: the model folder {source} does not exist")
        check_folder(source, config.family)
        return ModelWeights(source, f"{LOCAL_REVISION}{fingerprint(source)[:32]}")
    folder = _hub_folder(config.name, source, config.revision)
    check_folder(folder, config.family)
    return ModelWeights(folder, folder.name)


def _hub_folder(name: str, source: str, revision: str | None) -> Path:
    """The snapshot's folder in the local Hugging Face cache; its name is the commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, local_files_only=True))
    except HFValidationError as error:
        raise ModelNotFoundError(f"{name}: {source!r} is neither a hub id (owner/name) nor a folder") from error
    except LocalEntryNotFoundError as error:
        remedy = f"hf download {source}" + (f" --revision {revision}" if revision else "")
        raise ModelNotFoundError(
            f"{name}: {source} is not in this machine's Hugging Face cache; fetch it with: {remedy}"
        ) from error


def check_folder(folder: Path, family: Literal["wan", "ltx"]) -> None:
    """Refuses a folder that is not a complete diffusers pipeline of the family, in safetensors.

    Raises:
        ModelFolderError
    """
    index = read_json(folder / "model_index.json")
    expected_class = PIPELINE_CLASSES[family]
    if index.get("_class_name") != expected_class:
        raise ModelFolderError(
            f"{folder}: model_index.json is for {index.get('_class_name')!r}, not {expected_class!r}"
        )
    for component, allowed in COMPONENT_CLASSES[family].items():
        entry: Any = index.get(component)
        if component in OPTIONAL_COMPONENTS and entry in (None, [None, None]):
            continue
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] in ("diffusers", "transformers")):
            raise ModelFolderError(
                f"{folder}: model_index.json must name a diffusers or transformers class for {component}, not {entry!r}"
            )
        if entry[1] not in allowed:
            raise ModelFolderError(
                f"{folder}: {component} must be {' or '.join(sorted(allowed))}, not {entry[1]!r} (model_index.json)"
            )
        _check_component(folder / component, component)


def _check_component(folder: Path, component: str) -> None:
    if not folder.is_dir():
        raise ModelFolderError(f"{folder.parent}: the folder {component!r} is missing")
    for path in sorted(folder.glob("*.json")):
        if "auto_map" in read_json(path):
            raise ModelFolderError(f"{path} asks for code of its own (auto_map), which is never run")
    if component not in COMPONENTS_WITH_WEIGHTS:
        return
    read_json(folder / "config.json")
    shards = _weight_files(folder)
    for shard in shards:
        check_safetensors(shard)


def _weight_files(folder: Path) -> list[Path]:
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if not indices:
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            pickled = [path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern)]
            remedy = f"; {pickled[0]} is a pickle, convert it to safetensors" if pickled else ""
            raise ModelFolderError(f"{folder} holds no .safetensors file{remedy}")
        return files
    weight_map: Any = read_json(indices[0]).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFolderError(f"{indices[0]} has no weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelFolderError(f"{indices[0]} names {name!r}, which is not a .safetensors file of its own folder")
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder}: the shard {name} is missing")
    return [folder / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object of bounded size.

    Raises:
        ModelFolderError: missing, too large, or not a JSON object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelFolderError(f"{path} is larger than {MAX_JSON_BYTES:,} bytes")
        content: Any = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelFolderError(f"{path} is missing") from error
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    return content


def check_safetensors(path: Path) -> None:
    """Proves that a file is a whole safetensors file by its header and its size.

    Raises:
        ModelFolderError: truncated, padded, or not safetensors.
    """
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 2 <= header_bytes <= MAX_HEADER_BYTES:
                raise ModelFolderError(f"{path} is not a safetensors file")
            header: Any = json.loads(file.read(header_bytes))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelFolderError(f"{path} is not a safetensors file: its header is broken") from error
    if not ends or not all(isinstance(end, int) for end in ends):
        raise ModelFolderError(f"{path} holds no tensors")
    expected, found = 8 + header_bytes + max(ends), path.stat().st_size
    if expected != found:
        raise ModelFolderError(f"{path} must have {expected:,} bytes by its header but has {found:,}: copy it again")


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and the whole content of a pipeline's files: about a second a gigabyte."""
    digest = hashlib.sha256()
    files = [folder / "model_index.json"]
    for component in sorted({*COMPONENT_CLASSES["wan"], *COMPONENT_CLASSES["ltx"]}):
        files += [path for path in sorted((folder / component).glob("*")) if path.is_file()]
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def verify_weights(config: ModelConfig, weights: ModelWeights) -> None:
    """Proves, on the machine that is to load them, that the weights are the ones that were inspected.

    Raises:
        ModelNotFoundError: there is no such folder on this machine.
        ModelFolderError: it is broken here, or holds something else.
    """
    if not weights.folder.is_dir():
        raise ModelNotFoundError(f"{config.name}: the model folder {weights.folder} does not exist on this machine")
    check_folder(weights.folder, config.family)
    is_local = weights.revision.startswith(LOCAL_REVISION)
    found = f"{LOCAL_REVISION}{fingerprint(weights.folder)[:32]}" if is_local else weights.folder.name
    if found != weights.revision:
        raise ModelFolderError(f"{config.name}: {weights.folder} holds revision {found} here, not {weights.revision}")
