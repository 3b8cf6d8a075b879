"""What each rank of a group does of a clip, and how its failures travel: three real processes, and one alone."""

import multiprocessing
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch

from pipelines.catalog.model_config import load_model_config, model_paths
from pipelines.catalog.model_folder import inspect_model
from pipelines.context_parallel.exchange import checksum
from pipelines.context_parallel.process_group import ProcessGroup, RendezvousPoint
from pipelines.context_parallel.sharded_model import (
    RankPart,
    ShardedModel,
    first_cause,
    is_connection_error,
)
from pipelines.errors import GroupBrokenError, RankLostError, RankPreemptedError, RequestError
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.registry import load_denoiser, load_model
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import GenerationRequest, TextEmbeddings, VideoShape
from pipelines.video_model import OnStep
from tests.fakes.rank_cases import request, serve
from tests.fakes.ranks import FakeRankModel

THREE = ParallelConfig(ring=3)
WAIT_S = (
    240.0  # for what takes a second; a process starts in five, and on a busy machine in many more
)
TIMEOUT_S = 60.0  # of a collective


class Trio:
    """Three ranks in processes of their own."""

    def __init__(self, connections: list[Connection]) -> None:
        self._connections = connections
        self._point = RendezvousPoint("127.0.0.1")
        self._generation = 0

    def run(self, case: str, prompt: str = "") -> list[Any]:
        """What each rank came to."""
        self._generation += 1
        for rank, connection in enumerate(self._connections):
            rendezvous = self._point.rendezvous(self._generation, rank, THREE, TIMEOUT_S)
            connection.send((case, rendezvous, prompt))
        results: list[Any] = []
        for rank, connection in enumerate(self._connections):
            assert connection.poll(WAIT_S), f"rank {rank} does not answer"
            is_well, result = connection.recv()
            assert is_well, f"rank {rank}: {result}"
            results.append(result)
        return results


@pytest.fixture(scope="module")
def trio() -> Iterator[Trio]:
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(3)]
    processes = [context.Process(target=serve, args=(theirs,), daemon=True) for _, theirs in pipes]
    for process in processes:
        process.start()
    yield Trio([ours for ours, _ in pipes])
    for process in processes:
        process.kill()
        process.join(WAIT_S)
        process.close()
    for pair in pipes:
        for end in pair:
            end.close()


def test_text_of_any_dtype_arrives_bit_by_bit(trio: Trio) -> None:
    assert trio.run("receive") == [True, True, True]


def test_all_ranks_denoise_and_agree(trio: Trio) -> None:
    assert [end for end, _, _ in trio.run("denoise", "well")] == ["done", "done", "done"]


def test_a_rank_that_fails_frees_the_next_and_that_one_the_one_behind_it(trio: Trio) -> None:
    """Long before a collective's time-out, though errors, with their frames, are kept; and all can meet again."""
    results = trio.run("denoise", "fails")
    assert [end for end, _, _ in results] == [
        "connection, broken",
        "connection, broken",
        "ValueError, broken",
    ]
    assert [own for _, own, _ in results] == ["", "", "ValueError"]
    assert max(took_s for _, _, took_s in results) < TIMEOUT_S / 3
    assert [end for end, _, _ in trio.run("denoise", "well")] == ["done", "done", "done"]


def test_every_rank_sees_that_latents_differ(trio: Trio) -> None:
    results = trio.run("denoise", "differs")
    assert [(end, own) for end, own, _ in results] == [
        ("RanksDisagreeError, broken", "RanksDisagreeError")
    ] * 3


def test_meeting_again_leaves_few_files_open(trio: Trio) -> None:
    before, *_, after = (trio.run("join_and_leave") for _ in range(6))
    assert max(now - then for now, then in zip(after, before, strict=True)) <= 5 * 2


class FakeFollowers:
    """Others, who ended with these errors."""

    def __init__(self, *errors: Exception) -> None:
        self.begun: list[bool] = []
        self._errors = errors

    def begin(
        self, generation: int, request: GenerationRequest, *, uses_exact_attention: bool
    ) -> None:
        self.begun.append(uses_exact_attention)

    def errors(self, wait_s: float) -> Sequence[Exception]:
        return self._errors


class FailingFamily(FakeRankModel):
    """Raises what it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self._error = error

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        if self._error is not None:
            raise self._error
        return super().denoise(request, embeddings, on_step)


CONNECTION_LOST = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:2"


class Alone:
    """A leader in this process, in a group of one, with others made by hand."""

    def __init__(self, family: FakeRankModel, *errors: Exception) -> None:
        self.own: list[Exception] = []
        self.broken_by: list[Exception] = []
        self.followers = FakeFollowers(*errors)
        self._point = RendezvousPoint("127.0.0.1")
        self.part = RankPart(family, self.own.append)
        self.family = ShardedModel(self.part, self.followers, self.broken_by.append)
        self.part.join(self._point.rendezvous(1, 0, ONE_DEVICE, TIMEOUT_S))

    def denoise(self) -> torch.Tensor:
        wanted = request("sunrise")
        return self.family.denoise(wanted, self.family.encode_text(wanted), lambda _: None)


@pytest.fixture
def alone() -> Iterator[list[Alone]]:
    """To be filled with leaders, that leave at the end."""
    made: list[Alone] = []
    yield made
    for one in made:
        one.part.leave()


def test_the_safer_setting_is_that_of_all_ranks(alone: list[Alone]) -> None:
    alone.append(Alone(FailingFamily()))
    alone[0].denoise()
    with alone[0].family.exact_attention():
        alone[0].denoise()
    alone[0].denoise()
    assert alone[0].followers.begun == [False, True, False]


def test_the_leaders_own_error_is_told_whatever_the_others_say(alone: list[Alone]) -> None:
    alone.append(Alone(FailingFamily(MemoryError("full")), ValueError("too")))
    with pytest.raises(MemoryError):
        alone[0].denoise()
    assert [str(error) for error in alone[0].own] == ["full"]


def test_a_followers_error_is_told_in_the_place_of_a_lost_connection(alone: list[Alone]) -> None:
    alone.append(
        Alone(FailingFamily(RuntimeError(CONNECTION_LOST)), RankLostError("2"), MemoryError("full"))
    )
    with pytest.raises(MemoryError, match="full"):
        alone[0].denoise()
    assert not alone[0].own
    assert [type(error) for error in alone[0].broken_by] == [MemoryError]


def test_a_broken_group_begins_nothing_and_its_model_is_whole_again_when_it_leaves(
    alone: list[Alone],
) -> None:
    family = FailingFamily(ValueError("once"))
    alone.append(Alone(family))
    with pytest.raises(ValueError, match="once"):
        alone[0].denoise()
    with pytest.raises(GroupBrokenError):
        alone[0].denoise()
    assert len(alone[0].followers.begun) == 1
    assert [type(error) for error in alone[0].broken_by] == [ValueError]
    alone[0].part.leave()
    assert family.sharded_as is None


def test_a_group_that_cannot_be_left_is_over_all_the_same_and_what_broke_it_is_told(
    alone: list[Alone], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone.append(Alone(FailingFamily(MemoryError("full"))))
    leave = ProcessGroup.leave

    def leave_badly(process_group: ProcessGroup) -> None:
        leave(process_group)
        raise RuntimeError("the abort failed")

    monkeypatch.setattr(ProcessGroup, "leave", leave_badly)
    with pytest.raises(RuntimeError, match="the abort failed"):
        alone[0].denoise()
    assert not alone[0].part.is_joined
    assert [str(error) for error in alone[0].own] == ["full"]


def test_a_rank_that_hears_late_of_a_clip_of_an_earlier_generation_stays_in_the_present_one(
    alone: list[Alone],
) -> None:
    alone.append(Alone(FakeRankModel()))
    with pytest.raises(GroupBrokenError, match="generation 1, got one of 0"):
        alone[0].part.follow(0, request("sunrise"), uses_exact_attention=False)
    assert alone[0].part.is_joined


class WholeFamily(FakeRankModel):
    """Cannot be split."""

    def shard(self, config: ParallelConfig) -> None:
        raise ValueError("no way to cut it")


def test_a_rank_that_cannot_split_its_model_stays_in_no_group() -> None:
    point = RendezvousPoint("127.0.0.1")
    part = RankPart(WholeFamily(), lambda _: None)
    with pytest.raises(ValueError, match="no way to cut it"):
        part.join(point.rendezvous(1, 0, ONE_DEVICE, TIMEOUT_S))
    assert not part.is_joined
    assert not torch.distributed.is_initialized()


def test_a_rank_that_does_not_come_is_lost_and_no_fault_of_the_model() -> None:
    point = RendezvousPoint("127.0.0.1")
    part = RankPart(FakeRankModel(), lambda _: None)
    with pytest.raises(RankLostError, match="the ranks did not form a process group: .*timeout"):
        part.join(point.rendezvous(1, 0, ParallelConfig(2), timeout_s=1.0))
    assert not part.is_joined
    part.join(point.rendezvous(2, 0, ONE_DEVICE, TIMEOUT_S))  # and may meet others
    assert part.is_joined
    part.leave()


class UnsafeModel(FakeRankModel):
    """Has no safer setting."""

    @contextmanager
    def exact_attention(self) -> Generator[None]:
        if self.sharded_as is not None:
            raise ValueError("no exact attention")
        yield


def test_a_rank_that_cannot_begin_its_part_leaves_so_that_the_others_do_not_wait_for_it(
    alone: list[Alone],
) -> None:
    alone.append(Alone(UnsafeModel()))
    with pytest.raises(ValueError, match="no exact attention"):
        alone[0].part.follow(1, request("sunrise"), uses_exact_attention=True)
    assert not alone[0].part.is_joined


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], RankLostError),
        ([RuntimeError(CONNECTION_LOST), GroupBrokenError("x")], RankLostError),
        ([RankPreemptedError("x"), RuntimeError(CONNECTION_LOST)], RankPreemptedError),
        ([RankLostError("x"), ValueError("x")], ValueError),
    ],
)
def test_the_cause_is_what_a_rank_ran_into_then_a_rank_that_is_gone(
    others: list[Exception], expected: type[Exception]
) -> None:
    assert type(first_cause(RuntimeError(CONNECTION_LOST), others)) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError(CONNECTION_LOST), True),
        (torch.distributed.DistBackendError("NCCL error"), True),
        (ValueError("Default process group has not been initialized"), True),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (torch.distributed.DistBackendError("NCCL error: out of memory"), False),
        (ValueError("the latents are odd"), False),
        (ValueError("cannot render 'an igloo'"), False),
        (RequestError("no size for 'the process group photo'"), False),
        (RankLostError("gone"), False),
    ],
)
def test_an_error_of_the_connection_is_told_from_others(error: Exception, expected: bool) -> None:
    assert is_connection_error(error) == expected


def test_a_checksum_sees_each_bit_and_its_place() -> None:
    tensor = torch.randn(3, 5, dtype=torch.bfloat16)
    swapped, changed = tensor.clone(), tensor.clone()
    swapped[0, 0], swapped[2, 4] = tensor[2, 4], tensor[0, 0]
    changed.view(torch.int16)[1, 1] ^= 1
    assert checksum(tensor.clone()) == checksum(tensor)
    assert len({checksum(tensor), checksum(swapped), checksum(changed)}) == 3


@pytest.mark.models
@pytest.mark.parametrize("name", ["shapes-wan", "shapes-ltx"])
def test_a_rank_that_is_sent_its_text_loads_no_text_encoder_and_denoises_the_same(
    name: str,
) -> None:
    path = model_paths()[name]
    config = load_model_config(path)
    weights = inspect_model(config, path)
    whole, denoiser = load_model(config, weights, 1), load_denoiser(config, weights, 1)
    assert isinstance(denoiser, DiffusersModel)
    assert denoiser.pipeline.text_encoder is None
    wanted = replace(request("a circle"), shape=VideoShape(9, 64, 64))
    text = whole.encode_text(wanted)
    latents = [family.denoise(wanted, text, lambda _: None) for family in (whole, denoiser)]
    assert torch.equal(*latents)
