"""The Frechet distance of two sets of points, each as a mean and a covariance."""

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


class PointSums:
    """The sums of points that come in batches, in float64; memory holds no point."""

    def __init__(self) -> None:
        self.num = 0
        self._first: Numbers = np.zeros(0)
        self._total: Numbers = np.zeros(0)
        self._products: Numbers = np.zeros((0, 0))

    def add(self, points: NDArray[np.floating]) -> None:
        """Add points, (n, D).

        Raises:
            ValueError: they have another number of features than those before.
        """
        whole = points.astype(np.float64)
        if not self.num:
            self._first = whole[0]  # sums of differences from a point near the mean round less
            num_features = len(self._first)
            self._total = np.zeros(num_features)
            self._products = np.zeros((num_features, num_features))
        if whole.shape[1] != len(self._first):
            raise ValueError(
                f"expected points of {len(self._first)} features, got {whole.shape[1]}"
            )
        away = whole - self._first
        self.num += len(away)
        self._total += away.sum(axis=0)
        self._products += away.T @ away

    def gaussian(self) -> Gaussian | None:
        """Return the distribution of the points; None for fewer than two."""
        if self.num < 2:
            return None
        mean = self._total / self.num
        covariance = (self._products - self.num * np.outer(mean, mean)) / (self.num - 1)
        return Gaussian(self.num, self._first + mean, covariance)


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
