"""A few frames of an MP4, made small, and text in a picture; for sheets and comparisons."""

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageFont

from jobs.errors import RefusedError
from jobs.media.decode_check import opened_frames

if TYPE_CHECKING:
    import numpy as np

MAX_CHARACTERS = 1000  # wider than a picture
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def sample_frames(path: Path, num_frames: int, width: int) -> "np.ndarray":
    """Return some frames of an MP4 from first to last, at most so wide: (T, H, W, 3) uint8.

    Memory holds these frames and one more, however long the clip is.

    Raises:
        CheckError: the file is missing, empty, cut off or not a video.
    """
    import numpy as np

    with opened_frames(path) as (total, frames):
        last = max(total - 1, 0)
        wanted = set(np.linspace(0, last, min(num_frames, total)).round().astype(int).tolist())
        return np.stack([narrowed(frame, width) for at, frame in enumerate(frames) if at in wanted])


def narrowed(frame: "np.ndarray", width: int) -> "np.ndarray":
    """Return a frame at most so wide, and as high as its sides ask for."""
    import numpy as np

    height, own_width, _ = frame.shape
    if own_width <= width:
        return frame
    size = width, max(round(height * width / own_width), 1)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def load_font(path: Path | None, size_px: int) -> Font:
    """Return a font of a file, or the packaged one, which has Latin letters alone.

    Raises:
        RefusedError: the file is not a font.
    """
    if path is None:
        return ImageFont.load_default(size_px)
    try:
        return ImageFont.truetype(str(path), size_px)
    except OSError as error:
        raise RefusedError(
            f"--font: expected a TrueType or OpenType font, got {path}: {error}"
        ) from error


def fitting(text: str, width_px: int, font: Font) -> str:
    """Return the text as one line, cut to fit."""
    text = " ".join(text[:MAX_CHARACTERS].split())
    if font.getlength(text) <= width_px:
        return text
    low, high = 0, len(text)  # so many letters fit, and so many do not
    while high - low > 1:
        middle = (low + high) // 2
        fits = font.getlength(text[:middle] + "...") <= width_px
        low, high = (middle, high) if fits else (low, middle)
    return text[:low].rstrip() + "..."
