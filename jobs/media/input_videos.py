"""Videos that clips begin with: checked, and read frame by frame.

A video is an MP4 or a QuickTime file whose boxes are whole. Its frames are taken as they come,
whatever its rate. Its first frame is decoded to check it, and the others when a clip needs them.
"""

import io
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from jobs.errors import CheckError, InputError
from jobs.media.decode_check import opened_video
from jobs.media.input_images import MIN_SIDE_PX

if TYPE_CHECKING:
    import numpy as np

MAX_VIDEO_BYTES = 256 * 1024 * 1024
MAX_VIDEO_FRAMES = 100_000
MAX_VIDEO_SIDE_PX = 8192


def is_video(content: bytes) -> bool:
    """Return True for bytes that begin as an MP4 does."""
    return content[4:8] == b"ftyp"


def check_video(content: bytes) -> int:
    """Prove that a video can be opened, and return the number of its frames.

    Raises:
        InputError: it cannot; the message says why.
    """
    with _opened(content) as (num_frames, frames):
        for _ in frames:
            return num_frames
    raise InputError("the video has no frame")


def read_video(content: bytes, num_frames: int) -> "Iterator[np.ndarray]":
    """Yield the first frames of a video, each (H, W, 3) uint8.

    Raises:
        InputError: it has fewer, or it does not decode.
    """
    with _opened(content) as (total, frames):
        if total < num_frames:
            raise InputError(f"the video has {total} frames, the clip needs {num_frames}")
        yield from islice(frames, num_frames)


@contextmanager
def _opened(content: bytes) -> "Generator[tuple[int, Iterator[np.ndarray]]]":
    if not content:
        raise InputError("the file is empty")
    if len(content) > MAX_VIDEO_BYTES:
        raise InputError(f"a video must be at most {MAX_VIDEO_BYTES:,} bytes")
    if not is_video(content):
        raise InputError("expected an MP4 or QuickTime video")
    try:
        with opened_video(io.BytesIO(content), "the video") as (num_frames, frames):
            if num_frames > MAX_VIDEO_FRAMES:
                raise InputError(
                    f"a video must have at most {MAX_VIDEO_FRAMES:,} frames, not {num_frames:,}"
                )
            yield num_frames, map(_checked, frames)
    except CheckError as error:
        raise InputError(str(error)) from error


def _checked(frame: "np.ndarray") -> "np.ndarray":
    height, width, _ = frame.shape
    if min(width, height) < MIN_SIDE_PX or max(width, height) > MAX_VIDEO_SIDE_PX:
        raise InputError(
            f"a video must have {MIN_SIDE_PX} to {MAX_VIDEO_SIDE_PX:,} pixels a side, "
            f"not {width}x{height}"
        )
    return frame
