"""A clip that begins with an image: from the manifest over the store to the device, and again."""

import hashlib
import json
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.manifest.manifest import Manifest, open_manifest
from jobs.media.decode_check import decode_mp4
from jobs.overview.manifest_row import manifest_row, row_line
from jobs.records.commit import read_record, write_run
from jobs.records.keys import RUN_FILE, input_key, list_keys
from jobs.run.input_uploads import InputUploads
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store, read_object
from jobs.types import ClipDone, ClipFailed, ClipSpec
from jobs.worker.clip_inputs import read_inputs
from jobs.worker.clip_worker import ClipWorker
from pipelines.clip_inputs import NO_INPUTS, InputFile, InputFiles
from tests.builders.input_files import BLUE, RED, image_bytes, saved, video_bytes
from tests.builders.specs import setup_for
from tests.fakes.catalog import FakeCatalog
from tests.fakes.model import FakeLoader, PaintingModel
from tests.fakes.s3 import FakeS3, in_process

CONFIG = StoreConfig()
ROW = {"model": "moving", "prompt": "x", "num_inference_steps": 1, "num_frames": 5}


def halves() -> Image.Image:
    """Return an image of the clip's proportions, red at the left and blue at the right."""
    image = Image.new("RGB", (128, 128), RED)
    image.paste(BLUE, (64, 0, 128, 128))
    return image


@pytest.fixture(params=["folder", "s3"])
def store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    no_aws_environment: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Generator[Store]:
    if request.param == "folder":
        yield open_store((tmp_path / "out").as_uri(), CONFIG)
        return
    with in_process(FakeS3(), monkeypatch):
        yield open_store("s3://renders/out", CONFIG)


@pytest.fixture
def opened(tmp_path: Path, catalog: FakeCatalog) -> Callable[..., Manifest]:
    """Return a function that opens a manifest of rows which name images of a folder."""

    def open_rows(*rows: dict[str, object]) -> Manifest:
        path = tmp_path / "m.jsonl"
        path.write_text("".join(f"{json.dumps(ROW | row)}\n" for row in rows))
        return open_manifest(path, catalog, lambda uri: read_object(uri, CONFIG, 10**6))

    return open_rows


def worker_on(store: Store, folder: Path) -> ClipWorker:
    write_run(store, "run-1", RUN_FILE, {})
    setup = replace(setup_for(folder), output=store.uri, loader=FakeLoader(PaintingModel))
    worker = ClipWorker(setup, "node-1")
    worker.load()
    return worker


def upload(store: Store, manifest: Manifest, clips: Iterable[ClipSpec] | None = None) -> set[str]:
    """Upload what the clips of a manifest need, and return the new keys."""
    before = set(store.keys("inputs/"))
    clips = list(manifest.specs()) if clips is None else clips
    with InputUploads(store, manifest, 0.0, print) as uploads:
        for clip in uploads.before(iter(clips)):
            if clip is None:
                time.sleep(0.01)
            else:
                held = set(store.keys("inputs/"))
                assert {input_key(file.sha256) for file in clip.request.inputs.files()} <= held
    return set(store.keys("inputs/")) - before


def frames_of(store: Store, clip: ClipSpec, folder: Path) -> np.ndarray:
    path = folder / "clip.mp4"
    path.write_bytes(store.get(read_record(store, clip.clip_id).key))
    return decode_mp4(path).frames


def rendered(worker: ClipWorker, clip: ClipSpec) -> ClipDone:
    outcome = worker.render(clip, 1)
    assert isinstance(outcome, ClipDone), outcome
    return outcome


def failed(worker: ClipWorker, clip: ClipSpec) -> ClipFailed:
    outcome = worker.render(clip, 1)
    assert isinstance(outcome, ClipFailed), outcome
    return outcome


def test_a_clip_begins_with_its_image_and_can_be_asked_for_again(
    store: Store, opened: Callable[..., Manifest], tmp_path: Path, catalog: FakeCatalog
) -> None:
    content = saved(halves())
    (tmp_path / "a.png").write_bytes(content)
    manifest = opened({"image": "a.png"})
    (clip,) = manifest.specs()
    assert upload(store, manifest) == {input_key(hashlib.sha256(content).hexdigest())}
    worker = worker_on(store, tmp_path / "worker")
    rendered(worker, clip)
    first = frames_of(store, clip, tmp_path)[0].astype(int)
    assert first.shape == (64, 64, 3)
    assert np.abs(first[:, 8:24] - RED).max() < 12
    assert np.abs(first[:, 40:56] - BLUE).max() < 12

    (tmp_path / "a.png").unlink()
    row = manifest_row(read_record(store, clip.clip_id))
    sha256 = hashlib.sha256(content).hexdigest()
    assert row["image"] == f"{store.uri}/{input_key(sha256)}"
    path = tmp_path / "again.jsonl"
    path.write_text(row_line(row))
    (again,) = open_manifest(path, catalog, lambda uri: read_object(uri, CONFIG, 10**6)).specs()
    assert again.clip_id == clip.clip_id
    assert again.request.inputs.image == InputFile(sha256, sha256)


def test_each_content_is_uploaded_once_and_what_the_store_holds_is_left(
    store: Store, opened: Callable[..., Manifest], tmp_path: Path
) -> None:
    for name, colour in (("a", RED), ("b", BLUE), ("c", RED)):
        (tmp_path / f"{name}.png").write_bytes(image_bytes(colour))
    rows = [{"image": f"{name}.png", "seed": seed} for name in "abc" for seed in range(2)]
    manifest = opened(*rows, {"model": "tiny"})
    assert len(upload(store, manifest)) == 2
    assert {one.sha256 for one in list_keys(store, "input")} == {
        hashlib.sha256(image_bytes(colour)).hexdigest() for colour in (RED, BLUE)
    }
    clips = list(manifest.specs())
    for name in "abc":  # files that the store holds are not read again
        (tmp_path / f"{name}.png").unlink()
    assert upload(store, manifest, clips) == set()
    assert upload(store, opened({"model": "tiny"})) == set()


def test_an_input_that_the_store_lost_fails_its_clip_alone(
    opened: Callable[..., Manifest], tmp_path: Path
) -> None:
    store = open_store((tmp_path / "out").as_uri(), CONFIG)
    for name, colour in (("a", RED), ("b", BLUE)):
        image = halves()
        image.putpixel((0, 0), colour)
        (tmp_path / f"{name}.png").write_bytes(saved(image))
    manifest = opened({"image": "a.png"}, {"image": "b.png"}, {"image": "a.png", "seed": 5})
    lost, other, damaged = manifest.specs()
    upload(store, manifest)
    worker = worker_on(store, tmp_path / "worker")
    assert lost.request.inputs.image
    key = input_key(lost.request.inputs.image.sha256)
    store.delete(key)
    found = failed(worker, lost)
    assert (found.failure_class, found.may_pass_on_retry) == ("clip", False)
    assert found.message.startswith(f"a.png: {store.uri_of(key)} is gone, with which the clip be")
    rendered(worker, other)
    store.put(key, b"other bytes", "application/octet-stream")
    assert "has other bytes than those of its digest" in failed(worker, damaged).message


def test_a_damaged_copy_on_the_machine_is_fetched_from_the_store_again(
    opened: Callable[..., Manifest], tmp_path: Path
) -> None:
    store = open_store((tmp_path / "out").as_uri(), CONFIG)
    (tmp_path / "a.png").write_bytes(saved(halves()))
    manifest = opened({"image": "a.png"}, {"image": "a.png", "seed": 1})
    first, second = manifest.specs()
    upload(store, manifest)
    worker = worker_on(store, tmp_path / "worker")
    rendered(worker, first)
    (kept,) = (tmp_path / "worker" / "spool" / "inputs").iterdir()
    kept.write_bytes(b"damaged")
    rendered(worker, second)
    assert kept.read_bytes() == saved(halves())


def test_all_inputs_have_the_size_of_the_clip_but_the_references(
    catalog: FakeCatalog, tmp_path: Path
) -> None:
    files = {"red": image_bytes(RED, (100, 30)), "blue": image_bytes(BLUE, (64, 64))}
    files["video"] = video_bytes(tmp_path, 7, 48, 80)
    mask = Image.new("L", (32, 32), 10)
    mask.paste(255, (16, 0, 32, 32))
    files["mask"] = saved(mask)
    digests = {
        name: InputFile(hashlib.sha256(body).hexdigest(), name) for name, body in files.items()
    }
    content = {digests[name].sha256: body for name, body in files.items()}
    (clip,) = _rows(tmp_path, catalog, {"model": "tiny", "num_frames": 5})
    inputs = InputFiles(
        digests["blue"], digests["red"], (digests["red"], digests["blue"]), digests["video"],
        digests["mask"], "contain",
    )  # fmt: skip
    request = replace(clip.request, inputs=inputs)
    found = read_inputs(request, content.__getitem__)
    assert found.image is not None
    assert found.last_image is not None
    assert found.video is not None
    assert found.mask is not None
    assert found.image.shape == found.last_image.shape == (64, 64, 3)
    assert found.last_image[32, 32].tolist() == [*RED]
    assert found.last_image[0, 32].tolist() == [0, 0, 0], "contain adds black borders"
    assert [reference.shape for reference in found.reference_images] == [(30, 100, 3), (64, 64, 3)]
    assert found.video.shape == (5, 64, 64, 3)
    brightness = found.video[:, 32, 32].float().mean(dim=1)
    assert (brightness[1:] > brightness[:-1]).all()
    assert found.mask.shape == (5, 64, 64)
    assert (found.mask[:, :, 34:] == 255).all()
    assert (found.mask[:, :, :30] == 0).all()
    assert sorted(found.mask.unique().tolist()) == [0, 255]
    movie = replace(request, inputs=replace(inputs, mask=digests["video"]))
    of_video = read_inputs(movie, content.__getitem__).mask
    assert of_video is not None
    assert of_video[:, 32, 32].tolist() == [0, 0, 0, 0, 255]
    assert read_inputs(clip.request, content.__getitem__) is NO_INPUTS


def _rows(folder: Path, catalog: FakeCatalog, *rows: dict[str, object]) -> list[ClipSpec]:
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(ROW | row)}\n" for row in rows))
    return list(open_manifest(path, catalog).specs())
