"""Which class of failure an exception is, and whether another attempt may pass.

Decides it for our own errors by what they say of themselves, for others by who is to blame: the device's or the host's
memory, the machine, or nobody known. Loads without torch, whose errors are known by name.
"""

import errno

from jobs.errors import FailureClass, JobError, StoreError, StoreRefusedError, StoreUnavailableError
from pipelines.errors import FrameCheckError, GroupError, PipelineError

MEMORY_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "ALLOC_FAILED",
)  # torch's allocators', cuBLAS' and cuDNN's
MACHINE_ERRNOS = frozenset(
    {errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT}
)


def classify(error: Exception) -> tuple[FailureClass, bool]:
    """The class of a failure, and whether another attempt may pass."""
    if isinstance(error, StoreError) and not isinstance(
        error, StoreRefusedError | StoreUnavailableError
    ):
        return "code", False  # one object is not as it should be; the store is
    if isinstance(error, JobError):
        return error.failure_class, error.may_pass_on_retry
    if isinstance(error, GroupError):
        return "worker", True
    if isinstance(error, PipelineError):
        is_picture = isinstance(error, FrameCheckError)  # which may pass with the safer setting
        return ("clip", True) if is_picture else ("request", False)
    if is_out_of_memory(error):
        return "memory", True
    return ("worker", True) if is_of_machine(error) else ("code", False)


def is_out_of_memory(error: Exception) -> bool:
    """Of the device or the host."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    is_text = isinstance(error, RuntimeError) and any(text in str(error) for text in MEMORY_TEXTS)
    return is_text or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def is_of_machine(error: Exception) -> bool:
    """A device that has failed, and fails whatever is asked of it from now on; a disk that is full or broken."""
    if isinstance(error, OSError):
        return error.errno in MACHINE_ERRNOS
    is_text = isinstance(error, RuntimeError) and str(error).startswith("CUDA error")
    return is_text or type(error).__name__ == "AcceleratorError"
