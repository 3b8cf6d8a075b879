"""The error of a clip as a value: its class, and its text without secrets and of bounded length."""

import os
import socket
import traceback

from jobs.escaping import MAX_BLOCK, shortened
from jobs.failures import classify
from jobs.redaction import redact
from jobs.types import ClipFailed, ClipSpec, StageTiming
from pipelines.errors import GroupError
from pipelines.video_model import DeviceMonitor, PeakMemory


def failed_clip(
    spec: ClipSpec,
    attempt: int,
    error: Exception,
    timings: tuple[StageTiming, ...],
    device: DeviceMonitor,
    *,
    is_spooled: bool,
    advice: str = "",
) -> ClipFailed:
    """Return the failure of one attempt at a clip.

    Args:
        timings: the stages that the attempt has passed.
        device: the worker's device; its peak memory is in the message if memory ran out.
        is_spooled: True if the clip is encoded and waits in the spool.
        advice: words for people, put before the error's own.
    """
    failure_class, may_pass = classify(error)
    message = str(error) or type(error).__name__
    if advice:
        message = f"{advice}; {message}"
    if failure_class == "memory" and (peak := _peak_memory(device)):
        message += f" (the {peak.kind} memory's peak was {peak.num_bytes / 2**30:.2f} GiB)"
    return ClipFailed(
        clip_id=spec.clip_id,
        name=spec.name,
        model=spec.model.name,
        request=spec.request,
        attempt=attempt,
        failure_class=failure_class,
        may_pass_on_retry=may_pass,
        error_type=type(error).__name__,
        message=shortened(redact(message)),
        traceback=shortened(redact("".join(traceback.format_exception(error))), MAX_BLOCK),
        worker=f"{socket.gethostname()}:{os.getpid()}",
        timings=timings,
        is_spooled=is_spooled,
        group_error=type(error) if isinstance(error, GroupError) else None,
    )


def _peak_memory(device: DeviceMonitor) -> PeakMemory | None:
    """Return the peak memory, or None from a device that does not answer any more."""
    try:
        return device.peak_memory()
    except RuntimeError:
        return None
