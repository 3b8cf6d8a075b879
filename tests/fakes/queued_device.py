"""A device with a queue, which works only when a test lets it, and a model on it.

Its clock is virtual: each work takes the seconds that it was queued with. A value that is read
before the device has computed it fails the test.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pipelines.request import GenerationRequest, TextEmbeddings, VideoFrames
from pipelines.video_model import DeviceMonitor, OnStep, PeakMemory
from tests.fakes.latents import fake_embeddings, fake_latents
from tests.fakes.model import FakeModel, draw

if TYPE_CHECKING:
    import torch

WAIT_S = 20.0


@dataclass(eq=False)
class QueuedValue:
    """A value that the device computes when it comes to it, with the tensor's methods needed."""

    device: "QueuedDevice"
    compute: Callable[[], Any]
    found: list[Any] = field(default_factory=list[Any])

    def __post_init__(self) -> None:
        self.device.queue("", 0.0, lambda: self.found.append(self.compute()))

    def read(self) -> Any:
        assert self.found, "the value was read before the device had computed it"
        return self.found[0]

    def double(self) -> Self:
        return type(self)(self.device, lambda: self.read().double())

    def square(self) -> Self:
        return type(self)(self.device, lambda: self.read().square())

    def mean(self) -> Self:
        return type(self)(self.device, lambda: self.read().mean())

    def __float__(self) -> float:
        return float(self.read())


@dataclass(frozen=True, eq=False)
class QueuedMark:
    """A `DeviceMark` by the virtual clock."""

    device: "QueuedDevice"
    passed: threading.Event
    at_s: list[float]

    def wait(self) -> float:
        assert self.passed.wait(WAIT_S), "the device did not come to a mark"
        if self.device.error:
            raise RuntimeError(self.device.error)
        return self.at_s[0]

    def seconds_since(self, earlier: Self) -> float:
        return self.at_s[0] - earlier.at_s[0]


class QueuedDevice:
    """The device. `queued` and `done` have the names of works, in their order.

    Once `error` is set, waiting for a mark raises it.
    """

    name = "queued"

    def __init__(self) -> None:
        self.queued: list[str] = []
        self.done: list[str] = []
        self.now_s = 0.0
        self.error = ""
        self._works: list[tuple[str, float, Callable[[], Any]]] = []
        self._changed = threading.Condition()

    def reset_peak_memory(self) -> None:
        pass

    def peak_memory(self) -> PeakMemory:
        return PeakMemory(1234, "device")

    def memory(self) -> None:
        return None

    def mark(self) -> QueuedMark:
        mark = QueuedMark(self, threading.Event(), [])

        def reach() -> None:
            mark.at_s.append(self.now_s)
            mark.passed.set()

        self.queue("", 0.0, reach)
        return mark

    def fetch(self, tensor: Any) -> Any:
        return QueuedValue(self, tensor.read)

    def queue(self, name: str, duration_s: float, work: Callable[[], Any] = lambda: None) -> None:
        with self._changed:
            self._works.append((name, duration_s, work))
            self.queued.append(name)
            self._changed.notify_all()

    def wait_queued(self, name: str) -> None:
        """Wait until a work of this name was queued."""
        with self._changed:
            assert self._changed.wait_for(lambda: name in self.queued, WAIT_S), f"no {name}"

    def work_until(self, name: str) -> None:
        """Work until this one is next, which must be queued at some time."""
        while True:
            with self._changed:
                assert self._changed.wait_for(lambda: self._works, WAIT_S), f"no {name}"
                if self._works[0][0] == name:
                    return
                done, duration_s, work = self._works.pop(0)
            self.now_s += duration_s
            work()
            self.done.append(done)

    @contextmanager
    def working(self) -> Generator[None]:
        """Work on everything as it comes, in a thread."""
        thread = threading.Thread(target=self.work_until, args=("the end",))
        thread.start()
        yield
        self.queue("the end", 0.0)
        thread.join(WAIT_S)
        self._works.clear()


@dataclass(frozen=True, eq=False)
class QueuedFrames:
    """The frames of a clip that the device draws."""

    frames: QueuedValue
    fps: float
    ready: QueuedMark

    def result(self) -> VideoFrames:
        self.ready.wait()
        return VideoFrames(self.frames.read(), self.fps)


class QueuedModel(FakeModel):
    """A model on such a device: 1 s for texts, 2 s for a step, 3 s to decode."""

    def __init__(self, device: QueuedDevice) -> None:
        super().__init__()
        self._device = device

    @property
    def device(self) -> DeviceMonitor:
        return self._device

    def encode_text(self, request: GenerationRequest, ahead: object = ()) -> TextEmbeddings:
        self._device.queue(f"text {request.prompt}", 1.0)
        return fake_embeddings()

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> "torch.Tensor":
        for step in range(request.sampling.num_inference_steps):
            self._device.queue(f"denoise {request.prompt} {step}", 2.0)
            on_step(step)
        latents: Any = QueuedValue(self._device, lambda: fake_latents(0))
        return latents

    def decode(self, request: GenerationRequest, latents: Any) -> Any:
        self._device.queue(f"decode {request.prompt}", 3.0)
        frames = QueuedValue(self._device, lambda: draw(request))
        return QueuedFrames(frames, request.fps, self._device.mark())
