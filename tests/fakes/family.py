"""A model family without a model: frames that depend on the request alone, and failures on demand.

What a prompt holds decides what happens: `error` raises, `memory` raises as a device does that is full, `die` ends the
process, `die once PATH` only if PATH does not exist yet,
`wait PATH` waits until PATH exists.
"""

import hashlib
import os
import signal
import time
from pathlib import Path

import numpy as np
import torch

from nag import Coverage
from pipelines.config import ModelConfig
from pipelines.errors import ModelFolderError
from pipelines.family import OnStep, PeakMemory
from pipelines.loading import ModelWeights
from pipelines.types import GenerationRequest, TextEmbeddings, VideoFrames


class FakeError(Exception):
    """Of no class that jobs/ knows."""


class FakeFamily:
    """See the module."""

    nag_coverage = Coverage(2, 2)
    device_name = "fake"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def encode_text(self, request: GenerationRequest) -> TextEmbeddings:
        self.calls.append(f"text {request.prompt}")
        return TextEmbeddings(torch.zeros(1, 1, 1), None)

    def denoise(self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep) -> torch.Tensor:
        self.calls.append(f"denoise {request.prompt}")
        for step in range(request.sampling.num_inference_steps):
            on_step(step)
        words = request.prompt.split()
        if words[0] == "error":
            raise FakeError("the model did not like it")
        if words[0] == "memory":
            raise torch.OutOfMemoryError("device out of memory")
        if words[0] == "wait":
            while not Path(words[-1]).exists():
                time.sleep(0.05)
        if words[0] == "die" and (len(words) == 1 or is_first(Path(words[-1]))):
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(1)

    def decode(self, request: GenerationRequest, latents: torch.Tensor) -> VideoFrames:
        self.calls.append(f"decode {request.prompt}")
        digest = hashlib.sha256(repr(request).encode()).digest()
        shape = request.shape
        colour = np.frombuffer(digest[:3], dtype=np.uint8)
        return VideoFrames(np.tile(colour, (shape.num_frames, shape.height, shape.width, 1)), request.fps)

    def reset_peak_memory(self) -> None:
        self.calls.append("reset_peak_memory")

    def peak_memory(self) -> PeakMemory:
        return PeakMemory(1234, "device")

    def synchronize(self) -> None:
        """It is never behind."""

    def close(self) -> None:
        self.calls.append("close")


def is_first(path: Path) -> bool:
    """Whether nobody asked this before; of several processes exactly one hears yes."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def load_fake(_config: ModelConfig, _weights: ModelWeights, _num_threads: int) -> FakeFamily:
    return FakeFamily()


def load_nothing(_config: ModelConfig, _weights: ModelWeights, _num_threads: int) -> FakeFamily:
    raise ModelFolderError("the weights are broken")
