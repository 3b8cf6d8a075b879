"""One worker of a scoring run: it loads the measures, and scores a clip at a time.

It fetches the MP4, checks its digest, decodes it once for all measures, and writes a record for
each. Loads without torch.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from jobs.errors import CheckError, InputError, JobError, ObjectMissingError, RefusedError
from jobs.media.input_images import read_image
from jobs.media.looks import Look, look_at
from jobs.records.commit import read_record
from jobs.records.schema import ClipRecord, utc_iso
from jobs.records.scores.score_record import ScoreRecord, as_base64, write_score
from jobs.scoring.left import digest_of, texts_of
from jobs.scoring.tasks import (
    ClipTask,
    PicturesTask,
    Refusal,
    ScoringSetup,
    Task,
    TaskDone,
    TaskFailed,
    TaskOutcome,
)
from jobs.store.store import Store, open_store
from pipelines.errors import PipelineError, ScoringError
from pipelines.scoring.measures import MeasureSpec
from pipelines.scoring.registry import load_measure, prepare_device
from pipelines.scoring.scored_clip import FeatureMeasure, Measure, ScoredClip
from pipelines.scoring.scorer_weights import find_weights

LIBRARIES = ("nagfarm", "torch", "transformers", "pillow", "numpy")


class ClipScorer:
    """Does the tasks of a scoring run in one process.

    Args:
        setup: the setup of every worker.
        now: clock in seconds since the epoch.
    """

    def __init__(self, setup: ScoringSetup, now: Callable[[], float] = time.time) -> None:
        self._setup = setup
        self._store: Store = open_store(setup.uri, setup.store)
        self._now = now
        self._device_name = ""
        self._loaded: dict[str, tuple[MeasureSpec, Measure]] = {}

    def load(self) -> str:
        """Load all measures, and return the name of the device.

        Raises:
            ScoringError: the weights of a measure are missing on this machine, or others.
        """
        device = prepare_device(self._setup.num_threads)
        for spec in self._setup.measures:
            found = find_weights(replace(spec, revision=self._setup.revisions.get(spec.name, "")))
            self._loaded[spec.name] = found.spec, load_measure(found, device)
        self._device_name = str(device)
        return self._device_name

    def do(self, task: Task) -> TaskOutcome:
        """Do a task, once the measures are loaded. Errors that concern it become its outcome."""
        try:
            return self._score(task) if isinstance(task, ClipTask) else self._place(task)
        except JobError as error:
            return TaskFailed(task, str(error), error.may_pass_on_retry)
        except PipelineError as error:
            return TaskFailed(task, str(error))

    def _score(self, task: ClipTask) -> TaskDone:
        record = read_record(self._store, task.clip_id)
        wanted = [self._loaded[name] for name in task.measures]
        look = self._look(record, wanted)
        prompt, negatives = texts_of(record)
        clip = ScoredClip(prompt, negatives, look.stills, look.small)
        num_written, refusals = 0, list[Refusal]()
        for spec, measure in wanted:
            began = time.monotonic()
            try:
                found = measure.score(clip)
            except ScoringError as error:
                refusals.append(Refusal(record.name, spec.name, str(error)))
                continue
            vectors = found.vectors
            score = ScoreRecord(
                clip_id=record.clip_id,
                measure=spec.name,
                digest=digest_of(spec, record),
                source=spec.source,
                revision=spec.revision,
                num_stills=spec.num_stills,
                question=spec.question,
                sha256=record.sha256,
                negatives=negatives,
                figures=dict(found.figures),
                words=dict(found.words),
                num_vectors=0 if vectors is None else len(vectors),
                vectors="" if vectors is None else as_base64(vectors),
                scored_at=utc_iso(self._now()),
                duration_s=time.monotonic() - began,
                device=self._device_name,
                versions=versions(),
            )
            num_written += write_score(self._store, score)
        return TaskDone(task, num_written, tuple(refusals))

    def _look(self, record: ClipRecord, wanted: list[tuple[MeasureSpec, Measure]]) -> Look:
        """Return the frames of a clip that measures look at.

        Raises:
            RefusedError: the MP4 is gone, has other bytes than its record says, or does not decode.
        """
        num_stills = max((spec.num_stills for spec, _ in wanted), default=0)  # one for all
        has_small = any(spec.kind.looks_at == "frames" for spec, _ in wanted)
        with tempfile.TemporaryDirectory(prefix="nagfarm-score-") as folder:
            path = Path(folder, "clip.mp4")
            _fetch(self._store, record, path)
            try:
                return look_at(path, num_stills, has_small=has_small)
            except CheckError as error:
                raise RefusedError(f"{record.key}: {error}") from error

    def _place(self, task: PicturesTask) -> TaskDone:
        """Return the points of pictures; a picture that cannot be read is refused."""
        import numpy as np

        measure = cast("FeatureMeasure", self._loaded[task.measure][1])
        vectors: list[Any] = []
        refusals: list[Refusal] = []
        for name, content in task.pictures:
            try:
                vectors.append(measure.vector(read_image(content)))
            except (InputError, ScoringError) as error:
                refusals.append(Refusal(name, task.measure, str(error)))
        points = as_base64(np.stack(vectors)) if vectors else ""
        return TaskDone(task, 0, tuple(refusals), points, len(vectors))


def _fetch(store: Store, record: ClipRecord, path: Path) -> None:
    """Write the MP4 of a record into a file, and prove its bytes."""
    digest, num_bytes = hashlib.sha256(), 0
    try:
        with path.open("wb") as file:
            for piece in store.chunks(record.key):
                digest.update(piece)
                num_bytes += len(piece)
                if num_bytes > record.num_bytes:
                    break
                file.write(piece)
    except ObjectMissingError as error:
        raise RefusedError(
            f"{record.key} is gone; render --repair renders the clip again"
        ) from error
    if digest.hexdigest() != record.sha256:
        raise RefusedError(f"{record.key} has other bytes than its record says: run nagfarm verify")


def versions() -> dict[str, str]:
    """Return the versions of the libraries that decide figures."""
    return {name: metadata.version(name) for name in LIBRARIES}
