"""What a leader makes of its own failures, with the ranks of its group left out: a group of one, in this process."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jobs.rank import Leader
from jobs.types import ClipFailed
from pipelines.config import ModelConfig
from pipelines.loading import ModelWeights
from pipelines.parallel.config import ONE_DEVICE
from pipelines.parallel.membership import MeetingPoint
from pipelines.types import GenerationRequest, VideoFrames
from tests.fakes.ranks import FakeRankFamily
from tests.jobs.specs import setup_for, spec

WAIT_S = 60.0
CLIP = spec("sunrise")


class BadDecoder(FakeRankFamily):
    """Its decoder fails as a device does, or as code."""

    def decode(self, request: GenerationRequest, latents: torch.Tensor) -> VideoFrames:
        raise RuntimeError("CUDA error: misaligned address" if request.sampling.seed else "no such layer")


def load_bad_decoder(_config: ModelConfig, _weights: ModelWeights, _num_threads: int) -> BadDecoder:
    return BadDecoder()


class Nobody:
    """The other ranks of a group of one."""

    def begin(self, generation: int, request: GenerationRequest, *, is_safe: bool) -> None:
        pass

    def errors(self, wait_s: float) -> Sequence[Exception]:
        return ()


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[Leader]:
    leader = Leader(replace(setup_for(tmp_path), load_model=load_bad_decoder), "node-1", Nobody())
    leader.load()
    point = MeetingPoint("127.0.0.1")
    leader.join(point.meeting(1, 0, ONE_DEVICE, WAIT_S))
    yield leader
    leader.leave(WAIT_S)


def test_a_leader_whose_device_fails_outside_of_the_shared_part_is_not_used_again(leader: Leader) -> None:
    outcome = leader.render(spec("sunrise", 1), 1, is_safe=False)
    assert isinstance(outcome, ClipFailed)
    assert (outcome.failure_class, leader.broken_by()) == ("worker", None)
    assert not leader.is_sound()


def test_a_leader_that_fails_a_clip_by_an_unknown_error_is_used_again(leader: Leader) -> None:
    outcome = leader.render(CLIP, 1, is_safe=False)
    assert isinstance(outcome, ClipFailed)
    assert outcome.failure_class == "code"
    assert leader.is_sound()
