"""A leader's state after its own failures, as a group of one in this process."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from jobs.group.rank import Leader
from jobs.group.rank_state import Detached, DeviceHealth, Joined, Loading, Unusable
from jobs.types import ClipFailed, ClipSpec
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
    """A model whose decoder fails as a device does, or with seed 0 as code does."""

    def decode(self, request: GenerationRequest, latents: torch.Tensor) -> VideoFrames:
        raise RuntimeError(
            "CUDA error: misaligned address" if request.sampling.seed else "no such layer"
        )


class NoFollowers:
    """The other ranks of a group of one."""

    def begin(
        self, generation: int, request: GenerationRequest, *, uses_exact_attention: bool
    ) -> None:
        pass

    def errors(self, wait_s: float) -> Sequence[Exception]:
        return ()


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[Leader]:
    leader = Leader(
        replace(setup_for(tmp_path), loader=FakeLoader(BadDecoder)), "node-1", NoFollowers()
    )
    leader.load()
    point = RendezvousPoint("127.0.0.1")
    leader.join(point.rendezvous(1, 0, ONE_DEVICE, WAIT_S))
    yield leader
    leader.leave(WAIT_S)


def test_a_leader_reports_whether_it_has_a_model_and_a_process_group(
    leader: Leader, tmp_path: Path
) -> None:
    assert leader.state() == Joined()
    leader.leave(WAIT_S)
    assert leader.state() == Detached()
    assert Leader(setup_for(tmp_path), "node-1", NoFollowers()).state() == Loading()


def test_a_leader_whose_device_fails_outside_of_the_sharded_denoise_must_be_replaced(
    leader: Leader,
) -> None:
    outcome = leader.render(spec("sunrise", 1), 1, uses_exact_attention=False)
    assert isinstance(outcome, ClipFailed)
    assert outcome.failure_class == "worker"
    assert leader.state() == Unusable("worker", Joined())  # the process group is not broken


def test_a_rank_whose_latents_differ_from_the_others_must_be_replaced() -> None:
    health = DeviceHealth()
    health.note(RanksDisagreeError("rank 1"))
    assert health.failed_by == "worker"


def test_a_leader_does_not_finish_while_it_renders(leader: Leader) -> None:
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
            with pytest.raises(RankSilentError, match="still has 1 clips in flight"):
                leader.finish(0.0)
            with pytest.raises(RankSilentError, match="still busy"):
                leader.leave(0.0)
        finally:
            may_end.set()
        assert isinstance(outcome.result(WAIT_S), ClipFailed)
    leader.finish(0.0)


def test_a_leader_that_fails_a_clip_with_an_unknown_error_stays_usable(leader: Leader) -> None:
    outcome = leader.render(CLIP, 1, uses_exact_attention=False)
    assert isinstance(outcome, ClipFailed)
    assert outcome.failure_class == "code"
    assert leader.state() == Joined()


class JoinsMeanwhile:
    """A spool whose caller finds the leader in the next generation, as after another clip."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._point = RendezvousPoint("127.0.0.1")

    def find(self, _spec: ClipSpec) -> None:
        return None

    def check_room(self, _num_bytes: int) -> None:
        pass

    def holds(self, _clip_id: str) -> bool:
        self._leader.join(self._point.rendezvous(2, 0, ONE_DEVICE, WAIT_S))
        return False


def test_a_leader_that_had_no_process_group_for_a_clip_stays_usable_once_it_has_one(
    leader: Leader,
) -> None:
    spool: Any = JoinsMeanwhile(leader)
    leader._worker._spool = spool
    leader.leave(WAIT_S)
    outcome = leader.render(CLIP, 1, uses_exact_attention=False)
    assert isinstance(outcome, ClipFailed)
    assert outcome.group_error is GroupBrokenError
    assert leader.state() == Joined()
