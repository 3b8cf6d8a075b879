"""Records of clips that were never rendered, for benchmarks. Loads without torch."""

import hashlib
import random

from jobs.digests import digest_of
from jobs.records.keys import clip_key
from jobs.records.schema import ClipRecord, NagCoverage, WorkerIdentity, utc_iso
from jobs.settings.run_config import EncodingConfig
from jobs.types import ClipSpec, ModelIdentity
from nag.params import NagParams
from pipelines.device_marks import DeviceTime
from pipelines.request import GenerationRequest, SamplingParams, VideoShape

RUN_ID = "20260131-120000-abcdef"
MODELS = ("shapes-wan", "shapes-wan-4step", "shapes-ltx")
NUMBERED = 24  # words of a prompt


def numbered_record(number: int) -> ClipRecord:
    """Return the record of a clip with a prompt and a model of its own."""
    drawn = random.Random(number)
    words = ("circle", "square", "triangle", "red", "blue", "moving", "left", "slowly", "on", "a")
    prompt = f"{' '.join(drawn.choices(words, k=NUMBERED))} {number}"
    sampling = SamplingParams(14, 1.0, None, drawn.randrange(2**63))
    request = GenerationRequest(prompt, "red", VideoShape(17, 64, 64), 8.0, sampling, NagParams())
    name = MODELS[number % len(MODELS)]
    model = ModelIdentity(name, f"package:{name}", "abc", "float32", "saved")
    clip_id = digest_of(prompt).hex()
    return made_record(ClipSpec(clip_id, f"growth-{number}", model, request), clip_id.encode())


def made_record(spec: ClipSpec, body: bytes) -> ClipRecord:
    """Return the record of a clip whose MP4 is `body`."""
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
        parallel=spec.parallel,
        run_id=RUN_ID,
        attempt=1,
        uri=f"s3://growth/{key}",
        key=key,
        sha256=sha256,
        num_bytes=len(body),
        num_frames=shape.num_frames,
        width=shape.width,
        height=shape.height,
        fps=spec.request.fps,
        audio=None,
        committed_at=utc_iso(0),
        timings=(),
        device_time=DeviceTime(2.0, 0.0),
        encoding=EncodingConfig(),
        worker=WorkerIdentity("host", "node", "cpu", 1),
        peak_memory_bytes=1,
        peak_memory_kind="host",
        host_memory_bytes=1,
        attention="fused",
        nag_coverage=NagCoverage(4, 4),
        versions={},
    )
