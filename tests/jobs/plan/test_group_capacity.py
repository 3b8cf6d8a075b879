"""Groups of ranks and the cluster that they must fit into."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import PlacementError
from jobs.plan.group_capacity import RankResources, check_group_fits, count_groups, label_resources
from pipelines.parallel_config import ParallelConfig

FOUR = ParallelConfig(ulysses=2, ring=2)
ACROSS = ParallelConfig(ulysses=4, across_hosts=True)
CPU = RankResources(num_cpus=2)
GPU = RankResources(num_cpus=1, num_gpus=1)
MACHINES = [{"CPU": 12.0}, {"CPU": 6.0}, {"CPU": 8.0}]


def test_each_group_is_on_one_machine() -> None:
    assert count_groups(MACHINES, FOUR, CPU) == 2


def test_a_group_across_machines_uses_the_rest_of_each_machine() -> None:
    assert count_groups(MACHINES, ACROSS, CPU) == 3


def test_a_rank_on_a_gpu_needs_its_cores_too() -> None:
    assert count_groups([{"CPU": 3.0, "GPU": 8.0}], ParallelConfig(ulysses=2), GPU) == 1


@pytest.mark.parametrize(
    ("num_gpus", "has", "expected"),
    [(0.5, 2.0, 4), (0.4, 2.0, 4), (0.1, 1.0, 10), (0.3, 0.7, 2), (0.3, 0.9, 3), (1, 0.9, 0)],
)
def test_a_share_of_a_gpu_lies_on_one_gpu(num_gpus: float, has: float, expected: int) -> None:
    assert RankResources(1, num_gpus).fit_into({"CPU": 64.0, "GPU": has}) == expected


def test_workers_fit_only_on_machines_with_their_labels_and_resources() -> None:
    pinned = RankResources(1, 1, {"disk": 2.0}, {"gpu": "A100", "zone": "!b"})
    machine = {"CPU": 8.0, "GPU": 8.0, "disk": 5.0, **label_resources({"gpu": "A100"})}
    assert pinned.fit_into(machine) == 2
    assert pinned.fit_into({**machine, **label_resources({"zone": "b"})}) == 0
    assert pinned.fit_into({"CPU": 8.0, "GPU": 8.0, "disk": 5.0}) == 0
    left = pinned.taken_from(machine, 2)
    assert (left["GPU"], left["CPU"], left["disk"]) == (6, 6, 1)
    assert left["label:gpu=A100"] == 1


def test_a_group_larger_than_any_machine_is_refused_with_the_numbers_and_what_would_fit() -> None:
    with pytest.raises(PlacementError) as refused:
        check_group_fits([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 3.0}], FOUR, GPU)
    assert str(refused.value) == (
        "no place for a group of 4 ranks (ulysses 2 x ring 2), each of 1 GPU and 1 CPU, "
        "in one machine: the largest of 2 has room for 3, all of them for 5; "
        "ask for at most 3, or let groups lie on several machines, which is slower, with "
        "parallel.across_hosts: true, or add machines"
    )


def test_the_error_of_a_small_cluster_names_the_remedy_that_is_left() -> None:
    with pytest.raises(
        PlacementError,
        match="room for 1, all of them for 1; render each clip on one device, or add",
    ):
        check_group_fits([{"CPU": 2.0}], ACROSS, CPU)
    with pytest.raises(
        PlacementError, match="the largest of 0 has room for 0, all of them for 0; add machines"
    ):
        check_group_fits([], FOUR, CPU)


@given(
    cores=st.lists(st.integers(0, 40), max_size=5),
    ulysses=st.integers(2, 5),
    ring=st.integers(1, 3),
    across_hosts=st.booleans(),
)
def test_a_group_that_is_not_refused_fits(
    cores: list[int], ulysses: int, ring: int, across_hosts: bool
) -> None:
    machines = [{"CPU": float(count)} for count in cores]
    parallel = ParallelConfig(ulysses, ring, across_hosts=across_hosts)
    try:
        check_group_fits(machines, parallel, CPU)
    except PlacementError:
        assert all(count // 2 < parallel.degree for count in cores)
    else:
        assert count_groups(machines, parallel, CPU) >= 1
