"""Every YAML of the manual is one that the program reads which it is written for.

Its keys say which that is: a manifest, a row of one, a model, or the settings of a run. A part of a
document is put into a whole one. ELSEWHERE names the tests of documents for other programs.
"""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jobs.errors import ManifestError
from jobs.manifest.fields import FIELDS, GUIDANCE, PARALLEL
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.manifest.reference import json_schema
from jobs.manifest.yaml_manifest import KEYS
from jobs.settings.run_config import RunConfig, load_config
from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_yaml import load_model_config
from pipelines.errors import ModelConfigError
from tests.builders.input_files import image_bytes
from tests.builders.page_runs import file_of
from tests.builders.pages import Block, blocks
from tests.fakes.catalog import FakeCatalog
from tests.structure import ROOT

# page -> the test that tries its documents for Kubernetes or Prometheus
ELSEWHERE = {
    "docs/how-to/kubernetes.md": "tests/infra/kuberay/test_kubernetes_page.py",
    "docs/how-to/metrics.md": "tests/infra/test_dashboards.py",
}
# family -> the model whose keys complete a part of a YAML; `shapes-wan` without a family
BASES = {"ltx": "ltx-video-0.9.8-13b-distilled", "ltx2": "ltx-2.3-distilled"}
FOREIGN = {"apiVersion", "patches", "namePrefix", "static_configs"}
WHOLE_MANIFEST = {"clips": [{"prompt": "a circle moving right"}]}
FILES = {"prompts.txt": b"a circle moving right\na square moving up\n"}
IMAGES = {"shoes.png": image_bytes(), "hat.jpg": image_bytes(format="JPEG")}


def keys_of(document: dict[str, Any]) -> set[str]:
    return set(document)


def kind_of(document: dict[str, Any]) -> str:
    """Return the kind of a document by its keys."""
    keys = keys_of(document)
    if not keys:
        return "comment"
    if keys & FOREIGN:
        return "foreign"
    for kind, known in (
        ("row", {*FIELDS, GUIDANCE, PARALLEL}),
        ("manifest", set(KEYS)),
        ("settings", {one.name for one in fields(RunConfig)}),
        ("model", {one.name for one in fields(ModelConfig)}),
    ):
        if keys <= known:
            return kind
    return "unknown"


def models_of(page: str) -> list[str]:
    """Return the names of the models whose YAML a page shows, as a file of its own."""
    shown = blocks("yaml", page=page) if (ROOT / page).is_file() else []
    named = [(file_of(block), kind_of(yaml.safe_load(block.text) or {})) for block in shown]
    return [Path(name).stem for name, kind in named if name and kind == "model"]


def read(block: Block, folder: Path) -> str:
    """Read the document of a block as its program does, and return its kind."""
    document = yaml.safe_load(block.text) or {}
    kind = kind_of(document)
    path = folder / "spring.yaml"
    match kind:
        case "row":
            text = yaml.safe_dump(WHOLE_MANIFEST | {"defaults": document})
        case "manifest" if not keys_of(document) & {"clips", "axes"}:
            text = block.text + yaml.safe_dump(WHOLE_MANIFEST)
        case "model":
            path_of_base = model_paths()[BASES.get(str(document.get("family")), "shapes-wan")]
            base = yaml.safe_load(path_of_base.read_text(encoding="utf-8"))
            text = block.text + yaml.safe_dump({k: base[k] for k in base if k not in document})
        case _:
            text = block.text
    for own in models_of(block.page):
        text = text.replace(f"model: {own}\n", "model: shapes-wan\n")
    for name, content in (FILES | IMAGES).items():
        (folder / name).write_bytes(content)
    path.write_text(text)
    if kind in ("row", "manifest"):
        is_styled = "fast" in text  # the LoRAs of a page are those of the fakes' model `styled`
        has_image = any(name in text for name in IMAGES)
        catalog = FakeCatalog() if is_styled or has_image else ModelCatalog()
        own = "styled" if is_styled else "moving" if has_image else "shapes-wan"
        model = None if "model" in document else own
        assert list(open_manifest(path, catalog, model=model).specs())
        # As an editor does, whose YAML 1.2 reads 12:00 as text; PyYAML reads a number of minutes.
        edited = yaml.safe_load(re.sub(r"(day_starts:) (\S+)", r"\1 '\2'", text))
        jsonschema.validate(edited, json_schema())
    elif kind == "settings":
        load_config(path)
    elif kind == "model":
        load_model_config(path)
    return kind


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.place)
def test_every_yaml_is_read(block: Block, tmp_path: Path) -> None:
    kind = read(block, tmp_path)
    assert kind != "unknown", f"{block.place}: keys of no document of nagfarm"
    if kind == "foreign":
        test = (ROOT / ELSEWHERE[block.page]).read_text()
        assert Path(block.page).name in test, "the test of its page reads it"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("guidance: {method: nag, nag_scale: 0}", ManifestError),
        ("axes: {prompt: [a], sed: [1]}", ManifestError),
        ("first_block_cache: 2", ModelConfigError),
        ("workers: {cuont: 3}", Exception),
    ],
)
def test_a_wrong_yaml_is_refused(text: str, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        read(Block("page.md", 1, "yaml", text + "\n"), tmp_path)


def test_a_yaml_of_no_program_is_found(tmp_path: Path) -> None:
    assert read(Block("page.md", 1, "yaml", "modle: x\n"), tmp_path) == "unknown"
