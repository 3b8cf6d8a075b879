"""Download the weights of a model from the hub, once on a machine, however many processes ask.

The only module that downloads anything, and nothing in a run calls it. The files go where
`weight_files` looks for them: into the Hugging Face cache, `HF_HUB_CACHE`. Loads without torch.
"""

import fcntl
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.catalog.files.sources import resolve_source
from pipelines.catalog.files.weight_files import PIPELINE_FILES
from pipelines.catalog.loras.lora_settings import CONFIG_NAME
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights, inspect_model
from pipelines.catalog.model_loras import lora_title
from pipelines.catalog.upsampler_files import hub_patterns
from pipelines.errors import (
    HubUnreachableError,
    ModelFolderError,
    ModelNotFoundError,
    NotFetchedError,
)

LOCK = PurePosixPath(".locks", "nagfarm")  # beside the locks that the hub's client makes
# The cache may be a folder of several users: no link is followed, and no pipe waited for.
LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Say = Callable[[str], None]


@dataclass(frozen=True)
class HubFiles:
    """The files of one repository on the hub that a model or a LoRA needs.

    Args:
        title: the model or the LoRA, for messages.
        source: id on the hub.
        revision: commit, branch or tag; None for the hub's default.
        patterns: names of the files, where `*` stands for any text.
    """

    title: str
    source: str
    revision: str | None
    patterns: tuple[str, ...]


def fetch_weights(config: ModelConfig, config_path: Path, say: Say) -> ModelWeights:
    """Return a model's weights, and download first what is missing.

    Weights that are here and whole are left as they are: the hub is not asked, and a branch that
    has moved on there changes nothing. One process of a machine downloads at a time. The others
    wait, and find the files.

    Args:
        config: the model.
        config_path: path of its YAML; relative folders are relative to it.
        say: receives a line before each wait and each download.

    Raises:
        ModelNotFoundError: a folder that the YAML names is missing, which no hub can mend.
        ModelFolderError: the weights are here, and broken or unsafe.
        HubUnreachableError: the hub does not answer.
        NotFetchedError: the hub refuses, or the files cannot be written here.
    """
    if weights := _found(config, config_path):
        return weights
    if needed := list(hub_files(config, config_path)):
        with _only_one(lambda: say(f"{config.name}: another process downloads; waiting for it")):
            if weights := _found(config, config_path):
                return weights
            for files in needed:
                say(f"{files.title}: downloading {files.source}")
                _download(files)
    return inspect_model(config, config_path)


def fetch_files(files: HubFiles, say: Say) -> None:
    """Download the files of one repository; those that are here already are left as they are.

    Raises:
        HubUnreachableError: the hub does not answer.
        NotFetchedError: the hub refuses, or the files cannot be written here.
    """
    with _only_one(lambda: say(f"{files.title}: another process downloads; waiting for it")):
        say(f"{files.title}: downloading {files.source}")
        _download(files)


def hub_files(config: ModelConfig, config_path: Path) -> Iterator[HubFiles]:
    """Yield the files on the hub that a model needs, and its LoRAs and upsampler.

    An id there has a slash.
    """
    source = resolve_source(config.source, config_path)
    if isinstance(source, str) and "/" in source:
        yield HubFiles(config.name, source, config.revision, PIPELINE_FILES)
    for lora in config.loras:
        source = resolve_source(lora.source, config_path)
        if isinstance(source, str) and "/" in source:
            name = lora.weight_name
            patterns = (
                (name, str(PurePosixPath(name).parent / CONFIG_NAME))
                if name
                else ("*.safetensors", f"*{CONFIG_NAME}")
            )
            yield HubFiles(lora_title(config, lora), source, lora.revision, patterns)
    yield from _upsampler_files(config, config_path)


def _found(config: ModelConfig, config_path: Path) -> ModelWeights | None:
    try:
        return inspect_model(config, config_path)
    except (ModelNotFoundError, ModelFolderError):
        return None


def _upsampler_files(config: ModelConfig, config_path: Path) -> Iterator[HubFiles]:
    stage = config.second_stage
    if stage is not None:
        source = resolve_source(stage.source, config_path)
        if isinstance(source, str) and "/" in source:
            title = f"{config.name}: latent upsampler"
            yield HubFiles(title, source, stage.revision, hub_patterns(stage))


@contextmanager
def _only_one(wait: Callable[[], None]) -> Generator[None]:
    """Hold the lock of this machine's cache, which the kernel gives back if the process dies.

    Args:
        wait: called before a wait for another process.
    """
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    path = cache / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, LOCK_FLAGS, 0o666), "rb")
    except OSError as error:
        raise NotFetchedError(
            f"the Hugging Face cache {cache} cannot be written: {error.strerror}; make it "
            "writable, or set HF_HUB_CACHE to another folder"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(files: HubFiles) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    place = f"{files.title}: {files.source}"
    try:
        snapshot_download(
            files.source, revision=files.revision, allow_patterns=list(files.patterns)
        )
    except HFValidationError:
        return  # `inspect_model` refuses the id
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise NotFetchedError(
            f"{place} is not on the hub, or not for this user: correct the source, or set "
            "HF_TOKEN to a token that may read it"
        ) from error
    except RevisionNotFoundError as error:
        raise NotFetchedError(f"{place} has no revision {files.revision!r} on the hub") from error
    except (LocalEntryNotFoundError, HTTPError, ConnectionError, TimeoutError) as error:
        raise HubUnreachableError(
            f"{place} cannot be downloaded: {_first_line(error)}; run the command again, which "
            "goes on where it ended, or set HF_ENDPOINT to a mirror"
        ) from error
    # The client's own errors, and those of the disk.
    except Exception as error:
        raise NotFetchedError(f"{place} cannot be downloaded: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
