"""Every error has a class of failure, and states whether a retry may help."""

import errno

import pytest
import torch

from jobs.errors import (
    CheckError,
    DiskFullError,
    EncoderKilledError,
    ObjectExistsError,
    ObjectMissingError,
    RecordError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
)
from jobs.failures import classify
from pipelines.errors import FrameCheckError, RequestError


class AcceleratorError(RuntimeError):
    """An error with the name that torch gives to errors of a device."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CheckError("x"), ("clip", False)),
        (StoreRefusedError("x"), ("store", False)),
        (StoreUnavailableError("x"), ("store", True)),
        (RequestError("x"), ("request", False)),
        (torch.OutOfMemoryError("x"), ("memory", True)),
        (MemoryError(), ("memory", True)),
        (FrameCheckError("x"), ("clip", True)),
        (DiskFullError("x"), ("store", True)),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
            ),
            ("memory", True),
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
            ("memory", True),
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), ("memory", True)),
        (EncoderKilledError("x"), ("memory", True)),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), ("worker", True)),
        (AcceleratorError("x"), ("worker", True)),
        (OSError(errno.EROFS, "Read-only file system"), ("worker", True)),
        (RecordError("a newer nagfarm may have written this record"), ("code", False)),
        (StoreError("x"), ("code", False)),
        (ObjectExistsError("x"), ("code", False)),
        (ObjectMissingError("x"), ("code", False)),
        (FileNotFoundError(errno.ENOENT, "x"), ("code", False)),
        (RuntimeError("shape mismatch"), ("code", False)),
        (KeyError("x"), ("code", False)),
    ],
)
def test_an_error_is_classified(error: Exception, expected: tuple[str, bool]) -> None:
    assert classify(error) == expected
