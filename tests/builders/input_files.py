"""Small images and videos that clips begin with."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jobs.media.encode import encode_mp4
from jobs.settings.run_config import EncodingConfig
from pipelines.request import VideoFrames

RED, BLUE = (200, 30, 40), (20, 60, 220)


def image_bytes(
    colour: Any = RED, size: tuple[int, int] = (64, 48), mode: str = "RGB", **options: Any
) -> bytes:
    """Return an image of one colour, a PNG unless `format` says otherwise."""
    return saved(Image.new(mode, size, colour), **options)


def saved(image: Image.Image, **options: Any) -> bytes:
    """Return an image as the bytes of a file."""
    body = io.BytesIO()
    image.save(body, **{"format": "PNG", **options})
    return body.getvalue()


def video_bytes(folder: Path, num_frames: int = 17, height: int = 48, width: int = 64) -> bytes:
    """Return an MP4 that becomes brighter, from black to white."""
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    frames[:] = np.linspace(0, 255, num_frames).astype(np.uint8)[:, None, None, None]
    path = folder / "made.mp4"
    encode_mp4(VideoFrames(frames, 8.0), path, EncodingConfig(preset="ultrafast"), {})
    try:
        return path.read_bytes()
    finally:
        path.unlink()
