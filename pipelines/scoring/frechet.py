"""The Frechet distance of two sets of points, each as a mean and a covariance."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Gaussian:
    """The normal distribution of a set of points.

    Args:
        num: points of the set.
    """

    num: int
    mean: Numbers
    covariance: Numbers

    @classmethod
    def of(cls, points: NDArray[np.floating]) -> Self:
        """Return the distribution of at least two points, (n, D)."""
        whole = points.astype(np.float64)
        return cls(len(whole), whole.mean(axis=0), np.cov(whole, rowvar=False))

    @classmethod
    def of_batches(cls, batches: Iterable[NDArray[np.floating]]) -> Self | None:
        """Return the distribution of points that come in batches, (n, D); None for fewer than two.

        Memory holds a batch and the sums, in float64.
        """
        num, first, total, products = 0, None, None, None
        for batch in batches:
            points = batch.astype(np.float64)
            if first is None or total is None or products is None:
                first = points[0]  # sums of differences from a point near the mean round less
                total, products = np.zeros(len(first)), np.zeros((len(first), len(first)))
            away = points - first
            num, total, products = (
                num + len(away),
                total + away.sum(axis=0),
                products + away.T @ away,
            )
        if first is None or total is None or products is None or num < 2:
            return None
        mean = total / num
        covariance = (products - num * np.outer(mean, mean)) / (num - 1)
        return cls(num, first + mean, covariance)


def frechet_distance(ours: Gaussian, theirs: Gaussian) -> float:
    """Return the distance of two normal distributions.

    `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^(1/2) C2 C1^(1/2))^(1/2))`

    Source: Dowson and Landau, J. Multivariate Analysis 12 (1982) 450.
    """
    values, vectors = np.linalg.eigh(ours.covariance)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ theirs.covariance @ root).clip(0)).sum()
    apart = np.square(ours.mean - theirs.mean).sum()
    traces = np.trace(ours.covariance) + np.trace(theirs.covariance)
    return float(apart + traces - 2 * cross)
