"""The figures of a cell, from judged clips whose figures are known."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from jobs.bench.measuring.measures import (
    compare,
    compare_cost,
    is_clean,
    is_faithful,
    measure,
    progress,
)
from pipelines.shapes.evaluation.negation import draw_tasks
from tests.builders.bench_answers import judged_as, unfaithful

TASKS = draw_tasks("colour", "open", 20)
TRUTH = {task.key: judged_as(task) for task in TASKS}
PLAIN = {task.key: judged_as(task, shows_negated=task.index < 10) for task in TASKS}


def test_true_clips_have_the_best_figures() -> None:
    figures = measure(TASKS, TRUTH, PLAIN, TRUTH)
    assert (figures.num_tasks, figures.num_clips, figures.num_pairs) == (20, 20, 20)
    assert figures.negated_share.value == 0
    assert figures.suppression.value == 1
    assert (figures.fidelity.value, figures.clean.value, figures.cost.value) == (1, 1, 1)
    assert figures.distance.value == pytest.approx(0, abs=1e-9)
    assert figures.motion.value == figures.motion_to_none.value == 1


def test_no_guidance_against_itself_shows_no_change() -> None:
    figures = measure(TASKS, PLAIN, PLAIN, TRUTH)
    assert figures.negated_share.value == 0.5
    assert figures.suppression.value == 0
    assert figures.fidelity_to_none.value == figures.clean_to_none.value == 0
    assert figures.cost.value == 1


def test_losses_are_counted_in_their_own_column() -> None:
    ours = dict(TRUTH)
    for task in TASKS[:5]:
        ours[task.key] = unfaithful(task, ours[task.key])
    for task in TASKS[:2]:
        ours[task.key] = replace(
            ours[task.key], verdict=replace(ours[task.key].verdict, is_clean=False)
        )
    figures = measure(TASKS, ours, PLAIN, TRUTH)
    assert figures.fidelity_to_none.value == pytest.approx(-0.25)
    assert figures.clean_to_none.value == pytest.approx(-0.1)
    assert figures.suppression.value == 1


def test_missing_clips_are_left_out_in_pairs_and_not_guessed() -> None:
    ours = {task.key: TRUTH[task.key] for task in TASKS[:8]}
    plain = {task.key: PLAIN[task.key] for task in TASKS[2:]}
    figures = measure(TASKS, ours, plain, TRUTH)
    assert (figures.num_tasks, figures.num_clips, figures.num_pairs) == (20, 8, 6)
    nothing = measure(TASKS, {}, PLAIN, TRUTH)
    assert nothing.num_clips == 0
    assert not nothing.suppression.is_defined
    assert not nothing.clean.is_defined
    assert not nothing.distance.is_defined


def test_a_cost_uses_only_clips_of_the_same_run() -> None:
    ours = {task.key: judged_as(task, denoise_s=2.0) for task in TASKS}
    ours[TASKS[0].key] = replace(ours[TASKS[0].key], denoise_s=99.0, run_id="another")
    found = compare_cost(TASKS, ours, PLAIN)
    assert found.value == 2
    apart = {key: replace(judged, run_id="another") for key, judged in ours.items()}
    assert not compare_cost(TASKS, apart, PLAIN).is_defined


def test_fidelity_in_the_hard_case_ignores_the_negated_value() -> None:
    (task,) = draw_tasks("shape", "hard", 1)
    assert is_faithful(task, judged_as(task))
    assert is_faithful(task, judged_as(task, shows_negated=True))
    assert not is_faithful(task, unfaithful(task, judged_as(task)))


def test_motion_is_the_displacement_in_the_named_direction() -> None:
    task = next(task for task in TASKS if task.direction is not None)
    judged = judged_as(task)
    moved = judged.verdict.moved_px
    assert moved is not None
    half = replace(judged, verdict=replace(judged.verdict, moved_px=(moved[0] / 2, moved[1] / 2)))
    back = replace(judged, verdict=replace(judged.verdict, moved_px=(-moved[0], -moved[1])))
    unread = replace(judged, verdict=replace(judged.verdict, moved_px=None))
    assert [progress(task, one) for one in (judged, half, back, unread)] == [1, 0.5, -1, None]
    still = next(task for task in TASKS if task.direction is None)
    assert progress(still, judged_as(still)) is None


def test_a_negated_motion_has_no_direction_to_keep() -> None:
    for task in draw_tasks("motion", "hard", 10):
        assert task.direction is None


def test_diversity_falls_if_all_clips_show_the_same_value() -> None:
    tasks = tuple(
        task for task in draw_tasks("colour", "open", 80) if "shape" in task.open_attributes
    )
    shapes = ("circle", "square", "triangle", "cross")
    same = {task.key: judged_as(task) for task in tasks}
    mixed = {
        key: replace(judged, verdict=replace(judged.verdict, shape=shapes[index % 4]))
        for index, (key, judged) in enumerate(same.items())
    }
    ours, theirs = (
        measure(tasks, answers, same, same).diversity.value for answers in (mixed, same)
    )
    assert ours > theirs


def test_a_collapse_to_one_colour_shows_in_the_share_of_the_commonest() -> None:
    tasks = draw_tasks("colour", "open", 60)
    colours = ("red", "green", "blue", "yellow", "purple", "cyan")
    answers = {task.key: judged_as(task) for task in tasks}

    def commonest(shown: Mapping[tuple[str, str, str, int], str | None]) -> float:
        ours = {
            key: replace(judged, verdict=replace(judged.verdict, colour=shown[key]))
            for key, judged in answers.items()
        }
        return measure(tasks, ours, answers, answers).commonest.value

    # the tasks negate the six colours in turn, ten times each
    opposite = {task.key: colours[task.index % 6 - 3] for task in tasks}
    varied = {task.key: colours[(task.index % 6 + 1 + task.index // 6 % 5) % 6] for task in tasks}
    assert commonest(opposite) == 1
    assert commonest(varied) == pytest.approx(1 / 5)
    assert np.isnan(commonest(dict.fromkeys(opposite)))


def test_differences_use_only_common_tasks() -> None:
    ours = {task.key: judged_as(task, is_clean=False) for task in TASKS[:10]}
    theirs = {task.key: judged_as(task, is_clean=task.index % 2 == 0) for task in TASKS[5:]}
    # the common tasks are 5 to 9; theirs are clean in 6 and 8
    assert compare(TASKS, ours, theirs, is_clean).value == pytest.approx(-0.4)
    assert np.isnan(compare(TASKS, ours, {}, is_clean).value)
