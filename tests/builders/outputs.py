"""Outputs of many clips that were never rendered: real MP4s, records, failures and runs.

Run it to look at a large gallery: `python -m tests.builders.outputs FOLDER 10000`, and then
`nagfarm report FOLDER`.
"""

import argparse
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from jobs.clip_id import clip_id
from jobs.costs.run_cost import DeviceHours, RunCost
from jobs.media.encode import encode_mp4
from jobs.records.commit import JSON, MP4, write_failure, write_quarantine, write_run
from jobs.records.keys import (
    RUN_FILE,
    SUMMARY_FILE,
    clip_key,
    poster_key,
    record_key,
    thumbnail_key,
)
from jobs.records.run_status import RunSummary, write_status
from jobs.records.schema import ClipRecord, FailureRecord, QuarantineRecord, utc_iso
from jobs.settings.run_config import EncodingConfig, StoreConfig
from jobs.store.store import Store, open_store
from jobs.types import ClipFailed, ModelIdentity, Stage, StageTiming
from nag.params import NagParams
from pipelines.device_marks import DeviceTime
from pipelines.request import GenerationRequest, SamplingParams, VideoFrames, VideoShape
from pipelines.texts import RequestTokens, Tokens
from tests.builders.records import AT_S, RUN_ID, record_of
from tests.jobs.cli.test_status import status_of

PROMPTS = (
    "a fox in the snow", "a boat at night", "two cats on a roof", "rain over a city",
    "<script>alert(1)</script>", 'quotes " and \' and \\ and </script>', "снег 雪 🎿",
    "\u202eright to left\u202c and \u05e9\u05dc\u05d5\u05dd",
)  # fmt: skip
NEGATIVES = ("", "red", "blurry, low quality", "text <b>bold</b>")
METHODS = ("nag", "cfg", "none")
MODELS = tuple(
    ModelIdentity(name, f"package:{name}", "r1", "float32", "saved") for name in ("fake", "coarse")
)
SHAPE = VideoShape(9, 64, 96)
NUM_VIDEOS = 4  # different MP4s; the clips share them
CLIP_S = 4.0  # between two commits


@dataclass(frozen=True)
class Made:
    """The clips of an output by what became of them: ids."""

    committed: tuple[str, ...]
    quarantined: tuple[str, ...]
    failed: tuple[str, ...]


def make_output(store: Store, num_clips: int, *, has_posters: bool = True) -> Made:
    """Write an output of committed clips; each 50th is quarantined, the one behind it failed."""
    committed: list[str] = []
    quarantined: list[str] = []
    failed: list[str] = []
    ids: dict[str, tuple[ModelIdentity, GenerationRequest]] = {}
    for model, request in requests():  # some requests are the same clip
        ids.setdefault(clip_id(model, request, tokens_of(request)), (model, request))
        if len(ids) == num_clips:
            break
    for number, (own_id, (model, request)) in enumerate(ids.items()):
        tokens, name = tokens_of(request), f"clip-{number:05d}"
        if number % 50 == 48:
            failed.append(own_id)
            fail(store, number, failure_of(own_id, name, number, model, request))
        elif number % 50 == 49:
            quarantined.append(own_id)
            failure = failure_of(own_id, name, number, model, request)
            fail(store, number, failure, is_last=True)
        else:
            committed.append(own_id)
            record = made_record(store, number, own_id, model, request)
            put_clip(store, replace(record, name=name, tokens=tokens), has_posters=has_posters)
    write_runs(store, num_clips, len(committed), len(quarantined), len(failed))
    return Made(tuple(committed), tuple(quarantined), tuple(failed))


def requests() -> Iterator[tuple[ModelIdentity, GenerationRequest]]:
    """Yield requests: seeds change slowest, prompts fastest."""
    for seed in range(2**20):
        for model in MODELS:
            for method in METHODS:
                for negative in NEGATIVES:
                    for prompt in PROMPTS:
                        scale = 5.0 if method == "cfg" else 1.0
                        sampling = SamplingParams(4, scale, None, seed)
                        yield model, GenerationRequest(
                            prompt, negative, SHAPE, 8.0, sampling, NagParams(), method
                        )  # fmt: skip


def tokens_of(request: GenerationRequest) -> RequestTokens:
    return RequestTokens.of(request, lambda text: Tokens(len(text.split()) + 1, text))


def made_record(
    store: Store, number: int, own_id: str, model: ModelIdentity, request: GenerationRequest
) -> ClipRecord:
    """Return the record of a committed clip, with a video of `video_of`."""
    body, began = video_of(number % NUM_VIDEOS), AT_S + number * CLIP_S
    lengths: dict[Stage, float] = {
        "queue": 0.5,
        "text": 0.1,
        "decode": 0.4,
        "encode": 0.2,
        "check": 0.1,
        "upload": 0.05,
    }
    stages: list[tuple[Stage, float, int | None]]
    stages = [(name, length * (1 + number % 7 / 10), None) for name, length in lengths.items()]
    stages[2:2] = [("denoise", 0.5 + number % 5 / 10, step) for step in range(4)]
    timings = tuple(
        StageTiming(name, began + at / 10, length, step)
        for at, (name, length, step) in enumerate(stages)
    )
    record = record_of(store, body, own_id)
    return replace(
        record,
        model=model,
        request=request,
        meta={"shot": str(number % 12)},
        num_frames=SHAPE.num_frames,
        width=SHAPE.width,
        height=SHAPE.height,
        committed_at=utc_iso(began + CLIP_S),
        timings=timings,
        device_time=DeviceTime(3.0 + number % 3 / 10, 0.1 + number % 4 / 10),
        worker=replace(record.worker, host=f"host-{number % 2}", pid=100 + number % 4),
        peak_memory_bytes=1_000_000_000 + number % 9 * 10_000_000,
        encoding=EncodingConfig(),
    )


def put_clip(store: Store, record: ClipRecord, *, has_posters: bool) -> None:
    """Write the objects of a committed clip; the video is the one that its digest names."""
    body = next(
        body for body in map(video_of, range(NUM_VIDEOS))
        if hashlib.sha256(body).hexdigest() == record.sha256
    )  # fmt: skip
    store.put(clip_key(record.clip_id, record.sha256), body, MP4)
    if has_posters:
        picture = picture_of(int(record.sha256[:2], 16))
        store.put(poster_key(record.clip_id, record.sha256), picture, "image/jpeg")
        store.put(thumbnail_key(record.clip_id, record.sha256), picture, "image/jpeg")
    store.put(record_key(record.clip_id), record.to_json(), JSON)


def failure_of(
    own_id: str, name: str, number: int, model: ModelIdentity, request: GenerationRequest
) -> ClipFailed:
    return ClipFailed(
        clip_id=own_id,
        name=name,
        model=model.name,
        request=request,
        attempt=1,
        failure_class="memory" if number % 3 else "clip",
        may_pass_on_retry=True,
        error_type="OutOfMemoryError" if number % 3 else "FrameCheckError",
        message=f"out of memory <img src=x onerror=alert({number})>\nsecond line",
        traceback='Traceback (most recent call last):\n  File "model.py", line 7\nOutOfMemoryError',
        worker="host-0:100",
    )


def fail(store: Store, number: int, failure: ClipFailed, *, is_last: bool = False) -> None:
    """Write a failed attempt, or two of them and the quarantine."""
    at = AT_S + number * CLIP_S
    write_failure(store, FailureRecord.of(failure, RUN_ID, utc_iso(at)))
    if is_last:
        second = replace(failure, attempt=2)
        write_failure(store, FailureRecord.of(second, RUN_ID, utc_iso(at + 1)))
        reason = "failed on 2 workers"
        write_quarantine(store, QuarantineRecord.of(second, RUN_ID, reason, utc_iso(at + 1)))


def write_runs(
    store: Store, num_clips: int, num_committed: int, num_quarantined: int, num_failed: int
) -> None:
    """Write the documents of the one run."""
    started_at = utc_iso(AT_S)
    run = {"run_id": RUN_ID, "started_at": started_at, "manifest": {"name": "spring"}}
    write_run(store, RUN_ID, RUN_FILE, run)
    status = replace(
        status_of("finished", AT_S + num_clips * CLIP_S),
        num_clips=num_clips,
        num_done_before=0,
        num_committed=num_committed,
        num_quarantined=num_quarantined,
        num_failures=2 * num_quarantined + num_failed,
        elapsed_s=num_clips * CLIP_S,
        clips_per_hour=3600 / CLIP_S,
        in_flight=(),
        cost=RunCost.of(
            [DeviceHours.of("fake", "cpu", {"denoise": 2.0, "decode": 0.5, "failed": 0.1}, 2.5)],
            "USD",
        ),
    )
    write_status(store, status)
    summary = RunSummary.of(status, {"text": 1.0, "denoise": 20.0, "decode": 4.0}, 0)
    write_run(store, RUN_ID, SUMMARY_FILE, asdict(summary))


@cache
def video_of(number: int) -> bytes:
    """Return a small MP4: a bar that crosses a ground of its own colour."""
    frames = np.empty((SHAPE.num_frames, SHAPE.height, SHAPE.width, 3), np.uint8)
    frames[:] = _colour(number)
    for at in range(SHAPE.num_frames):
        frames[at, :, at * 10 : at * 10 + 10] = 255
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.mp4")
        config = EncodingConfig(preset="ultrafast")
        encode_mp4(VideoFrames(frames, 8.0), path, config, {"clip_id": str(number)})
        return path.read_bytes()


@cache
def picture_of(number: int) -> bytes:
    """Return a small JPEG."""
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (SHAPE.width, SHAPE.height), _colour(number)).save(file, "JPEG")
    return file.getvalue()


def _colour(number: int) -> tuple[int, int, int]:
    return 40 + number * 53 % 160, 40 + number * 97 % 160, 40 + number * 151 % 160


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", help="a new folder or s3://bucket/prefix")
    parser.add_argument("num_clips", type=int, nargs="?", default=1000)
    arguments = parser.parse_args()
    made = make_output(open_store(arguments.output, StoreConfig()), arguments.num_clips)
    print(f"{len(made.committed):,} clips, {len(made.quarantined):,} quarantined")


if __name__ == "__main__":
    main()
