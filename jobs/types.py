"""The values that flow through a batch. Loads without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from jobs.errors import FailureClass
from pipelines.catalog.keys.ltx2_guidance import Ltx2Guidance
from pipelines.catalog.keys.second_stage import SecondStage
from pipelines.device_marks import DeviceTime
from pipelines.diffusion_forcing import DiffusionForcing
from pipelines.errors import GroupError
from pipelines.load_progress import NOT_LOADING, LoadPosition
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import GenerationRequest
from pipelines.texts import RequestTokens, Tokens

# In "lookup", which is never timed, a worker asks the store for an existing record of the clip.
# "load" is timed whole, and each of its parts beside it, some of which overlap.
Stage = Literal[
    "lookup", "queue", "load", "load_import", "load_verify", "load_shapes", "load_read",
    "load_install", "text", "denoise", "decode", "encode", "check", "upload",
]  # fmt: skip

UNREAD = RequestTokens(Tokens(0, ""))  # until a tokenizer reads the texts


@dataclass(frozen=True)
class AudioFacts:
    """The sound of an MP4.

    Args:
        codec: `aac`.
        sample_rate: samples of a channel in a second.
        channels: 1 or 2.
        duration_s: seconds, equal to those of the video within one frame.
    """

    codec: str
    sample_rate: int
    channels: int
    duration_s: float

    def __str__(self) -> str:
        layout = {1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels} channels")
        return f"{self.codec}, {self.sample_rate / 1000:g} kHz {layout}"


@dataclass(frozen=True)
class LoraIdentity:
    """A LoRA and how it is applied, as far as this decides the pixels; so its name is left out.

    Args:
        source: hub id, name of packaged weights, or name of a folder; never a machine's path.
        revision: digest of its file; for a LoRA from the hub with the commit before it, for one
            saved by PEFT with the digest of its settings behind it.
        weight: factor of its change.
        component: the transformer that it changes, or "all".
    """

    source: str
    revision: str
    weight: float
    component: str


@dataclass(frozen=True)
class ModelIdentity:
    """A model's weights and how they are run, as far as this decides the pixels.

    Args:
        name: name of the model in manifests.
        source: hub id or name of packaged weights; never a machine's path.
        revision: revision on the hub, or fingerprint of a folder's content.
        scheduler: diffusers class name, or "saved" for the scheduler saved in the folder.
        max_sequence_length: number of text tokens, padded or cut to it.
        decode_timestep, decode_noise_scale: for autoencoders that finish denoising in decode.
        loras: LoRAs in the order in which they are added up.
        fuse_loras: True if the LoRAs are added to the weights, which rounds differently.
        first_block_cache: threshold of the cache that skips blocks; None without it.
        compile: True if the transformers' blocks are compiled, which rounds differently.
        vae_tiling: True if large frames are decoded in tiles.
        vae_memory_format: torch's memory format of the autoencoder's convolutions, which may round
            differently.
        vae_compile: True if the autoencoder's decoder is compiled, which rounds differently.
        pipeline: pipeline class of diffusers that the YAML names; empty for the family's own.
        sigmas: noise levels of the steps that the YAML lists; empty if the scheduler computes them.
        image_cond_noise_scale: share of new noise on an LTX clip's images in each step.
        stochastic_sampling: True or False if the YAML says so; None for the saved setting.
        boundary_ratio: share of the noise schedule that the second transformer takes over, by the
            YAML; None for the folder's.
        conditioning_scale: strength of VACE's control of a clip.
        diffusion_forcing: schedule of diffusion forcing; None for a model without it.
        layerwise_casting: dtype of eight bits that the transformers' weights are rounded to; empty
            if they are not.
        ltx2_guidance: guidance of LTX-2 beside classifier-free guidance; None without any.
        quantization: way in which the transformers' weights are quantized; empty if they are not.
        gguf: transformers that are read from GGUF files, each with the digest of its file.
        second_stage: second stage of an LTX model, with the source and the revision of its latent
            upsampler as above; None without one.
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
    vae_memory_format: str = "contiguous_format"
    vae_compile: bool = False
    pipeline: str = ""
    sigmas: tuple[float, ...] = ()
    stochastic_sampling: bool | None = None
    image_cond_noise_scale: float = 0.0
    boundary_ratio: float | None = None
    conditioning_scale: float = 1.0
    diffusion_forcing: DiffusionForcing | None = None
    layerwise_casting: str = ""
    ltx2_guidance: Ltx2Guidance | None = None
    quantization: str = ""
    gguf: tuple[str, ...] = ()
    second_stage: SecondStage | None = None


@dataclass(frozen=True)
class ClipSpec:
    """One clip to render.

    Args:
        clip_id: hash of everything that decides the clip's pixels, and so not of `parallel`.
        meta: notes of the manifest's row, which the record carries.
        tokens: tokens that the model reads of the texts.
    """

    clip_id: str
    name: str
    model: ModelIdentity
    request: GenerationRequest
    parallel: ParallelConfig = ONE_DEVICE
    meta: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    tokens: RequestTokens = UNREAD

    @property
    def num_steps(self) -> int:
        """The number of denoise steps that are taken, in both stages of a model with two."""
        second = self.model.second_stage
        return self.request.sampling.num_steps + (second.num_steps if second else 0)

    @property
    def is_text_cut(self) -> bool:
        """True if a text has more tokens than the model reads."""
        return self.tokens.has_more_than(self.model.max_sequence_length)


@dataclass(frozen=True)
class StageTiming:
    """The duration of one stage of one clip.

    Args:
        started_at: seconds since the epoch, by the worker's clock.
        step: denoise step, from 0; None for other stages.
    """

    stage: Stage
    started_at: float
    duration_s: float
    step: int | None = None


@dataclass(frozen=True)
class ClipProgress:
    """The position of a clip in flight.

    Args:
        step: number of finished denoise steps; None in other stages.
        age_s: seconds since the stage, or that step, began.
    """

    clip_id: str
    stage: Stage
    step: int | None
    age_s: float


@dataclass(frozen=True)
class WorkerHeartbeat:
    """The periodic sign of life of a worker.

    Args:
        clips: all clips of the worker, with those that wait for the device.
        memory_bytes: host memory in use by the process.
        is_draining: True if the worker was asked to end and takes no more clips.
        load: the position of a worker that loads its model.
        spool_bytes: bytes of the output's clips in the spool of the worker's machine; None if not
            measured, as by a group that forms.
        num_s3_retries: requests that its process has sent to S3 again.
    """

    clips: tuple[ClipProgress, ...]
    memory_bytes: int
    is_draining: bool = False
    load: LoadPosition = NOT_LOADING
    spool_bytes: int | None = None
    num_s3_retries: int = 0


@dataclass(frozen=True)
class ClipDone:
    """A clip whose record is in the store.

    Args:
        device_time: None if this attempt did not render the clip, but found it rendered.
        was_already_committed: True if the record of another attempt was there first and stands.
        memory_bytes: host memory in use by the worker's process at the end of the clip.
    """

    clip_id: str
    name: str
    attempt: int
    timings: tuple[StageTiming, ...]
    device_time: DeviceTime | None = None
    was_already_committed: bool = False
    memory_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The fields that a failed attempt, its record, a quarantine and a run's status share.

    Args:
        error_type: class name of the error, for people and records.
    """

    clip_id: str
    name: str
    failure_class: FailureClass
    error_type: str
    message: str


@dataclass(frozen=True, kw_only=True)
class ClipFailure(Failure):
    """A failure, with the request of its clip, so that records tell what could not be rendered.

    Args:
        model: name of the model.
        request: None if it is not known, since the model is missing or broken.
    """

    model: str = ""
    request: GenerationRequest | None = None


@dataclass(frozen=True, kw_only=True)
class FailedAttempt(ClipFailure):
    """The fields that a failed attempt and its record share.

    Args:
        may_pass_on_retry: True if another attempt at the same clip may succeed.
        worker: label of the worker that tried.
        timings: the stages that the attempt reached.
    """

    attempt: int
    may_pass_on_retry: bool
    traceback: str
    worker: str
    timings: tuple[StageTiming, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ClipFailed(FailedAttempt):
    """An attempt at a clip that ended without a record.

    Args:
        is_spooled: True if the encoded clip lies in the spool of the worker's machine.
        group_error: the class of the error if it is a `GroupError`, otherwise None.
    """

    is_spooled: bool = False
    group_error: type[GroupError] | None = None


@dataclass(frozen=True)
class ClipReturned:
    """The answer of a worker from which a clip was recalled before its device began with it."""

    clip_id: str


ClipOutcome = ClipDone | ClipFailed | ClipReturned


@dataclass(frozen=True, kw_only=True)
class BrokenClip(ClipFailure):
    """A clip that was never tried, since its model is missing or broken where the plan is made.

    Args:
        clip_id: id made of the name alone (`jobs.clip_id.stand_in_id`), since the clip's own id
            needs the revision of the weights.
    """


@dataclass(frozen=True)
class LostRank:
    """The answer of a group in place of a heartbeat or outcome when the rank that knows is gone.

    Args:
        is_preempted: True if the rank was taken away on purpose, so that no clip caused it.
    """

    message: str
    is_preempted: bool = False


def fields_of(cls: type[Failure], value: Failure) -> dict[str, Any]:
    """Return the fields of `value` that `cls`, its class or a base class of it, has."""
    return {one.name: getattr(value, one.name) for one in fields(cls)}
