"""The examples of the README and of the manual work as written."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.cli.pattern.manifest import MANIFEST_HELP
from jobs.manifest.fields import FIELDS, PARALLEL_FIELDS
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from tests.builders import tiny

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 600


@pytest.mark.models
def test_the_example_of_nag_alone_runs_on_stock_pipelines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiny weights and sizes replace those of LTX; the rest runs as written."""
    tiny.ltx_pipeline().save_pretrained(tmp_path / "ltx")
    (program,) = blocks("python", (ROOT / "nag" / "README.md").read_text())
    for old, new in (
        ("Lightricks/LTX-Video-0.9.5", str(tmp_path / "ltx")),
        (', dtype=torch.bfloat16).to("cuda")', ")"),
        ("num_inference_steps=40", "num_inference_steps=2, height=32, width=32, num_frames=9"),
    ):
        assert old in program
        program = program.replace(old, new)
    first, second = program.split("\npipe = WanPipeline")
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    exec(compile(first, "nag/README.md", "exec"), names)
    assert np.shape(names["video"])[0] == 1
    exec(compile("pipe = WanPipeline" + second, "nag/README.md", "exec"), names)
    assert np.shape(names["video"]) == (1, 17, 64, 64, 3)


def test_the_manifest_of_the_page_on_groups_plans(tmp_path: Path) -> None:
    page = (
        Path(__file__).parents[1] / "docs" / "explanation" / "context-parallelism.md"
    ).read_text()
    (manifest,) = re.findall(r"```yaml\n(name:.*?)```", page, re.DOTALL)
    (tmp_path / "spring.yaml").write_text(manifest)
    specs = open_manifest(tmp_path / "spring.yaml", ModelCatalog()).specs()
    assert [spec.parallel.degree for spec in specs] == [2, 4, 1, 4]


def test_the_help_names_every_field() -> None:
    names = [*FIELDS, *PARALLEL_FIELDS]
    assert [name for name in names if not re.search(rf"\b{name}\b", MANIFEST_HELP)] == []


def test_the_manifest_of_the_help_plans(tmp_path: Path) -> None:
    text = re.search(r"^  name: .*?\n(?=\n)", MANIFEST_HELP, re.DOTALL | re.MULTILINE)
    assert text
    (tmp_path / "spring.yaml").write_text(text[0])
    assert (
        len(list(open_manifest(tmp_path / "spring.yaml", ModelCatalog()).specs())) == 2 * 2 * 4 * 2
    )
