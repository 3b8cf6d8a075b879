"""Encode frames as an MP4.

Decides everything about the file: H.264, yuv420p, limited range, BT.709 in the tags and in the
arithmetic, AAC for a clip with sound, the index at the front, and no date or library version
inside, so that the same frames and sound give the same bytes. `decode_check` proves that the file
decodes.
"""

import tempfile
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import EncodeError
from jobs.failures import disk_errors, is_machine_failure, is_out_of_memory
from jobs.media import sound
from jobs.media.ffmpeg import run_ffmpeg
from jobs.media.tags import format_ffmetadata
from jobs.settings.run_config import EncodingConfig
from pipelines.request import VideoFrames

if TYPE_CHECKING:
    import numpy as np

# fixed, because libx264's choices depend on how many threads it has
ENCODER_THREADS = "4"

SMALL_BITS_PER_S = "1M"
TAGS_FILE, SOUND_FILE, UNFINISHED_FILE = "tags.txt", "sound.f32", "clip.mp4"

# By default swscale converts by BT.601, and it writes primaries and transfer only if frames have
# them.
COLOUR_FILTERS = (
    "scale=in_range=full:out_range=limited:out_color_matrix=bt709"
    ":flags=bicubic+accurate_rnd+full_chroma_int+bitexact,"
    "format=yuv420p,"
    "setparams=range=limited:color_primaries=bt709:color_trc=bt709:colorspace=bt709"
)


def encode_mp4(
    video: VideoFrames,
    path: Path,
    config: EncodingConfig,
    metadata: Mapping[str, str],
    max_px: int | None = None,
) -> None:
    """Write frames and their sound as an MP4 whose bytes depend on nothing but the arguments.

    The file appears at `path` whole or not at all.

    Args:
        metadata: the file's tags. Their values may hold anything but NUL and half surrogate pairs,
            and are not empty.
        max_px: for a small MP4, to look at: the longest side, to which larger frames are scaled,
            and a bit rate that even noise keeps.

    Raises:
        EncodeError: the frames are not (T, H, W, 3) uint8 of even size, the sound is not float32 of
            a rate that AAC has, a tag cannot be written, or ffmpeg failed.
        EncoderKilledError: ffmpeg was killed.
        DiskFullError: the disk of `path` is full.
        OSError: the machine is out of memory or files, or its disk is broken: not the clip's fault.
    """
    check_frames(video.frames)
    if video.audio is not None:
        sound.check_audio(video.audio)
    tags = format_ffmetadata(metadata)
    try:
        with (
            disk_errors(path.parent),
            tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem[:32]}-") as folder,
        ):
            place = Path(folder).resolve()
            place.joinpath(TAGS_FILE).write_bytes(tags)
            if video.audio is not None:
                sound.write_samples(video.audio, place / SOUND_FILE)
            run_ffmpeg(
                encoding_arguments(video, config, place, max_px), video.frames.data.cast("B")
            )
            place.joinpath(UNFINISHED_FILE).replace(path)
    except OSError as error:
        if is_out_of_memory(error) or is_machine_failure(error):
            raise
        raise EncodeError(f"cannot write {path.name}: {error.strerror or error}") from error


def encoding_arguments(
    video: VideoFrames, config: EncodingConfig, folder: Path, max_px: int | None = None
) -> list[str]:
    """Return ffmpeg's arguments.

    The frames come by standard input, the tags and the sound by files.

    Args:
        folder: has these files, and gets the MP4.
    """
    _, height, width, _ = video.frames.shape
    rate = frame_rate(video.fps)
    filters, limit = COLOUR_FILTERS, list[str]()
    if max_px is not None:
        small_width, small_height = fitted(width, height, max_px)
        filters = filters.replace("scale=", f"scale=w={small_width}:h={small_height}:", 1)
        limit = ["-maxrate", SMALL_BITS_PER_S, "-bufsize", SMALL_BITS_PER_S]
    heard, encoded = list[str](), list[str]()
    if video.audio is not None:
        heard = sound.input_arguments(video.audio, folder / SOUND_FILE)
        encoded = ["-map", "2:a", *sound.output_arguments(config.audio_kbit_s)]
    # `file:` keeps ffmpeg from reading a protocol or an option into a name
    return [
        *("-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}"),
        *("-framerate", f"{rate.numerator}/{rate.denominator}", "-i", "pipe:0"),
        *("-f", "ffmetadata", "-i", f"file:{folder / TAGS_FILE}", *heard),
        *("-map", "0:v", "-map_metadata", "1", "-map_chapters", "-1", "-vf", filters),
        *("-c:v", "libx264", "-preset", config.preset, "-crf", str(config.crf), *limit),
        *("-threads", ENCODER_THREADS, "-color_primaries", "bt709", "-color_trc", "bt709"),
        *("-colorspace", "bt709", "-color_range", "tv", *encoded),
        # unit 6 is where libx264 writes its version and options
        *("-bsf:v", "filter_units=remove_types=6", "-flags:v", "+bitexact", "-fflags", "+bitexact"),
        *("-movflags", "+use_metadata_tags+faststart", "-f", "mp4"),
        f"file:{folder / UNFINISHED_FILE}",
    ]  # fmt: skip


def fitted(width: int, height: int, max_px: int) -> tuple[int, int]:
    """Return the even size, at most `max_px` wide and high, that is nearest to these proportions.

    A size that fits already stays.
    """
    factor = min(1.0, max_px / max(width, height))
    return (max(2, 2 * round(width * factor / 2)), max(2, 2 * round(height * factor / 2)))


def frame_rate(fps: float) -> Fraction:
    """Return frames per second as the exact ratio that an MP4 stores.

    23.976023976... becomes 24000/1001, and 23.976 becomes 2997/125.
    """
    return Fraction(fps).limit_denominator(100_000)


def check_frames(frames: "np.ndarray") -> None:
    """Refuse frames that libx264 with yuv420p would refuse, or would resize.

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
