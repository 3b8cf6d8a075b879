"""A video model that sleeps instead of computing, and nagfarm's driver with it.

`python -m benchmarks.dispatch.stand_in CLIP_S WORK TURNS render ...` is nagfarm with workers whose
clips take CLIP_S seconds, and writes the turns of the dispatch loop to the file TURNS. All around
the model is real, but with WORK "light" a worker encodes and checks its first clip only: 64 workers
on two cores could not encode a clip every two seconds.
"""

import contextlib
import json
import sys
import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jobs.cli.main import main
from jobs.cluster.answers import Answer, Answers
from nag import Coverage
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.load_progress import LoadProgress
from pipelines.request import GenerationRequest, TextEmbeddings, VideoFrames
from pipelines.video_model import LoadedModel, OnStep
from tests.fakes.latents import fake_embeddings, fake_latents
from tests.fakes.model import FakeDevice

if TYPE_CHECKING:
    import torch

Work = Literal["full", "light"]


@dataclass(frozen=True)
class SleepingModel:
    """A video model whose denoise steps sleep, so that its device is busy and the CPU is not."""

    clip_s: float
    device = FakeDevice()

    def encode_text(self, request: GenerationRequest, ahead: object = ()) -> TextEmbeddings:
        return fake_embeddings()

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> "torch.Tensor":
        num_steps = request.sampling.num_inference_steps
        for step in range(num_steps):
            time.sleep(self.clip_s / num_steps)
            on_step(step)
        return fake_latents(0)

    def decode(self, request: GenerationRequest, latents: "torch.Tensor") -> VideoFrames:
        """Draw a slope of grey that moves."""
        shape = request.shape
        ramp_W = np.linspace(60, 180, shape.width)
        frames = [
            np.broadcast_to(np.roll(ramp_W, 2 * index)[:, None], (shape.height, shape.width, 3))
            for index in range(shape.num_frames)
        ]
        return VideoFrames(np.ascontiguousarray(frames, dtype=np.uint8), request.fps)

    def exact_attention(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class SleepingLoader:
    """A `ModelLoader` of sleeping models, pickled by reference to this module."""

    clip_s: float
    work: Work

    def load_model(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> LoadedModel:
        if self.work == "light":
            encode_once()
        model = self.load_denoiser(config, weights, num_threads, progress)
        return LoadedModel(model, Coverage(1, 1))

    def load_denoiser(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> SleepingModel:
        return SleepingModel(self.clip_s)


def encode_once() -> None:
    """Let this process encode and check its first clip, and write the same MP4 for all others."""
    from jobs.media.decode_check import check_mp4
    from jobs.media.encode import encode_mp4

    made: list[bytes] = []

    def encode(video: VideoFrames, path: Path, *rest: Any) -> None:
        if not made:
            encode_mp4(video, path, *rest)
            check_mp4(path, *_shape_of(video))
            made.append(path.read_bytes())
        path.write_bytes(made[0])

    def check(*_: object) -> None:
        pass

    for module in list(sys.modules.values()):
        if module.__name__.startswith("jobs.") and not module.__name__.startswith("jobs.media."):
            for name, stand_in in (("encode_mp4", encode), ("check_mp4", check)):
                if hasattr(module, name):
                    setattr(module, name, stand_in)


@contextlib.contextmanager
def noted_turns(path: Path) -> Generator[None]:
    """Write when the loop got answers, and the seconds until it waited for the next ones."""
    wait, turns = Answers.wait, list[list[float]]()

    def noted(self: Answers, timeout_s: float) -> list[Answer]:
        if turns and len(turns[-1]) == 1:
            turns[-1].append(time.time() - turns[-1][0])
        found = wait(self, timeout_s)
        if found:
            turns.append([time.time()])
        return found

    Answers.wait = noted
    try:
        yield
    finally:
        Answers.wait = wait
        path.write_text(json.dumps([turn for turn in turns if len(turn) == 2]))


def _shape_of(video: VideoFrames) -> tuple[Any, float]:
    from pipelines.request import VideoShape

    num_frames, height, width, _ = video.frames.shape
    return VideoShape(num_frames, height, width), video.fps


if __name__ == "__main__":
    clip_s, work, turns, *arguments = sys.argv[1:]
    assert work in ("full", "light")
    from benchmarks.dispatch.stand_in import SleepingLoader as Loader  # not that of __main__

    with noted_turns(Path(turns)):
        code = main(arguments, loader=Loader(float(clip_s), work))
    sys.exit(code)
