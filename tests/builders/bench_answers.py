"""Answers without clips, for the tests of what is made of them."""

from dataclasses import replace

from jobs.bench.measuring.judging import Seen
from pipelines.shapes.evaluation.negation import NegationTask
from pipelines.shapes.judge import Verdict
from pipelines.shapes.world import ATTRIBUTES, MOTIONS


def seen_as(
    task: NegationTask,
    *,
    shows_negated: bool = False,
    is_clean: bool = True,
    denoise_s: float = 1.0,
) -> Seen:
    """An answer that shows what the task requires, and of the rest the first value that it may."""
    values = {
        name: task.required.get(name)
        or next(value for value in ATTRIBUTES[name] if value != task.value)
        for name in ATTRIBUTES
    }
    if shows_negated:
        values[task.attribute] = task.value
    x, y = MOTIONS[values["motion"]]
    verdict = Verdict(
        colour=values["colour"], shape=values["shape"], motion=values["motion"], background=values["background"],
        is_clean=is_clean, error=0.0, moved_px=(16.0 * x, 16.0 * y),
    )  # fmt: skip
    return Seen(verdict, (float(task.index), 0.5 * task.index), "run-1", denoise_s)


def unfaithful(task: NegationTask, seen: Seen) -> Seen:
    """The same answer with one required attribute wrong."""
    name, value = next(iter(task.required.items()))
    wrong = next(other for other in ATTRIBUTES[name] if other != value)
    return replace(seen, verdict=replace(seen.verdict, **{name: wrong}))
