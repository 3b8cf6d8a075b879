"""Decode a finished MP4, every frame of it, and refuse a clip that differs from its request.

Compares count, size and rate. It does not look at what the frames show. The decoder may conceal
bits flipped inside a frame, which is why a clip's bytes are named by their digest.
"""

import contextlib
import io
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from jobs.errors import CheckError
from pipelines.request import VideoShape

if TYPE_CHECKING:
    import numpy as np

# finer than 24 against 23.976, coarser than an MP4's ratio against its decimal
FPS_RELATIVE_TOLERANCE = 1e-4
MAX_BOXES = 100_000  # at the top level; a fragmented MP4 has two for each fragment


@dataclass(frozen=True, eq=False)
class DecodedVideo:
    """The frames and the rate of a file."""

    frames: "np.ndarray"  # (T, H, W, 3) uint8
    fps: float


def check_mp4(path: Path, shape: VideoShape, fps: float) -> None:
    """Prove that every frame of an MP4 decodes, and that count, size and rate are as requested.

    Holds one frame at a time, and decodes no more frames than were requested.

    Raises:
        CheckError: naming every difference, expected and found; or the file does not decode.
    """
    with _reading(path) as reader:
        num_frames, found_fps = len(reader), float(reader.get_avg_fps())
        sizes = {
            f"{frame.shape[1]}x{frame.shape[0]}"
            for frame in islice(_frames(reader), shape.num_frames)
        }
    differences: list[str] = []
    if num_frames != shape.num_frames:
        differences.append(f"expected {shape.num_frames} frames, found {num_frames}")
    if sizes != {f"{shape.width}x{shape.height}"}:
        found = ", ".join(sorted(sizes)) or "no frame"
        differences.append(f"expected {shape.width}x{shape.height} pixels, found {found}")
    if abs(found_fps - fps) > fps * FPS_RELATIVE_TOLERANCE:
        differences.append(f"expected {fps:g} frames per second, found {found_fps:g}")
    if differences:
        raise CheckError(f"{path.name}: {'; '.join(differences)}")


def decode_mp4(path: Path) -> DecodedVideo:
    """Decode a whole MP4 into memory.

    Raises:
        CheckError: the file is missing, empty, cut off or not a video.
    """
    import numpy as np

    with _reading(path) as reader:
        return DecodedVideo(np.stack(list(_frames(reader))), float(reader.get_avg_fps()))


@contextlib.contextmanager
def opened_frames(path: Path) -> "Generator[tuple[int, Iterator[np.ndarray]]]":
    """Open an MP4, and yield the number of its frames and the frames, one after another.

    Raises:
        CheckError: the file is missing, empty, cut off or not a video.
    """
    with _reading(path) as reader:
        yield len(reader), _frames(reader)


def decoder_version() -> str:
    """Return decord's version.

    Raises:
        CheckError: decord does not load on this machine.
    """
    try:
        import decord
    except (ImportError, OSError) as error:
        raise CheckError(f"decord does not load: {error}") from error
    return str(decord.__version__)


@contextlib.contextmanager
def opened_video(video: io.BytesIO, name: str) -> "Generator[tuple[int, Iterator[np.ndarray]]]":
    """Do as `opened_frames`, for an MP4 in memory.

    Args:
        name: name of the video in errors.
    """
    with decord_errors(name):
        check_boxes_of(video, len(video.getbuffer()), name)
        video.seek(0)
        reader = _reader(video)
        yield len(reader), _frames(reader)


@contextlib.contextmanager
def _reading(path: Path) -> Generator[Any]:
    """Open an MP4 with decord."""
    check_boxes(path)
    with decord_errors(path.name):
        yield _reader(str(path))


def _reader(source: str | io.BytesIO) -> Any:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    return decord.VideoReader(source, ctx=decord.cpu(0), num_threads=1)


@contextlib.contextmanager
def decord_errors(name: str) -> Generator[None]:
    """Turn the errors of decord into CheckError.

    decord's quirks: a file that it cannot open is a RuntimeError, anything later a DECORDError,
    which is a plain Exception; its messages run over many lines, the C++ stack included; the ffmpeg
    inside it writes to standard error.
    """
    import decord

    try:
        yield
    except (
        decord.DECORDError,
        AssertionError,  # the file has no frame
        RuntimeError,
        ValueError,
        IndexError,
        OSError,
        StopIteration,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckError(f"{name} does not decode: {reason}") from error


def _frames(reader: Any) -> "Iterator[np.ndarray]":
    return (without_padding(reader.next().asnumpy()) for _ in range(len(reader)))


def without_padding(frame: "np.ndarray") -> "np.ndarray":
    """Return a frame as (H, W, 3), whatever shape decord gives it.

    At some small widths (8, 16, 24, 48, 72 and others) decord pads the rows and calls the result
    (H, W, 4) or (H, W, 12); its `get_batch` fails on such a frame.
    """
    height, width, _ = frame.shape
    return frame.reshape(height, -1)[:, : width * 3].reshape(height, width, 3)


def check_boxes(path: Path) -> None:
    """Refuse a file whose top-level MP4 boxes do not end exactly where the file ends.

    Source: ISO/IEC 14496-12, 4.2: a box is its length in four bytes, its type in four, its content.

    Raises:
        CheckError: the file is not an MP4, is cut off, or bytes follow its last box.
    """
    try:
        num_bytes = path.stat().st_size
        with path.open("rb") as file:
            check_boxes_of(file, num_bytes, path.name)
    except OSError as error:
        raise CheckError(f"cannot read {path.name}: {error.strerror or error}") from error


def check_boxes_of(file: BinaryIO, num_bytes: int, name: str) -> None:
    """Do as `check_boxes`, for a file that is open at its start and has `num_bytes`."""
    position, kinds = 0, list[bytes]()
    while position < num_bytes:
        header = file.read(16)
        length, kind = int.from_bytes(header[:4]), header[4:8]
        if length == 1:  # the length did not fit in four bytes and follows in eight
            length = int.from_bytes(header[8:16])
        if length < 8 or position + length > num_bytes:
            raise CheckError(
                f"{name} is cut off or no MP4: box {kind!r} at byte {position:,} of {num_bytes:,}"
            )
        kinds.append(kind)
        if len(kinds) > MAX_BOXES:
            raise CheckError(f"{name} is not an MP4: it has more than {MAX_BOXES:,} boxes")
        position += length
        file.seek(position)
    if kinds[:1] != [b"ftyp"] or b"moov" not in kinds or b"mdat" not in kinds:
        raise CheckError(f"{name} is not an MP4: expected ftyp, moov and mdat, got {kinds[:8]}")
