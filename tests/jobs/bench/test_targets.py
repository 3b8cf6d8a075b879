"""A number meets a target or misses it; a missing number does neither."""

from jobs.bench.design.blocks import Block, Setting, interleaved_tasks
from jobs.bench.measuring.measures import (
    Answers,
    compare,
    compare_cost,
    is_clean,
    is_faithful,
    measure,
)
from jobs.bench.measuring.results import POOLED, Row, Versus
from jobs.bench.measuring.targets import Target, check_targets
from jobs.bench.reporting.tables import csv_text, method_table, target_table
from tests.builders.bench_answers import judged_as, unfaithful

TASKS = interleaved_tasks(("colour", "shape"), ("open",), 100)
PLAIN = {task.key: judged_as(task, shows_negated=task.index % 2 == 0) for task in TASKS}
GOOD = {task.key: judged_as(task, denoise_s=1.1) for task in TASKS}
SLOW = {task.key: judged_as(task, denoise_s=2.0, shows_negated=task.index == 0) for task in TASKS}
DIRTY = {task.key: judged_as(task, denoise_s=2.0, is_clean=task.index % 3 > 0) for task in TASKS}
WEAK = {task.key: judged_as(task, shows_negated=task.index % 4 == 0) for task in TASKS}
LOSING = {
    task.key: unfaithful(task, judged_as(task)) if task.index % 20 == 0 else judged_as(task)
    for task in TASKS
}


def targets(nag: Answers, cfg: Answers, num_steps: int) -> dict[str, Target]:
    answers = {"none": PLAIN, "nag": nag, "cfg": cfg}
    rows = [
        Row(
            model="shapes-wan", num_steps=num_steps, is_main=True,
            setting=Setting(name, (("method", name),)), case="open",
            attribute=POOLED, figures=measure(TASKS, ours, PLAIN, PLAIN), floor=0.0,
            to_nag=versus(ours, nag), to_cfg=versus(ours, cfg),
        )
        for name, ours in answers.items()
    ]  # fmt: skip
    assert "shapes-wan" in csv_text(rows)
    assert method_table(rows).count("\n") == 2 + len(rows)
    return {target.name: target for target in check_targets(rows)}


def versus(ours: Answers, theirs: Answers) -> Versus:
    return Versus(
        compare(TASKS, ours, theirs, is_faithful), compare(TASKS, ours, theirs, is_clean),
        compare_cost(TASKS, ours, theirs),
    )  # fmt: skip


def test_a_good_nag_and_a_collapsed_cfg_meet_all_targets_at_few_steps() -> None:
    found = targets(GOOD, DIRTY, num_steps=4)
    assert list(found) == [
        "NAG suppression",
        "NAG fidelity against none",
        "NAG clean against none",
        "CFG against NAG",
    ]
    assert all(target.is_met for target in found.values())


def test_a_cfg_as_good_as_nag_misses_its_target() -> None:
    found = targets(GOOD, GOOD, num_steps=4)
    assert found["CFG against NAG"].is_met is False
    assert "**MISSED**" in target_table(found.values())


def test_a_suppression_of_one_half_misses_the_target_and_is_shown() -> None:
    target = targets(WEAK, DIRTY, num_steps=4)["NAG suppression"]
    assert target.is_met is False
    assert target.found.startswith("0.50 [")


def test_a_loss_of_five_points_of_fidelity_misses_the_target() -> None:
    found = targets(LOSING, DIRTY, num_steps=4)
    assert found["NAG fidelity against none"].is_met is False
    assert found["NAG clean against none"].is_met is True


def test_at_many_steps_nag_is_compared_with_cfg() -> None:
    found = targets(GOOD, SLOW, num_steps=25)
    assert list(found) == ["NAG suppression", "NAG cost against CFG"]
    assert all(target.is_met for target in found.values())
    assert found["NAG cost against CFG"].found == "0.55"
    assert targets(WEAK, SLOW, num_steps=25)["NAG suppression"].is_met is False
    assert targets(SLOW, SLOW, num_steps=25)["NAG cost against CFG"].is_met is False


def test_a_target_without_clips_is_neither_met_nor_missed() -> None:
    found = targets({}, {}, num_steps=4)
    assert {target.is_met for target in found.values()} == {None}
    assert "not measured" in target_table(found.values())


def test_other_numbers_of_steps_have_no_targets() -> None:
    assert targets(GOOD, DIRTY, num_steps=8) == {}


def test_interleaved_tasks_alternate() -> None:
    block = Block("shapes-wan", 4, True, (), TASKS)
    assert [task.attribute for task in block.tasks[:4]] == ["colour", "shape", "colour", "shape"]
