"""The clips that every side of a comparison renders, and the times that it reports. Without torch.

A side is the farm, a plain script of diffusers, or Ray Data. All get the same model, texts, seeds,
size and steps; `Script` holds what a side without the farm needs to know of them.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.request import VideoShape

Guidance = Literal["none", "cfg", "nag"]
DEVICE_STAGES = ("text", "denoise", "decode")
STAGES = (*DEVICE_STAGES, "encode", "check", "upload")
PROMPTS = ("a circle moving right", "a square moving up", "a triangle moving left")
NEGATIVES = ("red", "blue", "white background")
CFG_SCALE = 3.0  # the time of a clip does not depend on it
FPS = 8


@dataclass(frozen=True)
class Clip:
    """The texts and the seed of one clip, and its name."""

    name: str
    prompt: str
    negative_prompt: str
    seed: int


@dataclass(frozen=True)
class Workload:
    """The clips of one comparison.

    Args:
        models: folder of model YAMLs besides those that come with nagfarm.
    """

    model: str
    shape: VideoShape
    num_inference_steps: int
    num_clips: int
    models: Path | None = None

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The clips, each with a seed of its own."""
        return tuple(
            Clip(
                f"clip-{seed:03d}",
                PROMPTS[seed % len(PROMPTS)],
                NEGATIVES[seed // len(PROMPTS) % len(NEGATIVES)],
                seed,
            )
            for seed in range(self.num_clips)
        )

    def rows(self) -> Iterable[dict[str, Any]]:
        """Yield the rows of the farm's manifest, which guides by NAG."""
        for clip in self.clips:
            yield {
                **asdict(clip),
                **asdict(self.shape),
                "model": self.model,
                "num_inference_steps": self.num_inference_steps,
                "fps": FPS,
                "method": "nag",
            }


@dataclass(frozen=True)
class Script:
    """Everything that a plain script of diffusers is given.

    Args:
        folder: the model's weights.
        lora: a LoRA to fuse into them, if any.
        nag: fields of `NagParams`.
        output: `s3://bucket/prefix`, `file:///folder` or a folder.
    """

    folder: str
    lora: str | None
    dtype: str
    vae_dtype: str
    device: str
    max_sequence_length: int
    num_frames: int
    height: int
    width: int
    num_inference_steps: int
    guidance: Guidance
    nag: dict[str, float]
    output: str
    clips: tuple[Clip, ...]

    @classmethod
    def of(cls, workload: Workload, guidance: Guidance, output: str, device: str) -> Self:
        path = model_paths(workload.models)[workload.model]
        config: ModelConfig = load_model_config(path)
        weights = inspect_model(config, path)
        nag = config.nag
        return cls(
            folder=str(weights.folder),
            lora=str(weights.loras[0].path) if weights.loras else None,
            dtype=config.dtype,
            vae_dtype=config.vae_dtype,
            device=device,
            max_sequence_length=config.max_sequence_length,
            **asdict(workload.shape),
            num_inference_steps=workload.num_inference_steps,
            guidance=guidance,
            nag={name: getattr(nag, name) for name in ("nag_scale", "nag_tau", "nag_alpha")},
            output=output,
            clips=workload.clips,
        )

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        document = json.loads(path.read_text(encoding="utf-8"))
        clips = tuple(Clip(**clip) for clip in document.pop("clips"))
        return cls(**document, clips=clips)


@dataclass(frozen=True)
class ClipTimes:
    """The times of one clip.

    Args:
        worker: process that rendered it.
        started_at: begin of its work on the device, in seconds since the epoch.
        stages_s: seconds of each stage.
        done_at: moment at which it lay in the output, in seconds since the epoch.
        peak_memory_bytes: most memory that the process has had until then: of the GPU, or its own.
    """

    name: str
    worker: str
    started_at: float
    stages_s: dict[str, float]
    done_at: float
    peak_memory_bytes: int


@dataclass
class StageWatch:
    """The stages of one clip, each timed from the end of the one before.

    Args:
        wait: waits for the device.
    """

    wait: Callable[[], None]
    started_at: float = field(default_factory=time.time)
    stages_s: dict[str, float] = field(default_factory=dict[str, float])
    _last_s: float = field(default_factory=time.monotonic)

    def end(self, stage: str) -> None:
        """Count the time since the last stage's end as this stage's."""
        self.wait()
        now_s = time.monotonic()
        self.stages_s[stage] = self.stages_s.get(stage, 0.0) + now_s - self._last_s
        self._last_s = now_s


def write_times(path: Path, times: ClipTimes) -> None:
    """Append one clip's times to a file with a line a clip."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(times)) + "\n")


def read_times(path: Path) -> list[ClipTimes]:
    return [ClipTimes(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def summarize(launched_at: float, num_workers: int, clips: Sequence[ClipTimes]) -> dict[str, Any]:
    """Return the figures of one side as JSON.

    The steady pace begins when each worker has finished a clip; the stages are means over the clips
    after each worker's first, in which it warms up. Busy share is the device stages'
    time over the time from the worker's first begin on the device to its last clip's end there,
    or, for a process a prompt, over all of it.
    """
    if len(clips) <= num_workers:
        raise ValueError(f"{num_workers} workers need more than {len(clips)} clips")
    ends = sorted(clip.done_at for clip in clips)
    in_order = sorted(clips, key=lambda clip: clip.started_at)
    first = {clip.worker: clip for clip in reversed(in_order)}.values()
    warm = [clip for clip in clips if clip not in first]
    steady_s = (ends[-1] - ends[num_workers - 1]) / (len(clips) - num_workers)
    return {
        "num_clips": len(clips),
        "num_workers": num_workers,
        "first_clip_s": ends[0] - launched_at,
        "seconds_a_clip": steady_s,
        "clips_per_hour": 3600 / steady_s,
        "clips_per_hour_with_start": 3600 * len(clips) / (ends[-1] - launched_at),
        "busy_share": busy_share(clips),
        "peak_memory_bytes": sum(
            max(clip.peak_memory_bytes for clip in clips if clip.worker == worker)
            for worker in {clip.worker for clip in clips}
        ),
        "stages_s": {
            stage: statistics.mean(clip.stages_s[stage] for clip in warm)
            for stage in STAGES
            if stage in clips[0].stages_s
        },
    }


def busy_share(clips: Sequence[ClipTimes]) -> float:
    """Return the share of the time in which the workers' devices had work."""
    busy_s = whole_s = 0.0
    for worker in {clip.worker for clip in clips}:
        own = [clip for clip in clips if clip.worker == worker]
        ends = [
            clip.started_at + sum(clip.stages_s[stage] for stage in DEVICE_STAGES) for clip in own
        ]
        busy_s += sum(clip.stages_s[stage] for clip in own for stage in DEVICE_STAGES)
        whole_s += max(ends) - min(clip.started_at for clip in own)
    return busy_s / whole_s


def plain_environment() -> dict[str, str]:
    """Return this process's variables without a number of threads: a plain script sets none."""
    return {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
