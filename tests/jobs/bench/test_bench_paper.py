"""The paper's table from true Shapes clips of known answers, in the place of rendered ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.bench.paper.design import plan_clips, read_prompts, settings_of
from jobs.cli.bench_paper import ended_by_report
from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED
from jobs.errors import RefusedError, StoppedError, UnwritableError
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from tests.builders.shapes_outputs import commit_spec
from tests.builders.specs import MODEL_CONFIG

pytestmark = pytest.mark.models
MODEL = "shapes-wan-4step"
PROMPTS = tuple(
    {"name": f"circle-{at}", "prompt": "a circle", "negative_prompt": "red", "seed": at}
    for at in range(4)
)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    return path


def bench(prompts: Path, *words: str) -> int:
    report = str(prompts.parent / "report")
    return main(
        ["bench", "paper", "--report", report, "--report-only", "--here", "--model", MODEL,
         "--prompts", str(prompts), "--measure", "shapes", *words]
    )  # fmt: skip


def test_the_table_has_each_figure_beside_its_paired_difference(
    prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(prompts, "--method", "none,nag") == EXIT_OK
    report = prompts.parent / "report"
    text = (report / "paper.md").read_text()
    assert f"- unfinished: {MODEL}, 4, nag: 0 of 4 clips" in text

    manifest = open_manifest(report / "work" / "paper.jsonl", ModelCatalog(None))
    (report / "clips").mkdir(exist_ok=True)
    store = open_store((report / "clips").as_uri(), StoreConfig())
    for spec in manifest.specs():
        is_plain = spec.request.method == "none"
        shape = "square" if spec.request.sampling.seed == 3 else "circle"
        colour = "red" if is_plain else "blue"
        shown = {"colour": colour, "shape": "circle" if is_plain else shape}
        commit_spec(store, spec, shown, denoise_s=2.0 if is_plain else 2.5)
    capsys.readouterr()
    assert bench(prompts, "--method", "none,nag") == EXIT_OK
    found: dict[str, Any] = json.loads((report / "paper.json").read_text())
    plain, nag = found["rows"]
    assert (plain["method"], plain["differences"], plain["cost"]) == ("none", {}, None)
    assert plain["figures"]["shapes.negative_seen"]["mean"] == 1.0, "it is asked about red, too"
    assert nag["figures"]["shapes.negative_seen"]["mean"] == 0.0
    assert nag["differences"]["shapes.negative_seen"]["value"] == -1.0
    assert nag["suppression"]["shapes.negative_seen"]["value"] == 1.0
    assert plain["suppression"] == {}
    kept = nag["differences"]["shapes.prompt_kept"]
    assert (kept["value"], kept["low"], kept["high"]) == (-0.25, -0.75, 0.0)
    assert nag["cost"] == {"value": 1.25, "low": None, "high": None}
    text = (report / "paper.md").read_text()
    assert "| 0<br>-1<br>suppression +1 (" in text
    assert "unfinished" not in text
    assert "measure `shapes`: no weights, all frames" in text
    assert str(prompts.parent) not in text, "no path of this machine"


def test_a_clip_without_guidance_carries_what_it_is_asked_about() -> None:
    settings = settings_of([MODEL_CONFIG], ("none", "nag", "cfg"), ())
    planned = list(plan_clips(PROMPTS[:1], settings, {"fake": MODEL_CONFIG}))
    rows = [clip.row for clip in planned]
    assert [row["negative_prompt"] for row in rows] == ["", "red", "red"]
    assert {row["meta"]["unwanted"] for row in rows} == {"red"}
    assert {row["seed"] for row in rows} == {0}
    assert [row.get("guidance_scale") for row in rows] == [None, None, 2.0]
    assert rows[0]["name"] == "circle-0-fake-2-steps-none"


@pytest.mark.parametrize(
    ("line", "words", "message"),
    [
        ('{"prompt": "a"}', (), "prompt-00000: nag needs a negative prompt"),
        ('{"text": "a"}', (), ":1: expected an object with a prompt"),
        ('{"prompt": "a", "method": "nag"}', (), "the benchmark decides method"),
        ("{", (), ":1: not JSON"),
        ("", (), "has no prompt"),
        ('{"prompt": "a"}', ("--method", "none,magic"), "--method: "),
        ('{"prompt": "a"}', ("--clips", "0"), "--clips: expected at least 1"),
        ('{"prompt": "a"}', ("--steps", "0"), "--steps: expected at least 1"),
    ],
)
def test_a_wrong_set_is_refused_before_anything_is_rendered(
    prompts: Path, capsys: pytest.CaptureFixture[str], line: str, words: tuple[str, ...],
    message: str,
) -> None:  # fmt: skip
    prompts.write_text(f"{line}\n")
    assert bench(prompts, *words) == EXIT_REFUSED
    assert message in capsys.readouterr().err


def test_a_set_and_a_model_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "paper"]) == EXIT_REFUSED
    assert "name a prompt set with --prompts" in capsys.readouterr().err


def test_a_set_is_cut_at_the_limit(prompts: Path) -> None:
    assert [row["name"] for row in read_prompts(prompts, 2)] == ["circle-0", "circle-1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (r'{"prompt": "\ud800", "negative_prompt": "x"}', "1: prompt holds the control character"),
        (r'{"prompt": "a", "negative_prompt": "\u001b"}', "1: negative_prompt holds the control"),
        (
            r'{"prompt": "a", "meta": {"note": "\udc80"}}',
            "1: meta.note holds the control character",
        ),
        (r'{"prompt": "a", "guidance": {"\ud800": 1}}', "1: it holds half of a surrogate pair"),
    ],
)
def test_a_text_that_a_plan_refuses_is_refused_with_its_line(
    tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(RefusedError) as caught:
        read_prompts(path, None)
    assert f"{path}:{message}" in str(caught.value)


def test_a_report_that_cannot_be_written_in_the_end_stops_with_the_remedy() -> None:
    message = "--report-only then writes the report alone"
    with pytest.raises(StoppedError, match=message), ended_by_report():
        raise UnwritableError("--report: cannot write x: No space left on device")
