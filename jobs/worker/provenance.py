"""The origin of a clip, as its record tells it. Loads without torch."""

import hashlib
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from jobs.media.sound import facts_of
from jobs.records.keys import clip_key
from jobs.records.schema import ClipRecord, NagCoverage, WorkerIdentity, utc_iso
from jobs.types import ClipSpec
from jobs.worker.heartbeat import memory_bytes
from jobs.worker.rendering import RenderedClip
from jobs.worker.setup import WorkerSetup
from jobs.worker.timing import StageClock

VERSIONED_PACKAGES = (
    "nagfarm",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "ray",
    "imageio-ffmpeg",
    "boto3",
)


@dataclass(frozen=True)
class RecordBuilder:
    """The facts about a loaded worker that the records of all its clips share.

    Args:
        uri_of: returns the URI of a key in the output.
    """

    setup: WorkerSetup
    worker: WorkerIdentity
    coverage: NagCoverage
    uri_of: Callable[[str], str]

    def build(
        self,
        spec: ClipSpec,
        attempt: int,
        rendered: RenderedClip,
        body: bytes,
        clock: StageClock,
    ) -> ClipRecord:
        """Build the record of an encoded clip; `ClipRecord.committed` adds the upload to it.

        Args:
            body: the MP4.
            clock: has the stages before the upload.
        """
        assert clock.device_time is not None, "the device has rendered the clip"
        sha256 = hashlib.sha256(body).hexdigest()
        key = clip_key(spec.clip_id, sha256)
        shape = spec.request.shape
        return ClipRecord(
            clip_id=spec.clip_id,
            name=spec.name,
            meta=spec.meta,
            model=spec.model,
            request=spec.request,
            tokens=spec.tokens,
            parallel=self.setup.parallel,
            run_id=self.setup.run_id,
            attempt=attempt,
            uri=self.uri_of(key),
            key=key,
            sha256=sha256,
            num_bytes=len(body),
            num_frames=shape.num_frames,
            width=shape.width,
            height=shape.height,
            fps=spec.request.fps,
            audio=facts_of(rendered.video.audio),
            committed_at=utc_iso(time.time()),
            timings=clock.timings,
            device_time=clock.device_time,
            encoding=self.setup.encoding,
            worker=self.worker,
            peak_memory_bytes=rendered.peak_memory.num_bytes,
            peak_memory_kind=rendered.peak_memory.kind,
            host_memory_bytes=memory_bytes(),
            attention=rendered.attention,
            nag_coverage=self.coverage,
            versions=installed_versions(),
        )


@cache
def installed_versions() -> Mapping[str, str]:
    """Return the versions of Python and the libraries; cached, because the look-up takes 6 ms."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in VERSIONED_PACKAGES},
    }
