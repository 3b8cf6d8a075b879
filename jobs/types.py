"""The values that flow through a batch. Loads without torch."""

from dataclasses import dataclass
from typing import Literal

from jobs.errors import FailureClass
from pipelines.errors import GroupError
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import GenerationRequest

# "lookup" is never timed: asking the store whether the clip is there already
Stage = Literal["lookup", "queue", "load", "text", "denoise", "decode", "encode", "check", "upload"]


@dataclass(frozen=True)
class LoraIdentity:
    """Which LoRA, and how it is put on, as far as it decides the pixels: so not its name.

    Args:
        source: hub id, the packaged weights' name, or a folder's; never a machine's path.
        revision: the digest of its file, the hub's with the commit before it.
        weight: factor of its change.
        component: the transformer that it changes, or "all".
    """

    source: str
    revision: str
    weight: float
    component: str


@dataclass(frozen=True)
class ModelIdentity:
    """Which weights, and how they are run, as far as it decides the pixels.

    Args:
        name: what manifests call the model.
        source: hub id or the packaged weights' name; never a machine's path.
        revision: the hub's revision, or the fingerprint of a folder's content.
        scheduler: diffusers class name, or "saved" for what the folder says.
        max_sequence_length: tokens of text, padded or cut to it.
        decode_timestep, decode_noise_scale: of autoencoders that finish denoising while they decode.
        loras: in the order in which they are added up.
        fuse_loras: they are added to the weights, which rounds differently.
        first_block_cache: threshold of the cache that skips blocks, None without it.
        compile: the transformers' blocks are compiled, which rounds differently.
        vae_tiling: large frames are decoded in tiles.
    """

    name: str
    source: str
    revision: str
    dtype: str
    scheduler: str
    vae_dtype: str = "float32"
    max_sequence_length: int = 512
    decode_timestep: float = 0.0
    decode_noise_scale: float = 0.0
    loras: tuple[LoraIdentity, ...] = ()
    fuse_loras: bool = False
    first_block_cache: float | None = None
    compile: bool = False
    vae_tiling: bool = False


@dataclass(frozen=True)
class ClipSpec:
    """One clip that is to be. `clip_id` is a hash of everything that decides its pixels, and so not of `parallel`."""

    clip_id: str
    name: str
    model: ModelIdentity
    request: GenerationRequest
    parallel: ParallelConfig = ONE_DEVICE


@dataclass(frozen=True)
class StageTiming:
    """How long one stage of one clip took.

    Args:
        started_at: seconds since the epoch, by the worker's clock.
        step: the denoise step, from 0; None for other stages.
    """

    stage: Stage
    started_at: float
    duration_s: float
    step: int | None = None


@dataclass(frozen=True)
class ClipProgress:
    """Where a clip in flight is.

    Args:
        step: denoise steps that are done; None in other stages.
        age_s: since its stage, or that step, began.
    """

    clip_id: str
    stage: Stage
    step: int | None
    age_s: float


@dataclass(frozen=True)
class WorkerHeartbeat:
    """What a worker says of itself while it computes.

    Args:
        clips: that it has, those that wait for the device too.
        memory_bytes: of the host, in use by the process.
        is_draining: it was told to end, and takes no more clips.
    """

    clips: tuple[ClipProgress, ...]
    memory_bytes: int
    is_draining: bool = False


@dataclass(frozen=True)
class ClipDone:
    """A clip whose record is in the store."""

    clip_id: str
    name: str
    uri: str
    attempt: int
    timings: tuple[StageTiming, ...]
    was_already_committed: bool = False  # another attempt's record was there first; its bytes stand
    memory_bytes: int = 0  # of the host, in use by the worker's process at the clip's end


@dataclass(frozen=True)
class ClipFailed:
    """An attempt at a clip that did not end in a record.

    Args:
        error_type: the error's class name, for people and records.
        group_error: the class of the error if it is a `GroupError`, otherwise None.
    """

    clip_id: str
    name: str
    attempt: int
    failure_class: FailureClass
    may_pass_on_retry: bool
    error_type: str
    message: str
    traceback: str
    worker: str
    timings: tuple[StageTiming, ...] = ()
    is_spooled: bool = False  # it lies encoded on the worker's machine
    group_error: type[GroupError] | None = None


ClipOutcome = ClipDone | ClipFailed


@dataclass(frozen=True)
class LostRank:
    """What a group answers in the place of a heartbeat or an outcome where the rank that would know is gone.

    Args:
        is_preempted: it was taken away on purpose, which is no clip's fault.
    """

    message: str
    is_preempted: bool = False
