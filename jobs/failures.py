"""The class of a failure, whether a retry may help, and the errors of a full disk.

Each of the project's own errors states its class. Other errors are classified by the resource that
failed: memory, machine or unknown. A full disk is retryable: the clip waits for space, as it waits
in an outage of the store. Loads without torch, whose error classes are matched by their names.
"""

import errno
import shutil
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import DiskFullError, FailureClass, JobError
from pipelines.errors import FrameCheckError, GroupError, PipelineError
from pipelines.third_party_texts import (
    DEVICE_FAILED,
    DISK_FULL,
    DISK_FULL_ERRNOS,
    OUT_OF_MEMORY,
    begins_with,
    contains,
)

MACHINE_ERRNOS = DISK_FULL_ERRNOS | {errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE}


def classify(error: Exception) -> tuple[FailureClass, bool]:
    """Return the class of a failure, and whether it may pass on a retry."""
    if isinstance(error, JobError):
        return error.failure_class, error.may_pass_on_retry
    if isinstance(error, GroupError):
        return "worker", True
    if isinstance(error, FrameCheckError):
        return "clip", True  # the retry uses exact attention
    if isinstance(error, PipelineError):
        return "request", False
    if is_out_of_memory(error):
        return "memory", True
    return ("worker", True) if is_machine_failure(error) else ("code", False)


def is_out_of_memory(error: Exception) -> bool:
    """Return True if the memory of the device or of the host is exhausted."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    is_text = isinstance(error, RuntimeError) and contains(str(error), OUT_OF_MEMORY)
    return is_text or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def is_machine_failure(error: Exception) -> bool:
    """Return True if the machine failed: a broken device, or a full or broken disk.

    A broken device fails at everything it is asked to do from then on.
    """
    if isinstance(error, OSError):
        return error.errno in MACHINE_ERRNOS
    is_text = isinstance(error, RuntimeError) and begins_with(str(error), DEVICE_FAILED)
    return is_text or type(error).__name__ == "AcceleratorError"


@contextmanager
def disk_errors(folder: Path) -> Generator[None]:
    """Raise DiskFullError where the operating system reports a full disk.

    Args:
        folder: the folder that the block writes to, for the message.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise disk_full(folder) from error


def disk_full(folder: Path) -> DiskFullError:
    host = socket.gethostname()
    return DiskFullError(
        f"no space for encoded clips in {folder} on {host}: free some, or set workers.spool_folder"
    )


def check_free(folder: Path, num_bytes: int) -> None:
    """Raise DiskFullError if the disk of an existing folder has less free space than this."""
    if shutil.disk_usage(folder).free < num_bytes:
        raise disk_full(folder)


def reports_full_disk(message: str) -> bool:
    """Return True if the message of another program reports a full disk."""
    return contains(message, DISK_FULL)
