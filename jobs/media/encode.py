"""Turns frames into an MP4, and reads an MP4's tags back.

Decides everything about the file: H.264, yuv420p, limited range, BT.709 in the tags and in the arithmetic, the index at
the front, no sound, and no date or library version inside, so that the same frames give the same bytes. Whether the
file decodes to what was asked for is for `check` to say, where it goes for `store`.
"""

import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import imageio_ffmpeg

from jobs.config import EncodingConfig
from jobs.disk import disk_errors, disk_full, says_disk_full
from jobs.errors import EncodeError, EncoderKilledError
from jobs.failure_classes import is_of_machine, is_out_of_memory
from pipelines.request import VideoFrames

if TYPE_CHECKING:
    import numpy as np

# fixed, because libx264's choices depend on how many threads it has
ENCODER_THREADS = "4"

# swscale converts by BT.601 unless it is told, and writes primaries and transfer only if the frames carry them
COLOUR_FILTERS = (
    "scale=in_range=full:out_range=limited:out_color_matrix=bt709:flags=bicubic+accurate_rnd+full_chroma_int+bitexact,"
    "format=yuv420p,"
    "setparams=range=limited:color_primaries=bt709:color_trc=bt709:colorspace=bt709"
)

# what the container says of itself
CONTAINER_KEYS = frozenset(
    {"major_brand", "minor_version", "compatible_brands", "encoder", "creation_time"}
)
METADATA_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.]*")
STDERR_LINES_SHOWN = 8


def encode_mp4(
    video: VideoFrames, path: Path, config: EncodingConfig, metadata: Mapping[str, str]
) -> None:
    """Writes frames as an MP4 whose bytes depend on nothing but the arguments.

    The file appears at `path` whole or not at all. `metadata` becomes its tags, whose values may hold anything but NUL
    and half surrogate pairs, and are not empty.

    Raises:
        EncodeError: the frames are not (T, H, W, 3) uint8 of even size, a tag cannot be written, or ffmpeg failed.
        EncoderKilledError: ffmpeg was killed.
        DiskFullError: there is no space beside `path`.
        OSError: the machine is out of memory or files, or its disk is broken: no fault of the clip's.
    """
    check_frames(video.frames)
    tags = format_ffmetadata(metadata)
    rate = frame_rate(video.fps)
    _, height, width, _ = video.frames.shape
    try:
        with (
            disk_errors(path.parent),
            tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem[:32]}-") as folder,
        ):
            tags_path, unfinished = (
                Path(folder, "tags.txt").resolve(),
                Path(folder, "clip.mp4").resolve(),
            )
            tags_path.write_bytes(tags)
            # `file:` keeps ffmpeg from reading a protocol or an option into a name
            command = [
                *("-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}"),
                *("-framerate", f"{rate.numerator}/{rate.denominator}", "-i", "pipe:0"),
                *("-f", "ffmetadata", "-i", f"file:{tags_path}"),
                *(
                    "-map",
                    "0:v",
                    "-map_metadata",
                    "1",
                    "-map_chapters",
                    "-1",
                    "-vf",
                    COLOUR_FILTERS,
                ),
                *(
                    "-c:v",
                    "libx264",
                    "-preset",
                    config.preset,
                    "-crf",
                    str(config.crf),
                    "-threads",
                    ENCODER_THREADS,
                ),
                *(
                    "-color_primaries",
                    "bt709",
                    "-color_trc",
                    "bt709",
                    "-colorspace",
                    "bt709",
                    "-color_range",
                    "tv",
                ),
                # unit 6 is where libx264 writes its version and options
                *(
                    "-bsf:v",
                    "filter_units=remove_types=6",
                    "-flags:v",
                    "+bitexact",
                    "-fflags",
                    "+bitexact",
                ),
                *("-movflags", "+use_metadata_tags+faststart", "-f", "mp4", f"file:{unfinished}"),
            ]
            try:
                run_ffmpeg(command, video.frames.data.cast("B"))
            except EncodeError as error:
                if says_disk_full(str(error)):
                    raise disk_full(path.parent) from error
                raise
            unfinished.replace(path)
    except OSError as error:
        if is_out_of_memory(error) or is_of_machine(error):
            raise
        raise EncodeError(f"cannot write {path.name}: {error.strerror or error}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The tags of an MP4, without those that the container writes about itself.

    Raises:
        EncodeError: ffmpeg cannot read the file.
    """
    command = ["-i", f"file:{path.resolve()}", "-map_metadata", "0", "-f", "ffmetadata", "pipe:1"]
    tags = parse_ffmetadata(run_ffmpeg(command, memoryview(b"")))
    return {key: value for key, value in tags.items() if key not in CONTAINER_KEYS}


def frame_rate(fps: float) -> Fraction:
    """Frames per second as MP4 stores it, an exact ratio: 24000/1001 of 23.976023976..., 2997/125 of 23.976."""
    return Fraction(fps).limit_denominator(100_000)


def check_frames(frames: "np.ndarray") -> None:
    """Refuses what libx264 with yuv420p would refuse, or would resize.

    Raises:
        EncodeError: saying what was expected and what came.
    """
    expected = "frames must be a C-contiguous uint8 array (T, H, W, 3) with T >= 1 and H and W even"
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype.name != "uint8":
        raise EncodeError(f"{expected}, not {frames.dtype} {frames.shape}")
    num_frames, height, width, _ = frames.shape
    if (
        num_frames < 1
        or height < 2
        or width < 2
        or height % 2
        or width % 2
        or not frames.flags.c_contiguous
    ):
        raise EncodeError(f"{expected}, not {frames.shape} with strides {frames.strides}")


def run_ffmpeg(arguments: list[str], frames: memoryview) -> bytes:
    """Runs ffmpeg, `frames` on its standard input, and returns its standard output.

    Raises:
        EncodeError: ffmpeg is missing or failed, with the last lines that it said.
    """
    try:
        command = [
            find_ffmpeg(),
            "-hide_banner",
            "-nostdin",
            "-loglevel",
            "error",
            "-y",
            *arguments,
        ]
        finished = subprocess.run(command, input=frames, capture_output=True, check=False)
    except OSError as error:
        if is_out_of_memory(error) or is_of_machine(error):
            raise
        raise EncodeError(f"cannot start ffmpeg: {error}") from error
    if finished.returncode == -signal.SIGKILL:
        raise EncoderKilledError("ffmpeg was killed, as by a machine that is out of memory")
    if finished.returncode != 0:
        said = finished.stderr.decode(errors="replace").strip().splitlines()[-STDERR_LINES_SHOWN:]
        raise EncodeError(
            f"ffmpeg failed with code {finished.returncode}: {chr(10).join(said) or 'it said nothing'}"
        )
    return finished.stdout


def find_ffmpeg() -> str:
    """The ffmpeg that clips are encoded with.

    Raises:
        EncodeError: there is none.
    """
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise EncodeError(f"no ffmpeg: {error}") from error


def format_ffmetadata(metadata: Mapping[str, str]) -> bytes:
    """Tags as ffmpeg's metadata file. They go by file, since one argument of a command is limited to 128 KiB.

    Source: https://ffmpeg.org/ffmpeg-formats.html#Metadata-2

    Raises:
        EncodeError: a key or a value would not come back as it went in.
    """
    lines = [";FFMETADATA1\n"]
    for key, value in metadata.items():
        if not METADATA_KEY.fullmatch(key) or key in CONTAINER_KEYS:
            raise EncodeError(
                f"a metadata key is letters, digits, '_' and '.', and not the container's own: {key!r}"
            )
        if not value or "\0" in value:
            raise EncodeError(f"metadata {key!r} must not be empty nor hold NUL")
        escaped = re.sub(r"([=;#\\\n\r])", r"\\\1", value)
        # after a line feed alone ffmpeg would take a value's last backslash for the escape of that line feed
        lines.append(f"{key}={escaped}\0\n")
    try:
        return "".join(lines).encode()
    except UnicodeEncodeError as error:
        raise EncodeError(
            f"metadata is not valid Unicode: {error.reason} at {error.start}"
        ) from error


def parse_ffmetadata(text: bytes) -> dict[str, str]:
    """The global tags of a metadata file as ffmpeg writes it."""
    tags: dict[str, str] = {}
    # an entry ends at a line feed that no backslash escapes
    for match in re.finditer(rb"((?:[^\\\n]|\\.)*)\n", text, re.DOTALL):
        entry = match.group(1)
        if entry.startswith(b"["):
            break
        if entry.startswith((b";", b"#")) or not entry:
            continue
        pair = re.fullmatch(rb"((?:[^\\=]|\\.)*)=(.*)", entry, re.DOTALL)
        if pair:
            key, value = (
                re.sub(rb"\\(.)", rb"\1", part, flags=re.DOTALL).decode() for part in pair.groups()
            )
            tags[key] = value
    return tags
