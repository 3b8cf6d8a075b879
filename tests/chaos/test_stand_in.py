"""The stand-in of the chaos suite: its clips pass the frame checks, and its faults are real."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from pipelines.errors import FrameCheckError
from pipelines.frame_checks.checks import check_frames
from pipelines.frame_checks.latents import check_latents
from pipelines.frame_checks.limits import FrameLimits
from pipelines.request import GenerationRequest
from pipelines.video_model import VideoModel
from tests.chaos.harness.stand_in import StandInError, StandInModel
from tests.chaos.harness.workload import Workload, write_models

MODEL = StandInModel(0.0)


def requests(folder: Path, workload: Workload) -> list[GenerationRequest]:
    catalog = ModelCatalog(write_models(folder / "models"))
    manifest = open_manifest(workload.write(folder / "rows.jsonl"), catalog, model="stand-in")
    return [spec.request for spec in manifest.specs()]


def denoise(request: GenerationRequest, steps: list[int]) -> torch.Tensor:
    model: VideoModel = MODEL
    return model.denoise(request, model.encode_text(request), steps.append)


def test_clips_pass_the_frame_checks_and_differ(tmp_path: Path) -> None:
    digests: set[bytes] = set()
    for request in requests(tmp_path, Workload(50)):
        latents = denoise(request, steps := [])
        check_latents(latents)
        video = MODEL.decode(request, latents)
        check_frames(video, request.prompt, FrameLimits())
        assert steps == list(range(request.sampling.num_inference_steps))
        assert np.array_equal(video.frames, MODEL.decode(request, latents).frames)
        digests.add(video.frames.tobytes())
    assert len(digests) == 50


def test_poison_is_spread_among_the_rows_and_every_row_is_a_separate_clip(tmp_path: Path) -> None:
    workload = Workload(20, poison=("die", "nan", "error"))
    words = [request.prompt.split()[0] for request in requests(tmp_path, workload)]
    assert len(words) == 23
    assert [words.index(word) for word in ("die", "nan", "error")] == [5, 11, 17]
    assert len(requests(tmp_path, workload.healthy)) == 20


@pytest.mark.parametrize(
    ("word", "error"), [("memory", torch.OutOfMemoryError), ("error", StandInError)], ids=str
)
def test_a_poisoned_row_raises(tmp_path: Path, word: str, error: type[Exception]) -> None:
    (request,) = requests(tmp_path, Workload(0, poison=(word,)))
    with pytest.raises(error):
        denoise(request, [])


def test_a_row_of_nan_fails_its_latent_check(tmp_path: Path) -> None:
    (request,) = requests(tmp_path, Workload(0, poison=("nan",)))
    with pytest.raises(FrameCheckError):
        check_latents(denoise(request, []))


def in_a_process(word: str, rest: str = "") -> "subprocess.Popen[str]":
    program = f"from tests.chaos.harness.stand_in import FAULTS\n{rest}\nFAULTS[{word!r}]()"
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)


def test_die_kills_the_process() -> None:
    with in_a_process("die") as process:
        assert process.wait(60) == -signal.SIGKILL


@pytest.mark.slow
def test_eat_reaches_a_limit_of_the_process() -> None:
    with in_a_process("eat") as process:
        _, errors = process.communicate(timeout=60)
        assert "MemoryError" in errors
        assert process.returncode == 1
