"""What a worker is told, and what it says of itself once it has loaded its model: values that travel.

Decides nothing. Loads without torch.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jobs.config import EncodingConfig, StoreConfig
from jobs.records.commit import WorkerIdentity
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.video_model import VideoModel

LoadModel = Callable[[ModelConfig, ModelWeights, int], VideoModel]


@dataclass(frozen=True)
class WorkerSetup:
    """All that a worker is told, in a form that travels.

    Args:
        output: URI of the store.
        spool_folder: `workers.spool_folder`.
        num_threads: torch's, in the thread that renders.
        load_denoiser: loads what denoising needs, and no text encoder; None takes `load_model`.
        parallel: on how many devices this worker renders each clip.
    """

    model: ModelConfig
    weights: ModelWeights
    output: str
    store: StoreConfig
    encoding: EncodingConfig
    spool_folder: str | None
    run_id: str
    num_threads: int
    load_model: LoadModel
    load_denoiser: LoadModel | None = None
    parallel: ParallelConfig = ONE_DEVICE


@dataclass(frozen=True)
class LoadedWorker:
    """A worker that has loaded its model.

    Args:
        spooled: ids of clips that an earlier one has left on its machine, encoded.
        others: the further ranks of a group, whose leader `identity` is.
    """

    identity: WorkerIdentity
    spooled: frozenset[str]
    others: tuple[WorkerIdentity, ...] = ()
    parallel: ParallelConfig = ONE_DEVICE

    @property
    def label(self) -> str:
        """What people call it."""
        name = f"{self.identity.host}:{self.identity.pid}"
        if not self.others:
            return name
        ranks = (self.identity, *self.others)
        is_one_host = len({rank.host for rank in ranks}) == 1
        places = ", ".join(
            f"{rank.pid}" if is_one_host else f"{rank.host}:{rank.pid}" for rank in ranks
        )
        return f"{name} (group of {len(ranks)}: {self.parallel}; {'pids' if is_one_host else 'ranks'} {places})"

    @property
    def nodes(self) -> frozenset[str]:
        """All machines that it lies on."""
        return frozenset(rank.node_id for rank in (self.identity, *self.others))
