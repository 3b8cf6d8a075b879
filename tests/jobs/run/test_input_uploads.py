"""The uploads of inputs beside the clips: in order, a bounded number ahead, and through outages."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ManifestError, StoreRefusedError, StoreUnavailableError
from jobs.manifest.manifest import Manifest, open_manifest
from jobs.records.keys import input_key
from jobs.run import input_uploads
from jobs.run.input_uploads import CLIPS_AHEAD, InputUploads
from jobs.types import ClipSpec
from tests.builders.input_files import image_bytes
from tests.fakes.catalog import FakeCatalog
from tests.fakes.store import MemoryStore

WAIT_S = 10.0


class GatedStore(MemoryStore):
    """A store whose uploads wait until a test lets them through.

    Args:
        errors: raised by the next uploads, in order.
    """

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)
        self.arrived: list[str] = []
        self._gates: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        self._is_open = threading.Event()

    def let_through(self, *keys: str) -> None:
        """Let some uploads through, or all of them."""
        for key in keys:
            self._gates[key].set()
        if not keys:
            self._is_open.set()

    def put_if_absent(self, key: str, body: bytes, content_type: str) -> None:
        while not (self._is_open.is_set() or self._gates[key].wait(0.005)):
            pass
        self.arrived.append(key)
        if self.errors:
            raise self.errors.pop(0)
        super().put_if_absent(key, body, content_type)


def images(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"{number}.png").write_bytes(image_bytes((number, 0, 0), (16, 16)))


def opened(path: Path, catalog: FakeCatalog, rows: list[dict[str, Any]], **more: Any) -> Manifest:
    row = {"model": "moving", "prompt": "x", "num_inference_steps": 1, "num_frames": 5}
    path.write_text("".join(f"{json.dumps(row | one)}\n" for one in rows))
    return open_manifest(path, catalog, **more)


def keys_of(clip: ClipSpec) -> list[str]:
    return [input_key(file.sha256) for file in clip.request.inputs.files()]


def next_clip(clips: Iterator[ClipSpec | None]) -> ClipSpec:
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        if (clip := next(clips)) is not None:
            return clip
        time.sleep(0.005)
    raise AssertionError("no clip became ready")


@pytest.fixture
def uploading(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., InputUploads]]:
    """Return a function that makes uploads, which end with the test."""
    monkeypatch.setattr(input_uploads, "PAUSE_S", 0.01)
    made: list[tuple[GatedStore, InputUploads]] = []

    def make(store: GatedStore, manifest: Manifest, max_outage_s: float = 0.0) -> InputUploads:
        made.append((store, InputUploads(store, manifest, max_outage_s, print)))
        return made[-1][1]

    yield make
    for store, uploads in made:
        uploads.__exit__(None, None, None)
        store.let_through()


def test_a_clip_is_offered_once_its_own_inputs_are_there(
    tmp_path: Path, catalog: FakeCatalog, uploading: Callable[..., InputUploads]
) -> None:
    images(tmp_path, 3)
    rows = [
        {"image": "0.png", "last_image": "1.png"},
        {"image": "0.png", "seed": 1},
        {"image": "2.png"},
    ]
    manifest, store = opened(tmp_path / "m.jsonl", catalog, rows), GatedStore()
    clips = list(manifest.specs())
    offered = uploading(store, manifest).before(iter(clips))
    first, second = keys_of(clips[0])
    store.let_through(second, *keys_of(clips[2]))
    while len(store.arrived) < 2:
        assert next(offered) is None, "one of its two images is missing"
    store.let_through(first)
    assert next_clip(offered) is clips[0]
    assert {first, second} <= set(store.keys("inputs/"))
    assert [next_clip(offered), next_clip(offered)] == clips[1:]
    assert next(offered, "end") == "end"
    assert len(store.arrived) == 3, "each content once"


def test_uploads_run_a_bounded_number_of_clips_ahead(
    tmp_path: Path, catalog: FakeCatalog, uploading: Callable[..., InputUploads]
) -> None:
    count = CLIPS_AHEAD + 20
    images(tmp_path, count)
    rows = [{"image": f"{number}.png"} for number in range(count)]
    manifest, store = opened(tmp_path / "m.jsonl", catalog, rows), GatedStore()
    taken: list[ClipSpec] = []
    assert len(list(manifest.specs())) == count  # as the plan does

    def clips() -> Iterator[ClipSpec]:
        for clip in manifest.specs():
            taken.append(clip)
            yield clip

    offered = uploading(store, manifest).before(clips())
    store.let_through()
    first = next_clip(offered)
    assert first is taken[0]
    assert len(taken) == CLIPS_AHEAD
    rest = [next_clip(offered) for _ in range(count - 1)]
    assert [first, *rest] == taken
    assert len(store.arrived) == count


def test_a_file_that_goes_after_the_walk_is_refused_with_its_line(
    tmp_path: Path, catalog: FakeCatalog, uploading: Callable[..., InputUploads]
) -> None:
    images(tmp_path, 3)
    rows = [{"image": "0.png"}, {"image": "1.png", "last_image": "2.png"}]
    manifest, store = opened(tmp_path / "m.jsonl", catalog, rows), GatedStore()
    clips = list(manifest.specs())
    (tmp_path / "2.png").write_bytes(image_bytes((9, 9, 9), (16, 16)))
    store.let_through()
    offered = uploading(store, manifest).before(iter(clips))
    assert next_clip(offered) is clips[0], "a clip before it goes on"
    with pytest.raises(ManifestError, match=r"m\.jsonl:2: last_image '2\.png': .*was changed"):
        next_clip(offered)


def test_an_object_that_changes_after_the_plan_is_refused_with_its_line(
    tmp_path: Path, catalog: FakeCatalog, uploading: Callable[..., InputUploads]
) -> None:
    content = {"s3://theirs/0.png": image_bytes((0, 0, 0), (16, 16))}
    rows = [{"image": "s3://theirs/0.png"}]
    manifest = opened(tmp_path / "m.jsonl", catalog, rows, read_s3=content.__getitem__)
    store, clips = GatedStore(), list(manifest.specs())
    content["s3://theirs/0.png"] = image_bytes((1, 0, 0), (16, 16))
    with pytest.raises(
        ManifestError,
        match=r"m\.jsonl:1: image '0\.png': s3://theirs/0\.png was changed after the plan",
    ):
        next_clip(uploading(store, manifest).before(iter(clips)))


def test_an_outage_delays_clips_and_a_long_one_or_a_refusal_ends_the_run(
    tmp_path: Path, catalog: FakeCatalog, uploading: Callable[..., InputUploads]
) -> None:
    images(tmp_path, 1)
    manifest = opened(tmp_path / "m.jsonl", catalog, [{"image": "0.png"}])
    clips = list(manifest.specs())
    down = StoreUnavailableError("no answer")
    for errors, max_outage_s, expected in (
        ([down] * 3, 60.0, None),
        ([down] * 3, 0.0, StoreUnavailableError),
        ([StoreRefusedError("AccessDenied")], 60.0, StoreRefusedError),
    ):
        store = GatedStore(*errors)
        store.let_through()
        offered = uploading(store, manifest, max_outage_s).before(iter(clips))
        if expected is None:
            assert next_clip(offered) is clips[0]
        else:
            with pytest.raises(expected):
                next_clip(offered)


def test_clips_that_wait_long_are_told_of(
    tmp_path: Path, catalog: FakeCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_uploads, "WORD_AFTER_S", 0.0)
    images(tmp_path, 1)
    manifest, store = opened(tmp_path / "m.jsonl", catalog, [{"image": "0.png"}]), GatedStore()
    said: list[str] = []
    with InputUploads(store, manifest, 0.0, said.append) as uploads:
        offered = uploads.before(iter(list(manifest.specs())))
        assert [next(offered) for _ in range(5)] == [None] * 5
        assert said == ["clips wait for the upload of their images and videos, 0 files so far"]
        store.let_through()
        next_clip(offered)
