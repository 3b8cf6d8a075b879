"""A worker on a device with a queue: the device finds its next work before the host checks a clip.

The device of these tests works only when a test lets it, so that their order is certain.
"""

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from jobs.records.commit import read_record
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from jobs.types import ClipDone, ClipFailed, ClipOutcome, ClipReturned, ClipSpec
from jobs.worker.clip_worker import ClipWorker
from pipelines.device_marks import DeviceTime
from tests.builders.specs import setup_for, spec
from tests.fakes.model import FakeLoader
from tests.fakes.queued_device import QueuedDevice, QueuedModel

FIRST, SECOND = spec("first"), spec("second")


@dataclass(frozen=True)
class Rendering:
    """A worker on a device that stands still, with two clips."""

    device: QueuedDevice
    worker: ClipWorker
    callers: ThreadPoolExecutor
    folder: Path

    def begin(self, one: ClipSpec) -> Future[ClipOutcome]:
        return self.callers.submit(self.worker.render, one, 1)

    def position(self, one: ClipSpec) -> tuple[str, int | None] | None:
        clips = self.worker.heartbeat().clips
        found = [(clip.stage, clip.step) for clip in clips if clip.clip_id == one.clip_id]
        return found[0] if found else None

    def wait_for(self, one: ClipSpec, stage: str, step: int | None = None) -> None:
        while self.position(one) != (stage, step):
            pass

    def device_time(self, one: ClipSpec) -> DeviceTime:
        store = open_store(self.folder.as_uri(), StoreConfig())
        return read_record(store, one.clip_id).device_time


@pytest.fixture
def rendering(tmp_path: Path) -> Generator[Rendering]:
    device = QueuedDevice()
    loader = FakeLoader(lambda: QueuedModel(device))
    worker = ClipWorker(replace(setup_for(tmp_path), loader=loader), "node-1")
    worker.load()
    with ThreadPoolExecutor(2) as callers:
        yield Rendering(device, worker, callers, tmp_path)


def test_the_next_clip_is_queued_before_the_frames_of_the_last_one_are_there(
    rendering: Rendering,
) -> None:
    device = rendering.device
    first = rendering.begin(FIRST)
    device.wait_queued("decode first")
    second = rendering.begin(SECOND)
    device.work_until("decode first")
    device.wait_queued("decode second")
    assert "decode first" not in device.done
    with device.working():
        assert all(isinstance(one.result(60), ClipDone) for one in (first, second))


def test_the_next_clip_is_not_queued_while_the_last_one_denoises_and_can_be_recalled(
    rendering: Rendering,
) -> None:
    first = rendering.begin(FIRST)
    rendering.device.wait_queued("decode first")
    second = rendering.begin(SECOND)
    rendering.wait_for(SECOND, "queue")
    rendering.device.work_until("denoise first 1")
    rendering.worker.recall(SECOND.clip_id)
    assert second.result(60) == ClipReturned(SECOND.clip_id)
    assert not [name for name in rendering.device.queued if name.endswith("second")]
    with rendering.device.working():
        assert isinstance(first.result(60), ClipDone)


def test_a_heartbeat_has_the_step_of_the_device_and_not_the_one_that_is_queued(
    rendering: Rendering,
) -> None:
    first = rendering.begin(FIRST)
    rendering.device.wait_queued("decode first")
    assert rendering.position(FIRST) == ("queue", None)
    rendering.device.work_until("denoise first 1")
    rendering.wait_for(FIRST, "denoise", 1)
    rendering.device.work_until("decode first")
    rendering.wait_for(FIRST, "decode")
    with rendering.device.working():
        assert isinstance(first.result(60), ClipDone)


def test_a_record_has_the_time_of_the_device_and_its_time_without_work(
    rendering: Rendering,
) -> None:
    device = rendering.device
    with device.working():
        first = rendering.begin(FIRST).result(60)
    device.now_s += 2.5  # without work
    with device.working():
        second = rendering.begin(SECOND).result(60)
    assert isinstance(first, ClipDone), first
    assert isinstance(second, ClipDone), second
    assert rendering.device_time(FIRST) == DeviceTime(1.0 + 2 * 2.0 + 3.0, 0.0)
    assert rendering.device_time(SECOND) == DeviceTime(8.0, 2.5)
    assert second.device_time == DeviceTime(8.0, 2.5)
    assert {(one.stage, one.duration_s) for one in second.timings} >= {
        ("text", 1.0),
        ("denoise", 2.0),
        ("decode", 3.0),
    }


def test_a_device_that_fails_while_it_works_fails_the_clip_as_a_broken_worker(
    rendering: Rendering,
) -> None:
    rendering.device.error = "CUDA error: an illegal memory access was encountered"
    with rendering.device.working():
        failed = rendering.begin(FIRST).result(60)
    assert isinstance(failed, ClipFailed)
    assert (failed.failure_class, failed.may_pass_on_retry) == ("worker", True)
    assert failed.message == rendering.device.error


def test_a_library_that_meets_a_failed_device_in_its_own_words_fails_the_worker_and_not_the_clip(
    rendering: Rendering, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> None:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")

    monkeypatch.setattr(QueuedModel, "decode", decode)
    with rendering.device.working():
        wrong = rendering.begin(FIRST).result(60)
    assert isinstance(wrong, ClipFailed)
    assert wrong.failure_class == "code"
    rendering.device.error = "CUDA error: an illegal memory access was encountered"
    with rendering.device.working():
        failed = rendering.begin(SECOND).result(60)
    assert isinstance(failed, ClipFailed)
    assert (failed.failure_class, failed.message) == ("worker", rendering.device.error)
    assert "cuDNN error" in failed.traceback
