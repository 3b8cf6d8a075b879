"""What a leader makes of its own failures, with the ranks of its group left out: a group of one, in this process."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from jobs.group.rank import Leader, Soundness
from jobs.types import ClipFailed
from pipelines.context_parallel.process_group import RendezvousPoint
from pipelines.errors import GroupBrokenError, RanksDisagreeError, RankSilentError
from pipelines.parallel_config import ONE_DEVICE
from pipelines.request import GenerationRequest, VideoFrames
from tests.builders.specs import setup_for, spec
from tests.fakes.model import FakeLoader
from tests.fakes.ranks import FakeRankModel

WAIT_S = 60.0
CLIP = spec("sunrise")


class BadDecoder(FakeRankModel):
    """Its decoder fails as a device does, or as code."""

    def decode(self, request: GenerationRequest, latents: torch.Tensor) -> VideoFrames:
        raise RuntimeError(
            "CUDA error: misaligned address" if request.sampling.seed else "no such layer"
        )


class Nobody:
    """The other ranks of a group of one."""

    def begin(
        self, generation: int, request: GenerationRequest, *, uses_exact_attention: bool
    ) -> None:
        pass

    def errors(self, wait_s: float) -> Sequence[Exception]:
        return ()


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[Leader]:
    leader = Leader(replace(setup_for(tmp_path), loader=FakeLoader(BadDecoder)), "node-1", Nobody())
    leader.load()
    point = RendezvousPoint("127.0.0.1")
    leader.join(point.rendezvous(1, 0, ONE_DEVICE, WAIT_S))
    yield leader
    leader.leave(WAIT_S)


def test_a_leader_whose_device_fails_outside_of_the_shared_part_is_not_used_again(
    leader: Leader,
) -> None:
    outcome = leader.render(spec("sunrise", 1), 1, uses_exact_attention=False)
    assert isinstance(outcome, ClipFailed)
    assert (outcome.failure_class, leader.broken_by()) == ("worker", None)
    assert not leader.is_sound()


def test_a_rank_whose_latents_were_not_the_others_is_not_used_again() -> None:
    soundness = Soundness()
    soundness.note(RanksDisagreeError("rank 1"))
    assert not soundness.is_sound


def test_a_leader_has_not_finished_while_it_renders(leader: Leader) -> None:
    has_begun, may_end = Event(), Event()

    def hold() -> None:
        has_begun.set()
        may_end.wait(WAIT_S)

    leader._worker.on_device(hold)
    assert has_begun.wait(WAIT_S)
    with ThreadPoolExecutor(1) as renders:
        outcome = renders.submit(leader.render, CLIP, 1, uses_exact_attention=False)
        while not (leader.heartbeat().clips or outcome.done()):
            may_end.wait(0.01)
        try:
            with pytest.raises(RankSilentError, match="1 clips are still"):
                leader.finish(0.0)
            with pytest.raises(RankSilentError, match="does not come out"):
                leader.leave(0.0)
        finally:
            may_end.set()
        assert isinstance(outcome.result(WAIT_S), ClipFailed)
    leader.finish(0.0)


def test_a_leader_that_fails_a_clip_by_an_unknown_error_is_used_again(leader: Leader) -> None:
    outcome = leader.render(CLIP, 1, uses_exact_attention=False)
    assert isinstance(outcome, ClipFailed)
    assert outcome.failure_class == "code"
    assert leader.is_sound()


class FormedAnewMeanwhile:
    """A spool that is asked while another clip of the leader has the group formed anew."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._point = RendezvousPoint("127.0.0.1")

    def find(self, _clip_id: str) -> None:
        return None

    def check_room(self, _num_bytes: int) -> None:
        pass

    def holds(self, _clip_id: str) -> bool:
        self._leader.join(self._point.rendezvous(2, 0, ONE_DEVICE, WAIT_S))
        return False


def test_a_leader_that_had_no_group_for_a_clip_is_used_again_also_when_it_has_one_by_then(
    leader: Leader,
) -> None:
    spool: Any = FormedAnewMeanwhile(leader)
    leader._worker._spool = spool
    leader.leave(WAIT_S)
    outcome = leader.render(CLIP, 1, uses_exact_attention=False)
    assert isinstance(outcome, ClipFailed)
    assert (outcome.group_error, leader.broken_by()) == (GroupBrokenError, None)
    assert leader.is_sound()
