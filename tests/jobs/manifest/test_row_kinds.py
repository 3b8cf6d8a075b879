"""Rows that differ in prompt, seed and name alone share the checks of the rest, and no more."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.clip_id import clip_id
from jobs.errors import ManifestError
from jobs.manifest import resolving
from jobs.manifest.manifest import open_manifest
from jobs.types import ClipSpec
from tests.builders.manifests import jsonl
from tests.fakes.catalog import FakeCatalog

CATALOG = FakeCatalog()
rows = st.lists(
    st.fixed_dictionaries(
        {"prompt": st.sampled_from(["a", "b c", "é"])},
        optional={
            "seed": st.sampled_from([0, 7, 2**63 - 1, "random"]),
            "negative_prompt": st.sampled_from(["", " ", "red", "b c"]),
            "method": st.sampled_from(["none", "nag", "vsf"]),
            "nag_scale": st.sampled_from([1, 1.0, 4, 4.5]),
            "num_inference_steps": st.sampled_from([4, 8.0]),
            "model": st.sampled_from(["tiny", "coarse", "strong"]),
            "meta": st.just({"shot": "1"}),
        },
    ),
    min_size=1,
    max_size=12,
)


def read(text: str) -> list[ClipSpec]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.jsonl")
        path.write_text(text)
        manifest = replace(open_manifest(path, CATALOG, model="tiny"), salt=b"salt")
        found = [row.spec for row in manifest.rows()]
        assert all(isinstance(spec, ClipSpec) for spec in found)
        return [spec for spec in found if isinstance(spec, ClipSpec)]


@given(rows)
def test_a_row_is_the_clip_that_it_is_alone(several: list[dict[str, Any]]) -> None:
    for row, spec in zip(several, read(jsonl(several)), strict=True):
        assert spec.clip_id == clip_id(spec.model, spec.request, spec.tokens)
        assert replace(spec.request) == spec.request  # passes every check
        found, (alone,) = spec, read(jsonl([row]))
        seed = alone.request.sampling.seed  # the first one of this content, if it is drawn
        if row.get("seed") == "random":
            request = replace(spec.request, sampling=replace(spec.request.sampling, seed=seed))
            found = replace(spec, request=request, clip_id=alone.clip_id)
        assert replace(found, name="") == replace(alone, name="")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": " "}, "m.jsonl:3: prompt is empty"),
        ({"prompt": "a\u0007"}, "m.jsonl:3: prompt holds the control character U\\+0007"),
        ({"prompt": "a", "seed": -1}, "m.jsonl:3: seed must be between 0"),
        ({"seed": 3}, "m.jsonl:3: prompt is missing"),
        ({"prompt": "a " * 600}, "m.jsonl:3: prompt must have at most 512 tokens"),
    ],
)
def test_a_wrong_row_of_a_known_kind_is_refused(row: dict[str, Any], message: str) -> None:
    good = {"prompt": "a", "seed": 1}
    with pytest.raises(ManifestError, match=message):
        read(jsonl([good, good, row]))


def test_kinds_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    several = [{"prompt": "a", "negative_prompt": f"n{number % 5}"} for number in range(20)]
    expected = [spec.clip_id for spec in read(jsonl(several))]
    monkeypatch.setattr(resolving, "MAX_KINDS", 2)
    assert [spec.clip_id for spec in read(jsonl(several))] == expected


def test_ids_stay_as_they_are() -> None:
    (spec, other) = read(jsonl([{"prompt": "a", "negative_prompt": "red"}, {"prompt": "b c"}]))
    assert [spec.clip_id, other.clip_id] == [
        "5cdd3695d1951fc2b5fa8de0be605d53",
        "a168c852f017bdd8a4bf22922ff96ee5",
    ]
