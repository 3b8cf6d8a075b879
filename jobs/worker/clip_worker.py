"""One worker: a loaded model that renders clips, one at a time, and commits each.

Knows nothing of Ray. One thread owns the device and queues the work of one clip after another. The
checks of frames, encoding and upload run in the caller's thread, so that with several callers the
next clip denoises while the last one is checked and written. The number of callers bounds the
frames in memory. An encoded clip stays in the spool until it is
committed, so an outage of the store costs no second rendering.
"""

import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from jobs.errors import StoreRefusedError
from jobs.failures import is_out_of_memory
from jobs.media.decode_check import check_mp4
from jobs.media.encode import encode_mp4
from jobs.media.posters import draw_posters
from jobs.media.sound import facts_of
from jobs.memory.on_worker import WorkerMemory
from jobs.records.commit import commit_record, upload_clip
from jobs.records.damage import is_committed
from jobs.records.input_files import read_input
from jobs.records.keys import RUN_FILE, run_key
from jobs.records.schema import NagCoverage, WorkerIdentity, utc_iso
from jobs.store.s3_retries import num_s3_retries
from jobs.store.store import open_store
from jobs.types import (
    ClipDone,
    ClipOutcome,
    ClipReturned,
    ClipSpec,
    Stage,
    StageTiming,
    WorkerHeartbeat,
)
from jobs.worker.clip_failure import failed_clip
from jobs.worker.clip_inputs import read_inputs
from jobs.worker.device_queue import ClipRecalledError, DeviceQueue
from jobs.worker.heartbeat import Heartbeat, memory_bytes
from jobs.worker.input_cache import InputCache
from jobs.worker.mp4_tags import mp4_tags
from jobs.worker.pictures import keep_refused, refusal, upload_posters
from jobs.worker.provenance import RecordBuilder
from jobs.worker.rendering import QueuedClip, RefusedFrames, RenderedClip, check_clip, queue_clip
from jobs.worker.setup import WorkerSetup
from jobs.worker.spool import CLIP_FILE, Spool, SpooledClip
from jobs.worker.stage_marks import StageMarks
from jobs.worker.timing import StageClock, load_timings
from pipelines.errors import FrameCheckError
from pipelines.load_progress import LoadProgress
from pipelines.request import GenerationRequest
from pipelines.video_model import VideoModel

T = TypeVar("T")
REMAINS_S = 3600.0  # after that time a file that a worker was writing is surely abandoned


class ClipWorker:
    """A model, loaded once, and the clips that it renders."""

    def __init__(
        self,
        setup: WorkerSetup,
        node_id: str,
        wrap: Callable[[VideoModel], VideoModel] | None = None,
    ) -> None:
        self._setup = setup
        self._wrap = wrap
        self._store = open_store(setup.output, setup.store)
        self._spool = Spool(setup.spool_folder, setup.output)
        self._inputs = InputCache(setup.spool_folder)
        self._device = DeviceQueue()
        self._waiting: dict[str, GenerationRequest] = {}  # by clip_id
        self._load_progress = LoadProgress()
        self._heartbeat = Heartbeat(self._load_progress)
        self._model: VideoModel | None = None
        self._memory: WorkerMemory | None = None
        self._records: RecordBuilder | None = None
        self._load_timings: tuple[StageTiming, ...] = ()
        self._node_id = node_id
        self.warning = ""  # about the memory of the device, once the model is loaded

    def load(self) -> WorkerIdentity:
        """Load the model in the device's thread.

        Raises:
            PipelineError: when this machine's weights are broken or differ from the expected ones.
            StoreError: when this machine does not see the driver's store, or its spool is full.
            SpoolError: when its spool cannot be trusted.
            MemoryShortError: when the device's memory is too small for every clip, by estimate.
        """
        started_at, start = time.time(), time.monotonic()
        setup = self._setup
        if not self._store.exists(run_key(setup.run_id, RUN_FILE)):
            raise StoreRefusedError(
                f"{socket.gethostname()} does not see this run in {setup.output}: "
                "a folder must be shared by all nodes, and every node must have the same S3 "
                "endpoint and credentials"
            )
        # Here, because a spool that cannot be used is a fault of this machine, not of a clip.
        self._spool.check_room(0)
        self._spool.remove_remains(started_at - REMAINS_S)
        loaded = self._device.submit(
            setup.loader.load_model,
            setup.model,
            setup.weights,
            setup.num_threads,
            self._load_progress,
        ).result()
        self._model = self._wrap(loaded.model) if self._wrap else loaded.model
        self._memory = self._measure(loaded.folder)
        self.warning = self._memory.check(setup.clips, is_forced=setup.is_forced)
        coverage = NagCoverage(loaded.coverage.guided, loaded.coverage.total)
        self._records = RecordBuilder(setup, self.identity, coverage, self._store.uri_of)
        whole = StageTiming("load", started_at, time.monotonic() - start)
        self._load_timings = load_timings(whole, self._load_progress.timings)
        return self.identity

    @property
    def identity(self) -> WorkerIdentity:
        return WorkerIdentity(
            socket.gethostname(), self._node_id, self._loaded.device.name, os.getpid()
        )

    def on_device(self, job: Callable[[], T]) -> Future[T]:
        """Queue a job for the thread that owns the device."""
        return self._device.submit(job)

    def spooled(self) -> frozenset[str]:
        """Return the ids of encoded clips that earlier workers left in this machine's spool."""
        return self._spool.clip_ids()

    def heartbeat(self) -> WorkerHeartbeat:
        """Return the latest heartbeat at once, from any thread, while the device computes."""
        return replace(
            self._heartbeat.read(),
            spool_bytes=self._spool.num_bytes(),
            num_s3_retries=num_s3_retries(),
        )

    def drain(self) -> None:
        """Report in each heartbeat from now on that the worker ends. Safe in a signal handler."""
        self._heartbeat.drain()

    def recall(self, clip_id: str) -> None:
        """Have `render` hand a clip back, unless the device has begun with it."""
        self._device.recall(clip_id)

    def render(
        self, spec: ClipSpec, attempt: int, *, uses_exact_attention: bool = False
    ) -> ClipOutcome:
        """Render and commit one clip. A failure of the clip is returned, never raised."""
        clock = StageClock()
        with self._heartbeat.clip(spec.clip_id, clock):
            try:
                if (done := self._find_committed(spec, attempt)) is not None:
                    return done
                clock.enter("queue")
                encoded = self._spool.find(spec)
                if encoded is None:
                    encoded = self._encode(
                        spec,
                        attempt,
                        self._render(
                            spec, attempt, clock, uses_exact_attention=uses_exact_attention
                        ),
                        clock,
                    )
                return self._commit(encoded, attempt, clock)
            except ClipRecalledError:
                return ClipReturned(spec.clip_id)
            # The one place where an error of a clip becomes a value: its class decides about a
            # retry, and its traceback goes into the failure's record.
            except Exception as error:  # noqa: BLE001
                return failed_clip(
                    spec,
                    attempt,
                    error,
                    clock.timings,
                    self._loaded.device,
                    is_spooled=self._spool.holds(spec.clip_id),
                    advice=self._advise(spec, error, clock.stage),
                )
            finally:
                self._device.forget(spec.clip_id)

    def close(self) -> None:
        if self._model is not None:
            self._device.submit(self._model.close).result()
            self._model = None
        self._device.close()

    @property
    def _loaded(self) -> VideoModel:
        if self._model is None:
            raise RuntimeError("the worker has no model; call load first")
        return self._model

    def _measure(self, folder: Path | None) -> WorkerMemory:
        setup, device = self._setup, self._loaded.device
        found = folder and replace(setup.weights, folder=folder, described=None)
        return WorkerMemory(setup.model, found, setup.parallel, device)

    def _advise(self, spec: ClipSpec, error: Exception, stage: Stage) -> str:
        """Return the lines of the model's YAML that would help a clip that ran out of memory."""
        if self._memory is None or not is_out_of_memory(error):
            return ""
        return self._memory.explain(spec, stage)

    def _find_committed(self, spec: ClipSpec, attempt: int) -> ClipDone | None:
        """Return the outcome of a clip that a worker committed before it died without an answer."""
        if not is_committed(self._store, spec.clip_id):
            return None
        self._spool.remove(spec.clip_id)
        return ClipDone(spec.clip_id, spec.name, attempt, (), was_already_committed=True)

    def _render(
        self, spec: ClipSpec, attempt: int, clock: StageClock, *, uses_exact_attention: bool
    ) -> RenderedClip:
        """Render on the device and check the result in the caller's thread.

        The timings of the worker's first clip include the model's loading.
        """
        self._spool.check_room(raw_bytes(spec))
        inputs = read_inputs(spec.request, self._input)
        marks = StageMarks(self._loaded.device.mark)

        def queue_work() -> QueuedClip:
            marks.add(*self._load_timings)
            self._load_timings = ()
            del self._waiting[spec.clip_id]
            return queue_clip(
                self._loaded,
                spec.request,
                marks,
                uses_exact_attention=uses_exact_attention,
                inputs=inputs,
                ahead=tuple(self._waiting.copy().values()),
            )

        self._waiting[spec.clip_id] = spec.request
        try:
            queued = self._device.run(spec.clip_id, queue_work, marks, clock)
        finally:
            self._waiting.pop(spec.clip_id, None)
        with clock.measure("check"):
            rendered = check_clip(queued, spec.request, self._setup.model)
        if isinstance(rendered, RefusedFrames):
            clock.enter("upload")
            where = (self._setup.run_id, attempt)
            keep_refused(self._store, self._spool, spec, where, rendered)
            raise FrameCheckError(refusal(rendered, self._setup.model))
        return rendered

    def _input(self, sha256: str) -> bytes:
        """Return the bytes of an image or a video from this machine's cache or the store."""
        return self._inputs.get(sha256, partial(read_input, self._store, sha256))

    def _encode(
        self, spec: ClipSpec, attempt: int, rendered: RenderedClip, clock: StageClock
    ) -> SpooledClip:
        """Encode, check and spool a clip in the caller's thread."""
        assert self._records is not None, "a clip was rendered, so a model is loaded"
        with self._spool.room() as folder:
            path = folder / CLIP_FILE
            with clock.measure("encode"):
                encode_mp4(rendered.video, path, self._setup.encoding, mp4_tags(spec))
                posters = draw_posters(rendered.video.frames)
            with clock.measure("check"):
                audio = facts_of(rendered.video.audio)
                check_mp4(path, spec.request.shape, spec.request.fps, audio)
            body = path.read_bytes()
            record = self._records.build(spec, attempt, rendered, body, clock)
            self._spool.keep(folder, record)
        return SpooledClip(record, body, posters)

    def _commit(self, spooled: SpooledClip, attempt: int, clock: StageClock) -> ClipDone:
        """Upload a clip in the caller's thread, then its posters, and write its record last."""
        with clock.measure("upload"):
            clip = upload_clip(self._store, spooled.record.clip_id, spooled.body)
            upload_posters(self._store, spooled)
        record = spooled.record.committed(utc_iso(time.time()), clock.timings[-1])
        is_own = commit_record(self._store, clip, record)
        self._spool.remove(record.clip_id)
        return ClipDone(
            clip_id=record.clip_id,
            name=record.name,
            attempt=attempt,
            timings=clock.timings,
            device_time=clock.device_time,
            was_already_committed=not is_own,
            memory_bytes=memory_bytes(),
        )


def raw_bytes(spec: ClipSpec) -> int:
    """Return the size of a clip's frames in yuv420p, which no encoding exceeds by much."""
    shape = spec.request.shape
    return 3 * shape.num_frames * shape.height * shape.width // 2
