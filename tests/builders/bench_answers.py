"""Judged clips without real clips, for tests of the figures."""

from dataclasses import replace

from jobs.bench.measuring.judging import JudgedClip
from pipelines.shapes.evaluation.negation import NegationTask
from pipelines.shapes.judge import Verdict
from pipelines.shapes.world import ATTRIBUTES, MOTIONS


def judged_as(
    task: NegationTask,
    *,
    shows_negated: bool = False,
    is_clean: bool = True,
    denoise_s: float = 1.0,
) -> JudgedClip:
    """Return a judged clip with the required values, and otherwise the first allowed ones."""
    values = {
        name: task.required.get(name)
        or next(value for value in ATTRIBUTES[name] if value != task.value)
        for name in ATTRIBUTES
    }
    if shows_negated:
        values[task.attribute] = task.value
    x, y = MOTIONS[values["motion"]]
    verdict = Verdict(
        colour=values["colour"], shape=values["shape"],
        motion=values["motion"], background=values["background"],
        is_clean=is_clean, error=0.0, moved_px=(16.0 * x, 16.0 * y),
    )  # fmt: skip
    return JudgedClip(verdict, (float(task.index), 0.5 * task.index), "run-1", denoise_s)


def unfaithful(task: NegationTask, judged: JudgedClip) -> JudgedClip:
    """Return the same judged clip with one required attribute wrong."""
    name, value = next(iter(task.required.items()))
    wrong = next(other for other in ATTRIBUTES[name] if other != value)
    return replace(judged, verdict=replace(judged.verdict, **{name: wrong}))
