"""From judged clips to the figures of one line of a table. Pure.

Figures that compare two settings use only tasks that both have rendered; a cost uses only tasks
that one run rendered for both. A missing clip is left out, not guessed.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from jobs.bench.measuring.judging import JudgedClip
from jobs.bench.measuring.statistics import (
    NAN,
    UNDEFINED,
    Estimate,
    Numbers,
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
from pipelines.shapes.evaluation.negation import NegationTask
from pipelines.shapes.world import ATTRIBUTES, NUM_FRAMES, SPEED_PX

TRUE_TRAVEL_PX = SPEED_PX * (NUM_FRAMES - 1)
TaskKey = tuple[str, str, str, int]
Answers = Mapping[TaskKey, JudgedClip]  # the judged clips of one setting


@dataclass(frozen=True)
class Figures:
    """The figures of one setting on a set of tasks. `..._to_none` compares with no guidance.

    Args:
        num_tasks: tasks of the design; `num_clips` are rendered, `num_pairs` also without guidance.
        negated_share: share of clips that show the negated value.
        unread_share: share of clips whose negated attribute cannot be read. They count as not
            showing it.
        suppression: relative fall of `negated_share` against no guidance; 1 is a fall to zero.
        fidelity: share of clips that show everything the prompt names, except the negated value.
        clean: share of clips that are members of the Shapes world.
        distance: Frechet distance to true clips that answer the same tasks right.
        diversity: entropy of the attributes left open, over the largest possible.
        commonest: share of the commonest value that is shown instead of a negated one; near 1, a
            negative prompt collapses to one opposite.
        motion: displacement along the named direction, over the true one.
        cost: denoise seconds over those without guidance, the median over tasks.
        denoise_s: denoise seconds, the median over clips.
    """

    num_tasks: int
    num_clips: int
    num_pairs: int
    negated_share: Estimate
    unread_share: Estimate
    suppression: Estimate
    fidelity: Estimate
    fidelity_to_none: Estimate
    clean: Estimate
    clean_to_none: Estimate
    distance: Estimate
    diversity: Estimate
    commonest: Estimate
    motion: Estimate
    motion_to_none: Estimate
    cost: Estimate
    denoise_s: float


def is_negated(task: NegationTask, judged: JudgedClip) -> bool:
    return getattr(judged.verdict, task.attribute) == task.value


def is_unread(task: NegationTask, judged: JudgedClip) -> bool:
    return getattr(judged.verdict, task.attribute) is None


def is_faithful(task: NegationTask, judged: JudgedClip) -> bool:
    return all(
        getattr(judged.verdict, attribute) == value for attribute, value in task.required.items()
    )


def is_clean(_task: NegationTask, judged: JudgedClip) -> bool:
    return judged.verdict.is_clean


def progress(task: NegationTask, judged: JudgedClip) -> float | None:
    """Return a clip's displacement in the named direction over the true one; None if undefined."""
    if task.direction is None or judged.verdict.moved_px is None:
        return None
    along = sum(
        moved * axis for moved, axis in zip(judged.verdict.moved_px, task.direction, strict=True)
    )
    return along / TRUE_TRAVEL_PX


def column(
    tasks: list[NegationTask], answers: Answers, read: Callable[[NegationTask, JudgedClip], bool]
) -> Numbers:
    """Return 1.0 for each task for which `read` is True, else 0.0."""
    return np.array([read(task, answers[task.key]) for task in tasks], dtype=np.float64)


def compare(
    tasks: tuple[NegationTask, ...],
    ours: Answers,
    theirs: Answers,
    read: Callable[[NegationTask, JudgedClip], bool],
) -> Estimate:
    """Return the share of ours for which `read` is True minus the share of theirs, paired."""
    pairs = [task for task in tasks if task.key in ours and task.key in theirs]
    return difference(column(pairs, ours, read), column(pairs, theirs, read))


def compare_cost(tasks: tuple[NegationTask, ...], ours: Answers, theirs: Answers) -> Estimate:
    """Return our denoise seconds over theirs: the median over tasks that one run rendered twice."""
    pairs = [
        (ours[task.key].denoise_s, theirs[task.key].denoise_s)
        for task in tasks
        if task.key in ours
        and task.key in theirs
        and ours[task.key].run_id == theirs[task.key].run_id
    ]
    seconds = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return median_ratio(seconds[:, 0], seconds[:, 1])


def measure(
    tasks: tuple[NegationTask, ...], ours: Answers, plain: Answers, truth: Answers
) -> Figures:
    """Return all figures of one setting.

    Args:
        ours: the setting's judged clips, as far as they are rendered.
        plain: the judged clips without guidance.
        truth: a judged true clip for each task.
    """
    done = [task for task in tasks if task.key in ours]
    pairs = [task for task in done if task.key in plain]
    moving = [(progress(task, ours[task.key]), progress(task, plain[task.key])) for task in pairs]
    both_moving = np.array([pair for pair in moving if None not in pair], dtype=np.float64).reshape(
        -1, 2
    )
    own_moving = [moved for task in done if (moved := progress(task, ours[task.key])) is not None]
    seconds = [ours[task.key].denoise_s for task in done]
    return Figures(
        num_tasks=len(tasks),
        num_clips=len(done),
        num_pairs=len(pairs),
        negated_share=share(column(done, ours, is_negated)),
        unread_share=share(column(done, ours, is_unread)),
        suppression=suppression(column(pairs, ours, is_negated), column(pairs, plain, is_negated)),
        fidelity=share(column(done, ours, is_faithful)),
        fidelity_to_none=compare(tasks, ours, plain, is_faithful),
        clean=share(column(done, ours, is_clean)),
        clean_to_none=compare(tasks, ours, plain, is_clean),
        distance=measure_distance(done, ours, truth),
        diversity=measure_diversity(done, ours),
        commonest=measure_commonest(done, ours),
        motion=bootstrap(partial(np.mean, axis=1), np.array(own_moving)),
        motion_to_none=ratio_of_means(both_moving[:, 0], both_moving[:, 1]),
        cost=compare_cost(tasks, ours, plain),
        denoise_s=float(np.median(seconds)) if seconds else NAN,
    )


def measure_distance(tasks: list[NegationTask], ours: Answers, theirs: Answers) -> Estimate:
    """Return the Frechet distance between the features of two sets of clips for the same tasks."""
    if len(tasks) < 2:
        return UNDEFINED
    our_points, their_points = points(tasks, ours), points(tasks, theirs)
    return jackknife(
        lambda rows: frechet_distance(our_points[rows], their_points[rows]), len(tasks), (0, np.inf)
    )


def points(tasks: Iterable[NegationTask], answers: Answers) -> Numbers:
    """Return the features of the clips, (n, D)."""
    return np.array([answers[task.key].features for task in tasks], dtype=np.float64)


def measure_diversity(tasks: list[NegationTask], ours: Answers) -> Estimate:
    """Return the entropy of the readable values left open, averaged over the attributes."""
    # the readable values of each task by its open attributes
    found_in = [
        {
            attribute: value
            for attribute in task.open_attributes
            if (value := getattr(ours[task.key].verdict, attribute)) is not None
        }
        for task in tasks
    ]

    def entropy(rows: "np.typing.NDArray[np.intp]") -> float:
        chosen = [found_in[row] for row in rows]
        entropies = [
            normalised_entropy([one[attribute] for one in chosen if attribute in one], len(values))
            for attribute, values in ATTRIBUTES.items()
        ]
        defined = [found for found in entropies if not np.isnan(found)]
        return float(np.mean(defined)) if defined else NAN

    return jackknife(entropy, len(tasks), (0, 1))


def measure_commonest(tasks: list[NegationTask], ours: Answers) -> Estimate:
    """Return the share of the commonest of the values that are shown instead of a negated one.

    The clips are grouped by negated value; each group counts by its clips.
    """
    shown = [(task.value, getattr(ours[task.key].verdict, task.attribute)) for task in tasks]

    def commonest(rows: "np.typing.NDArray[np.intp]") -> float:
        instead: dict[str, Counter[str]] = {}
        for negated, value in (shown[row] for row in rows):
            if value not in (None, negated):
                instead.setdefault(negated, Counter())[value] += 1
        num_clips = sum(counts.total() for counts in instead.values())
        largest = sum(max(counts.values()) for counts in instead.values())
        return largest / num_clips if num_clips else NAN

    return jackknife(commonest, len(tasks), (0, 1))
