"""The short form of the chaos suite: a few faults on a real cluster with a real S3 server."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.harness.farm import Farm
from tests.chaos.harness.rank_faults import RankFault, RankFaultInjector
from tests.chaos.harness.rank_workload import GROUPS, RankWorkload
from tests.chaos.harness.runner import Scenario, ScenarioRun, run_scenario
from tests.chaos.harness.scenarios import SHORT_SCENARIOS, all_scenarios

pytestmark = [pytest.mark.chaos, pytest.mark.cluster, pytest.mark.s3, pytest.mark.timeout(600)]
SCENARIOS = {scenario.name: scenario for scenario in all_scenarios(is_short=True)}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with Farm(tmp_path_factory.mktemp("chaos")) as farm:
        yield farm


@pytest.mark.parametrize("name", SHORT_SCENARIOS)
def test_a_fault_loses_no_clip_and_commits_none_twice(farm: Farm, name: str) -> None:
    outcome = run_scenario(SCENARIOS[name], farm, seed=0)
    assert outcome.audit.violations == ()
    assert outcome.problems == ()
    assert outcome.num_injected >= 1


@pytest.mark.slow
def test_a_rank_that_is_killed_during_a_clip_is_replaced_and_the_other_goes_on(
    farm: Farm, tmp_path: Path
) -> None:
    faults: list[RankFault] = []
    workload = RankWorkload.make(5, GROUPS[2], tmp_path)

    def kill_follower(run: ScenarioRun) -> int:
        return RankFaultInjector(run, 1, signal.SIGKILL, faults.append).inject(1)

    outcome = run_scenario(
        Scenario("rank-killed", "kill -9", workload, kill_follower, settings=("workers.count=1",)),
        farm,
        0,
    )
    assert outcome.audit.violations == ()
    assert outcome.problems == ()
    (fault,) = faults
    assert fault.num_kept == 1
    assert not fault.is_released


def test_a_lost_node_is_replaced(farm: Farm) -> None:
    lost = farm.nodes[0]
    assert lost.is_alive
    lost.kill()
    assert not lost.is_alive
    farm.restore_nodes()
    assert lost not in farm.nodes
    assert len({node.node_id for node in farm.nodes}) == len(farm.nodes) == 2


def test_a_stopped_farm_leaves_no_process(farm: Farm) -> None:
    farm.stop()
    assert farm.cluster.processes() == []
