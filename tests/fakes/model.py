"""A `VideoModel` without a model: frames that depend on the request alone, and failures on demand.

The first word of a prompt decides. `error` raises, `memory` raises like a full device, `die` ends
the process, `stop` freezes it. `once PATH` behind `die` or `stop`: only if PATH does not exist yet.
`until PATH` behind `error`: until PATH exists.
`wait PATH` waits until PATH exists. `nan` makes NaN latents, `nan unless exact` only without
`exact_attention`. `unlit`, `flat`, `stuck` and `garbled` give black, grey, frozen and noisy frames,
by words that no frame check takes for a wish of the prompt. `hum` and `hushed` give a moving wave
with a tone and with silence. All other prompts give a moving wave.
"""

import hashlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nag import Coverage
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.device_marks import DeviceMark, HostMark
from pipelines.errors import ModelFolderError
from pipelines.load_progress import LoadProgress
from pipelines.request import AudioTrack, GenerationRequest, TextEmbeddings, VideoFrames
from pipelines.video_model import LoadedModel, OnStep, PeakMemory
from tests.fakes.latents import fake_embeddings, fake_latents, run_out_of_memory, stored_latents

if TYPE_CHECKING:
    import torch

BROKEN_FRAMES = ("unlit", "flat", "stuck", "garbled", "hushed")


SOUNDS = ("hum", "hushed")
SAMPLE_RATE = 16_000


class FakeError(Exception):
    """An error of a class that jobs/ does not know."""


class FakeDevice:
    """A device that counts 1234 bytes and has no queue."""

    name = "fake"

    def reset_peak_memory(self) -> None:
        pass

    def peak_memory(self) -> PeakMemory:
        return PeakMemory(1234, "device")

    def memory(self) -> None:
        return None

    def mark(self) -> DeviceMark:
        return HostMark.now()

    def fetch(self, tensor: "torch.Tensor") -> "torch.Tensor":
        return tensor


class FakeModel:
    """A model with the behaviour that the module describes."""

    device = FakeDevice()

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._uses_exact_attention = False

    def encode_text(self, request: GenerationRequest, ahead: object = ()) -> TextEmbeddings:
        self.calls.append(f"text {request.prompt}")
        return fake_embeddings()

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> "torch.Tensor":
        self.calls.append(f"denoise {request.prompt}")
        for step in range(request.sampling.num_inference_steps):
            on_step(step)
        words = request.prompt.split()
        if words[0] == "error" and not (words[1:2] == ["until"] and Path(words[-1]).exists()):
            raise FakeError("the model did not like it")
        if words[0] == "memory":
            run_out_of_memory()
        if words[0] == "wait":
            while not Path(words[-1]).exists():
                time.sleep(0.05)
        if words[0] == "die" and (len(words) == 1 or is_first(Path(words[-1]))):
            os.kill(os.getpid(), signal.SIGKILL)
        if words[0] == "stop" and (len(words) == 1 or is_first(Path(words[-1]))):
            os.kill(os.getpid(), signal.SIGSTOP)
        if words[0] == "nan" and not (
            words[1:] == ["unless", "exact"] and self._uses_exact_attention
        ):
            return stored_latents(math.nan)
        return (stored_latents if words[0] in BROKEN_FRAMES else fake_latents)(0)

    def decode(self, request: GenerationRequest, latents: "torch.Tensor") -> VideoFrames:
        self.calls.append(f"decode {request.prompt}")
        word = request.prompt.split()[0]
        audio = tone(request, 0.0 if word == "hushed" else 0.3) if word in SOUNDS else None
        return VideoFrames(draw(request), request.fps, audio)

    @contextmanager
    def exact_attention(self) -> Generator[None]:
        self.calls.append("exact_attention")
        self._uses_exact_attention = True
        try:
            yield
        finally:
            self._uses_exact_attention = False

    def close(self) -> None:
        self.calls.append("close")


class PaintingModel(FakeModel):
    """A model that shows the image or the video that a clip begins with.

    An image moves to the right, four pixels a frame.
    """

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> "torch.Tensor":
        self.inputs = embeddings.inputs
        return super().denoise(request, embeddings, on_step)

    def decode(self, request: GenerationRequest, latents: "torch.Tensor") -> VideoFrames:
        if self.inputs.video is not None:
            return VideoFrames(self.inputs.video.numpy(), request.fps)
        assert self.inputs.image is not None, "the clip begins with an image"
        image = self.inputs.image.numpy()
        moved = (np.roll(image, 4 * frame, axis=1) for frame in range(request.shape.num_frames))
        return VideoFrames(np.stack(list(moved)), request.fps)


def draw(request: GenerationRequest) -> np.ndarray:
    """Draw a wave in the request's own colour, a twelfth further each frame.

    Returns:
        Frames (T, H, W, 3), uint8, that depend on the request alone.
    """
    digest = np.frombuffer(hashlib.sha256(repr(request).encode()).digest(), dtype=np.uint8)
    shape = request.shape
    size = (shape.num_frames, shape.height, shape.width, 3)
    word = request.prompt.split()[0]
    if word in ("unlit", "flat"):
        return np.full(size, 0 if word == "unlit" else 127, np.uint8)
    if word == "garbled":
        return np.random.default_rng(digest).integers(0, 256, size, np.uint8)
    time_T = np.zeros(shape.num_frames) if word == "stuck" else np.arange(shape.num_frames) / 12
    place_W = np.arange(shape.width) / max(shape.width, 16) + digest[3] / 256
    wave_TW = np.sin(2 * np.pi * (place_W - time_T[:, None]))
    colour = 64 + digest[:3] / 2  # 64 to 191, so that the wave never leaves 0 to 255
    frames_TWC = (colour + 60 * wave_TW[..., None]).round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(frames_TWC[:, None], size))


def tone(request: GenerationRequest, amplitude: float) -> AudioTrack:
    """Return 220 Hz in stereo, as long as the clip."""
    num_samples = round(request.shape.num_frames / request.fps * SAMPLE_RATE)
    time_s = np.arange(num_samples) / SAMPLE_RATE
    wave = (amplitude * np.sin(2 * np.pi * 220 * time_s)).astype(np.float32)
    return AudioTrack(np.stack([wave, wave], axis=1), SAMPLE_RATE)


def is_first(path: Path) -> bool:
    """Return True for the first caller only; exactly one of several processes gets True."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@dataclass(frozen=True)
class FakeLoader:
    """A `ModelLoader` of fakes.

    Args:
        make: makes a model; a class or a function.
    """

    make: Callable[[], FakeModel] = FakeModel

    def load_model(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> LoadedModel:
        with progress.part("read"):
            return LoadedModel(self.make(), Coverage(2, 2))

    def load_denoiser(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> FakeModel:
        return self.make()


@dataclass(frozen=True)
class LateLoader(FakeLoader):
    """A `FakeLoader` that loads for one worker, and for the others never ends half way.

    Args:
        first: a path that does not exist yet.
    """

    first: Path = Path()

    def load_model(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> LoadedModel:
        progress.expect(2)
        progress.advance(1)
        with progress.part("verify"):
            if not is_first(self.first):
                threading.Event().wait()
        return super().load_model(config, weights, num_threads, progress)


@dataclass(frozen=True)
class UnloadableLoader(FakeLoader):
    """A `FakeLoader` for which the weights of one model are broken."""

    name: str = "a-unloadable"

    def load_model(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> LoadedModel:
        if config.name == self.name:
            raise ModelFolderError("the weights hold NaN")
        return super().load_model(config, weights, num_threads, progress)


@dataclass(frozen=True)
class RewritingLoader(UnloadableLoader):
    """A loader beside which a user rewrites the manifest."""

    manifest: Path = Path()

    def load_model(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> LoadedModel:
        if config.name == self.name:
            self.manifest.write_text('{"prompt": "other"}\n')
        return super().load_model(config, weights, num_threads, progress)


def fail_to_load() -> FakeModel:
    raise ModelFolderError("the weights are broken")
