"""Each rank's part of a clip, and the way of its failures: three real processes, and one alone."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch

from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.context_parallel.exchange import checksum
from pipelines.context_parallel.process_group import ProcessGroup, RendezvousPoint
from pipelines.context_parallel.rank_errors import first_cause, is_connection_error
from pipelines.context_parallel.rank_part import RankPart
from pipelines.context_parallel.sharded_model import ShardedModel
from pipelines.errors import GroupBrokenError, RankLostError, RankPreemptedError, RequestError
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.registry import load_denoiser, load_model
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import GenerationRequest, TextEmbeddings, VideoShape
from pipelines.video_model import OnStep
from tests.fakes.rank_cases import request, serve
from tests.fakes.ranks import FakeRankModel
from tests.pipelines.context_parallel.ranks import FORKS

THREE = ParallelConfig(ring=3)
# For work of a second; a process starts in five seconds, and on a busy machine in many more.
WAIT_S = 240.0
TIMEOUT_S = 60.0  # for a collective


class Trio:
    """Three ranks in processes of their own."""

    def __init__(self, connections: list[Connection]) -> None:
        self._connections = connections
        self._point = RendezvousPoint("127.0.0.1")
        self._generation = 0

    def run(self, case: str, prompt: str = "") -> list[Any]:
        """Return each rank's result of a case."""
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
    pipes = [FORKS.Pipe() for _ in range(3)]
    processes = [FORKS.Process(target=serve, args=(theirs,), daemon=True) for _, theirs in pipes]
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


def test_a_failed_rank_frees_the_next_rank_and_this_one_frees_the_third(trio: Trio) -> None:
    """They are free long before a collective's time-out, though errors keep their frames.

    All ranks can form a group again.
    """
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


def test_forming_groups_again_leaves_few_files_open(trio: Trio) -> None:
    before, *_, after = (trio.run("join_and_leave") for _ in range(6))
    assert max(now - then for now, then in zip(after, before, strict=True)) <= 5 * 2


class FakeFollowers:
    """Followers that ended with these errors."""

    def __init__(self, *errors: Exception) -> None:
        self.begun: list[bool] = []
        self._errors = errors

    def begin(
        self, generation: int, request: GenerationRequest, *, uses_exact_attention: bool
    ) -> None:
        self.begun.append(uses_exact_attention)

    def errors(self, wait_s: float) -> Sequence[Exception]:
        return self._errors


class FailingModel(FakeRankModel):
    """A model whose denoising raises an error."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self._error = error

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        if self._error is not None:
            raise self._error
        return super().denoise(request, embeddings, on_step)


CONNECTION_LOST = (
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] "
    "Connection closed by peer [127.0.0.1]:2"
)


class Alone:
    """A leader in this process, in a group of one, with fake followers."""

    def __init__(self, model: FakeRankModel, *errors: Exception) -> None:
        self.own: list[Exception] = []
        self.broken_by: list[Exception] = []
        self.followers = FakeFollowers(*errors)
        self._point = RendezvousPoint("127.0.0.1")
        self.part = RankPart(model, self.own.append)
        self.model = ShardedModel(self.part, self.followers, self.broken_by.append)
        self.part.join(self._point.rendezvous(1, 0, ONE_DEVICE, TIMEOUT_S))

    def denoise(self) -> torch.Tensor:
        wanted = request("sunrise")
        return self.model.denoise(wanted, self.model.encode_text(wanted), lambda _: None)


@pytest.fixture
def alone() -> Iterator[list[Alone]]:
    """Yield a list for leaders, which leave their groups at the end."""
    made: list[Alone] = []
    yield made
    for one in made:
        one.part.leave()


def test_exact_attention_is_used_on_all_ranks(alone: list[Alone]) -> None:
    alone.append(Alone(FailingModel()))
    alone[0].denoise()
    with alone[0].model.exact_attention():
        alone[0].denoise()
    alone[0].denoise()
    assert alone[0].followers.begun == [False, True, False]


def test_the_leaders_own_error_is_raised_whatever_the_followers_report(alone: list[Alone]) -> None:
    alone.append(Alone(FailingModel(MemoryError("full")), ValueError("too")))
    with pytest.raises(MemoryError):
        alone[0].denoise()
    assert [str(error) for error in alone[0].own] == ["full"]


def test_a_followers_error_is_raised_in_place_of_a_lost_connection(alone: list[Alone]) -> None:
    alone.append(
        Alone(FailingModel(RuntimeError(CONNECTION_LOST)), RankLostError("2"), MemoryError("full"))
    )
    with pytest.raises(MemoryError, match="full"):
        alone[0].denoise()
    assert not alone[0].own
    assert [type(error) for error in alone[0].broken_by] == [MemoryError]


def test_a_broken_group_begins_nothing_and_its_model_is_unsharded_when_it_leaves(
    alone: list[Alone],
) -> None:
    family = FailingModel(ValueError("once"))
    alone.append(Alone(family))
    with pytest.raises(ValueError, match="once"):
        alone[0].denoise()
    with pytest.raises(GroupBrokenError):
        alone[0].denoise()
    assert len(alone[0].followers.begun) == 1
    assert [type(error) for error in alone[0].broken_by] == [ValueError]
    alone[0].part.leave()
    assert family.sharded_as is None


def test_a_group_that_cannot_be_left_is_not_used_again_and_its_failure_is_reported(
    alone: list[Alone], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone.append(Alone(FailingModel(MemoryError("full"))))
    leave = ProcessGroup.leave

    def leave_badly(process_group: ProcessGroup) -> None:
        leave(process_group)
        raise RuntimeError("the abort failed")

    monkeypatch.setattr(ProcessGroup, "leave", leave_badly)
    with pytest.raises(RuntimeError, match="the abort failed"):
        alone[0].denoise()
    assert not alone[0].part.is_joined
    assert [str(error) for error in alone[0].own] == ["full"]


def test_a_late_clip_of_an_earlier_generation_leaves_the_rank_in_its_present_one(
    alone: list[Alone],
) -> None:
    alone.append(Alone(FakeRankModel()))
    with pytest.raises(GroupBrokenError, match="generation 1, got one of 0"):
        alone[0].part.follow(0, request("sunrise"), uses_exact_attention=False)
    assert alone[0].part.is_joined


class UnshardableModel(FakeRankModel):
    """A model that cannot be sharded."""

    def shard(self, config: ParallelConfig) -> None:
        raise ValueError("no way to cut it")


def test_a_rank_that_cannot_shard_its_model_leaves_its_group() -> None:
    point = RendezvousPoint("127.0.0.1")
    part = RankPart(UnshardableModel(), lambda _: None)
    with pytest.raises(ValueError, match="no way to cut it"):
        part.join(point.rendezvous(1, 0, ONE_DEVICE, TIMEOUT_S))
    assert not part.is_joined
    assert not torch.distributed.is_initialized()


def test_a_rank_that_does_not_come_to_the_rendezvous_is_lost() -> None:
    point = RendezvousPoint("127.0.0.1")
    part = RankPart(FakeRankModel(), lambda _: None)
    with pytest.raises(RankLostError, match="the ranks did not form a process group: .*timeout"):
        part.join(point.rendezvous(1, 0, ParallelConfig(2), timeout_s=1.0))
    assert not part.is_joined
    part.join(point.rendezvous(2, 0, ONE_DEVICE, TIMEOUT_S))  # another group can form
    assert part.is_joined
    part.leave()


class InexactModel(FakeRankModel):
    """A model without exact attention."""

    @contextmanager
    def exact_attention(self) -> Generator[None]:
        if self.sharded_as is not None:
            raise ValueError("no exact attention")
        yield


def test_a_rank_that_cannot_begin_its_part_leaves_so_that_the_others_do_not_wait_for_it(
    alone: list[Alone],
) -> None:
    alone.append(Alone(InexactModel()))
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
def test_the_cause_is_a_ranks_own_error_and_else_the_loss_of_a_rank(
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
def test_a_connection_error_is_distinguished_from_other_errors(
    error: Exception, expected: bool
) -> None:
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
def test_a_rank_that_receives_embeddings_loads_no_text_encoder_and_denoises_the_same(
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
