"""The row that asks for a clip again: the same model renders it as the same clip."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.manifest.manifest import open_manifest
from jobs.overview.manifest_row import manifest_row, row_line
from jobs.records.schema import ClipRecord
from jobs.types import ClipSpec
from nag.params import VsfParams
from tests.builders.manifests import jsonl
from tests.builders.records import record_of
from tests.fakes.catalog import FakeCatalog
from tests.fakes.store import MemoryStore

CATALOG = FakeCatalog()
TEXTS = st.text(
    st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=30
).filter(str.strip)
SHARES = st.floats(0.0, 1.0)
LORAS = st.sampled_from(["none", "style", {"detail": -0.5}, {"fast": 0.1, "style": 0.3}])
rows = st.fixed_dictionaries(
    {"prompt": TEXTS},
    optional={
        "name": st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", fullmatch=True),
        "seed": st.integers(0, 2**63 - 1),
        "text": st.sampled_from(["refuse", "truncate"]),
        "negative_prompt": st.one_of(st.just(""), TEXTS),
        "nag_scale": st.floats(1.0, 20.0),
        "nag_alpha": SHARES,
        "nag_end": st.floats(0.3, 1.0),
        "nag_norm": st.sampled_from(["l1", "l2"]),
        "vsf_scale": st.floats(0.0, 5.0),
        "vsf_bias": st.floats(0.0, 5.0),
        "nasa_scale": st.floats(0.0, 5.0),
        "num_inference_steps": st.integers(1, 40),
        "flow_shift": st.one_of(st.none(), st.floats(0.1, 9.0)),
        "fps": st.floats(1.0, 240.0),
        "width": st.sampled_from([64, 96]),
        "num_frames": st.sampled_from([13, 17]),
        "parallel": st.sampled_from([{}, {"ulysses": 2}, {"ulysses": 2, "ring": 2}]),
        "meta": st.dictionaries(st.sampled_from(["shot", "é"]), TEXTS, max_size=2),
    },
)
models = st.one_of(
    st.fixed_dictionaries({"model": st.sampled_from(["tiny", "coarse", "strong", "grouped"])}),
    st.fixed_dictionaries({"model": st.sampled_from(["styled", "fused"]), "loras": LORAS}),
)
methods = st.one_of(
    st.fixed_dictionaries({"method": st.sampled_from(["none", "nag", "vsf", "nasa"])}),
    st.fixed_dictionaries(
        {"method": st.sampled_from(["cfg", "cfg+nag"]), "guidance_scale": st.floats(1.5, 9.0)}
    ),
)


def clip_of(text: str, name: str = "m") -> ClipSpec:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.jsonl")
        path.write_text(text)
        (spec,) = open_manifest(path, CATALOG).specs()
        return spec


def record_of_clip(spec: ClipSpec) -> ClipRecord:
    """Return the record of a clip as a store holds it."""
    record = replace(
        record_of(MemoryStore(), b"video", spec.clip_id),
        name=spec.name,
        meta=spec.meta,
        model=spec.model,
        request=spec.request,
        tokens=spec.tokens,
        parallel=spec.parallel,
    )
    return ClipRecord.from_json(record.to_json())


@given(rows, models, methods)
def test_a_clip_is_asked_for_again_with_all_that_decides_its_pixels(
    row: Mapping[str, Any], model: Mapping[str, Any], method: Mapping[str, Any]
) -> None:
    spec = clip_of(jsonl([{**row, **model, **method}]))
    again = manifest_row(record_of_clip(spec))
    found = clip_of(row_line(again), "again")
    assert (found.clip_id, found.name, found.meta) == (spec.clip_id, spec.name, spec.meta)
    assert found.request.prompt == spec.request.prompt
    if spec.parallel.degree > 1:
        assert found.parallel == spec.parallel


def test_the_row_of_a_clip_has_no_parameters_of_other_methods() -> None:
    spec = clip_of(jsonl([{"model": "tiny", "prompt": "a fox", "method": "vsf", "seed": 3}]))
    row = manifest_row(record_of_clip(spec))
    assert {name for name in row if name.startswith(("nag_", "nasa_"))} == set()
    assert (row["vsf_scale"], row["seed"], row["flow_shift"]) == (VsfParams().vsf_scale, 3, 3.0)
    assert not row.keys() & {"loras", "text", "parallel", "meta", "lora_weight"}


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "a b", "x" * 200])
def test_a_name_that_no_manifest_may_hold_is_left_out(name: str) -> None:
    record = replace(record_of(MemoryStore(), b"video", "1" * 32), name=name)
    assert "name" not in manifest_row(record)


def test_a_line_holds_no_character_that_ends_a_line_or_hides() -> None:
    record = replace(record_of(MemoryStore(), b"video", "1" * 32), meta={"n": "a\u2028b\u202ec\nd"})
    line = row_line(manifest_row(record))
    assert line.isascii()
    assert line.splitlines() == [line]
    assert json.loads(line)["meta"] == {"n": "a\u2028b\u202ec\nd"}
