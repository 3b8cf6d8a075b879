"""Judging clips: from an MP4 to the judge's verdict and the features. Runs in a pool of processes.

Every clip is judged after H.264, the true clips of the Shapes world too, so that compression
favours none. A cache keeps the judgements; its name has a digest of the judge and the features.
"""

import hashlib
import inspect
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobs.bench.measuring.cache import LineCache
from jobs.media.decode_check import decode_mp4
from jobs.media.encode import encode_mp4
from jobs.records.commit import read_record
from jobs.run.progress.console import print_log
from jobs.settings.run_config import EncodingConfig
from jobs.store.store import Store
from jobs.text import counted
from pipelines.request import VideoFrames
from pipelines.shapes import captions, judge, world
from pipelines.shapes.evaluation import breakages, features, negation
from pipelines.shapes.evaluation.breakages import draw_broken
from pipelines.shapes.evaluation.negation import NegationTask, draw_right_answer
from pipelines.shapes.judge import Verdict
from pipelines.shapes.world import ATTRIBUTES, FPS, render_uint8

BROKEN = "broken/"  # begins the keys of broken clips
Entry = dict[str, Any]
JudgeCall = Callable[[], Entry]


@dataclass(frozen=True)
class JudgedClip:
    """The judgement of one clip.

    Args:
        verdict: the attributes that the judge read.
        features: the clip's point in feature space.
        run_id, denoise_s: run and denoise seconds from the record; empty and 0 for drawn clips.
    """

    verdict: Verdict
    features: tuple[float, ...]
    run_id: str = ""
    denoise_s: float = 0.0

    @classmethod
    def of(cls, entry: Entry) -> "JudgedClip":
        verdict = dict(entry["verdict"])
        if verdict["moved_px"] is not None:
            verdict["moved_px"] = tuple(verdict["moved_px"])
        return cls(
            Verdict(**verdict), tuple(entry["features"]), entry["run_id"], entry["denoise_s"]
        )


def open_cache(folder: Path, encoding: EncodingConfig) -> LineCache:
    """Open the cache that belongs to today's judge, features and encoding."""
    digest = hashlib.sha256(repr(encoding).encode())
    for module in (world, captions, negation, breakages, judge, features):
        digest.update(inspect.getsource(module).encode())
    return LineCache(folder / f"seen-{digest.hexdigest()[:12]}.jsonl", _is_judgement)


def _is_judgement(key: str, entry: Any) -> bool:
    """Return True for an entry of the cache that has the fields of a judgement."""
    try:
        JudgedClip.of(entry)
        numbers = (entry["denoise_s"], *entry["features"])
    except (LookupError, TypeError, ValueError):
        return False
    is_right = not key.startswith(BROKEN) or isinstance(entry.get("is_right"), bool)
    return is_right and all(isinstance(number, int | float) for number in numbers)


def judge_all(
    cache: LineCache,
    calls: Iterable[tuple[str, JudgeCall]],
    num_processes: int,
    console: Console,
    what: str,
) -> None:
    """Judge the clips whose keys are missing from the cache, and add them."""
    missing = [(key, call) for key, call in dict(calls).items() if key not in cache]
    if not missing:
        return
    clips = counted(len(missing), "clip")
    print_log(console, f"{what} {clips}, {num_processes} at a time")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # a fork of a process with torch's threads may hang
    context = multiprocessing.get_context("spawn")
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
        ProcessPoolExecutor(num_processes, context, initializer=features.use_one_thread) as pool,
    ):
        task = bar.add_task(what, total=len(missing))
        futures = {pool.submit(call): key for key, call in missing}
        try:
            for future in as_completed(futures):
                cache.add(futures[future], future.result())
                bar.advance(task)
        finally:
            pool.shutdown(cancel_futures=True)


def committed_to_judge(store: Store, clip_id: str) -> tuple[str, JudgeCall]:
    """Return the key of a committed clip and the call that judges it."""
    return clip_id, partial(_judge_clip, store, clip_id)


def truth_to_judge(
    task: NegationTask, replicate: int, encoding: EncodingConfig
) -> tuple[str, JudgeCall]:
    """Return the key of a true clip that answers a task right, and the call that judges it."""
    return truth_key(task, replicate), partial(_judge_truth, task, replicate, encoding)


def truth_key(task: NegationTask, replicate: int) -> str:
    return "/".join(map(str, ("true", *task.key, replicate)))


def broken_to_judge(kind: str, index: int, encoding: EncodingConfig) -> tuple[str, JudgeCall]:
    """Return the key of a broken clip and the call that judges it.

    The entry's `is_right` is True if all attributes were read as they were before the breakage.
    """
    return broken_key(kind, index), partial(_judge_broken, kind, index, encoding)


def broken_key(kind: str, index: int) -> str:
    return f"{BROKEN}{kind}/{index}"


def _judge_clip(store: Store, clip_id: str) -> Entry:
    record = read_record(store, clip_id)
    entry = _judge_mp4(store.get(record.key))
    return {**entry, "run_id": record.run_id, "denoise_s": record.stage_totals_s["denoise"]}


def _judge_truth(task: NegationTask, replicate: int, encoding: EncodingConfig) -> Entry:
    frames_CTHW = render_uint8([draw_right_answer(task, replicate)])[0]
    return _judge_mp4(_encoded(frames_CTHW.permute(1, 2, 3, 0).contiguous().numpy(), encoding))


def _judge_broken(kind: str, index: int, encoding: EncodingConfig) -> Entry:
    clip, frames = draw_broken(kind, index)
    entry = _judge_mp4(_encoded(frames, encoding), has_features=False)
    is_right = all(
        entry["verdict"][attribute] == getattr(clip, attribute) for attribute in ATTRIBUTES
    )
    return {**entry, "is_right": is_right}


def _judge_mp4(content: bytes, *, has_features: bool = True) -> Entry:
    with tempfile.TemporaryDirectory(prefix="nagfarm-") as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(content)
        frames = decode_mp4(path).frames
    verdict = asdict(judge.judge(frames))
    verdict["error"] = min(verdict["error"], sys.float_info.max)  # JSON has no infinity
    point = features.clip_features(frames) if has_features else ()
    return {"verdict": verdict, "features": point, "run_id": "", "denoise_s": 0.0}


def _encoded(frames: Any, encoding: EncodingConfig) -> bytes:
    with tempfile.TemporaryDirectory(prefix="nagfarm-") as folder:
        path = Path(folder) / "clip.mp4"
        encode_mp4(VideoFrames(frames, FPS), path, encoding, {})
        return path.read_bytes()
