"""The judged clips of a design, and the figures of each table row. Pure except for the cache."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jobs.bench.design.blocks import PLAIN, Block, PlannedClip, Setting
from jobs.bench.measuring.cache import LineCache
from jobs.bench.measuring.judging import JudgedClip, truth_key
from jobs.bench.measuring.measures import (
    Answers,
    Figures,
    TaskKey,
    compare,
    compare_cost,
    is_clean,
    is_faithful,
    measure,
    points,
)
from jobs.bench.measuring.statistics import UNDEFINED, Estimate, frechet_distance
from pipelines.shapes.evaluation.negation import NegationTask

POOLED = "all"
TRUTH_REPLICATES = 2  # one to measure against, one more for the floor of the distance


@dataclass(frozen=True)
class Versus:
    """A setting against another on the same tasks: differences of shares and ratio of cost."""

    fidelity: Estimate
    clean: Estimate
    cost: Estimate


@dataclass(frozen=True)
class Row:
    """One line of a table: a setting and a case, for one attribute or pooled over all.

    Args:
        floor: the distance of two independent sets of true clips for the same tasks.
        to_nag, to_cfg: this setting against NAG and against CFG; undefined if not rendered.
    """

    model: str
    num_steps: int
    is_main: bool
    setting: Setting
    case: str
    attribute: str
    figures: Figures
    floor: float
    to_nag: Versus
    to_cfg: Versus


def answers_by_setting(
    block: Block, clip_ids: Mapping[str, str], cache: LineCache
) -> dict[Setting, dict[TaskKey, JudgedClip]]:
    """Return the judgements of a block's rendered clips.

    Args:
        clip_ids: the ids of the rendered clips, by name.
        cache: the judgements of these clips, by clip id.
    """
    return {
        setting: {
            task.key: JudgedClip.of(cache[clip_id])
            for task in block.tasks
            if (clip_id := clip_ids.get(PlannedClip(block, setting, task).name)) is not None
        }
        for setting in block.settings
    }


def truths(
    tasks: tuple[NegationTask, ...], cache: LineCache, replicate: int
) -> dict[TaskKey, JudgedClip]:
    return {task.key: JudgedClip.of(cache[truth_key(task, replicate)]) for task in tasks}


def table_rows(
    block: Block,
    answers: Mapping[Setting, Answers],
    cache: LineCache,
    *,
    is_pooled_only: bool = False,
) -> Iterator[Row]:
    """Yield a row for each setting and case, pooled over the attributes and for each of them."""
    by_name = {setting.name: answers[setting] for setting in block.settings}
    plain = by_name[PLAIN]
    for case in dict.fromkeys(task.case for task in block.tasks):
        of_case = tuple(task for task in block.tasks if task.case == case)
        attributes = () if is_pooled_only else dict.fromkeys(task.attribute for task in of_case)
        for attribute in (POOLED, *attributes):
            tasks = tuple(task for task in of_case if attribute in (POOLED, task.attribute))
            truth, second = (
                truths(tasks, cache, replicate) for replicate in range(TRUTH_REPLICATES)
            )
            floor = frechet_distance(points(tasks, second), points(tasks, truth))
            for setting in block.settings:
                ours = answers[setting]
                yield Row(
                    model=block.model,
                    num_steps=block.num_steps,
                    is_main=block.is_main,
                    setting=setting,
                    case=case,
                    attribute=attribute,
                    figures=measure(tasks, ours, plain, truth),
                    floor=floor,
                    to_nag=_versus(tasks, ours, by_name.get("nag")),
                    to_cfg=_versus(tasks, ours, by_name.get("cfg")),
                )


def _versus(tasks: tuple[NegationTask, ...], ours: Answers, theirs: Answers | None) -> Versus:
    if theirs is None:
        return Versus(UNDEFINED, UNDEFINED, UNDEFINED)
    return Versus(
        compare(tasks, ours, theirs, is_faithful),
        compare(tasks, ours, theirs, is_clean),
        compare_cost(tasks, ours, theirs),
    )
