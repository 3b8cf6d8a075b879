"""Every example of docs/how-to/analysis.md runs on an output in a real bucket; so does a notebook.

The output has the tables that a run writes. `install httpfs` of DuckDB, which fetches from the
internet, takes the extension of the PyPI package duckdb-extension-httpfs instead.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.local.s3_server import LocalS3
from jobs.cli.main import main
from jobs.media.encode import encode_mp4
from jobs.records.commit import commit_record, upload_clip, write_failure, write_run
from jobs.records.keys import RUN_FILE
from jobs.settings.run_config import EncodingConfig, StoreConfig
from jobs.store.store import Store, open_store
from jobs.tables.writing import EndedClips, write_run_tables
from jobs.types import StageTiming
from pipelines.request import VideoFrames
from tests.builders.pages import SHELL, Block, blocks
from tests.builders.records import AT_S, RUN_ID, failure_of, record_of
from tests.builders.specs import spec
from tests.structure import ROOT

pytestmark = pytest.mark.s3

PAGE = "docs/how-to/analysis.md"
NOTEBOOK = ROOT / "examples" / "analysis.ipynb"
URI = "s3://renders/spring"
TIMINGS = (
    StageTiming("queue", AT_S, 0.5),
    *(StageTiming("denoise", AT_S + step, 1.0 + step, step) for step in range(4)),
    StageTiming("encode", AT_S + 5, 0.25),
)


@pytest.fixture
def output(s3_environment: LocalS3, tmp_path: Path) -> Store:
    """An output of three clips and one that failed, with the tables of its run."""
    store = open_store(URI, StoreConfig())
    if list(store.keys("records/")):
        return store
    write_run(store, RUN_ID, RUN_FILE, {})
    frames = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
    ids: set[str] = set()
    for seed in range(3):
        one = spec("fox", seed)
        tags = {"clip_id": one.clip_id, "comment": f"seed {seed}"}
        encode_mp4(VideoFrames(frames, 8.0), tmp_path / "clip.mp4", EncodingConfig(), tags)
        body = (tmp_path / "clip.mp4").read_bytes()
        clip = upload_clip(store, one.clip_id, body)
        record = replace(record_of(store, body, one.clip_id), name=one.name, request=one.request)
        record = replace(record, tokens=one.tokens, timings=TIMINGS, meta={"shot": str(seed)})
        assert commit_record(store, clip, record)
        ids.add(one.clip_id)
    write_failure(store, failure_of("f" * 32))
    assert write_run_tables(store, EndedClips(RUN_ID, ids, 1, 0)) == 4
    return store


@pytest.fixture
def here(output: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the examples, with a home of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RCLONE_CONFIG", os.devnull)
    return tmp_path


def needed(module: str) -> Any:
    return pytest.importorskip(module, reason=f"{module} is not installed: make install")


def extension() -> str:
    """Return DuckDB's extension for S3, as a file."""
    needed("duckdb")
    found = importlib.util.find_spec("duckdb_extension_httpfs")
    if found is None or found.origin is None:
        pytest.skip("duckdb-extension-httpfs is not installed: make install")
    (path,) = Path(found.origin).parent.rglob("httpfs.duckdb_extension")
    return str(path)


def run_python(block: Block, folder: Path) -> None:
    text = block.text.replace("install httpfs", f"install '{extension()}'")
    if "install '" in text:
        needed("duckdb").sql(f"set extension_directory = '{folder / 'duckdb'}'")
    exec(compile(text, block.place, "exec"), {"__name__": "example"})


def run_shell(statement: str, folder: Path) -> str:
    """Run one command of the page, its `nagfarm` in this checkout; return what it printed."""
    program = folder / ".bin" / "nagfarm"
    if not program.exists():
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m jobs "$@"\n')
        program.chmod(0o755)
    path = f"{program.parent}:{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        ["bash", "-ec", statement],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert ended.returncode == 0, f"{statement}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def shell_blocks() -> list[Block]:
    return list(blocks(*SHELL, page=PAGE))


def test_duckdb_reads_the_tables_of_all_runs_in_the_bucket(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = (one for one in blocks("python", page=PAGE) if "s3://" in one.text)
    run_python(block, here)
    shown = capsys.readouterr().out
    (line,) = (one for one in shown.splitlines() if RUN_ID in one)
    assert [cell.strip() for cell in line.strip("│").split("│")][1] == "3"


def test_duckdb_answers_the_questions_of_the_page_about_this_folder(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needed("duckdb")
    assert main(["records", URI]) == 0
    (block,) = (
        one for one in blocks("python", page=PAGE) if "import duckdb" in one.text
        and "s3://" not in one.text
    )  # fmt: skip
    run_python(block, here)
    shown = capsys.readouterr().out
    assert "OutOfMemoryError" in shown
    assert shown.count("fake") == 5, "one kind of clips, and four steps"


@pytest.mark.slow
def test_pandas_reads_the_tables(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needed("pandas")
    assert main(["records", URI]) == 0
    (block,) = (one for one in blocks("python", page=PAGE) if "import pandas" in one.text)
    run_python(block, here)
    assert "fox-2" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("block", shell_blocks(), ids=lambda block: f"line {block.line}")
def test_the_commands_of_the_page_run(block: Block, here: Path) -> None:
    if missing := [
        one for one in ("aws", "jq", "rclone", "ffprobe")
        if f"\n{one} " in f"\n{block.text}"
        and shutil.which(one, path=f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}") is None
    ]:  # fmt: skip
        pytest.skip(f"{', '.join(missing)}: not on this machine")
    shown = run_shell(block.text, here)
    if "ffprobe" in block.text:
        assert json.loads(shown[shown.index("{") :])["format"]["tags"]["comment"] == "seed 0"
    elif "rclone" in block.text:
        assert "3 clips committed" in shown
        assert (here / "records.parquet").exists()
        assert (here / "spring" / "runs" / RUN_ID / "records.parquet").exists()
    elif "jq " in block.text:
        assert "fox-2\t2\t2" in shown
    else:
        assert (here / "failed" / "records.parquet").exists()
        assert (here / "spring-stages.csv").exists()


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Jupyter does: one cell after the other, in one namespace."""
    plt = needed("matplotlib.pyplot")
    plt.switch_backend("agg")
    monkeypatch.setattr(plt, "show", lambda: None)
    assert main(["records", URI]) == 0
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names: dict[str, Any] = {"__name__": "__main__", "display": print}
    num_cells = 0
    for number, cell in enumerate(notebook["cells"]):
        assert isinstance(cell["id"], str)
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None), "clear the outputs"
            exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, cell {number}", "exec"), names)
            num_cells += 1
    assert num_cells >= 5
    assert len(plt.get_fignums()) >= 3
    plt.close("all")
    assert "4 clips" in capsys.readouterr().out
