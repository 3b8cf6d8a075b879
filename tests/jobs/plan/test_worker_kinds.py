"""The kinds of worker that a plan needs, and the number of each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.config import WorkerConfig
from jobs.errors import PlacementError
from jobs.manifest.manifest import open_manifest
from jobs.plan.group_capacity import RankResources
from jobs.plan.plan import Plan, make_plan
from jobs.plan.worker_kinds import (
    MAX_GROUPED_CHOICES,
    WorkerKind,
    check_capacity,
    pending_clips,
    pending_kinds,
    reserved_by,
)
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from tests.builders.manifests import jsonl
from tests.fakes.catalog import FakeCatalog

PAIR, FOUR = ParallelConfig(ulysses=2), ParallelConfig(ulysses=4)
ROWS = [
    {"prompt": "a"},
    {"prompt": "b", "parallel": {"ulysses": 4}},
    {"prompt": "c", "model": "coarse"},
    {"prompt": "d", "num_inference_steps": 4},
]


@pytest.fixture
def plan(write: Callable[[str, str | bytes], Path], catalog: FakeCatalog) -> Plan:
    """Return a plan in which the clip of `coarse` is done."""
    path = write("night.jsonl", "\n".join(json.dumps(row) for row in ROWS))
    manifest = open_manifest(path, catalog, model="tiny")
    done = {spec.clip_id for spec in manifest.specs() if spec.model.name == "coarse"}
    return make_plan(manifest, done, set())


def test_a_kind_is_a_model_and_a_group_and_counts_its_pending_clips(plan: Plan) -> None:
    alone, group = WorkerKind("tiny", ONE_DEVICE), WorkerKind("tiny", FOUR)
    assert pending_kinds(plan) == {alone: 2, group: 1}
    assert [spec.request.prompt for spec in plan.pending() if alone.renders(spec)] == ["a", "d"]
    assert [spec.request.prompt for spec in plan.pending() if group.renders(spec)] == ["b"]


@pytest.mark.parametrize(
    ("machines", "num_gpus"), [([{"CPU": 8.0}], 0), ([{"CPU": 8.0}, {"GPU": 2.0}], 1)]
)
def test_a_model_takes_gpus_if_the_cluster_has_any(
    catalog: FakeCatalog, machines: list[dict[str, float]], num_gpus: int
) -> None:
    assert reserved_by(
        WorkerKind("tiny", PAIR), catalog, WorkerConfig(num_cpus=3), machines
    ) == RankResources(3, num_gpus)


@pytest.mark.parametrize(("may_grow", "cpus"), [(False, 0.0), (True, 3.0), (False, 3.0)])
def test_only_a_group_that_does_not_fit_is_refused(
    plan: Plan, catalog: FakeCatalog, may_grow: bool, cpus: float
) -> None:
    config = WorkerConfig()
    check_capacity(plan, catalog, config, [{"CPU": 2.0}, {"CPU": 4.0}], may_grow=may_grow)
    with pytest.raises(PlacementError, match="no place for a group of 4 ranks"):
        check_capacity(plan, catalog, config, [{"CPU": cpus}, {"CPU": cpus}], may_grow=may_grow)


def test_a_group_is_not_refused_while_a_cluster_that_may_grow_has_no_room_at_all(
    plan: Plan, catalog: FakeCatalog
) -> None:
    check_capacity(plan, catalog, WorkerConfig(), [], may_grow=True)


@pytest.mark.parametrize(
    ("model", "num_choices", "order"),
    [
        ("styled", 2, "abcd"),
        ("fused", 2, "acbd"),  # a switch takes as long as to read the weights again
        ("fused", MAX_GROUPED_CHOICES + 1, "abcd"),
    ],
)
def test_clips_with_equal_loras_come_together_where_a_switch_is_slow(
    model: str,
    num_choices: int,
    order: str,
    write: Callable[[str, str | bytes], Path],
    catalog: FakeCatalog,
) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": prompt, "loras": f"style={1 + index % 2}"} for index, prompt in enumerate("abcd")
    ]
    rows += [{"prompt": "e", "loras": f"style={3 + index}"} for index in range(num_choices - 2)]
    manifest = open_manifest(write("a.jsonl", jsonl(rows)), catalog, model=model)
    plan = make_plan(manifest, set(), set())
    clips = list(pending_clips(plan, WorkerKind(model, ONE_DEVICE), catalog))
    assert "".join(spec.request.prompt for spec in clips[:4]) == order
    assert len({spec.clip_id for spec in clips}) == len(clips) == plan.num_pending
