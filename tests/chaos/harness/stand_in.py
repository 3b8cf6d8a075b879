"""A video model without weights for the chaos suite: clips drawn from the request, and faults.

The first word of a prompt names a fault, which happens at a step that the seed picks: `die` kills
the process, `stop` stops it by SIGSTOP, `hang` never returns, `nan` gives NaN latents, `memory`
raises a device's out-of-memory error, `eat` really allocates until a limit of the process stops it,
`error` raises an unknown exception. Any other prompt gives a healthy clip.
"""

import contextlib
import hashlib
import math
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import psutil

from nag import Coverage
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.load_progress import LoadProgress
from pipelines.request import GenerationRequest, TextEmbeddings, VideoFrames
from pipelines.video_model import LoadedModel, OnStep
from tests.fakes.latents import fake_embeddings, fake_latents, run_out_of_memory, stored_latents
from tests.fakes.model import FakeDevice

if TYPE_CHECKING:
    import torch

EATEN_BYTES = 512 * 1024**2  # limit of `eat` above the current size of the process
BITE_BYTES = 16 * 1024**2


class StandInError(Exception):
    """An error of a class that jobs/ does not know."""


@dataclass(frozen=True)
class StandInModel:
    """The stand-in as a video model.

    Args:
        step_s: seconds that a denoise step waits, so that faults from outside hit a clip in flight.
    """

    step_s: float
    device = FakeDevice()

    def encode_text(self, request: GenerationRequest, ahead: object = ()) -> TextEmbeddings:
        return fake_embeddings()

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> "torch.Tensor":
        num_steps, seed = request.sampling.num_inference_steps, request.sampling.seed
        command = request.prompt.split()[0]
        for step in range(num_steps):
            time.sleep(self.step_s)  # it stands for a computation
            if step == seed % num_steps and command in FAULTS:
                FAULTS[command]()
            on_step(step)
        return stored_latents(math.nan) if command == "nan" else fake_latents(seed % 2)

    def decode(self, request: GenerationRequest, latents: "torch.Tensor") -> VideoFrames:
        """Draw a bright square that moves over a slope of grey, both from the request's digest."""
        digest = hashlib.sha256(repr(request).encode()).digest()
        shape = request.shape
        slope_HW = np.linspace(40, 40 + digest[0] / 4, shape.height * shape.width).reshape(
            shape.height, shape.width
        )
        frames = np.repeat(
            slope_HW.astype(np.uint8)[None, :, :, None], shape.num_frames, axis=0
        ).repeat(3, axis=3)
        side = max(2, shape.height // 4)
        top, left = (
            byte % (size - side)
            for byte, size in zip(digest[1:3], (shape.height, shape.width), strict=True)
        )
        for index in range(shape.num_frames):
            x = (left + 2 * index) % (shape.width - side)
            frames[index, top : top + side, x : x + side] = (
                155 + np.frombuffer(digest[3:6], np.uint8) % 100
            )
        return VideoFrames(np.ascontiguousarray(frames), request.fps)

    def exact_attention(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def close(self) -> None:
        pass


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def hang() -> None:
    threading.Event().wait()


def eat() -> None:
    """Allocate up to a limit that stays in force, so that the process has to be replaced."""
    most = psutil.Process().memory_info().vms + EATEN_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    eaten: list[np.ndarray] = []
    while True:
        eaten.append(np.ones(BITE_BYTES, np.uint8))


def raise_unknown() -> None:
    raise StandInError("an unknown error")


FAULTS: dict[str, Callable[[], None]] = {
    "die": die,
    "stop": stop,
    "hang": hang,
    "memory": run_out_of_memory,
    "eat": eat,
    "error": raise_unknown,
}


@dataclass(frozen=True)
class StandInLoader:
    """A `ModelLoader` of stand-ins, pickled by reference to this module.

    Args:
        step_s: seconds that a denoise step waits.
    """

    step_s: float

    def load_model(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> LoadedModel:
        return LoadedModel(
            self.load_denoiser(config, weights, num_threads, progress), Coverage(1, 1)
        )

    def load_denoiser(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> StandInModel:
        return StandInModel(self.step_s)
