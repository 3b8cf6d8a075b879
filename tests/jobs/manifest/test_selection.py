"""A part of a manifest: the first clips, or those that are named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import ManifestError, RefusedError
from jobs.manifest.manifest import open_manifest
from jobs.manifest.walk.selection import Selection
from jobs.plan.plan import make_plan
from tests.builders.manifests import jsonl
from tests.fakes.catalog import FakeCatalog

Write = Callable[[str, str | bytes], Path]

# The rows 0 and 2 ask for one clip, the rows 3 and 5 for another one.
ROWS = (
    {"prompt": "a"},
    {"prompt": "b", "name": "hero"},
    {"prompt": "a", "name": "again"},
    {"prompt": "c"},
    {"prompt": "d", "name": "last-but-one"},
    {"prompt": "c", "name": "last"},
)


@pytest.fixture
def path(write: Write) -> Path:
    return write("night.jsonl", jsonl(ROWS))


def chosen(
    path: Path, catalog: FakeCatalog, *only: str, limit: int | None = None
) -> list[tuple[str, bool]]:
    """Return the name of each chosen row, and whether it repeats a chosen clip."""
    selection = Selection(only, limit)
    manifest = open_manifest(path, catalog, model="tiny", selection=selection)
    return [(row.spec.name, row.is_repeat) for row in manifest.rows()]


@pytest.mark.parametrize(
    ("limit", "names"),
    [
        (1, ["night-000000"]),
        (2, ["night-000000", "hero", "again"]),  # a further name of the first
        (3, ["night-000000", "hero", "again", "night-000003"]),
        (99, ["night-000000", "hero", "again", "night-000003", "last-but-one", "last"]),
    ],
)
def test_a_limit_takes_the_first_clips(
    path: Path, catalog: FakeCatalog, limit: int, names: list[str]
) -> None:
    assert [name for name, _ in chosen(path, catalog, limit=limit)] == names


def test_rows_behind_the_limit_are_not_checked(write: Write, catalog: FakeCatalog) -> None:
    path = write("a.jsonl", jsonl(ROWS[:2]) + "{ not a row\n")
    assert len(chosen(path, catalog, limit=1)) == 1
    with pytest.raises(ManifestError, match=r"a\.jsonl:3"):
        chosen(path, catalog, "hero", limit=1)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_at_least_one(limit: int) -> None:
    with pytest.raises(RefusedError, match=f"--limit: expected .* from 1 on, got {limit}"):
        Selection(limit=limit)


@pytest.mark.parametrize(
    ("only", "rows"),
    [
        (["hero"], [("hero", False)]),
        (["last", "hero"], [("hero", False), ("last", False)]),  # in the manifest's order
        (["night-000003", "last"], [("night-000003", False), ("last", True)]),
        (["again"], [("again", False)]),  # the clip's first row is not chosen
        (["hero", "hero"], [("hero", False)]),
    ],
)
def test_clips_are_chosen_by_their_names(
    path: Path, catalog: FakeCatalog, only: list[str], rows: list[tuple[str, bool]]
) -> None:
    assert chosen(path, catalog, *only) == rows


def test_a_clip_is_chosen_by_its_id_under_all_its_names(path: Path, catalog: FakeCatalog) -> None:
    first, *_ = open_manifest(path, catalog, model="tiny").specs()
    assert chosen(path, catalog, first.clip_id) == [("night-000000", False), ("again", True)]


def test_a_limit_counts_the_named_clips(path: Path, catalog: FakeCatalog) -> None:
    assert chosen(path, catalog, "last", "hero", limit=1) == [("hero", False)]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("heroo", "has no clip with the name or id 'heroo'; did you mean 'hero'?"),
        ("night-000001", "did you mean 'night-00000"),  # the row has a name of its own
        ("0" * 32, "has no clip with the name or id '" + "0" * 32 + "'"),
        ("\x1b[2J", r"'\\x1b\[2J'"),
    ],
)
def test_a_name_that_is_not_there_is_refused(
    path: Path, catalog: FakeCatalog, word: str, message: str
) -> None:
    with pytest.raises(
        RefusedError, match=rf"^--only: .*night\.jsonl .*{message.replace('?', '.')}"
    ):
        chosen(path, catalog, "hero", word)


def test_a_plan_counts_the_chosen_clips(path: Path, catalog: FakeCatalog) -> None:
    selection = Selection(("hero", "again", "last"), None)
    manifest = open_manifest(path, catalog, model="tiny", selection=selection)
    ids = {spec.name: spec.clip_id for spec in manifest.specs()}
    plan = make_plan(manifest, {ids["again"]}, {ids["last"]})
    assert (plan.num_clips, plan.num_done, plan.num_quarantined, plan.num_pending) == (3, 1, 1, 1)
    assert [spec.name for spec in plan.pending()] == ["hero"]
