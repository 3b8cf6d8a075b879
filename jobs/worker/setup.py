"""The setup that a worker receives and the description of a loaded worker, both picklable.

Decides nothing. Loads without torch.
"""

import gc
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from jobs.records.schema import WorkerIdentity
from jobs.settings.run_config import EncodingConfig, StoreConfig
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.cost.activations import Clip
from pipelines.families import registry
from pipelines.families.worker_weights import read_ahead, verify_weights
from pipelines.load_progress import LoadProgress
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.video_model import LoadedModel, VideoModel


class ModelLoader(Protocol):
    """Loads a model in a worker's process. It is sent to each worker, so it must be picklable."""

    def load_model(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> LoadedModel:
        """Load the whole model.

        Args:
            config: the model.
            weights: the folder of its weights, or their description.
            num_threads: torch's threads in the calling thread, which is the one that renders.
            progress: receives the parts of the load.

        Raises:
            PipelineError: the weights are missing, changed or broken on this machine.
        """
        ...

    def load_denoiser(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> VideoModel:
        """Load the model without its text encoder, for a rank that only denoises."""
        ...


@contextmanager
def without_garbage_collection() -> Generator[None]:
    """Pause garbage collection during imports, and hide what they made from it afterwards.

    It finds nothing there. It took a fifth of the 9 s in which torch and diffusers are imported.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.enable()


@dataclass(frozen=True)
class DiffusersLoader:
    """Verifies a model's weights on the worker's machine and loads them with diffusers."""

    def load_model(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> LoadedModel:
        weights = _prepare(config, weights, progress)
        model = registry.load_model(config, weights, num_threads, progress)
        return LoadedModel(model, model.nag_coverage, weights.folder)

    def load_denoiser(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> VideoModel:
        weights = _prepare(config, weights, progress)
        return registry.load_denoiser(config, weights, num_threads, progress)


def _prepare(config: ModelConfig, weights: ModelWeights, progress: LoadProgress) -> ModelWeights:
    """Verify the weights and read them ahead, while this thread imports what their family needs.

    Python's lock, which an import holds, is free while a file is hashed or read.

    Returns:
        The weights on this machine, whose place a driver without weights does not know.
    """

    def verify() -> ModelWeights:
        with progress.part("verify"):
            found = verify_weights(config, weights, progress)
            read_ahead(found)  # a file with a known digest was not read yet
            return found

    with ThreadPoolExecutor(1, thread_name_prefix="verify") as beside:
        verified = beside.submit(verify)
        with without_garbage_collection():
            registry.import_family(config, progress)
        return verified.result()


@dataclass(frozen=True)
class WorkerSetup:
    """The picklable settings of one worker.

    Args:
        output: URI of the store.
        spool_folder: `workers.spool_folder`.
        num_threads: torch's threads in the thread that renders.
        loader: loads the model in the worker's process.
        parallel: the devices on which this worker renders each clip.
        clips: kinds of clip that may come; empty if they are not known.
        is_forced: True to render also clips that need more memory than the device has.
    """

    model: ModelConfig
    weights: ModelWeights
    output: str
    store: StoreConfig
    encoding: EncodingConfig
    spool_folder: str | None
    run_id: str
    num_threads: int
    loader: ModelLoader
    parallel: ParallelConfig = ONE_DEVICE
    clips: tuple[Clip, ...] = ()
    is_forced: bool = False


@dataclass(frozen=True)
class LoadedWorker:
    """A worker that has loaded its model.

    Args:
        spooled: ids of encoded clips that earlier workers left in its machine's spool.
        others: the other ranks of a group; `identity` is its leader.
        warning: words for people about the memory of its device.
    """

    identity: WorkerIdentity
    spooled: frozenset[str]
    others: tuple[WorkerIdentity, ...] = ()
    parallel: ParallelConfig = ONE_DEVICE
    warning: str = ""

    @property
    def label(self) -> str:
        """The worker's name in logs and records."""
        name = f"{self.identity.host}:{self.identity.pid}"
        if not self.others:
            return name
        ranks = (self.identity, *self.others)
        is_one_host = len({rank.host for rank in ranks}) == 1
        places = ", ".join(
            f"{rank.pid}" if is_one_host else f"{rank.host}:{rank.pid}" for rank in ranks
        )
        kind = "pids" if is_one_host else "ranks"
        return f"{name} (group of {len(ranks)}: {self.parallel}; {kind} {places})"

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes on which the worker's processes run."""
        return frozenset(rank.node_id for rank in (self.identity, *self.others))
