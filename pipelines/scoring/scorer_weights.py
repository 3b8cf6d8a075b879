"""The folder with a measure's weights: found on this machine, or downloaded when it is asked for.

Decides which folders are taken: safetensors and plain settings, of the commit or the digest that
the measure names. A folder's digest covers its weights and its settings. Loads without torch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from pipelines.catalog.fetching import HubFiles, fetch_files
from pipelines.catalog.files.component_files import check_component
from pipelines.catalog.files.file_digests import sha256_of_all
from pipelines.catalog.files.sources import check_source, is_local, resolve_source
from pipelines.catalog.files.weight_files import LOCAL_REVISION, hub_folder, weight_files
from pipelines.catalog.tokenizer import MAX_VOCABULARY_BYTES
from pipelines.errors import ModelConfigError, ModelFolderError, ModelNotFoundError, ScoringError
from pipelines.scoring.measures import MeasureSpec

PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model")
SETTINGS = (".json", ".txt", ".model")
HERE = Path("measures")  # relative folders are relative to the current one, as on a command line


@dataclass(frozen=True)
class ScorerWeights:
    """A measure and the folder of its weights; None for a measure without weights.

    Args:
        spec: the measure with its revision, and with a source that shows no path of this machine.
    """

    spec: MeasureSpec
    folder: Path | None


def find_weights(spec: MeasureSpec, fetch: Callable[[str], None] | None = None) -> ScorerWeights:
    """Find and check the weights of a measure.

    Args:
        fetch: receives a line before a download; None to download nothing.

    Raises:
        ScoringError: the weights are missing, broken or unsafe, or differ from those of `revision`.
        HubUnreachableError, NotFetchedError: they cannot be downloaded.
    """
    if not spec.kind.weights:
        return ScorerWeights(spec, None)
    title = f"measure {spec.name}"
    try:
        source = resolve_source(spec.source, HERE)
        if not isinstance(source, Path):
            check_source(spec.source, spec.revision or None)
            return _of_the_hub(spec, title, fetch)
        if not source.is_dir():
            raise ModelNotFoundError(
                f"{title}: the folder {source} does not exist; it must hold {spec.kind.weights}"
            )
        _check(source)
        revision = _digest(source)
    except (ModelConfigError, ModelFolderError, ModelNotFoundError) as error:
        raise ScoringError(str(error)) from error
    if spec.revision and spec.revision != revision:
        raise ScoringError(
            f"{title}: expected the weights {spec.revision} in {source}, found {revision}; copy "
            "the same folder to each machine"
        )
    return ScorerWeights(replace(spec, source=public(spec.source), revision=revision), source)


def public(source: str) -> str:
    """Return a source without a path of this machine."""
    if not is_local(source, HERE):
        return source
    folder = resolve_source(source, HERE)
    assert isinstance(folder, Path)
    return f"folder:{folder.name}"


def _of_the_hub(
    spec: MeasureSpec, title: str, fetch: Callable[[str], None] | None
) -> ScorerWeights:
    revision = spec.revision or None
    try:
        folder = hub_folder(title, spec.source, revision, patterns=PATTERNS)
        _check(folder)
    except (ModelNotFoundError, ModelFolderError):
        if fetch is None:
            raise
        fetch_files(HubFiles(title, spec.source, revision, PATTERNS), fetch)
        folder = hub_folder(title, spec.source, revision, patterns=PATTERNS)
        _check(folder)
    return ScorerWeights(replace(spec, revision=folder.name), folder)


def _check(folder: Path) -> None:
    """Refuse a folder that is unsafe, broken, or holds a vocabulary without bounds."""
    check_component(folder, has_weights=True)
    for path in folder.iterdir():
        if (
            path.suffix in SETTINGS
            and path.is_file()
            and path.stat().st_size > MAX_VOCABULARY_BYTES
        ):
            raise ModelFolderError(f"{path} is larger than {MAX_VOCABULARY_BYTES:,} bytes")


def _digest(folder: Path) -> str:
    """Return the digest of a folder's weights and settings, by their names."""
    weights = weight_files(folder)
    settings = [path for path in folder.iterdir() if path.suffix in SETTINGS and path.is_file()]
    files = sorted({*weights, *settings})
    whole = sha256()
    try:
        for path, found in zip(files, sha256_of_all(files), strict=True):
            whole.update(f"{path.name} {found.hex()}\n".encode())
    except OSError as error:
        raise ModelFolderError(f"{folder} cannot be read: {error.strerror}") from error
    return f"{LOCAL_REVISION}{whole.hexdigest()[:32]}"
