"""The fair split of devices among runs: by weights, without waste, and the same for all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.shares.fair_split import EPSILON, Bound, Want, fair_split

wants = st.builds(
    Want,
    weight=st.sampled_from([0.1, 0.5, 1, 2, 3, 10]),
    unit=st.sampled_from([0.25, 0.5, 1, 2, 4, 8]),
    devices=st.integers(0, 100).map(float),
)
runs = st.dictionaries(st.sampled_from("abcdef"), wants, min_size=1)


def split_of(total: float, *weights: float, wanted: float = 1000) -> list[float]:
    runs = {f"{number}": Want(weight, 1, wanted) for number, weight in enumerate(weights)}
    return list(fair_split(runs, total).values())


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (12, (2, 1), [8, 4]),
        (8, (2, 1), [5, 3]),
        (8, (1, 1), [4, 4]),
        (9, (1, 1), [5, 4]),
        (3, (100, 1), [2, 1]),
        (2, (1, 1, 1), [1, 1, 0]),
        (0, (1, 1), [0, 0]),
        (100, (3, 2), [60, 40]),
    ],
)
def test_devices_are_split_by_weight_and_each_run_has_a_worker_first(
    total: float, weights: tuple[float, ...], expected: list[float]
) -> None:
    assert split_of(total, *weights) == expected


def test_what_a_run_does_not_want_goes_to_the_others_by_weight() -> None:
    found = fair_split({"a": Want(1, 1, 2), "b": Want(2, 1, 99), "c": Want(1, 1, 99)}, 11)
    assert found == {"a": 2, "b": 6, "c": 3}


def test_groups_and_shares_of_a_gpu_count_by_their_devices() -> None:
    found = fair_split({"group": Want(1, 4, 99), "half": Want(1, 0.5, 99)}, 16)
    assert found == {"group": 8, "half": 8}


@given(runs=runs, total=st.integers(0, 64))
def test_no_split_gives_more_than_there_is_or_than_a_run_wants_and_none_leaves_a_usable_rest(
    runs: dict[str, Want], total: int
) -> None:
    found = fair_split(runs, total)
    assert found == fair_split(dict(reversed(runs.items())), total), "all drivers find the same"
    rest = total - sum(found.values())
    assert rest >= -EPSILON
    for run, devices in found.items():
        want = runs[run]
        assert devices <= want.devices + EPSILON
        assert (devices / want.unit).is_integer()
        is_satisfied = devices + want.unit > want.devices + EPSILON
        assert is_satisfied or want.unit > rest - EPSILON


@given(runs=runs, total=st.integers(0, 64))
def test_no_run_could_take_a_worker_from_another_that_would_still_have_more_for_its_weight(
    runs: dict[str, Want], total: int
) -> None:
    """With equal workers: no move makes the split more even, unless it takes a run's only one."""
    runs = {name: Want(want.weight, 1, want.devices) for name, want in runs.items()}
    found = fair_split(runs, total)
    for taker, want in runs.items():
        for giver, devices in found.items():
            if found[taker] + 1 <= want.devices and devices >= 2:
                would_have = (found[taker] + 0.5) / want.weight
                assert (devices - 0.5) / runs[giver].weight <= would_have + EPSILON


@given(
    runs=runs,
    total=st.integers(0, 64),
    bounds=st.lists(
        st.builds(Bound, st.frozensets(st.sampled_from("abcdef")), st.integers(0, 40).map(float)),
        max_size=3,
    ),
)
def test_runs_with_bounds_have_no_more_together_and_nothing_is_left_that_they_allow(
    runs: dict[str, Want], total: int, bounds: list[Bound]
) -> None:
    found = fair_split(runs, total, bounds)
    rests = [
        (bound.runs, bound.devices - sum(found[run] for run in found if run in bound.runs))
        for bound in (*bounds, Bound(frozenset(runs), total))
    ]
    assert min(rest for _, rest in rests) >= -EPSILON
    for run, want in runs.items():
        rest = min(rest for bounded, rest in rests if run in bounded)
        is_satisfied = found[run] + want.unit > want.devices + EPSILON
        assert is_satisfied or want.unit > rest - EPSILON


@given(runs=runs, total=st.integers(0, 40), more=st.integers(0, 20))
def test_more_devices_give_no_run_fewer(runs: dict[str, Want], total: int, more: int) -> None:
    runs = {name: Want(want.weight, 1, want.devices) for name, want in runs.items()}
    before, after = fair_split(runs, total), fair_split(runs, total + more)
    assert all(before[run] <= after[run] for run in runs)
