"""One run of three kinds of models, as users start it: `ray job submit` on real Ray and real S3.

An image-to-video model, a model that makes sound, and a text-to-video model: real diffusers classes
with random weights, tiny. A real browser plays each MP4.
"""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from infra.local.ray_cluster import LocalRay, ray_command
from infra.local.s3_server import LocalS3
from jobs.records.commit import committed_ids, read_record
from jobs.records.schema import ClipRecord
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from tests.builders import tiny, tiny_ltx2
from tests.builders.browser import chromium, until, web_server
from tests.builders.foreign import write_program

pytestmark = [pytest.mark.cluster, pytest.mark.s3, pytest.mark.models, pytest.mark.timeout(600)]

OUTPUT = "s3://renders/mixed-models"
# noise is all that a model with random weights draws
CHECKS = ("spread", "black", "flat", "frozen", "grain", "flicker", "saturation", "silence")
NO_CHECKS: dict[str, Any] = dict.fromkeys(CHECKS)
COMMON: dict[str, Any] = {
    "dtype": "float32",
    "vae_dtype": "float32",
    "device": "cpu",
    "method": "nag",
    "max_sequence_length": 16,
    "frame_checks": NO_CHECKS,
}
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "tiny-text": (
        tiny.wan_pipeline,
        {"family": "wan", "grid": {"num_frames": 4, "height": 16, "width": 16}},
    ),
    "tiny-image": (
        tiny.wan_image_to_video_pipeline,
        {
            "family": "wan",
            "pipeline": "WanImageToVideoPipeline",
            "max_sequence_length": 512,  # beside the tokens of an image
            "grid": {"num_frames": 4, "height": 16, "width": 16},
        },
    ),
    "tiny-sound": (
        tiny_ltx2.pipeline,
        {"family": "ltx2", "grid": {"num_frames": 8, "height": 32, "width": 32}},
    ),
}
SAMPLING = {
    "num_inference_steps": 2, "guidance_scale": 1.0, "num_frames": 9, "height": 64, "width": 64,
    "fps": 8,
}  # fmt: skip


def write_user_folder(folder: Path) -> None:
    """Write the models with their YAMLs, two images, and a manifest beside them."""
    for name, (build, settings) in MODELS.items():
        build().save_pretrained(folder / "weights" / name)
        config = COMMON | settings | {"source": f"./weights/{name}", "sampling": SAMPLING}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        Image.new("RGB", (40, 24), colour).save(folder / f"{name}.png")
    rows: list[dict[str, Any]] = [
        {"model": "tiny-text", "prompt": "a fox"},
        {"model": "tiny-image", "prompt": "it runs", "image": "red.png"},
        {"model": "tiny-image", "prompt": "it runs", "image": "blue.png"},
        {"model": "tiny-sound", "prompt": "a dog barks"},
        {"model": "tiny-sound", "prompt": "a dog barks", "audio": False},
    ]
    lines = [json.dumps(row | {"negative_prompt": "blurry"}) for row in rows]
    (folder / "mixed.jsonl").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def clips(
    ray_cluster: LocalRay, s3_server: LocalS3, tmp_path_factory: pytest.TempPathFactory
) -> dict[Path, ClipRecord]:
    """Render the manifest, and return the record of each MP4."""
    folder = tmp_path_factory.mktemp("mixed")
    models, work = folder / "models", folder / "work"
    models.mkdir()
    write_user_folder(models)
    work.mkdir()
    write_program(folder)
    command = [
        *(ray_command(), "job", "submit", f"--address={ray_cluster.dashboard_url}"),
        *("--working-dir=.", "--", str(folder / "nagfarm"), "render"),
        *(str(models / "mixed.jsonl"), "--models", str(models), "--output", OUTPUT),
    ]
    job = subprocess.run(
        command, cwd=work, env=ray_cluster.environment(), text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert job.returncode == 0, job.stdout
    assert "committed 5 clips" in job.stdout
    found: dict[Path, ClipRecord] = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        store = open_store(OUTPUT, StoreConfig())
        for clip_id in committed_ids(store):
            record = read_record(store, clip_id)
            path = folder / "mp4" / f"{record.name}.mp4"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(store.get(record.key))
            found[path] = record
    return found


def of_model(clips: Mapping[Path, ClipRecord], name: str) -> list[ClipRecord]:
    return [record for record in clips.values() if record.model.name == name]


def test_each_model_guides_all_its_text_attentions(clips: dict[Path, ClipRecord]) -> None:
    assert len(clips) == 5
    assert {str(one.nag_coverage) for one in of_model(clips, "tiny-text")} == {"2 of 2"}
    assert {str(one.nag_coverage) for one in of_model(clips, "tiny-image")} == {"2 of 2"}
    for one in of_model(clips, "tiny-sound"):  # the video's and the audio's in each block
        assert one.nag_coverage.guided == one.nag_coverage.total > 2


def test_an_image_is_kept_beside_the_clips_and_decides_them(
    clips: dict[Path, ClipRecord], s3_environment: LocalS3
) -> None:
    store = open_store(OUTPUT, StoreConfig())
    first, second = of_model(clips, "tiny-image")
    assert first.sha256 != second.sha256
    names: set[str] = set()
    for record in (first, second):
        image = record.request.inputs.image
        assert image is not None
        content = store.get(f"inputs/{image.sha256}")
        assert hashlib.sha256(content).hexdigest() == image.sha256
        names.add(image.name)
    assert names == {"red.png", "blue.png"}


def test_a_browser_plays_every_clip_and_hears_those_with_sound(
    clips: dict[Path, ClipRecord],
) -> None:
    folder = next(iter(clips)).parent
    (folder / "empty.html").write_text("<!doctype html><title>clips</title>", encoding="utf-8")
    heard: dict[str, bool] = {}
    with chromium() as browser, web_server(folder) as root:
        for path, record in clips.items():
            with browser.new_page() as page:
                page.goto(f"{root}empty.html")
                page.evaluate(
                    """async (source) => {
                        window.video = document.createElement("video");
                        video.muted = true;
                        video.src = source;
                        document.body.append(video);
                        await video.play();
                    }""",
                    path.name,
                )
                until(page, "video.ended")
                size = page.evaluate("[video.videoWidth, video.videoHeight]")
                assert size == [record.width, record.height]
                assert page.evaluate("video.webkitVideoDecodedByteCount") > 0
                heard[record.name] = page.evaluate("video.webkitAudioDecodedByteCount") > 0
    wanted = {
        record.name: record.model.name == "tiny-sound" and record.request.audio
        for record in clips.values()
    }
    assert heard == wanted
    assert sum(heard.values()) == 1


def test_the_random_models_draw_something(clips: dict[Path, ClipRecord]) -> None:
    from jobs.media.decode_check import decode_mp4

    for path in clips:
        assert np.ptp(decode_mp4(path).frames) > 10
