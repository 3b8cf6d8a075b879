"""Decode a finished MP4, frames and sound, and refuse a clip that differs from its request.

Compares count, size and rate, the tracks, and the length of the sound. It does not look at what the
frames show. The decoder may conceal bits flipped inside a frame, which is why a clip's bytes are
named by their digest.
"""

import contextlib
import io
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.errors import CheckError
from jobs.media.boxes import Track, check_boxes, check_boxes_of, read_tracks
from jobs.media.sound import decode_sound
from jobs.types import AudioFacts
from pipelines.request import VideoShape

if TYPE_CHECKING:
    import numpy as np

# finer than 24 against 23.976, coarser than an MP4's ratio against its decimal
FPS_RELATIVE_TOLERANCE = 1e-4
SOUND_CODE = "mp4a"  # AAC in an MP4


@dataclass(frozen=True, eq=False)
class DecodedVideo:
    """The frames and the rate of a file."""

    frames: "np.ndarray"  # (T, H, W, 3) uint8
    fps: float


def check_mp4(path: Path, shape: VideoShape, fps: float, audio: AudioFacts | None = None) -> None:
    """Prove that every frame of an MP4 decodes, and that count, size, rate and sound are right.

    Holds one frame at a time, and decodes no more frames than were requested.

    Args:
        audio: the sound that it must have; None for a file that must have none.

    Raises:
        CheckError: naming every difference, expected and found; or the file does not decode.
    """
    with _reading(path) as reader:
        num_frames, found_fps = len(reader), float(reader.get_avg_fps())
        sizes = {
            f"{frame.shape[1]}x{frame.shape[0]}"
            for frame in islice(_frames(reader), shape.num_frames)
        }
    differences = _track_differences(read_tracks(path), audio)
    if num_frames != shape.num_frames:
        differences.append(f"expected {shape.num_frames} frames, found {num_frames}")
    if sizes != {f"{shape.width}x{shape.height}"}:
        found = ", ".join(sorted(sizes)) or "no frame"
        differences.append(f"expected {shape.width}x{shape.height} pixels, found {found}")
    if abs(found_fps - fps) > fps * FPS_RELATIVE_TOLERANCE:
        differences.append(f"expected {fps:g} frames per second, found {found_fps:g}")
    if audio is not None and not differences:
        sound_s = len(decode_sound(path, audio.channels)) / audio.sample_rate
        for name, expected_s in (
            ("", audio.duration_s),
            (", as the video", shape.num_frames / fps),
        ):
            if abs(sound_s - expected_s) > 1 / fps:
                differences.append(
                    f"expected {expected_s:.4g} s of sound{name}, within one frame, found "
                    f"{sound_s:.4g} s"
                )
    if differences:
        raise CheckError(f"{path.name}: {'; '.join(differences)}")


def _track_differences(tracks: Sequence[Track], audio: AudioFacts | None) -> list[str]:
    """Return a line for each difference between the tracks and those expected."""
    expected = ["vide", *(["soun"] if audio else [])]
    if [track.kind for track in tracks] != expected:
        wanted = "one video track and " + ("one of sound" if audio else "no sound")
        return [f"expected {wanted}, found {', '.join(map(str, tracks)) or 'no track'}"]
    if audio is None:
        return []
    sound = tracks[1]
    found = (sound.codec, sound.timescale, sound.channels)
    if found == (SOUND_CODE, audio.sample_rate, audio.channels):
        return []
    return [
        f"expected sound as {SOUND_CODE}, {audio.sample_rate} Hz, {audio.channels} channels, found "
        "{}, {} Hz, {} channels".format(*found)
    ]


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
