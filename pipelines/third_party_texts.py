"""Texts of other libraries' errors that decide something, each with the version it was seen in.

Torch, gloo and ffmpeg report unlike failures by one error class or exit code, so their text is the
only thing that tells these failures apart. No other module searches a message for such a text.
After an upgrade of one of these libraries, check the table against its new texts. Loads without
torch.
"""

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass

_NO_GPU = "documented for torch 2.13's CUDA build; not met so far, since nothing ran on a GPU"


@dataclass(frozen=True)
class KnownText:
    """A part of another library's error message.

    Args:
        text: the part, as the library writes it.
        source: the library and its version, and the error that the text belongs to.
    """

    text: str
    source: str


OUT_OF_MEMORY = (
    KnownText("out of memory", "torch 2.13.0: the allocators of devices; NCCL"),
    KnownText("can't allocate memory", "torch 2.13.0: DefaultCPUAllocator"),
    KnownText("ALLOC_FAILED", f"cuBLAS and cuDNN, {_NO_GPU}"),
)

# At the beginning of the message. After it, a device fails at everything it is asked to do.
DEVICE_FAILED = (KnownText("CUDA error", _NO_GPU),)

# Seen on the ranks that wait for a rank that left or died.
CONNECTION_LOST = (
    KnownText("/gloo/", "torch 2.13.0: gloo's errors begin with the path of their source file"),
    KnownText("onnection closed by peer", "torch 2.13.0: gloo"),
    KnownText("onnection reset", "torch 2.13.0: gloo, TCPStore"),
    KnownText(
        "rocess group", "torch 2.13.0: a process group that was never formed or is destroyed"
    ),
    KnownText("NCCL", _NO_GPU),
)

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
DISK_FULL = tuple(
    KnownText(os.strerror(number), "ffmpeg 9.0.2 of imageio-ffmpeg 0.8.1: the C library's words")
    for number in sorted(DISK_FULL_ERRNOS)
)


def contains(message: str, known: Iterable[KnownText]) -> bool:
    """Return True if one of the known texts is in the message."""
    return any(entry.text in message for entry in known)


def begins_with(message: str, known: Iterable[KnownText]) -> bool:
    """Return True if the message begins with one of the known texts."""
    return message.startswith(tuple(entry.text for entry in known))
