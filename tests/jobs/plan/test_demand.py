"""The number of workers that a run wants, and the words about those that have no place."""

import pytest

from jobs.plan.demand import Demand
from jobs.plan.group_capacity import RankResources
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig

PAIR = ParallelConfig(ulysses=2)
CPU = RankResources(num_cpus=1)
GPU = RankResources(num_cpus=1, num_gpus=1)
LARGE = RankResources(1, 0.5, {"disk": 1.0}, {"gpu": "in(A100, H100)"})


@pytest.mark.parametrize(
    ("machines", "reserved", "count", "num_clips", "expected"),
    [
        ([{"CPU": 8.0}], CPU, None, 100, 8),
        ([{"CPU": 5.0}, {"CPU": 3.0}], RankResources(num_cpus=2), None, 100, 3),
        ([{"CPU": 8.0}], CPU, None, 3, 3),
        ([{"CPU": 8.0}], CPU, 2, 100, 2),
        ([{"CPU": 8.0}], CPU, 20, 100, 20),
        ([{"CPU": 64.0, "GPU": 4.0}, {"CPU": 8.0}], GPU, None, 100, 4),
        ([{"CPU": 2.0, "GPU": 4.0}], GPU, None, 100, 2),
        ([], GPU, None, 100, 1),
    ],
)
def test_there_is_a_worker_for_each_device_of_the_cluster_unless_the_count_is_set(
    machines: list[dict[str, float]],
    reserved: RankResources,
    count: int | None,
    num_clips: int,
    expected: int,
) -> None:
    assert Demand(ONE_DEVICE, reserved, num_clips, count).num_wanted(machines) == expected


@pytest.mark.parametrize(
    ("count", "num_clips", "expected"),
    [(None, 100, 3), (2, 100, 2), (9, 100, 9), (None, 1, 1)],
)
def test_there_are_as_many_groups_as_fit(count: int | None, num_clips: int, expected: int) -> None:
    machines = [{"CPU": 5.0}, {"CPU": 3.0}]
    assert Demand(PAIR, CPU, num_clips, count).num_wanted(machines) == expected


@pytest.mark.parametrize(
    ("demand", "machines", "expected"),
    [
        (
            Demand(ONE_DEVICE, GPU, 5),
            [{"CPU": 8.0}],
            "a worker needs 1 GPU and 1 CPU, the cluster's 1 node has 0 GPUs and 8 CPUs",
        ),
        (Demand(ONE_DEVICE, CPU, 5), [], "a worker needs 1 CPU, the cluster has no node for it"),
        (
            Demand(PAIR, GPU, 5),
            [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}],
            (
                "a worker needs 2 times 1 GPU and 1 CPU on one node, "
                "the cluster's 2 nodes have 2 GPUs and 16 CPUs"
            ),
        ),
        (
            Demand(ONE_DEVICE, CPU, 5, held_by_driver={"CPU": 1.0}),
            [{"CPU": 0.0}],
            (
                "a worker needs 1 CPU, the cluster's 1 node has 0 CPUs besides the 1 CPU of this "
                "run's own driver (ray job submit --entrypoint-num-cpus)"
            ),
        ),
        (Demand(ONE_DEVICE, CPU, 5, held_by_driver={"CPU": 1.0}), [{"CPU": 1.0}], None),
        (
            Demand(PAIR, LARGE, 5),
            [{"CPU": 8.0, "GPU": 8.0}, {"CPU": 8.0, "GPU": 8.0, "label:gpu=A10": 1.0}],
            (
                "a worker needs 2 times 0.5 GPUs and 1 CPU and 1 disk on a node with "
                "gpu=in(A100, H100), and none of the cluster's nodes is such a node"
            ),
        ),
        (
            Demand(ONE_DEVICE, LARGE, 5),
            [{"CPU": 8.0, "GPU": 8.0}, {"CPU": 8.0, "GPU": 1.0, "label:gpu=A100": 1.0}],
            (
                "a worker needs 0.5 GPUs and 1 CPU and 1 disk on a node with gpu=in(A100, H100), "
                "the cluster's 1 such node has 1 GPU and 8 CPUs and 0 disk"
            ),
        ),
    ],
)
def test_a_cluster_without_room_is_told_by_what_it_lacks(
    demand: Demand, machines: list[dict[str, float]], expected: str | None
) -> None:
    assert demand.lacking(machines) == expected


FOUR_CPUS = [{"CPU": 4.0}]


@pytest.mark.parametrize(
    ("demand", "num_waiting", "num_placed", "expected"),
    [
        (Demand(ONE_DEVICE, CPU, 9), 2, 0, "2 devices, held by other jobs"),
        (Demand(ONE_DEVICE, CPU, 9), 1, 3, "1 device, held by other jobs"),
        (Demand(PAIR, CPU, 9), 1, 1, "2 devices for 1 group of 2, held by other jobs"),
        (
            Demand(ONE_DEVICE, CPU, 9, 6),
            3,
            3,
            (
                "1 device, held by other jobs, and 2 devices that the cluster does not have: "
                "it has room for 4 workers"
            ),
        ),
        (
            Demand(ONE_DEVICE, RankResources(5), 9, wait_s=1800.0),
            1,
            0,
            (
                "1 device: a worker needs 5 CPUs, the cluster's 1 node has 4 CPUs; the run stops "
                "after 1800 s (workers.wait_for_resources_s)"
            ),
        ),
    ],
)
def test_workers_that_wait_are_told_with_who_has_their_devices(
    demand: Demand, num_waiting: int, num_placed: int, expected: str
) -> None:
    assert demand.waiting(num_waiting, num_placed, FOUR_CPUS) == expected


def test_workers_that_wait_for_another_model_of_the_run_are_told_so() -> None:
    """Another model of the run holds one of four places."""
    demand = Demand(ONE_DEVICE, CPU, 9, 6)
    left = demand.left(FOUR_CPUS, 1)
    assert demand.waiting(3, 2, FOUR_CPUS, left) == (
        "1 device, held by other jobs, and 1 device, held by other models of this run, and "
        "1 device that the cluster does not have: it has room for 4 workers"
    )
