"""The kinds of worker that a plan needs, and the number of each."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import ManifestError, PlacementError
from jobs.manifest import flat_file
from jobs.manifest.manifest import Manifest, open_manifest
from jobs.manifest.walk.selection import ALL, Selection
from jobs.plan.buckets import MAX_LORA_CHOICES, Part, PlanBucket
from jobs.plan.group_capacity import RankResources
from jobs.plan.plan import Plan, make_plan
from jobs.plan.worker_kinds import (
    WorkerKind,
    check_capacity,
    pending_clips,
    pending_kinds,
    reserved_by,
)
from jobs.settings.run_config import WorkerConfig
from jobs.settings.worker_config import ACCELERATOR_LABEL, Placement
from jobs.types import ClipSpec
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.texts import Tokens
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
    assert list(pending_kinds(plan).items()) == [(group, 1), (alone, 2)]
    assert [spec.request.prompt for spec in pending_clips(plan, alone)] == ["a", "d"]
    assert [spec.request.prompt for spec in pending_clips(plan, group)] == ["b"]


def test_a_part_of_which_no_clip_is_wanted_any_more_is_left_and_the_others_go_on(
    write: Callable[[str, str | bytes], Path], catalog: FakeCatalog
) -> None:
    rows = [
        {"prompt": f"{steps} {n}", "num_inference_steps": steps} for n in "ab" for steps in (9, 4)
    ]
    plan = planned(write, catalog, rows)
    wanted = {9: 1, 4: 2}  # clips of each number of steps

    def is_wanted(part: Part) -> bool:
        return wanted[part.bucket.num_inference_steps] > 0

    found: list[str] = []
    for one in pending_clips(plan, WorkerKind("tiny", ONE_DEVICE), is_wanted):
        found.append(one.request.prompt)
        wanted[one.request.sampling.num_inference_steps] -= 1
    assert found == ["9 a", "4 a", "4 b"]


def test_a_single_part_is_read_no_further_than_clips_of_it_are_wanted(
    write: Callable[[str, str | bytes], Path], catalog: FakeCatalog
) -> None:
    plan = planned(write, catalog, [{"prompt": prompt} for prompt in "abcd"])
    answers = iter([True, True, True, False])  # before the walk, and before each clip
    clips = pending_clips(plan, WorkerKind("tiny", ONE_DEVICE), lambda _: next(answers))
    assert [one.request.prompt for one in clips] == ["a", "b"]


@pytest.mark.parametrize(
    ("machines", "num_gpus"), [([{"CPU": 8.0}], 0), ([{"CPU": 8.0}, {"GPU": 2.0}], 1)]
)
def test_a_model_takes_gpus_if_the_cluster_has_any(
    catalog: FakeCatalog, machines: list[dict[str, float]], num_gpus: int
) -> None:
    assert reserved_by(
        WorkerKind("tiny", PAIR), catalog, WorkerConfig(num_cpus=3), machines
    ) == RankResources(3, num_gpus)


def test_a_model_takes_the_share_of_a_gpu_and_the_kind_of_node_of_the_settings(
    catalog: FakeCatalog,
) -> None:
    large = Placement(accelerator_type="H100", resources={"disk": 1.0})
    config = WorkerConfig(num_gpus=0.5, models={"tiny": large})
    without_gpus = [{"CPU": 8.0}]
    assert reserved_by(
        WorkerKind("tiny", ONE_DEVICE), catalog, config, without_gpus
    ) == RankResources(1, 0.5, {"disk": 1.0}, {ACCELERATOR_LABEL: "H100"})
    other = WorkerKind("coarse", ONE_DEVICE)
    assert reserved_by(other, catalog, config, without_gpus) == RankResources(1, 0.5)
    here = [{"CPU": 8.0, "GPU": 8.0}]
    pinned = WorkerConfig(label_selector={"gpu": "A100"})
    assert reserved_by(other, catalog, pinned, here).num_gpus == 0, "no GPU on such a node"


def test_a_group_whose_ranks_would_share_a_gpu_is_refused(plan: Plan, catalog: FakeCatalog) -> None:
    machines = [{"CPU": 8.0, "GPU": 8.0}]
    with pytest.raises(PlacementError, match="groups of 4 ranks and workers.num_gpus=0.5; set"):
        check_capacity(plan, catalog, WorkerConfig(num_gpus=0.5), machines, may_grow=True)
    fixed = WorkerConfig(num_gpus=0.5, models={"tiny": Placement(1)})
    check_capacity(plan, catalog, fixed, machines, may_grow=True)


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
        ("fused", MAX_LORA_CHOICES + 9, "acbd"),
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
    clips = list(pending_clips(plan, WorkerKind(model, ONE_DEVICE)))
    assert "".join(spec.request.prompt for spec in clips[:4]) == order
    assert len({spec.clip_id for spec in clips}) == len(clips) == plan.num_pending


# the order of buckets, and their walks


def planned(
    write: Callable[[str, str | bytes], Path],
    catalog: FakeCatalog,
    rows: Iterable[dict[str, Any]],
    selection: Selection = ALL,
    done: Collection[str] = (),
) -> Plan:
    manifest = open_manifest(
        write("night.jsonl", jsonl(rows)), catalog, model="tiny", selection=selection
    )
    return make_plan(replace(manifest, salt=b"salt"), done, set())


def in_order(plan: Plan) -> list[ClipSpec]:
    return [spec for kind in pending_kinds(plan) for spec in pending_clips(plan, kind)]


def test_a_run_takes_groups_first_then_the_model_with_the_longest_clip_and_longest_sizes(
    write: Callable[[str, str | bytes], Path], catalog: FakeCatalog
) -> None:
    """In `coarse`, an equal clip has a quarter of the tokens."""
    rows: list[dict[str, Any]] = [
        {"prompt": "short of tiny", "num_inference_steps": 2},
        {"prompt": "coarse", "model": "coarse"},
        {"prompt": "tiny"},
        {"prompt": "large of tiny", "num_inference_steps": 2, "width": 512, "height": 512},
        {"prompt": "group", "num_inference_steps": 2, "parallel": {"ulysses": 2}},
        {"prompt": "tiny again"},
        {"prompt": "coarse again", "model": "coarse"},
    ]
    plan = planned(write, catalog, rows)
    assert [spec.request.prompt for spec in in_order(plan)] == [
        *("group", "large of tiny", "tiny", "tiny again", "short of tiny"),
        *("coarse", "coarse again"),
    ]
    kinds = [(bucket.model, bucket.parallel.degree) for bucket in plan.buckets]
    assert kinds == [("tiny", 2), ("tiny", 1), ("tiny", 1), ("tiny", 1), ("coarse", 1)]


FIELDS = st.fixed_dictionaries(
    {
        "prompt": st.sampled_from("ab"),
        "num_inference_steps": st.integers(1, 3),
        "seed": st.sampled_from([0, 1, "random"]),
        "model": st.sampled_from(["tiny", "coarse", "fused", "absent"]),
    },
    optional={
        "loras": st.sampled_from(["style=1", "style=2"]),
        "parallel": st.sampled_from([{"ulysses": 2}, {}]),
        "width": st.sampled_from([64, 128]),
    },
)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(FIELDS, min_size=1, max_size=30),
    limit=st.none() | st.integers(1, 12),
    num_done=st.integers(0, 3),
    most_held=st.integers(0, 9),
    data=st.data(),
)
def test_each_pending_clip_comes_once_with_its_name_and_seed_bucket_by_bucket(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    limit: int | None,
    num_done: int,
    most_held: int,
    data: st.DataObject,
) -> None:
    """The walks of buckets find what a walk over all rows finds, with names, seeds and repeats."""

    def usable(row: dict[str, Any]) -> dict[str, Any]:
        return {name: row[name] for name in row if name != "loras" or row["model"] == "fused"}

    rows = [*map(usable, rows), {"prompt": "c", "model": "tiny"}]
    for number in data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=5)):
        rows[number]["name"] = f"own-{number}"
    path = tmp_path_factory.mktemp("rows") / "night.jsonl"
    path.write_text(jsonl(rows))
    manifest = replace(open_manifest(path, FakeCatalog()), salt=b"salt")
    specs = [row.spec for row in manifest.rows() if isinstance(row.spec, ClipSpec)]
    only = tuple(data.draw(st.sets(st.sampled_from([spec.name for spec in specs]), max_size=3)))
    done = {spec.clip_id for spec in specs[:num_done]}
    manifest = replace(manifest, selection=Selection(only, limit))
    if not any(isinstance(row.spec, ClipSpec) for row in manifest.rows()):  # the limit's rows
        with pytest.raises(ManifestError, match="absent: the model folder"):
            make_plan(manifest, done, set())
        return
    plan = make_plan(manifest, done, set())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.plan.worker_kinds.MAX_HELD_CLIPS", most_held)
        found = in_order(plan)
    assert sorted(found, key=lambda spec: spec.name) == sorted(
        plan.pending(), key=lambda spec: spec.name
    )
    places = {bucket: number for number, bucket in enumerate(plan.buckets)}
    order = [
        (list(pending_kinds(plan)).index(WorkerKind(spec.model.name, spec.parallel)), spec)
        for spec in found
    ]
    assert [kind for kind, _ in order] == sorted(kind for kind, _ in order)
    for kind in pending_kinds(plan):
        of_kind = [bucket_of(plan, spec) for spec in pending_clips(plan, kind)]
        if kind.model != "fused":
            numbers = [places[bucket] for bucket in of_kind]
            assert numbers == sorted(numbers)


def bucket_of(plan: Plan, spec: ClipSpec) -> PlanBucket:
    (found,) = (
        bucket
        for bucket in plan.buckets
        if bucket.kind == (spec.model.name, spec.parallel)
        and bucket.shape == spec.request.shape
        and bucket.num_inference_steps == spec.request.sampling.num_inference_steps
    )
    return found


@dataclass(frozen=True)
class CountedTokenizer:
    """Counts the texts that it tokenizes."""

    counts: list[str]

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        return [self.tokens(text) for text in texts]

    def tokens(self, text: str) -> Tokens:
        self.counts.append(text)
        return Tokens(1, text)


def test_many_small_buckets_share_walks_and_rows_of_other_buckets_are_not_tokenized(
    write: Callable[[str, str | bytes], Path],
    catalog: FakeCatalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = list[str]()
    tiny = catalog.models["tiny"]
    monkeypatch.setitem(catalog.models, "tiny", replace(tiny, tokenizer=CountedTokenizer(texts)))
    rows = [
        {"prompt": f"{steps} {number}", "negative_prompt": "n", "num_inference_steps": steps}
        for number in range(4)
        for steps in range(1, 31)
    ]
    plan = planned(write, catalog, rows)
    texts.clear()
    monkeypatch.setattr("jobs.plan.worker_kinds.MAX_HELD_CLIPS", 40)
    walks = list[object]()
    with_walks = Manifest.marked_rows
    monkeypatch.setattr(
        Manifest, "marked_rows", lambda *args: [walks.append(args), with_walks(*args)][1]
    )
    clips = in_order(plan)
    expected = [f"{steps} {number}" for steps in range(30, 0, -1) for number in range(4)]
    assert [spec.request.prompt for spec in clips] == expected
    assert len(walks) == 3
    assert sum(text != "n" for text in texts) == 120


def test_rows_of_other_buckets_are_not_even_parsed(
    write: Callable[[str, str | bytes], Path],
    catalog: FakeCatalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [{"prompt": f"{number}", "num_inference_steps": 1 + number % 5} for number in range(50)]
    plan = planned(write, catalog, rows)
    parsed = list[str]()
    decode = flat_file._decoded
    monkeypatch.setattr(flat_file, "_decoded", lambda line: [parsed.append(line), decode(line)][1])
    monkeypatch.setattr("jobs.plan.worker_kinds.MAX_HELD_CLIPS", 0)
    assert len(in_order(plan)) == 50
    assert len(parsed) == 50


def test_a_manifest_that_is_rewritten_gives_no_clip_that_was_held(
    write: Callable[[str, str | bytes], Path], catalog: FakeCatalog
) -> None:
    rows = [{"prompt": f"{number}", "num_inference_steps": 1 + number % 5} for number in range(9)]
    plan = planned(write, catalog, rows)
    (kind,) = pending_kinds(plan)
    clips = pending_clips(plan, kind)
    next(clips)
    write("night.jsonl", jsonl(rows[:1] * 99))
    with pytest.raises(ManifestError, match="the file was rewritten"):
        next(clips)
