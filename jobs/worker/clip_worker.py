"""One worker: a loaded model that renders clips, one at a time, and commits each.

Knows nothing of Ray. The device belongs to a single thread; encoding, checking and upload run in the caller's thread,
so that with several callers the next clip denoises while the last one is written. The number of callers bounds the
frames in memory. A clip that is encoded is in the spool until it is committed, and is not rendered again for the
store's sake.
"""

import contextlib
import hashlib
import os
import socket
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

from jobs.errors import StoreError, StoreRefusedError
from jobs.failures import classify
from jobs.media.decode_check import check_mp4
from jobs.media.encode import encode_mp4
from jobs.records.commit import commit_record, read_record, upload_clip
from jobs.records.keys import RUN_FILE, clip_key, latents_key, record_key, run_key
from jobs.records.schema import ClipRecord, NagCoverage, WorkerIdentity, utc_iso
from jobs.redaction import redact
from jobs.store.store import open_store
from jobs.types import ClipDone, ClipFailed, ClipOutcome, ClipSpec, StageTiming, WorkerHeartbeat
from jobs.worker.heartbeat import Heartbeat, memory_bytes
from jobs.worker.provenance import clip_metadata, installed_versions
from jobs.worker.setup import WorkerSetup
from jobs.worker.spool import CLIP_FILE, Spool, SpooledClip, spool_root
from jobs.worker.timing import StageClock
from pipelines.errors import FrameCheckError, GroupError
from pipelines.request import VideoFrames
from pipelines.video_model import PeakMemory, VideoModel

T = TypeVar("T")
REMAINS_S = 3600.0  # after which what another worker was making is surely nobody's


@dataclass(frozen=True, eq=False)
class RefusedFrames:
    """What a clip became that is no picture, to be kept for inspection."""

    error: FrameCheckError
    latents: bytes


@dataclass(frozen=True, eq=False)
class RenderedClip:
    """Frames, and what the device had to say about them."""

    video: VideoFrames
    peak_memory: PeakMemory
    attention: Literal["fused", "exact"]


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
        self._spool = Spool(spool_root(setup.spool_folder), setup.output)
        self._device = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")
        self._heartbeat = Heartbeat()
        self._model: VideoModel | None = None
        self._coverage: NagCoverage | None = None
        self._load_timing: tuple[float, float] | None = None
        self._node_id = node_id

    def load(self) -> WorkerIdentity:
        """Loads the model in the device's thread.

        Raises:
            PipelineError: the weights are other ones here, or broken after all.
            StoreError: this machine does not see the store that the driver sees, or its spool has no room.
            SpoolError: its spool cannot be trusted.
        """
        started_at, start = time.time(), time.monotonic()
        setup = self._setup
        if not self._store.exists(run_key(setup.run_id, RUN_FILE)):
            raise StoreRefusedError(
                f"{socket.gethostname()} does not see this run in {setup.output}: a folder must be shared by all "
                "nodes, and every node must have the same S3 endpoint and credentials"
            )
        self._spool.check_room(
            0
        )  # a spool that cannot be used is this machine's fault and no clip's
        self._spool.remove_remains(REMAINS_S, started_at)
        loaded = self._device.submit(
            setup.loader.load_model, setup.model, setup.weights, setup.num_threads
        ).result()
        self._model = self._wrap(loaded.model) if self._wrap else loaded.model
        self._coverage = NagCoverage(loaded.coverage.guided, loaded.coverage.total)
        self._load_timing = (started_at, time.monotonic() - start)
        return self.identity

    @property
    def identity(self) -> WorkerIdentity:
        return WorkerIdentity(
            socket.gethostname(), self._node_id, self._loaded.device.name, os.getpid()
        )

    def on_device(self, job: Callable[[], T]) -> Future[T]:
        """Has something done in the thread that owns the device, after what it is at."""
        return self._device.submit(job)

    def spooled(self) -> frozenset[str]:
        """Clips of this output that an earlier worker has left on this machine, encoded."""
        return self._spool.clip_ids()

    def heartbeat(self) -> WorkerHeartbeat:
        """What it is at. Answers at once, from any thread, while the device computes."""
        return self._heartbeat.heartbeat()

    def drain(self) -> None:
        """It was told to end: `heartbeat` says so from now on. Safe in a signal's handler."""
        self._heartbeat.drain()

    def render(
        self, spec: ClipSpec, attempt: int, *, uses_exact_attention: bool = False
    ) -> ClipOutcome:
        """Takes one clip from its request to its record. Never raises for the clip's sake: a failure is a value.

        Args:
            uses_exact_attention: with the family's safer setting.
        """
        clock = StageClock(
            self._loaded.device.synchronize, partial(self._heartbeat.move, spec.clip_id)
        )
        try:
            self._heartbeat.move(spec.clip_id, "lookup")
            if self._store.exists(
                record_key(spec.clip_id)
            ):  # by a worker that died before it could say so
                uri = read_record(self._store, spec.clip_id).uri
                self._spool.remove(spec.clip_id)
                return ClipDone(
                    spec.clip_id, spec.name, uri, attempt, (), was_already_committed=True
                )
            self._heartbeat.move(spec.clip_id, "queue")
            started_at, start = time.time(), time.monotonic()
            spooled = self._spool.find(spec.clip_id)
            if spooled is None or (spooled.record.model, spooled.record.request) != (
                spec.model,
                spec.request,
            ):
                self._spool.check_room(raw_bytes(spec))
                job = partial(
                    self._render_frames,
                    spec,
                    clock,
                    started_at,
                    start,
                    uses_exact_attention=uses_exact_attention,
                )
                rendered = self._device.submit(job).result()
                if isinstance(rendered, RefusedFrames):
                    self._keep_latents(spec, attempt, rendered.latents)
                    return self._failed(spec, attempt, rendered.error, clock)
                spooled = self._encode(spec, attempt, rendered, clock)
            return self._commit(spec, attempt, spooled, clock)
        except Exception as error:  # noqa: BLE001 the one place where any failure of a clip becomes a value
            return self._failed(spec, attempt, error, clock)
        finally:
            self._heartbeat.leave(spec.clip_id)

    def close(self) -> None:
        if self._model is not None:
            self._device.submit(self._model.close).result()
            self._model = None
        self._device.shutdown()

    @property
    def _loaded(self) -> VideoModel:
        if self._model is None:
            raise RuntimeError("the worker has no model; call load first")
        return self._model

    def _render_frames(
        self,
        spec: ClipSpec,
        clock: StageClock,
        queued_at: float,
        queued: float,
        *,
        uses_exact_attention: bool,
    ) -> RenderedClip | RefusedFrames:
        """In the device's thread: text, denoise, decode."""
        from pipelines.frame_checks.checks import check_frames, check_latents, save_latents

        model, request, limits = self._loaded, spec.request, self._setup.model.frame_checks
        clock.add("queue", queued_at, time.monotonic() - queued)
        if (
            self._load_timing is not None
        ):  # the first clip of a worker pays for the loading of its model
            clock.add("load", *self._load_timing)
            self._load_timing = None
        model.device.reset_peak_memory()
        with model.exact_attention() if uses_exact_attention else contextlib.nullcontext():
            with clock.measure_device("text"):
                embeddings = model.encode_text(request)
            latents = model.denoise(request, embeddings, clock.steps())
        try:
            check_latents(latents, limits)
            with clock.measure_device("decode"):
                video = model.decode(request, latents)
            check_frames(video, request.prompt, limits)
        except FrameCheckError as error:
            return RefusedFrames(
                error.with_traceback(None), save_latents(latents)
            )  # a traceback would hold the frames
        return RenderedClip(
            video, model.device.peak_memory(), "exact" if uses_exact_attention else "fused"
        )

    def _encode(
        self, spec: ClipSpec, attempt: int, rendered: RenderedClip, clock: StageClock
    ) -> SpooledClip:
        """In the caller's thread: encode, check, and leave the clip where the next worker would find it."""
        request, coverage = spec.request, self._coverage
        assert coverage is not None, "a clip was rendered, so a model is loaded"
        with self._spool.room() as folder:
            path = folder / CLIP_FILE
            with clock.measure("encode"):
                encode_mp4(rendered.video, path, self._setup.encoding, clip_metadata(spec))
            with clock.measure("check"):
                check_mp4(path, request.shape, request.fps)
            body = path.read_bytes()
            sha256 = hashlib.sha256(body).hexdigest()
            key = clip_key(spec.clip_id, sha256)
            record = ClipRecord(
                clip_id=spec.clip_id,
                name=spec.name,
                model=spec.model,
                request=request,
                parallel=self._setup.parallel,
                run_id=self._setup.run_id,
                attempt=attempt,
                uri=self._store.uri_of(key),
                key=key,
                sha256=sha256,
                num_bytes=len(body),
                num_frames=request.shape.num_frames,
                width=request.shape.width,
                height=request.shape.height,
                fps=request.fps,
                committed_at=utc_iso(time.time()),
                timings=clock.timings,
                encoding=self._setup.encoding,
                worker=self.identity,
                peak_memory_bytes=rendered.peak_memory.num_bytes,
                peak_memory_kind=rendered.peak_memory.kind,
                host_memory_bytes=memory_bytes(),
                attention=rendered.attention,
                nag_coverage=coverage,
                versions=installed_versions(),
            )
            self._spool.keep(folder, record)
        return SpooledClip(record, body)

    def _commit(
        self, spec: ClipSpec, attempt: int, spooled: SpooledClip, clock: StageClock
    ) -> ClipDone:
        """In the caller's thread: upload, and the record last."""
        rendering = spooled.record.timings
        with clock.measure("upload"):
            clip = upload_clip(self._store, spec.clip_id, spooled.body)
        upload: tuple[StageTiming, ...] = clock.timings[-1:]
        record = replace(
            spooled.record, committed_at=utc_iso(time.time()), timings=(*rendering, *upload)
        )
        is_own = commit_record(self._store, clip, record)
        self._spool.remove(spec.clip_id)
        return ClipDone(
            clip_id=spec.clip_id,
            name=spec.name,
            uri=record.uri,
            attempt=attempt,
            timings=clock.timings,
            was_already_committed=not is_own,
            memory_bytes=memory_bytes(),
        )

    def _keep_latents(self, spec: ClipSpec, attempt: int, latents: bytes) -> None:
        """For inspection, beside the failure's record. The failure is told of whether they can be kept or not."""
        self._heartbeat.move(spec.clip_id, "upload")
        with contextlib.suppress(StoreError):
            self._store.put(
                latents_key(spec.clip_id, self._setup.run_id, attempt),
                latents,
                "application/octet-stream",
            )

    def _failed(
        self, spec: ClipSpec, attempt: int, error: Exception, clock: StageClock
    ) -> ClipFailed:
        failure_class, may_pass = classify(error)
        message = str(error) or type(error).__name__
        if failure_class == "memory" and (peak := self._peak_memory()):
            message = (
                f"{message} (the {peak.kind} memory's peak was {peak.num_bytes / 2**30:.2f} GiB)"
            )
        return ClipFailed(
            clip_id=spec.clip_id,
            name=spec.name,
            attempt=attempt,
            failure_class=failure_class,
            may_pass_on_retry=may_pass,
            error_type=type(error).__name__,
            message=redact(message),
            traceback=redact("".join(traceback.format_exception(error))),
            worker=f"{socket.gethostname()}:{os.getpid()}",
            timings=clock.timings,
            is_spooled=self._spool.holds(spec.clip_id),
            group_error=type(error) if isinstance(error, GroupError) else None,
        )

    def _peak_memory(self) -> PeakMemory | None:
        """None of a device that answers no more."""
        try:
            return self._loaded.device.peak_memory()
        except RuntimeError:
            return None


def raw_bytes(spec: ClipSpec) -> int:
    """Of a clip's frames in yuv420p, as they are encoded; no encoding of them exceeds it by much."""
    shape = spec.request.shape
    return 3 * shape.num_frames * shape.height * shape.width // 2
