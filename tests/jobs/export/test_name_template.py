"""The names of exported files, made of the values of a clip."""

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import RefusedError
from jobs.export.copying import Exported, ExportParams, export_clips
from jobs.export.name_template import FIELDS, NameTemplate
from jobs.export.target_folder import TargetFolder
from jobs.overview.clip_filter import ClipFilter
from jobs.records.names import record_names
from jobs.store.store import Store
from tests.builders.records import commit, record_of
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore

RECORD = replace(
    record_of(MemoryStore(), b"video", "1" * 32), name="hero", meta={"shot": "12/b", "bad": "\x1b["}
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{name}", "hero"),
        ("{name}_{seed}", "hero_0"),
        ("{id}", "1" * 32),
        ("{model}-{method}-{scale}", "fake-nag-9"),
        ("{prompt}.{negative_prompt}", "circle.none"),
        ("{size}x{frames}_{fps}_{steps}", "32x32x5_8_2"),
        ("{date}_{run}", "2026-01-31_20260131-120000-abcdef"),
        ("{meta.shot}_{meta.bad}_{meta.other}", "12_b___none"),
    ],
)
def test_fields_are_filled_with_safe_values(text: str, expected: str) -> None:
    assert NameTemplate(text).fill("hero", RECORD) == expected


def test_every_field_has_a_value() -> None:
    for field in FIELDS:
        assert NameTemplate(f"{{{field}}}").fill("hero", RECORD)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{nmae}", "unknown field 'nmae'; did you mean 'name'"),
        ("{name", "expected letters"),
        ("{name}/{seed}", "expected letters"),
        ("../{name}", "expected letters"),
        ("-{name}", "not beginning with"),
        ("{name.__class__}", "unknown field"),
        ("{meta.}", "unknown field"),
        ("clip", "all clips would have the same name"),
        ("", "expected a field"),
    ],
)
def test_another_pattern_is_refused(text: str, message: str) -> None:
    with pytest.raises(RefusedError, match=f"--name: .*{message}"):
        NameTemplate(text)


def export(store: Store, folder: Path, params: ExportParams) -> list[Exported]:
    with TargetFolder(folder) as target:
        return list(export_clips(store, target, params))


def test_files_are_named_by_the_pattern_and_two_of_one_name_stay_apart(tmp_path: Path) -> None:
    store = MemoryStore()
    specs = [replace(spec("fox", seed), name=f"fox-{seed}") for seed in (1, 2)]
    for one in specs:
        commit(store, one, one.clip_id.encode())
    record_names(store, [replace(specs[0], name="vixen")])
    params = ExportParams(template=NameTemplate("{name}_{seed}"))
    for outcome in ("copied", "there"):
        found = export(store, tmp_path / "names", params)
        assert {(one.file, one.outcome, one.message) for one in found} == {
            (f"{name}.mp4", outcome, "") for name in ("fox-1_1", "fox-2_2", "vixen_1")
        }
    found = export(store, tmp_path / "prompts", ExportParams(template=NameTemplate("{prompt}")))
    second = max(one.clip_id for one in specs)
    assert {one.file for one in found} == {"fox.mp4", f"fox-{second}.mp4"}, "one file a clip"
    assert [one.message for one in found if one.message] == [f"fox is fox-{second}.mp4"]


def test_only_the_chosen_clips_are_copied(tmp_path: Path) -> None:
    store = MemoryStore()
    for prompt, seed in (("fox", 1), ("fox", 2), ("cat", 1)):
        commit(store, spec(prompt, seed), f"{prompt}{seed}".encode())
    chosen = ClipFilter(prompts=("f*",), seeds=((2, 9),))
    found = export(store, tmp_path, ExportParams(chosen=chosen))
    assert [(one.file, one.outcome) for one in found] == [("fox-2.mp4", "copied")]
