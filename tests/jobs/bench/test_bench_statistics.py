"""The benchmark's statistics against numbers by hand and by brute force."""

import math

import numpy as np
import pytest

from jobs.bench.measuring.statistics import (
    NAN,
    Estimate,
    bootstrap,
    difference,
    frechet_distance,
    jackknife,
    median_ratio,
    normalised_entropy,
    ratio_of_means,
    share,
    suppression,
)


def flags(num_ones: int, num: int) -> np.ndarray:
    return np.array([1.0] * num_ones + [0.0] * (num - num_ones))


def test_a_share_has_wilsons_interval() -> None:
    found = share(flags(8, 10))  # by hand: centre 0.71672, half width 0.22659
    assert found.value == 0.8
    assert (found.low, found.high) == pytest.approx((0.49016, 0.94332), abs=1e-4)


def test_a_share_of_all_or_none_is_not_certain() -> None:
    assert share(flags(20, 20)).low == pytest.approx(0.8389, abs=1e-4)
    assert share(flags(0, 20)).high == pytest.approx(0.1611, abs=1e-4)
    assert share(flags(20, 20)).high == 1
    assert math.isnan(share(np.array([])).value)


def test_a_difference_is_paired() -> None:
    """The columns differ in one row only; an unpaired interval would be far wider."""
    theirs = flags(50, 100)
    ours = theirs.copy()
    ours[0] = 0
    found = difference(ours, theirs)
    assert found.value == pytest.approx(-0.01)
    assert -0.05 < found.low < found.high <= 0


def test_four_clips_of_200_are_two_points_and_no_more() -> None:
    assert difference(flags(193, 200), flags(197, 200)).value == -0.02


def test_the_vectorised_bootstrap_equals_a_loop() -> None:
    generator = np.random.default_rng(5)
    ours, theirs = generator.random(40), generator.random(40) + 0.5
    found = ratio_of_means(ours, theirs)
    other = np.random.default_rng(1)
    loop: list[float] = []
    for _ in range(4000):
        rows = other.integers(0, 40, 40)
        loop.append(ours[rows].mean() / theirs[rows].mean())
    assert found.value == pytest.approx(ours.mean() / theirs.mean())
    assert (found.low, found.high) == pytest.approx(
        tuple(np.percentile(loop, [2.5, 97.5])), abs=0.015
    )
    assert found == ratio_of_means(ours, theirs)


def test_a_bootstrap_interval_covers_the_truth_about_19_times_in_20() -> None:
    generator = np.random.default_rng(3)
    samples = generator.normal(2.0, 1.0, (200, 60))
    found = [bootstrap(lambda column: column.mean(axis=1), sample) for sample in samples]
    assert 0.89 <= np.mean([estimate.low <= 2.0 <= estimate.high for estimate in found]) <= 0.99


def test_numbers_without_variation_have_no_interval() -> None:
    found = difference(flags(8, 8), flags(8, 8))
    assert found.value == 0
    assert math.isnan(found.low)
    assert math.isnan(jackknife(lambda _rows: 0.5, 10).high)


def test_an_interval_stays_within_the_bounds_of_the_figure() -> None:
    numbers = np.array([0.0, 1.0] * 4)
    found = jackknife(lambda rows: float(numbers[rows].mean()), 8, (0.4, 0.6))
    assert (found.low, found.high) == (0.4, 0.6)


def test_suppression_is_the_relative_fall_of_a_share() -> None:
    found = suppression(flags(5, 100), flags(50, 100))
    assert found.value == pytest.approx(0.9)
    assert 0.7 < found.low < 0.9 < found.high < 1
    assert suppression(flags(60, 100), flags(50, 100)).value == pytest.approx(-0.2)


def test_suppression_to_zero_is_not_certain() -> None:
    found = suppression(flags(0, 200), flags(50, 200))
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(1 - share(flags(0, 200)).high / 0.25)


def test_suppression_is_undefined_if_the_plain_share_is_zero() -> None:
    assert not suppression(flags(0, 10), flags(0, 10)).is_defined


def test_costs_are_ratios_of_pairs() -> None:
    assert median_ratio(np.array([2.0, 30.0, 4.0]), np.array([1.0, 10.0, 1.0])).value == 3
    assert not median_ratio(np.array([]), np.array([])).is_defined


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    numbers = np.random.default_rng(2).random(50)
    found = jackknife(lambda rows: float(numbers[rows].mean()), 50)
    half = 1.959964 * numbers.std(ddof=1) / math.sqrt(50)
    assert (found.low, found.high) == pytest.approx((numbers.mean() - half, numbers.mean() + half))


def test_the_frechet_distance_of_two_lines_equals_the_textbook_formula() -> None:
    """The formula in one dimension is (m1 - m2)^2 + (s1 - s2)^2."""
    ours, theirs = np.array([[0.0], [2.0], [4.0]]), np.array([[10.0], [11.0], [12.0]])
    assert frechet_distance(
        np.hstack([ours, 0 * ours]), np.hstack([theirs, 0 * theirs])
    ) == pytest.approx((2 - 11) ** 2 + (2 - 1) ** 2)


def test_the_frechet_distance_equals_the_formula_with_the_root_of_the_product() -> None:
    generator = np.random.default_rng(0)
    ours = generator.normal(size=(80, 4)) @ generator.normal(size=(4, 4))
    theirs = generator.normal(size=(90, 4)) @ generator.normal(size=(4, 4)) + 1
    a, b = np.cov(ours, rowvar=False), np.cov(theirs, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(a @ b).real).sum()
    expected = ((ours.mean(0) - theirs.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * root
    assert frechet_distance(ours, theirs) == pytest.approx(expected)
    assert frechet_distance(ours, ours) == pytest.approx(0, abs=1e-9)


def test_entropy_is_0_of_one_value_and_1_of_even_shares() -> None:
    assert normalised_entropy(["red"] * 5, 6) == 0
    assert normalised_entropy(["a", "b", "c", "d"] * 3, 4) == pytest.approx(1)
    assert normalised_entropy(["a", "a", "a", "b"], 2) == pytest.approx(0.811278, abs=1e-6)
    assert math.isnan(normalised_entropy([], 4))


def test_an_estimate_of_nan_is_undefined() -> None:
    assert not Estimate(NAN, NAN, NAN).is_defined
    assert Estimate(0.0, 0.0, 0.0).is_defined
