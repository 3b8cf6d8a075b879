"""A run of clips that begin with images, through the command line, on a real Ray cluster."""

import json
import time
from pathlib import Path

import pytest
from PIL import Image

from infra.local.ray_cluster import LocalRay
from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED, EXIT_STOPPED
from jobs.errors import InputError
from jobs.inputs.checked_inputs import CheckedInputs
from jobs.records.commit import committed_ids, read_record
from jobs.records.keys import input_key
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from pipelines.clip_inputs import InputFile
from tests.builders.input_files import BLUE, RED, saved
from tests.fakes.model import FakeLoader, PaintingModel
from tests.structure import ROOT

pytestmark = pytest.mark.cluster


@pytest.fixture
def pairs(ray_cluster: LocalRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a manifest of two images and two prompts, in a folder with a model that takes them."""
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
    (tmp_path / "models").mkdir()
    yaml = (ROOT / "configs" / "models" / "shapes-wan-i2v.yaml").read_text()
    (tmp_path / "models" / "moving.yaml").write_text(yaml)
    for name, colour in (("a", RED), ("b", BLUE)):
        image = Image.new("RGB", (96, 64), colour)
        image.paste((255, 255, 255), (0, 0, 40, 64))
        (tmp_path / f"{name}.png").write_bytes(saved(image))
    manifest = {
        "name": "pairs",
        "model": "moving",
        "output": (tmp_path / "out").as_uri(),
        "defaults": {"num_inference_steps": 1},
        "axes": {"image": ["a.png", "b.png"], "prompt": ["a circle", "a square"]},
        "combine": "(image, prompt)",
    }
    path = tmp_path / "pairs.yaml"
    path.write_text(json.dumps(manifest))
    return path


def render(path: Path) -> int:
    command = ["render", str(path), "--models", str(path.parent / "models")]
    return main(command, loader=FakeLoader(PaintingModel))


def test_images_paired_with_prompts_are_rendered_collected_and_asked_for_again(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = pairs, tmp_path / "out"
    assert render(path) == EXIT_OK
    assert "2 of 2 clips, 0 quarantined" in capsys.readouterr().out
    store = open_store(output.as_uri(), StoreConfig())
    records = [read_record(store, clip_id) for clip_id in committed_ids(store)]
    named = {record.request.prompt: record.request.inputs.image for record in records}
    assert {prompt: file.name for prompt, file in named.items() if file} == {
        "a circle": "a.png",
        "a square": "b.png",
    }
    keys = {input_key(file.sha256) for file in named.values() if file}
    assert set(store.keys("inputs/")) == keys

    assert main(["verify", output.as_uri(), "--decode"]) == EXIT_OK
    assert main(["gc", output.as_uri(), "--older-than", "0s", "--delete"]) == EXIT_OK
    assert set(store.keys("inputs/")) == keys

    assert main(["report", output.as_uri(), "--to", str(tmp_path / "gallery")]) == EXIT_OK
    data = "".join(path.read_text() for path in (tmp_path / "gallery").rglob("*.js"))
    shown = {f'"{file.name} {file.sha256[:6]}"' for file in named.values() if file}
    assert {text for text in shown if text in data} == shown
    assert main(["sheet", output.as_uri(), str(tmp_path / "sheet.png")]) == EXIT_OK
    assert "lines inputs" in capsys.readouterr().out
    assert main(["pick", output.as_uri(), "pairs-000000"]) == EXIT_OK
    again = tmp_path / "again.jsonl"
    again.write_text(capsys.readouterr().out)
    for image in ("a.png", "b.png"):
        (tmp_path / image).unlink()
    options = ["--models", str(tmp_path / "models"), "--output", output.as_uri()]
    assert main(["plan", str(again), *options]) == EXIT_OK
    assert "1 clip" in capsys.readouterr().out
    assert main(["plan", str(path), *options]) == EXIT_REFUSED
    assert f"{path}:1: image 'a.png': cannot be read: No such file" in capsys.readouterr().err


def test_an_image_that_changes_after_the_plan_stops_the_run_behind_the_clips_before_it(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = CheckedInputs.content
    committed = (tmp_path / "out" / "records").glob

    def changed(self: CheckedInputs, file: InputFile) -> bytes:
        if file.name == "b.png":
            end_s = time.monotonic() + 60
            while not [*committed("*.json")] and time.monotonic() < end_s:
                time.sleep(0.05)  # the first clip is rendered while this one is uploaded
            raise InputError("b.png was changed after the plan was made; run it again")
        return upload(self, file)

    monkeypatch.setattr(CheckedInputs, "content", changed)
    assert render(pairs) == EXIT_STOPPED
    assert f"{pairs}:1: image 'b.png': b.png was changed after the" in capsys.readouterr().err
    store = open_store((tmp_path / "out").as_uri(), StoreConfig())
    (clip_id,) = committed_ids(store)
    assert read_record(store, clip_id).request.prompt == "a circle"
    monkeypatch.setattr(CheckedInputs, "content", upload)
    assert render(pairs) == EXIT_OK
    assert len(committed_ids(store)) == 2
