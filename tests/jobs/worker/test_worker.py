import contextlib
import json
import threading
import time
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load

from jobs.errors import StoreRefusedError, StoreUnavailableError
from jobs.media.boxes import read_tracks
from jobs.media.decode_check import check_mp4, decode_mp4
from jobs.media.posters import Posters
from jobs.media.sound import decode_sound
from jobs.media.tags import read_metadata
from jobs.records.commit import committed_ids, read_record
from jobs.records.keys import (
    clip_key,
    latents_key,
    poster_key,
    record_key,
    refused_clip_key,
    thumbnail_key,
)
from jobs.records.schema import ClipRecord
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from jobs.types import AudioFacts, ClipDone, ClipFailed, ClipOutcome, ClipReturned, ClipSpec
from jobs.worker.clip_worker import ClipWorker
from jobs.worker.rendering import RenderedClip
from jobs.worker.setup import WorkerSetup
from jobs.worker.spool import SpooledClip
from jobs.worker.timing import StageClock
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.catalog.model_yaml import load_model_config
from pipelines.load_progress import LoadPosition, LoadProgress
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import GenerationRequest, TextEmbeddings, VideoFrames
from pipelines.video_model import LoadedModel, OnStep
from tests.builders.specs import setup_for, spec
from tests.fakes.model import FakeLoader, FakeModel


@pytest.fixture
def worker(tmp_path: Path) -> ClipWorker:
    made = ClipWorker(setup_for(tmp_path), "node-1")
    made.load()
    return made


def done(outcome: ClipOutcome) -> ClipDone:
    assert isinstance(outcome, ClipDone), outcome
    return outcome


def failed(outcome: ClipOutcome) -> ClipFailed:
    assert isinstance(outcome, ClipFailed), outcome
    return outcome


def test_a_rendered_clip_is_in_the_store_with_its_record(
    worker: ClipWorker, tmp_path: Path
) -> None:
    one = spec("sunrise")
    outcome = done(worker.render(one, 2))
    store = open_store(tmp_path.as_uri(), StoreConfig())
    record = read_record(store, one.clip_id)
    assert (record.request, record.model, record.name, record.attempt) == (
        one.request,
        one.model,
        one.name,
        2,
    )
    assert record.uri == store.uri_of(record.key)
    assert not outcome.was_already_committed
    path = tmp_path / record.key
    assert path.stat().st_size == record.num_bytes
    assert decode_mp4(path).frames.shape == (5, 32, 32, 3)
    assert str(record.nag_coverage) == "2 of 2"
    assert (record.peak_memory_bytes, record.peak_memory_kind) == (1234, "device")
    assert abs(record.host_memory_bytes - psutil.Process().memory_info().rss) < 64 << 20
    assert (record.worker.node_id, record.worker.device) == ("node-1", "fake")
    assert {"python", "torch", "nagfarm"} <= set(record.versions)


def test_a_clip_with_sound_has_a_track_of_it_and_a_record_that_says_so(
    worker: ClipWorker, tmp_path: Path
) -> None:
    one = spec("hum of a bell")
    done(worker.render(one, 1))
    record = read_record(open_store(tmp_path.as_uri(), StoreConfig()), one.clip_id)
    assert record.audio == AudioFacts("aac", 16_000, 2, 5 / 8)
    assert decode_sound(tmp_path / record.key, 2).shape == (10_000, 2)


def test_a_clip_whose_request_wants_no_sound_has_none(worker: ClipWorker, tmp_path: Path) -> None:
    one = spec("hum of a bell")
    one = replace(one, request=replace(one.request, audio=False))
    done(worker.render(one, 1))
    record = read_record(open_store(tmp_path.as_uri(), StoreConfig()), one.clip_id)
    assert record.audio is None
    assert [track.kind for track in read_tracks(tmp_path / record.key)] == ["vide"]


def picture_keys(record: ClipRecord) -> set[str]:
    return {key(record.clip_id, record.sha256) for key in (poster_key, thumbnail_key)}


def test_a_rendered_clip_has_its_poster_and_thumbnail(worker: ClipWorker, tmp_path: Path) -> None:
    one = spec("sunrise")
    done(worker.render(one, 1))
    store = open_store(tmp_path.as_uri(), StoreConfig())
    keys = picture_keys(read_record(store, one.clip_id))
    assert set(store.keys("posters/")) == keys
    assert all(store.get(key).startswith(b"\xff\xd8\xff") for key in keys)


def test_a_clip_whose_posters_the_store_does_not_take_is_committed_all_the_same(
    tmp_path: Path,
) -> None:
    worker, one = ClipWorker(setup_for(tmp_path), "node-1"), spec("sunrise")
    worker.load()
    (tmp_path / "posters").write_text("in the way")
    assert not done(worker.render(one, 1)).was_already_committed


def test_posters_are_written_after_the_mp4_and_before_the_record(
    worker: ClipWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []

    def note(store: Store, clip_id: str, sha256: str, posters: Posters) -> None:
        seen.append((store.exists(clip_key(clip_id, sha256)), store.exists(record_key(clip_id))))
        raise StoreUnavailableError("an outage of a moment")

    monkeypatch.setattr("jobs.worker.pictures.write_posters", note)
    done(worker.render(spec("sunrise"), 1))
    assert seen == [(True, False)]


def test_the_mp4_holds_tags_that_identify_the_clip(worker: ClipWorker, tmp_path: Path) -> None:
    one = spec('a "quoted" = prompt; with # everything \\ and ünïcode')
    worker.render(one, 1)
    store = open_store(tmp_path.as_uri(), StoreConfig())
    tags = read_metadata(tmp_path / read_record(store, one.clip_id).key)
    assert tags["clip_id"] == one.clip_id
    assert "ünïcode" in tags["comment"]


def test_every_stage_and_every_step_is_timed_and_the_first_clip_pays_for_the_loading(
    worker: ClipWorker,
) -> None:
    first, second = done(worker.render(spec("one"), 1)), done(worker.render(spec("two"), 1))
    loading = ["queue", "load", "load_read"]
    on_device = ["text", "denoise", "denoise", "decode"]
    on_host = ["check", "encode", "check", "upload"]  # frames are checked, and their MP4
    assert [timing.stage for timing in first.timings] == loading + on_device + on_host
    assert [timing.step for timing in first.timings if timing.stage == "denoise"] == [0, 1]
    assert "load" not in [timing.stage for timing in second.timings]


def test_an_existing_record_stays_unchanged(worker: ClipWorker, tmp_path: Path) -> None:
    one = spec("sunrise")
    assert not done(worker.render(one, 1)).was_already_committed
    before = read_record(open_store(tmp_path.as_uri(), StoreConfig()), one.clip_id)
    assert done(worker.render(one, 2)).was_already_committed
    assert read_record(open_store(tmp_path.as_uri(), StoreConfig()), one.clip_id) == before


def test_a_failing_clip_is_a_value_with_its_traceback_and_the_next_one_is_rendered(
    worker: ClipWorker,
) -> None:
    outcome = failed(worker.render(spec("error here"), 1))
    assert (outcome.failure_class, outcome.may_pass_on_retry, outcome.error_type) == (
        "code",
        False,
        "FakeError",
    )
    assert "the model did not like it" in outcome.message
    assert "model.py" in outcome.traceback
    stages = [timing.stage for timing in outcome.timings if timing.stage != "queue"]
    assert stages[:3] == ["load", "load_read", "text"]
    done(worker.render(spec("sunrise"), 1))


def test_a_full_device_is_a_failure_of_memory_that_may_pass(worker: ClipWorker) -> None:
    outcome = failed(worker.render(spec("memory"), 1))
    assert (outcome.failure_class, outcome.may_pass_on_retry) == ("memory", True)


def test_frames_of_the_wrong_size_are_never_committed(tmp_path: Path) -> None:
    class Wrong(FakeModel):
        def decode(self, request: GenerationRequest, latents: torch.Tensor):
            video = super().decode(request, latents)
            return replace(video, frames=np.ascontiguousarray(video.frames[:-1]))

    worker = ClipWorker(replace(setup_for(tmp_path), loader=FakeLoader(Wrong)), "node-1")
    worker.load()
    outcome = failed(worker.render(spec("sunrise"), 1))
    assert (outcome.failure_class, outcome.error_type) == ("clip", "CheckError")
    assert not committed_ids(open_store(tmp_path.as_uri(), StoreConfig()))
    assert not list(tmp_path.glob("clips/**/*.mp4"))


def test_the_next_clip_denoises_while_the_last_one_is_written(tmp_path: Path) -> None:
    """The second clip's denoising ends before the first one's encoding may begin to."""
    second_denoised = threading.Event()

    class Watching(FakeModel):
        def denoise(
            self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
        ) -> torch.Tensor:
            latents = super().denoise(request, embeddings, on_step)
            if request.prompt == "second":
                second_denoised.set()
            return latents

    class Held(ClipWorker):
        def _encode(
            self, spec: ClipSpec, attempt: int, rendered: RenderedClip, clock: StageClock
        ) -> SpooledClip:
            if spec.request.prompt == "first":
                assert second_denoised.wait(30)
            return super()._encode(spec, attempt, rendered, clock)

    worker = Held(replace(setup_for(tmp_path), loader=FakeLoader(Watching)), "node-1")
    worker.load()
    with ThreadPoolExecutor(2) as callers:
        outcomes = list(
            callers.map(lambda prompt: worker.render(spec(prompt), 1), ["first", "second"])
        )
    assert all(isinstance(outcome, ClipDone) for outcome in outcomes)


def test_a_text_encoder_learns_of_the_clips_that_wait_for_the_device(tmp_path: Path) -> None:
    waiting, seen = threading.Barrier(2), list[tuple[str, list[str]]]()

    class Watching(FakeModel):
        def encode_text(self, request: GenerationRequest, ahead: Any = ()) -> TextEmbeddings:
            seen.append((request.prompt, sorted(one.prompt for one in ahead)))
            if request.prompt == "first":
                waiting.wait(30)  # the device's thread is taken
                waiting.wait(30)  # the others wait for it
            return super().encode_text(request)

    worker = ClipWorker(replace(setup_for(tmp_path), loader=FakeLoader(Watching)), "node-1")
    worker.load()
    with ThreadPoolExecutor(4) as callers:
        renders = [callers.submit(worker.render, spec("first"), 1)]
        waiting.wait(30)
        renders += [callers.submit(worker.render, spec(one), 1) for one in ("second", "third")]
        while len(worker._waiting) < 2:
            time.sleep(0.01)
        waiting.wait(30)
        assert all(isinstance(one.result(), ClipDone) for one in renders)
        exact = callers.submit(worker.render, spec("fourth"), 2, uses_exact_attention=True)
        assert isinstance(exact.result(), ClipDone)
    (first, second, third, fourth) = seen
    assert first == ("first", [])
    assert {second[0], *second[1]} == {"second", "third"}
    assert third == (second[1][0], [])
    assert fourth == ("fourth", [])
    assert not worker._waiting


def test_the_frames_of_a_clip_are_freed_before_its_upload(tmp_path: Path) -> None:
    made: list[weakref.ref[np.ndarray]] = []
    kept: list[bool] = []

    class Noting(FakeModel):
        def decode(self, request: GenerationRequest, latents: torch.Tensor) -> VideoFrames:
            video = super().decode(request, latents)
            made.append(weakref.ref(video.frames))
            return video

    class Uploading(ClipWorker):
        def _commit(self, spooled: SpooledClip, attempt: int, clock: StageClock) -> ClipDone:
            kept.append(made[-1]() is not None)
            return super()._commit(spooled, attempt, clock)

    worker = Uploading(replace(setup_for(tmp_path), loader=FakeLoader(Noting)), "node-1")
    worker.load()
    done(worker.render(spec("sunrise"), 1))
    assert kept == [False]


def test_one_thread_alone_touches_the_model(tmp_path: Path) -> None:
    threads: set[int] = set()

    class Noting(FakeModel):
        def denoise(
            self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
        ) -> torch.Tensor:
            threads.add(threading.get_ident())
            return super().denoise(request, embeddings, on_step)

    worker = ClipWorker(replace(setup_for(tmp_path), loader=FakeLoader(Noting)), "node-1")
    worker.load()
    with ThreadPoolExecutor(4) as callers:
        list(callers.map(lambda seed: worker.render(spec("sunrise", seed), 1), range(8)))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("prompt", ["nan", "unlit", "flat", "stuck", "garbled", "hushed"])
def test_a_clip_that_fails_the_frame_checks_keeps_its_latents_and_a_small_mp4(
    worker: ClipWorker, tmp_path: Path, prompt: str
) -> None:
    one = spec(prompt)
    outcome = failed(worker.render(one, 2))
    assert (outcome.failure_class, outcome.error_type) == ("clip", "FrameCheckError")
    store = open_store(tmp_path.as_uri(), StoreConfig())
    assert not committed_ids(store)
    latents = load(store.get(latents_key(one.clip_id, "run-1", 2)))["latents"]
    assert torch.isnan(latents).any() == (prompt == "nan")
    small = tmp_path / refused_clip_key(one.clip_id, "run-1", 2)
    assert decode_mp4(small).frames.shape == (5, 32, 32, 3)
    tags = read_metadata(small)
    assert tags["clip_id"] == one.clip_id
    assert tags["refused"] in outcome.message
    assert not list(tmp_path.glob("spool/*/*"))


@pytest.mark.parametrize(
    ("prompt", "line", "word"),
    [
        ("unlit", "frame_checks: {black: null, flat: null, frozen: null}", "black"),
        ("flat", "frame_checks: {flat: null, frozen: null}", "fog"),
        ("stuck", "frame_checks: {frozen: null}", "still"),
        ("garbled", "frame_checks: {grain: null, flicker: null}", "noise"),
        ("hushed", "frame_checks: {silence: null}", "silent"),
    ],
)
def test_the_error_of_a_refused_clip_names_the_line_and_the_word_that_allow_it(
    worker: ClipWorker, tmp_path: Path, prompt: str, line: str, word: str
) -> None:
    """The line is put into the model's YAML and the word into the prompt: each lets it pass."""
    message = failed(worker.render(spec(prompt), 1)).message
    assert f"write {line} into fake.yaml, or put a word such as {word!r} into" in message
    done(worker.render(spec(f"{prompt} {word}"), 1))
    path, model = tmp_path / "fake.yaml", setup_for(tmp_path).model
    grid = f"grid: {json.dumps(asdict(model.grid))}\nsampling: {json.dumps(asdict(model.sampling))}"
    path.write_text(f"family: wan\nsource: package:fake\n{grid}\n{line}\n")
    setup = replace(setup_for(tmp_path / "allowing"), model=load_model_config(path))
    allowing = ClipWorker(setup, "node-1")
    allowing.load()
    done(allowing.render(spec(prompt), 1))


def test_the_error_of_nan_names_no_line_since_no_limit_allows_it(worker: ClipWorker) -> None:
    assert ".yaml" not in failed(worker.render(spec("nan"), 1)).message


def test_frames_that_cannot_be_encoded_are_refused_by_the_frame_checks_all_the_same(
    worker: ClipWorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("jobs.media.encode.COLOUR_FILTERS", "no_such_filter")
    outcome = failed(worker.render(spec("unlit"), 1))
    assert (outcome.failure_class, outcome.error_type) == ("clip", "FrameCheckError")
    assert not list(tmp_path.glob("failures/**/*.mp4"))


def test_a_prompt_that_asks_for_darkness_gets_it(worker: ClipWorker) -> None:
    done(worker.render(spec("unlit stage, all black"), 1))


def test_exact_attention_is_used_on_request_and_recorded(
    worker: ClipWorker, tmp_path: Path
) -> None:
    one = spec("nan unless exact")
    failed(worker.render(one, 1))
    done(worker.render(one, 2, uses_exact_attention=True))
    store = open_store(tmp_path.as_uri(), StoreConfig())
    assert read_record(store, one.clip_id).attention == "exact"
    other = spec("sunrise")
    done(worker.render(other, 1))
    assert read_record(store, other.clip_id).attention == "fused"


@pytest.mark.parametrize("parallel", [ONE_DEVICE, ParallelConfig(2, 2)])
def test_a_record_holds_the_devices_that_rendered_its_clip(
    parallel: ParallelConfig, tmp_path: Path
) -> None:
    """The record follows the worker's setting, not the manifest's request."""
    worker = ClipWorker(replace(setup_for(tmp_path), parallel=parallel), "node-1")
    worker.load()
    done(worker.render(spec("circle"), attempt=1))
    worker.close()
    store = open_store(tmp_path.as_uri(), StoreConfig())
    assert read_record(store, spec("circle").clip_id).parallel == parallel


def test_an_out_of_memory_message_gives_the_peak(worker: ClipWorker) -> None:
    outcome = failed(worker.render(spec("memory"), 1))
    assert (outcome.failure_class, outcome.may_pass_on_retry) == ("memory", True)
    assert outcome.message.startswith("out of memory on fake at denoise (32x32x5): add `")
    assert outcome.message.endswith(
        " to fake.yaml; device out of memory (the device memory's peak was 0.00 GiB)"
    )


class Counting(FakeModel):
    """Counts renderings, in this process."""

    num_rendered = 0

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        Counting.num_rendered += 1
        return super().denoise(request, embeddings, on_step)


def worker_with(setup: WorkerSetup) -> ClipWorker:
    made = ClipWorker(replace(setup, loader=FakeLoader(Counting)), "node-1")
    made.load()
    return made


def test_a_clip_that_the_store_did_not_take_is_committed_by_the_next_worker_without_rendering_it(
    tmp_path: Path,
) -> None:
    setup, one = setup_for(tmp_path), spec("sunrise")
    Counting.num_rendered = 0
    (tmp_path / "clips").write_text("in the way")
    assert failed(worker_with(setup).render(one, 1)).failure_class == "store"
    (tmp_path / "clips").unlink()
    other = worker_with(setup)
    assert other.spooled() == {one.clip_id}
    done(other.render(one, 2))
    assert Counting.num_rendered == 1
    assert not other.spooled()
    record = read_record(open_store(tmp_path.as_uri(), StoreConfig()), one.clip_id)
    assert record.attempt == 1
    assert set(open_store(tmp_path.as_uri(), StoreConfig()).keys("posters/")) == picture_keys(
        record
    )
    assert [timing.stage for timing in record.timings][-1] == "upload"


def test_a_clip_whose_share_is_lost_waits_until_it_is_back_and_is_not_rendered_again(
    tmp_path: Path,
) -> None:
    share, one, two = tmp_path / "share", spec("sunrise"), spec("sunset")
    setup = replace(setup_for(share), spool_folder=str(tmp_path / "spool"))
    Counting.num_rendered = 0
    with mid_encode(lambda: share.rename(tmp_path / "away")):
        worker = worker_with(setup)
        outcome = failed(worker.render(one, 1))
    assert (outcome.failure_class, outcome.may_pass_on_retry, outcome.is_spooled) == (
        "store",
        True,
        True,
    )
    assert failed(worker.render(two, 1)).failure_class == "store"
    assert not share.exists()
    (tmp_path / "away").rename(share)
    done(worker.render(one, 2))
    assert Counting.num_rendered == 1
    assert committed_ids(open_store(share.as_uri(), StoreConfig())) == {one.clip_id}


@contextlib.contextmanager
def mid_encode(act: Callable[[], object]) -> Generator[None]:
    """Act after each check of an MP4, so before its upload."""

    def check(*arguments: Any) -> None:
        check_mp4(*arguments)
        act()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.worker.clip_worker.check_mp4", check)
        yield


def test_a_clip_that_the_disk_cannot_hold_is_not_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = worker_with(setup_for(tmp_path))
    Counting.num_rendered = 0
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(free=1_000))
    outcome = failed(worker.render(spec("sunrise"), 1))
    assert (outcome.failure_class, outcome.error_type, outcome.may_pass_on_retry) == (
        "store",
        "DiskFullError",
        True,
    )
    assert Counting.num_rendered == 0


def test_a_clip_that_is_committed_is_not_rendered_again(tmp_path: Path) -> None:
    worker, one = worker_with(setup_for(tmp_path)), spec("sunrise")
    Counting.num_rendered = 0
    done(worker.render(one, 1))
    assert done(worker.render(one, 2)).was_already_committed
    assert Counting.num_rendered == 1


def test_a_worker_reports_its_stage_and_step_while_it_computes(tmp_path: Path) -> None:
    worker, one, gate = (
        ClipWorker(setup_for(tmp_path), "node-1"),
        spec(f"wait {tmp_path / 'gate'}"),
        tmp_path / "gate",
    )
    worker.load()
    with ThreadPoolExecutor(1) as caller:
        rendering = caller.submit(worker.render, one, 1)
        while not [
            clip for clip in worker.heartbeat().clips if (clip.stage, clip.step) == ("denoise", 2)
        ]:
            assert not rendering.done()
        gate.touch()
        done(rendering.result())
    assert not worker.heartbeat().clips


def test_a_worker_that_does_not_see_the_drivers_store_fails_to_load(tmp_path: Path) -> None:
    setup = replace(setup_for(tmp_path), run_id="another-run")
    with pytest.raises(StoreRefusedError, match="a folder must be shared by all nodes"):
        ClipWorker(setup, "node-1").load()


def test_a_clip_that_waits_for_the_device_can_be_recalled_and_one_that_has_begun_goes_on(
    tmp_path: Path,
) -> None:
    worker, gate = worker_with(setup_for(tmp_path)), tmp_path / "gate"
    Counting.num_rendered = 0
    begun, queued = spec(f"wait {gate}"), spec("sunrise")

    def stage_of(one: ClipSpec) -> str | None:
        clips = worker.heartbeat().clips
        return next((clip.stage for clip in clips if clip.clip_id == one.clip_id), None)

    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(worker.render, begun, 1)
        while stage_of(begun) != "denoise":
            assert not first.done()
        second = callers.submit(worker.render, queued, 1)
        while stage_of(queued) != "queue":
            assert not second.done()
        for one in (begun, queued):
            worker.recall(one.clip_id)
        assert second.result(60) == ClipReturned(queued.clip_id)
        gate.touch()
        done(first.result(60))
    assert Counting.num_rendered == 1
    done(worker.render(queued, 1))


def test_a_recall_that_comes_before_its_clip_is_obeyed_once(worker: ClipWorker) -> None:
    one = spec("sunrise")
    worker.recall(one.clip_id)
    assert worker.render(one, 1) == ClipReturned(one.clip_id)
    done(worker.render(one, 1))


def test_a_heartbeat_shows_how_far_the_loading_is(tmp_path: Path) -> None:
    is_loading, may_go_on = threading.Event(), threading.Event()

    class VerifyingLoader(FakeLoader):
        def load_model(
            self,
            config: ModelConfig,
            weights: ModelWeights,
            num_threads: int,
            progress: LoadProgress,
            /,
        ) -> LoadedModel:
            progress.expect(10)
            progress.advance(4)
            with progress.part("verify"), progress.part("import", "torch"):
                is_loading.set()
                assert may_go_on.wait(30)
            return super().load_model(config, weights, num_threads, progress)

    worker = ClipWorker(replace(setup_for(tmp_path), loader=VerifyingLoader()), "node-1")
    assert worker.heartbeat().load == LoadPosition()
    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(worker.load)
        assert is_loading.wait(30)
        try:
            assert worker.heartbeat().load == LoadPosition(("import", "verify"), 0.4)
        finally:
            may_go_on.set()
        loading.result()
    assert not worker.heartbeat().load.parts
    timings = done(worker.render(spec("sunrise"), 1)).timings
    stages = {timing.stage: timing.duration_s for timing in timings}
    assert {"load_verify", "load_import", "load_read"} < stages.keys()
    assert stages["load"] >= stages["load_verify"]
