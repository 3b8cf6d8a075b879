"""A worker with a real pipeline runs out of its device's memory: its clips name the remedy."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from jobs.errors import MemoryShortError
from jobs.memory.on_worker import WorkerMemory
from jobs.run.clip_entries import failed_entry
from jobs.run.progress.in_flight import InFlight
from jobs.schedule.retry import Quarantine
from jobs.types import ClipFailed, ClipSpec
from jobs.worker.clip_worker import ClipWorker
from jobs.worker.setup import DiffusersLoader, WorkerSetup
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.cost.activations import Clip
from pipelines.cost.memory import memory_need
from pipelines.families.device import TorchDevice
from pipelines.request import VideoShape
from pipelines.video_model import DeviceMemory, LoadedModel
from tests.builders import tiny
from tests.builders.specs import setup_for, spec

YAML = """\
family: wan
source: ./weights
dtype: float32
max_sequence_length: 16
grid: {num_frames: 4, height: 16, width: 16}
sampling:
  {num_inference_steps: 1, guidance_scale: 1.0, num_frames: 5, height: 32, width: 32, fps: 8}
"""
TOTAL_BYTES = 80 * 10**9
TORCH_TEXT = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79 GiB"


class Card(TorchDevice):
    """The device of a CPU, with the name and the memory of a card."""

    def __init__(self, available_bytes: int = TOTAL_BYTES) -> None:
        super().__init__(torch.device("cpu"))
        self.__dict__["available_bytes"] = available_bytes

    @property
    def name(self) -> str:
        return "NVIDIA H100 80GB HBM3"

    def memory(self) -> DeviceMemory:
        return DeviceMemory(TOTAL_BYTES, self.__dict__["available_bytes"])


@dataclass(frozen=True)
class CardLoader(DiffusersLoader):
    """Loads a model onto a card of which other processes leave some memory."""

    available_bytes: int = TOTAL_BYTES

    def load_model(self, *given: Any) -> LoadedModel:
        loaded = super().load_model(*given)
        model: Any = loaded.model
        model.device = Card(self.available_bytes)
        return loaded


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> WorkerSetup:
    folder = tmp_path_factory.mktemp("memory")
    tiny.wan_pipeline().save_pretrained(folder / "weights")
    (folder / "wan2.1.yaml").write_text(YAML)
    (folder / "out").mkdir()
    config = load_model_config(folder / "wan2.1.yaml")
    weights = inspect_model(config, folder / "wan2.1.yaml")
    return replace(setup_for(folder / "out"), model=config, weights=weights, loader=CardLoader())


@pytest.fixture(scope="module")
def worker(setup: WorkerSetup) -> Generator[ClipWorker]:
    made = ClipWorker(setup, "node-1")
    made.load()
    assert not made.warning
    yield made
    made.close()


def _fails_at(worker: ClipWorker, component: str, clip: ClipSpec) -> ClipFailed:
    """Render a clip while a component raises torch's error of a full device."""

    def run_out(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError(TORCH_TEXT)

    pipeline: Any = worker._loaded
    module = pipeline.pipeline
    for name in component.split("."):
        module = getattr(module, name)
    hook = module.register_forward_pre_hook(run_out)
    try:
        outcome = worker.render(clip, 1)
    finally:
        hook.remove()
    assert isinstance(outcome, ClipFailed), outcome
    return outcome


@pytest.mark.parametrize(
    ("component", "stage", "advice"),
    [
        ("text_encoder", "text", "add `dtype: bfloat16` to wan2.1.yaml"),
        ("transformer", "denoise", "add `offload: text_encoder` to wan2.1.yaml"),
        ("vae.decoder", "decode", "add `offload: text_encoder` to wan2.1.yaml"),
    ],
)
def test_a_clip_that_ran_out_of_memory_names_the_line_that_would_have_helped(
    worker: ClipWorker, component: str, stage: str, advice: str
) -> None:
    failed = _fails_at(worker, component, spec("a circle"))
    assert (failed.failure_class, failed.may_pass_on_retry) == ("memory", True)
    assert failed.error_type == "OutOfMemoryError"
    assert failed.message.startswith(
        f"out of memory on NVIDIA H100 80GB HBM3 at {stage} (32x32x5): {advice}; {TORCH_TEXT}"
    )
    entry = failed_entry(failed, Quarantine("tried twice"), InFlight(), "node-1")
    assert advice in entry.message


SMALL, LARGE = (Clip(VideoShape(5, side, side), "nag") for side in (32, 512))


def _memory(setup: WorkerSetup, available_bytes: int) -> WorkerMemory:
    device = Card(available_bytes)
    return WorkerMemory(setup.model, setup.weights, setup.parallel, device)


def _need(setup: WorkerSetup, clip: Clip) -> int:
    return memory_need(setup.model, setup.weights, clip).peak_bytes


def test_a_worker_whose_card_holds_no_clip_does_not_load_and_names_other_processes(
    setup: WorkerSetup,
) -> None:
    loader = CardLoader(available_bytes=_need(setup, SMALL) - 1)
    made = ClipWorker(replace(setup, loader=loader, clips=(SMALL, LARGE)), "node-1")
    with pytest.raises(
        MemoryShortError,
        match=r"wan2.1 512x512x5 needs about .* NVIDIA H100 80GB HBM3 has 0.0 GB for this worker; "
        r"other processes use 80.0 of the card's 80.0 GB: by estimate no clip fits; add `.*` to "
        r"wan2.1.yaml \(--force overrides\)",
    ):
        made.load()
    made.close()


def test_force_and_clips_that_fit_let_a_worker_begin_with_a_warning(setup: WorkerSetup) -> None:
    short = _memory(setup, _need(setup, SMALL) - 1)
    assert "2 of 2 kinds of clip do not fit" in short.check((SMALL, LARGE), is_forced=True)
    some = _memory(setup, _need(setup, LARGE) - 1)
    assert "1 of 2 kinds of clip do not fit" in some.check((SMALL, LARGE), is_forced=False)
    close = _memory(setup, _need(setup, LARGE) + 1)
    assert close.check((SMALL, LARGE), is_forced=False).endswith(": it may not fit")
    assert not close.check((SMALL,), is_forced=False)


def test_without_known_clips_the_default_one_of_the_model_counts(setup: WorkerSetup) -> None:
    with pytest.raises(MemoryShortError, match="wan2.1 32x32x5 needs about"):
        _memory(setup, 1).check((), is_forced=False)


def test_a_device_or_a_model_without_known_memory_is_not_compared(setup: WorkerSetup) -> None:
    unknown = replace(_memory(setup, 1), device=TorchDevice(torch.device("cpu")))
    assert not unknown.check((LARGE,), is_forced=False)
    assert not replace(_memory(setup, 1), weights=None).check((LARGE,), is_forced=False)
