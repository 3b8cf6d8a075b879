"""Decodes a finished MP4 again, every frame of it, and refuses what is not the clip that was asked for.

Decides on count, size and rate. It does not look at what the frames show; and bits flipped inside a frame may be
concealed by the decoder, which is why a clip's bytes are named by their digest.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import CheckError
from pipelines.request import VideoShape

if TYPE_CHECKING:
    import numpy as np

# finer than 24 against 23.976, coarser than an MP4's ratio against its decimal
FPS_RELATIVE_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class DecodedVideo:
    """What a file decodes to."""

    frames: "np.ndarray"  # (T, H, W, 3) uint8
    fps: float


def check_mp4(path: Path, shape: VideoShape, fps: float) -> None:
    """Proves that every frame of an MP4 decodes, and that they are as many, as large and as fast as asked for.

    Raises:
        CheckError: naming everything that differs, expected and found; or the file does not decode.
    """
    decoded = decode_mp4(path)
    num_frames, height, width, _ = decoded.frames.shape
    differences: list[str] = []
    if num_frames != shape.num_frames:
        differences.append(f"expected {shape.num_frames} frames, found {num_frames}")
    if (width, height) != (shape.width, shape.height):
        differences.append(f"expected {shape.width}x{shape.height} pixels, found {width}x{height}")
    if abs(decoded.fps - fps) > fps * FPS_RELATIVE_TOLERANCE:
        differences.append(f"expected {fps:g} frames per second, found {decoded.fps:g}")
    if differences:
        raise CheckError(f"{path.name}: {'; '.join(differences)}")


def decode_mp4(path: Path) -> DecodedVideo:
    """Decodes a whole MP4 into memory. The only place that knows decord.

    decord's quirks: a file that it cannot open is a RuntimeError, anything later a DECORDError, which is a plain
    Exception; its messages run over many lines, the C++ stack included; ffmpeg inside it writes to standard error.

    Raises:
        CheckError: the file is missing, empty, cut off or no video.
    """
    import decord
    import numpy as np

    check_boxes(path)
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        frames = np.stack([without_padding(reader.next().asnumpy()) for _ in range(len(reader))])
        fps = float(reader.get_avg_fps())
    except (
        decord.DECORDError,
        RuntimeError,
        ValueError,
        IndexError,
        OSError,
        StopIteration,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckError(f"{path.name} does not decode: {reason}") from error
    return DecodedVideo(frames, fps)


def without_padding(frame: "np.ndarray") -> "np.ndarray":
    """A frame as (H, W, 3), whatever decord says of it.

    At some small widths (8, 16, 24, 48, 72 and others) decord pads the rows and calls the result (H, W, 4) or
    (H, W, 12); its `get_batch` fails on such a frame.
    """
    height, width, _ = frame.shape
    return frame.reshape(height, -1)[:, : width * 3].reshape(height, width, 3)


def check_boxes(path: Path) -> None:
    """Refuses a file whose top-level MP4 boxes do not end exactly where the file ends.

    Source: ISO/IEC 14496-12, 4.2: a box is its length in four bytes, its type in four, and its content.

    Raises:
        CheckError: no MP4, cut off, or something follows it.
    """
    try:
        num_bytes = path.stat().st_size
        with path.open("rb") as file:
            position, kinds = 0, list[bytes]()
            while position < num_bytes:
                header = file.read(16)
                length, kind = int.from_bytes(header[:4]), header[4:8]
                if length == 1:  # the length did not fit in four bytes and follows in eight
                    length = int.from_bytes(header[8:16])
                if length < 8 or position + length > num_bytes:
                    raise CheckError(
                        f"{path.name} is cut off or no MP4: box {kind!r} at byte {position:,} of {num_bytes:,}"
                    )
                kinds.append(kind)
                position += length
                file.seek(position)
    except OSError as error:
        raise CheckError(f"cannot read {path.name}: {error.strerror or error}") from error
    if kinds[:1] != [b"ftyp"] or b"moov" not in kinds or b"mdat" not in kinds:
        raise CheckError(f"{path.name} is no MP4: it holds {kinds[:8]} and not ftyp, moov and mdat")
