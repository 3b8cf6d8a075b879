"""The poster of a clip and its thumbnail: one frame as a JPEG, large and small.

Decides the frame, the sizes and the quality. The middle frame shows more of a clip than the first
one, which may be a fade or the prompt's scene before anything moves.
"""

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.errors import EncodeError
from jobs.media.ffmpeg import run_ffmpeg

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

POSTER_PX, THUMBNAIL_PX = 1280, 320  # the greatest width
POSTER_QUALITY, THUMBNAIL_QUALITY = 85, 80


@dataclass(frozen=True)
class Posters:
    """A frame of a clip as two JPEGs."""

    poster: bytes = field(repr=False)
    thumbnail: bytes = field(repr=False)


def draw_posters(frames_THWC: "np.ndarray") -> Posters:
    """Return the posters of a clip's frames, uint8."""
    from PIL import Image

    return _posters_of(Image.fromarray(frames_THWC[middle(len(frames_THWC))]))


def posters_of_mp4(mp4: bytes, num_frames: int) -> Posters:
    """Return the posters of an MP4 whose index stands at its front, as `encode_mp4` writes it.

    Decodes half of the frames, so that it takes longer than `draw_posters`.

    Args:
        num_frames: number of its frames.

    Raises:
        EncodeError: ffmpeg cannot read it, or it has fewer frames.
        EncoderKilledError, OSError: as `run_ffmpeg`.
    """
    from PIL import Image, UnidentifiedImageError

    chosen = rf"select=eq(n\,{middle(num_frames)}),scale='min({POSTER_PX},iw)':-1"
    arguments = [
        *("-f", "mp4", "-i", "pipe:0", "-map", "0:v:0", "-frames:v", "1"),
        *("-vf", f"{chosen}:in_color_matrix=bt709", "-f", "image2pipe", "-c:v", "ppm", "pipe:1"),
    ]  # fmt: skip
    picture = run_ffmpeg(arguments, memoryview(mp4))
    try:
        with Image.open(io.BytesIO(picture), formats=["PPM"]) as image:
            return _posters_of(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError) as error:
        raise EncodeError(f"the MP4 has no frame {middle(num_frames)}: {error}") from error


def middle(num_frames: int) -> int:
    """Return the number of the frame that stands for a clip, from 0."""
    return num_frames // 2


def _posters_of(image: "Image") -> Posters:
    return Posters(
        _jpeg(image, POSTER_PX, POSTER_QUALITY), _jpeg(image, THUMBNAIL_PX, THUMBNAIL_QUALITY)
    )


def _jpeg(image: "Image", max_width: int, quality: int) -> bytes:
    from PIL.Image import Resampling

    if image.width > max_width:
        height = max(1, round(image.height * max_width / image.width))
        # It averages whole pixels first, which takes a third of the time and looks the same.
        image = image.resize((max_width, height), Resampling.LANCZOS, reducing_gap=2.0)
    body = io.BytesIO()
    image.save(body, "JPEG", quality=quality)
    return body.getvalue()
