"""The LoRAs of a row: which ones, and their weights, in every format and as an axis."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.clip_id import clip_id
from jobs.errors import ManifestError
from jobs.manifest.manifest import open_manifest
from jobs.types import ClipSpec
from pipelines.catalog.keys.lora_config import LoraConfig, choose_loras
from pipelines.errors import RequestError
from pipelines.lora_choice import LoraChoice
from tests.fakes.catalog import FakeCatalog

Write = Callable[[str, str | bytes], Path]
FAST, STYLE, DETAIL = LoraChoice("fast", 1.0), LoraChoice("style", 0.6), LoraChoice("detail", 1.0)


def read(path: Path, catalog: FakeCatalog) -> list[ClipSpec]:
    return list(open_manifest(path, catalog, model="styled").specs())


def loras(specs: list[ClipSpec]) -> list[tuple[LoraChoice, ...] | None]:
    return [spec.request.loras for spec in specs]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"loras": "style=0.8 detail"}, (LoraChoice("style", 0.8), DETAIL)),
        ({"loras": ["style=0.8", "detail"]}, (LoraChoice("style", 0.8), DETAIL)),
        ({"loras": {"style": 0.8, "detail": None}}, (LoraChoice("style", 0.8), DETAIL)),
        ({"loras": ["detail", "style"]}, (STYLE, DETAIL)),  # in the order of the YAML
        ({"loras": {"style": -1}}, (LoraChoice("style", -1.0),)),
        ({"loras": "none"}, ()),
        ({"loras": []}, ()),
        ({"loras": {"style": 0}}, ()),
        ({"loras": "style", "lora_weight": 0.5}, (LoraChoice("style", 0.5),)),
        ({"loras": "style=2 detail", "lora_weight": 0}, (LoraChoice("style", 2.0),)),
        ({"lora_weight": 0.5}, (LoraChoice("fast", 0.5), LoraChoice("style", 0.5))),
        ({"loras": None, "lora_weight": None}, None),
        ({"loras": ["fast", "style"]}, None),  # the default, so that it is one clip with it
        ({}, None),
    ],
)
def test_a_row_chooses_loras_and_weights(
    fields: dict[str, Any], expected: object, write: Write, catalog: FakeCatalog
) -> None:
    (spec,) = read(write("a.jsonl", json.dumps({"prompt": "a", **fields})), catalog)
    assert spec.request.loras == expected
    yaml = write("a.yaml", f"model: styled\nclips:\n- {json.dumps({'prompt': 'a', **fields})}\n")
    assert [one.clip_id for one in read(yaml, catalog)] == [spec.clip_id]


def test_csv_and_files_of_values_have_the_text(write: Write, catalog: FakeCatalog) -> None:
    text = "prompt,loras,lora_weight\na,style=.5,\na,none,\na,,\na,style detail,0.25\n"
    chosen: list[tuple[LoraChoice, ...] | None] = [(LoraChoice("style", 0.5),), (), None]
    chosen.append((LoraChoice("style", 0.25), LoraChoice("detail", 0.25)))
    assert loras(read(write("a.csv", text), catalog)) == chosen
    write("choices.txt", "style=.5\nnone\n")
    grid = "model: styled\naxes: {prompt: [a], loras: {file: choices.txt}}\n"
    assert loras(read(write("b.yaml", grid), catalog)) == chosen[:2]


def test_choices_and_weights_are_axes(write: Write, catalog: FakeCatalog) -> None:
    text = """
model: styled
axes:
  prompt: [a]
  loras: [none, style, [style, detail], {detail: 0.3}]
  lora_weight: [0.5, 1]
"""
    specs = read(write("a.yaml", text), catalog)
    half, whole = LoraChoice("style", 0.5), LoraChoice("style", 1.0)
    assert loras(specs) == [
        (),  # without a LoRA, and with one that has its own weight, lora_weight decides nothing
        (half,),
        (whole,),
        (half, LoraChoice("detail", 0.5)),
        (whole, DETAIL),
        (LoraChoice("detail", 0.3),),
    ]


def test_the_id_follows_the_files_and_the_weights(write: Write, catalog: FakeCatalog) -> None:
    rows = [{}, {"loras": "none"}, {"loras": "style"}, {"loras": "style=0.5"}, {"loras": "detail"}]
    text = "".join(json.dumps({"prompt": "a", **row}) + "\n" for row in rows)
    specs = read(write("a.jsonl", text), catalog)
    assert len({spec.clip_id for spec in specs}) == len(rows)
    default, _, style, *_ = specs
    assert [lora.revision for lora in default.model.loras] == ["r-fast", "r-style"]
    assert [(lora.revision, lora.weight) for lora in style.model.loras] == [("r-style", 0.6)]
    assert style.clip_id == clip_id(style.model, default.request, default.tokens), (
        "a name decides no pixel"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loras": "stile"}, "declares no LoRA 'stile'; it has fast, style, detail"),
        ({"loras": "style style=1"}, "each LoRA once; 'style' is there twice"),
        ({"loras": "style=0,8"}, "with a weight such as 0.8, not '0,8'"),
        ({"loras": "style=nan"}, "with a weight such as 0.8, not 'nan'"),
        ({"loras": "style=1e999"}, "must have a finite weight for 'style'"),
        ({"loras": {"style": "0.8"}}, "must have a finite weight for 'style'"),
        ({"loras": {"style": True}}, "must have a finite weight for 'style'"),
        ({"loras": "none style"}, "'none' stands alone"),
        ({"loras": "style, fast"}, "names of LoRAs, not 'style,', such as 'style=0.8 detail'"),
        ({"loras": "style:0.8"}, "names of LoRAs, not 'style:0.8', such as"),
        ({"loras": [{"style": 1}]}, r"names of LoRAs, such as .* {style: 0\.8, detail: 1}"),
        ({"loras": " "}, "without any it is 'none'"),
        ({"loras": ["style", 3]}, "must be names of LoRAs"),
        ({"loras": 3}, "must be names of LoRAs"),
        ({"lora_weight": "heavy"}, "lora_weight must be a finite number"),
        ({"loras": "style", "model": "tiny"}, "the model declares no LoRAs: leave loras out"),
        ({"lora_weight": 1, "model": "tiny"}, "declares no LoRAs: leave lora_weight out"),
    ],
)
def test_a_wrong_choice_is_refused_with_file_and_line(
    fields: dict[str, Any], message: str, write: Write, catalog: FakeCatalog
) -> None:
    rows = [{"prompt": "a"}, {"prompt": "b", **fields}]
    path = write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ManifestError, match=rf"a\.jsonl:2: .*{message}"):
        read(path, catalog)


def test_a_weight_without_a_lora_to_weigh_is_refused() -> None:
    declared = (LoraConfig("style", "./style", by_default=False),)
    with pytest.raises(RequestError, match="lora_weight would have no effect: .*, of style, or"):
        choose_loras(declared, None, 0.5)
    assert choose_loras(declared, (), 0.5) is None  # `loras: none` says so itself
    assert choose_loras(declared, (("style", None),), 0.5) == (LoraChoice("style", 0.5),)
