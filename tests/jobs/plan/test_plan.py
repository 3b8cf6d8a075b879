import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.clip_id import stand_in_id
from jobs.errors import ManifestError
from jobs.manifest.manifest import Manifest, open_manifest
from jobs.plan.broken import BrokenModel
from jobs.plan.plan import PlanBucket, make_plan
from pipelines.parallel_config import ParallelConfig
from pipelines.request import VideoShape
from tests.builders.manifests import GROUPED_ROWS, MIXED_ROWS, jsonl
from tests.fakes.catalog import FakeCatalog

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def rows(write: Write) -> Path:
    return write("night.jsonl", jsonl(MIXED_ROWS))


def test_a_plan_counts_clips_and_repeats(rows: Path, catalog: FakeCatalog) -> None:
    plan = make_plan(open_manifest(rows, catalog, model="tiny"), set(), set())
    assert (plan.name, plan.num_rows, plan.num_repeats, plan.num_clips) == ("night", 5, 1, 4)
    assert (plan.num_done, plan.num_quarantined, plan.num_pending) == (0, 0, 4)
    assert [spec.request.prompt for spec in plan.pending()] == ["a", "b", "c", "c"]


def test_clips_that_are_done_or_quarantined_are_not_pending(
    rows: Path, catalog: FakeCatalog
) -> None:
    manifest = open_manifest(rows, catalog, model="tiny")
    a, b, c, d = (spec.clip_id for spec in manifest.specs())
    plan = make_plan(manifest, {a, b}, {b, c, "of another manifest"})
    assert (plan.num_done, plan.num_quarantined, plan.num_pending) == (2, 1, 1)
    assert [spec.clip_id for spec in plan.pending()] == [d]
    assert [spec.clip_id for spec in plan.pending()] == [d]


def test_a_bucket_holds_clips_that_take_equally_long(rows: Path, catalog: FakeCatalog) -> None:
    manifest = open_manifest(rows, catalog, model="tiny")
    plan = make_plan(manifest, {next(manifest.specs()).clip_id}, set())
    assert plan.buckets == (
        PlanBucket("tiny", VideoShape(17, 64, 64), 8, num_clips=2, num_pending=1, num_done=1),
        PlanBucket("tiny", VideoShape(17, 64, 64), 4, num_clips=1, num_pending=1),
        PlanBucket("coarse", VideoShape(17, 64, 96), 8, num_clips=1, num_pending=1),
    )


BROKEN_ROWS = (
    {"prompt": "a", "model": "absent"},
    {"prompt": "b"},
    {"prompt": "c", "model": "absent", "name": "third"},
    {"prompt": "d", "model": "hollow"},
)


def test_a_broken_model_stops_no_other_model(write: Write, catalog: FakeCatalog) -> None:
    path = write("night.jsonl", jsonl(BROKEN_ROWS))
    manifest = open_manifest(path, catalog, model="tiny")
    plan = make_plan(manifest, set(), set())
    assert (plan.num_clips, plan.num_pending, plan.num_broken) == (4, 1, 3)
    assert [spec.request.prompt for spec in plan.pending()] == ["b"]
    message = f"{path}:1: absent: the model folder /weights does not exist"
    other = f"{path}:4: hollow: the model folder /weights does not exist"
    assert plan.broken == (BrokenModel("absent", message, 2), BrokenModel("hollow", other, 1))
    assert [clip.name for clip in plan.broken_clips()] == ["night-000000", "third", "night-000003"]
    assert {clip.error_type for clip in plan.broken_clips()} == {"ModelNotFoundError"}

    later = make_plan(manifest, set(), {stand_in_id("third"), stand_in_id("night-000001")})
    assert (later.num_quarantined, later.num_pending, later.num_broken) == (1, 1, 2)
    assert [clip.name for clip in later.broken_clips()] == ["night-000000", "night-000003"]
    assert later.mended == {stand_in_id("night-000001")}, "its model is whole by now"


def test_a_manifest_without_any_usable_model_is_refused(write: Write, catalog: FakeCatalog) -> None:
    path = write("a.jsonl", jsonl(BROKEN_ROWS))
    manifest = open_manifest(path, catalog, model="hollow")
    with pytest.raises(ManifestError, match=r"a\.jsonl:1: absent: the model folder"):
        make_plan(manifest, set(), set())
    with pytest.raises(ManifestError, match=r"a\.jsonl:1: absent: the model folder"):
        list(manifest.specs())


def test_the_last_row_is_checked_before_anything_runs(write: Write, catalog: FakeCatalog) -> None:
    path = write("a.jsonl", '{"prompt": "a"}\n' * 3 + '{"prompt": ""}\n')
    with pytest.raises(ManifestError, match=r"a\.jsonl:4: prompt is empty"):
        make_plan(open_manifest(path, catalog, model="tiny"), set(), set())


@pytest.fixture
def grouped(write: Write) -> Path:
    return write("night.jsonl", jsonl(GROUPED_ROWS))


def test_clips_for_other_devices_are_in_other_buckets(grouped: Path, catalog: FakeCatalog) -> None:
    plan = make_plan(open_manifest(grouped, catalog, model="tiny"), set(), set())
    assert plan.buckets == (
        PlanBucket("tiny", VideoShape(17, 64, 64), 8, 2, 2, ParallelConfig(4)),
        PlanBucket("tiny", VideoShape(13, 64, 64), 8, 1, 1, ParallelConfig(4)),
        PlanBucket(
            "tiny", VideoShape(17, 64, 64), 8, 1, 1, ParallelConfig(2, 2, across_hosts=True)
        ),
        PlanBucket("tiny", VideoShape(17, 64, 64), 8, 1, 1),
    )


MEASURE = """
import resource, sys
from pathlib import Path
from jobs.manifest.manifest import Manifest, open_manifest
from jobs.plan.plan import make_plan
from tests.fakes.catalog import FakeCatalog

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def plan(path):
    return make_plan(open_manifest(Path(path), FakeCatalog(), model="tiny"), set(), set())

plan(sys.argv[1])
before = peak_bytes()
counted = plan(sys.argv[2]).num_clips
print(counted, peak_bytes() - before)
"""


def planned(small: Path, large: Path) -> tuple[int, int]:
    """Plan `small` and then `large` in a process of its own.

    Returns:
        The clips in `large`, and the bytes by which planning it raised the peak memory.
    """
    command = [sys.executable, "-c", MEASURE, str(small), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    num_clips, num_bytes = done.stdout.split()
    return int(num_clips), int(num_bytes)


def bytes_of_digests(num_clips: int) -> int:
    """Return the size of a table at most three quarters full, and of its half while it grows."""
    num_slots = 1024
    while 4 * num_clips > 3 * num_slots:
        num_slots *= 2
    return num_slots * 16 * 3 // 2


@pytest.mark.slow
def test_a_long_jsonl_is_planned_in_the_memory_of_its_digests(write: Write) -> None:
    row = '{"prompt": "a red circle moving right over a green background", "seed": %d}\n'
    small = write("small.jsonl", "".join(row % seed for seed in range(100)))
    large = write("large.jsonl", "".join(row % seed for seed in range(300_000)))
    num_clips, num_bytes = planned(small, large)
    assert num_clips == 300_000
    assert num_bytes < bytes_of_digests(num_clips) + 2_000_000


@pytest.mark.slow
def test_a_large_product_is_planned_in_the_memory_of_its_digests(write: Write) -> None:
    text = "name: a\nmodel: tiny\naxes: {prompt: {file: %s.txt}, seed: {range: [0, %d]}}"
    for name, size in (("small", 10), ("large", 400)):
        write(f"{name}.txt", "".join(f"a red circle number {number}\n" for number in range(size)))
    num_clips, num_bytes = planned(
        write("small.yaml", text % ("small", 10)), write("large.yaml", text % ("large", 400))
    )
    assert num_clips == 160_000
    assert num_bytes < bytes_of_digests(num_clips) + 2_000_000


# a manifest that changes during a run


SIX_ROWS = jsonl({"prompt": f"clip {number}"} for number in range(6))
SIX_CELLS = "prompt\n" + "".join(f"clip {number}\n" for number in range(6))
YAML = "axes: {prompt: [one, two, three, four, five, six]}\n"


def taken_while_changing(
    path: Path,
    catalog: FakeCatalog,
    change: Callable[[], object],
    manifest: Manifest | None = None,
) -> int:
    """Take three clips, change the file, and return how many clips there are in all."""
    manifest = manifest or open_manifest(path, catalog, model="tiny")
    pending = make_plan(manifest, set(), set()).pending()
    for _ in range(3):
        next(pending)
    change()
    return 3 + len(list(pending))


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", SIX_ROWS), ("a.yaml", YAML)])
@pytest.mark.parametrize(
    "new",
    [
        "",
        jsonl([{"prompt": "another"}] * 9),
        "{ not even a row",
        SIX_ROWS.replace("clip", "Clip"),  # the size is the same
    ],
)
@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_rewritten_manifest_gives_no_further_clip(
    write: Write, catalog: FakeCatalog, name: str, content: str, new: str, is_replaced: bool
) -> None:
    path = write(name, content)

    def rewrite() -> None:
        if is_replaced:
            write("new", new).rename(path)
        else:
            write(name, new)

    with pytest.raises(ManifestError, match=r"a\.\w+:1: the file was rewritten after"):
        taken_while_changing(path, catalog, rewrite)


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", SIX_ROWS), ("a.yaml", YAML)])
@pytest.mark.parametrize("change", ["touched", "written again", "replaced by a copy", "removed"])
def test_a_manifest_with_the_same_content_is_not_rewritten(
    write: Write, catalog: FakeCatalog, name: str, content: str, change: str
) -> None:
    path = write(name, content)
    changes: dict[str, Callable[[], object]] = {
        "touched": lambda: os.utime(path, (1, 1)),
        "written again": lambda: write(name, content),
        "replaced by a copy": lambda: write("new", content).rename(path),
        "removed": path.unlink,
    }
    assert taken_while_changing(path, catalog, changes[change]) == 6


@pytest.mark.parametrize(
    ("name", "content", "added"),
    [
        ("a.jsonl", SIX_ROWS, jsonl([{"prompt": "appended"}])),
        ("a.jsonl", SIX_ROWS.rstrip("\n"), "\n" + jsonl([{"prompt": "appended"}])),
        ("a.jsonl", SIX_ROWS, '{"prompt": "half'),
        ("a.csv", SIX_CELLS, "appended\n"),
        ("a.yaml", YAML, "clips: [{prompt: appended}]\n"),
    ],
)
def test_rows_appended_meanwhile_are_left_for_the_next_run(
    write: Write, catalog: FakeCatalog, name: str, content: str, added: str
) -> None:
    path = write(name, content)
    manifest = open_manifest(path, catalog, model="tiny")
    assert not manifest.has_grown()
    write(name, content + added)  # between the opening and the first pass, too
    assert make_plan(manifest, set(), set()).num_pending == 6
    assert taken_while_changing(path, catalog, lambda: None, manifest) == 6
    assert manifest.has_grown()


def test_half_a_row_at_the_end_of_a_growing_file_is_left_for_the_next_run(
    write: Write, catalog: FakeCatalog
) -> None:
    path = write("a.csv", SIX_CELLS + "sev")
    assert taken_while_changing(path, catalog, lambda: write("a.csv", SIX_CELLS + "seven\n")) == 6
    assert make_plan(open_manifest(path, catalog, model="tiny"), (), ()).num_clips == 7


def test_half_a_row_that_cannot_be_read_is_refused_with_its_likely_cause(
    write: Write, catalog: FakeCatalog
) -> None:
    path = write("a.jsonl", SIX_ROWS + '{"prompt": "hal')
    with pytest.raises(ManifestError, match=r"a\.jsonl:7: .*is the file still being written\?"):
        make_plan(open_manifest(path, catalog, model="tiny"), set(), set())
