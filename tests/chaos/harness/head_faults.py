"""The faults of Ray's control service: killed for good, or started again with its state."""

from infra.local.control_service import kill_control_service, restart_control_service
from tests.chaos.harness.faults import Inject, at_random_moment
from tests.chaos.harness.runner import ScenarioRun


def kill_head(commits: int) -> Inject:
    """Kill the cluster's control service, start a new cluster after the run, and resume."""

    def inject(run: ScenarioRun) -> int:
        if not at_random_moment(run, commits):
            return 0
        kill_control_service(run.farm.cluster)
        run.finish()
        run.farm.restore_nodes()
        run.start_driver()  # the output was released: no takeover
        return 1

    return inject


def restart_head(down_s: float, commits: int) -> Inject:
    """Kill the cluster's control service, and start it again with its state, as KubeRay does."""

    def inject(run: ScenarioRun) -> int:
        if not at_random_moment(run, commits):
            return 0
        restart_control_service(run.farm.cluster, down_s)
        return 1

    return inject
