"""The limits of a run's kinds of worker beside the claims of other runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobs.plan.demand import Demand
from jobs.plan.group_capacity import RankResources, label_resources
from jobs.schedule.schedule import Schedule
from jobs.schedule.sharing import Share
from jobs.shares.run_claims import KindClaim, RunClaim
from jobs.shares.run_shares import RunShares
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from tests.fakes.simulated_cluster import CONFIG

GPU, CPU = RankResources(1, 1), RankResources(1)
LARGE = RankResources(1, 1, labels={"gpu": "H100"})
SMALL = RankResources(1, 1, labels={"gpu": "L4"})
NODES = {
    "large": {"CPU": 8.0, "GPU": 8.0, **label_resources({"gpu": "H100"})},
    "small": {"CPU": 8.0, "GPU": 8.0, **label_resources({"gpu": "L4"})},
}


@dataclass
class FakeBoard:
    """A board with these claims of others; nothing is free."""

    claims: Sequence[RunClaim] = ()
    published: list[RunClaim] = field(default_factory=list[RunClaim])

    def publish(self, claim: RunClaim) -> None:
        self.published.append(claim)

    def others(self) -> Sequence[RunClaim]:
        return self.claims

    def free(self) -> Mapping[str, Mapping[str, float]]:
        return {"large": {"GPU": 8.0, "CPU": 8.0}, "small": {"GPU": 8.0, "CPU": 8.0}}


def rival(reserved: RankResources, num_held: int = 0, num_wanted: int = 99) -> RunClaim:
    return RunClaim("z", 1.0, (KindClaim(reserved, 1, num_held, num_wanted),))


def limits(
    board: FakeBoard,
    begun: Sequence[Demand],
    coming: Sequence[Demand] = (),
    count: int | None = None,
) -> list[int | None]:
    shares = [Share(demand, Schedule(CONFIG, demand.num_wanted([]))) for demand in begun]
    found = RunShares(board, "a", 1.0, count).limits(shares, coming, NODES, 0.0)
    return [limit.most for limit in found]


def demand(reserved: RankResources, num_clips: int = 99, count: int | None = None) -> Demand:
    return Demand(ONE_DEVICE, reserved, num_clips, count)


def test_a_run_without_others_has_no_limit_and_still_says_what_it_wants() -> None:
    board = FakeBoard()
    assert limits(board, [], [demand(GPU), demand(GPU, 3)]) == [None, None]
    (claim,) = board.published
    assert [(kind.num_held, kind.num_wanted) for kind in claim.kinds] == [(0, 16), (0, 3)]


def test_the_kinds_of_a_run_have_its_share_in_their_order() -> None:
    board = FakeBoard([rival(GPU)])
    assert limits(board, [], [demand(GPU, 5), demand(GPU)]) == [5, 3]
    groups = Demand(ParallelConfig(4), GPU, 9)
    assert limits(board, [], [groups, demand(GPU)]) == [2, 0]


def test_runs_on_other_nodes_or_other_devices_take_nothing_from_each_other() -> None:
    board = FakeBoard([rival(LARGE)])
    assert limits(board, [], [demand(SMALL)]) == [None]
    assert limits(board, [], [demand(LARGE)]) == [4]
    assert limits(board, [], [demand(CPU)]) == [None]
    assert limits(FakeBoard([rival(GPU, num_wanted=0)]), [], [demand(GPU)]) == [None]


def test_a_share_of_a_gpu_counts_as_that_share() -> None:
    board = FakeBoard([rival(GPU)])
    assert limits(board, [], [demand(RankResources(1, 0.5))]) == [16]


def test_a_count_bounds_all_kinds_together_and_asks_an_autoscaler_for_all() -> None:
    board = FakeBoard([rival(GPU, num_held=8)])
    demands = [demand(GPU, count=12), demand(GPU, count=12)]
    assert limits(board, [], demands, count=12) == [None, None], "it holds less than its share"
    (claim,) = board.published
    assert [kind.num_wanted for kind in claim.kinds] == [12, 0]
    waiting = FakeBoard([rival(GPU)])
    assert limits(waiting, [], demands, count=12) == [8, 0], "a rival has less than its share"


def test_a_run_that_gets_no_share_still_asks_for_one_worker() -> None:
    many = [RunClaim(f"{number}", 1.0, rival(GPU).kinds) for number in range(16)]
    assert limits(FakeBoard(many), [], [demand(GPU), demand(GPU)]) == [1, 0]


def test_a_model_without_a_node_wants_nothing_from_others() -> None:
    board = FakeBoard()
    limits(board, [], [demand(RankResources(1, 1, labels={"gpu": "B200"}))])
    assert board.published[0].kinds[0].num_wanted == 0
