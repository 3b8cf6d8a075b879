"""The chaos suite's short form: a few faults, injected into a real driver on a real cluster before a real S3 server."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.harness.farm import Farm
from tests.chaos.harness.rank_workload import GROUPS, RankWorkload
from tests.chaos.harness.runner import Scenario, Scene, play
from tests.chaos.harness.scenarios import SHORT, all_scenarios
from tests.chaos.harness.strikes import Strike, Striker

pytestmark = [pytest.mark.chaos, pytest.mark.cluster, pytest.mark.s3, pytest.mark.timeout(600)]
SCENARIOS = {scenario.name: scenario for scenario in all_scenarios(is_short=True)}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with Farm(tmp_path_factory.mktemp("chaos")) as farm:
        yield farm


@pytest.mark.parametrize("name", SHORT)
def test_a_fault_loses_no_clip_and_commits_none_twice(farm: Farm, name: str) -> None:
    outcome = play(SCENARIOS[name], farm, seed=0)
    assert outcome.audit.violations == ()
    assert outcome.problems == ()
    assert outcome.num_injected >= 1


@pytest.mark.slow
def test_a_rank_that_is_killed_in_the_middle_of_a_clip_is_replaced_and_the_other_goes_on(
    farm: Farm, tmp_path: Path
) -> None:
    strikes: list[Strike] = []
    workload = RankWorkload.make(5, GROUPS[2], tmp_path)

    def kill_follower(scene: Scene) -> int:
        return Striker(scene, 1, signal.SIGKILL, strikes.append).strike(1)

    outcome = play(
        Scenario("rank-killed", "kill -9", workload, kill_follower, settings=("workers.count=1",)),
        farm,
        0,
    )
    assert outcome.audit.violations == ()
    assert outcome.problems == ()
    (strike,) = strikes
    assert strike.num_kept == 1
    assert not strike.is_released


def test_a_lost_node_is_replaced(farm: Farm) -> None:
    lost = farm.nodes[0]
    assert lost.is_alive
    lost.kill()
    assert not lost.is_alive
    farm.have_nodes()
    assert lost not in farm.nodes
    assert len({node.node_id for node in farm.nodes}) == len(farm.nodes) == 2


def test_a_stopped_farm_leaves_no_process(farm: Farm) -> None:
    farm.stop()
    assert farm.cluster.processes() == []
