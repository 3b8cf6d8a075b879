"""Estimates with 95 % confidence intervals, from numbers paired by task. Pure and deterministic.

Shares use Wilson's interval and paired figures a bootstrap over tasks. An entropy and a distance
between sets use a jackknife, because a bootstrap would bias them: resampling repeats clips and so
narrows a set.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.scoring.frechet import Gaussian
from pipelines.scoring.frechet import frechet_distance as gaussian_distance

Numbers = NDArray[np.float64]
NUM_RESAMPLES = 2000
BOOTSTRAP_SEED = 20_250_521
MAX_JACKKNIFE_BLOCKS = 50
Z_95 = 1.959964
NAN = float("nan")


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % confidence interval.

    An undefined figure is NaN. The interval is also NaN if nothing varies.
    """

    value: float
    low: float
    high: float

    @property
    def is_defined(self) -> bool:
        return not np.isnan(self.value)


UNDEFINED = Estimate(NAN, NAN, NAN)


def share(flags: Numbers) -> Estimate:
    """Return the share of ones.

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209; valid also at 0 and 1, where a bootstrap has
    no spread.
    """
    num = len(flags)
    if not num:
        return UNDEFINED
    found = float(flags.mean())
    centre = (found + Z_95**2 / (2 * num)) / (1 + Z_95**2 / num)
    half = Z_95 / (1 + Z_95**2 / num) * np.sqrt(found * (1 - found) / num + Z_95**2 / (4 * num**2))
    return Estimate(
        found,
        max(0.0, min(found, float(centre - half))),
        min(1.0, max(found, float(centre + half))),
    )


def bootstrap(statistic: Callable[..., Numbers], *columns: Numbers) -> Estimate:
    """Return a statistic of columns paired by row, with the percentile interval of resampled rows.

    Args:
        statistic: function of each column as (R, n), R resamples of n rows; returns (R,), with NaN
            for undefined values.
        columns: paired numbers, each (n,).
    """
    num = len(columns[0])
    if not num:
        return UNDEFINED
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(*(column[np.newaxis] for column in columns))[0])
        if np.isnan(value):
            return UNDEFINED
        rows = np.random.default_rng(BOOTSTRAP_SEED).integers(0, num, (NUM_RESAMPLES, num))
        resampled = statistic(*(column[rows] for column in columns))
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    if low == high:  # all resamples agree, which does not prove precision
        return Estimate(value, NAN, NAN)
    return Estimate(value, float(low), float(high))


def difference(ours: Numbers, theirs: Numbers) -> Estimate:
    """Return the mean of ours minus the mean of theirs, paired."""
    # not a.mean() - b.mean(), whose rounding makes 4 clips of 200 more than 2 points
    return bootstrap(lambda a, b: (a - b).mean(axis=1), ours, theirs)


def ratio_of_means(ours: Numbers, theirs: Numbers) -> Estimate:
    return bootstrap(
        lambda a, b: np.where(b.mean(axis=1) == 0, NAN, a.mean(axis=1) / b.mean(axis=1)),
        ours,
        theirs,
    )


def median_ratio(ours: Numbers, theirs: Numbers) -> Estimate:
    """Return the median of the ratios of pairs."""
    return bootstrap(lambda a, b: np.median(a / b, axis=1), ours, theirs)


def suppression(guided: Numbers, plain: Numbers) -> Estimate:
    """Return `1 - share(guided) / share(plain)`: the relative fall of the share of ones.

    It is undefined if no plain clip is a one. If no guided clip is a one, resampling has no spread;
    the lower end then uses the upper end of Wilson's interval for 0 of n.
    """
    kept = ratio_of_means(guided, plain)
    if not kept.is_defined:
        return UNDEFINED
    estimate = Estimate(1 - kept.value, 1 - kept.high, 1 - kept.low)
    if guided.any():
        return estimate
    return Estimate(1.0, 1 - min(1.0, share(guided).high / float(plain.mean())), 1.0)


def jackknife(
    statistic: Callable[[NDArray[np.intp]], float],
    num: int,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """Return a statistic of `num` rows, with a normal interval from leaving out blocks of rows.

    Args:
        statistic: function of the rows' indices.
        num: the number of rows.
        bounds: the least and the largest value that the statistic can have.

    Source: Efron, The Jackknife, the Bootstrap and Other Resampling Plans (1982), chapter 3.
    """
    if num < 2:
        return UNDEFINED
    rows = np.arange(num)
    value = statistic(rows)
    num_blocks = min(num, MAX_JACKKNIFE_BLOCKS)
    without = np.array([statistic(rows[rows % num_blocks != block]) for block in range(num_blocks)])
    if np.isnan(value) or np.isnan(without).any():
        return Estimate(value, NAN, NAN)
    half = Z_95 * float(
        np.sqrt((num_blocks - 1) / num_blocks * ((without - without.mean()) ** 2).sum())
    )
    if half == 0:
        return Estimate(value, NAN, NAN)
    return Estimate(value, max(bounds[0], value - half), min(bounds[1], value + half))


def frechet_distance(ours: Numbers, theirs: Numbers) -> float:
    """Return the distance of the normal distributions fitted to two sets of points, each (n, D).

    Source: see `pipelines.scoring.frechet`.
    """
    if min(len(ours), len(theirs)) < 2:
        return NAN
    return gaussian_distance(Gaussian.of(ours), Gaussian.of(theirs))


def normalised_entropy(values: list[str], num_possible: int) -> float:
    """Return the entropy of the values over the largest possible.

    0 means that all values are equal, 1 that all possible values are equally frequent.
    """
    if not values:
        return NAN
    counts = np.unique(np.array(values), return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum() / np.log(num_possible)) + 0.0
