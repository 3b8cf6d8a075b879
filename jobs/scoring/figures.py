"""The figures of groups of clips: means with their intervals, and distances to references.

A figure's interval is normal, of the mean over clips; a distance has none. A clip that lacks a
figure does not count in it, and `num` says how many do. Loads without torch.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.errors import RecordError
from jobs.records.scores.score_record import ScoreRecord
from pipelines.scoring.measures import MEASURES

if TYPE_CHECKING:
    from pipelines.scoring.frechet import Gaussian, PointSums

Z_95 = 1.959964
DISTANCE = "distance"
Group = tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """One figure of a group of clips.

    Args:
        measure, name: the measure, and its figure.
        num: clips that have the figure; of a distance, the frames.
        mean: mean over these clips, or the distance.
        half_width: half of the 95 % interval of the mean; None for one clip and for a distance.
    """

    measure: str
    name: str
    num: int
    mean: float
    half_width: float | None = None

    @property
    def title(self) -> str:
        return f"{self.measure}.{self.name}"


@dataclass(frozen=True)
class GroupFigures:
    """The figures of the clips that are equal in the grouped values.

    Args:
        group: these values, in the order of the axes.
        num_clips: clips of the group, scored or not.
    """

    group: Group
    num_clips: int
    figures: tuple[Figure, ...]


class FigureSums:
    """Adds up the scores of clips by group. Memory holds a few numbers for each group.

    Args:
        references: the references of each measure of a set, by name.
    """

    def __init__(self, references: Mapping[str, "Gaussian"]) -> None:
        self._references = references
        self._num_clips: dict[Group, int] = {}
        self._sums: dict[tuple[Group, str, str], tuple[int, float, float]] = {}
        self._points: dict[tuple[Group, str], PointSums] = {}

    def add(self, group: Group, scores: Iterable[ScoreRecord]) -> None:
        """Add a clip.

        Raises:
            RecordError: points of a measure have other sizes than those before.
        """
        self._num_clips[group] = self._num_clips.get(group, 0) + 1
        for score in scores:
            for name, value in score.figures.items():
                key = (group, score.measure, name)
                num, mean, squares = self._sums.get(key, (0, 0.0, 0.0))
                step = value - mean  # Welford's recurrence, which does not cancel
                mean += step / (num + 1)
                self._sums[key] = num + 1, mean, squares + step * (value - mean)
            if score.num_vectors:
                self._add_points(group, score)

    def _add_points(self, group: Group, score: ScoreRecord) -> None:
        from pipelines.scoring.frechet import PointSums

        sums = self._points.setdefault((group, score.measure), PointSums())
        try:
            sums.add(score.points())
        except ValueError as error:
            raise RecordError(f"{score.key}: {error}") from error

    def groups(self) -> list[GroupFigures]:
        """Return the figures of each group, in the order in which groups first came."""
        return [
            GroupFigures(group, num_clips, (*self._means(group), *self._distances(group)))
            for group, num_clips in self._num_clips.items()
        ]

    def _means(self, group: Group) -> Iterator[Figure]:
        known = [
            (measure, name) for measure, kind in MEASURES.items() for name in kind.figures or ()
        ]
        for measure, name in known:
            if (found := self._sums.get((group, measure, name))) is not None:
                num, mean, squares = found
                half = Z_95 * math.sqrt(squares / (num - 1) / num) if num > 1 else None
                yield Figure(measure, name, num, mean, half)

    def _distances(self, group: Group) -> Iterator[Figure]:
        for measure, theirs in self._references.items():
            if (sums := self._points.get((group, measure))) is None:
                continue
            if (ours := sums.gaussian()) is not None:
                from pipelines.scoring.frechet import frechet_distance

                distance = frechet_distance(ours, theirs)
                yield Figure(measure, DISTANCE, sums.num, distance)


def meaning_of(figure: Figure) -> str:
    """Return the meaning of a figure in words."""
    figures = MEASURES[figure.measure].figures
    if figures is None:
        return "Frechet distance to the references; lower is nearer, and few frames give too much"
    return figures[figure.name]
