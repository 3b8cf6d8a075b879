"""Images that clips begin with: checked, and read as 8-bit sRGB in RGB.

Decides which images are taken: PNG, JPEG and WebP with one frame, in bounded bytes, pixels and
sides. EXIF's orientation is applied, a colour profile is converted to sRGB, and 16 bits become 8.
An image with transparent pixels is refused, since nothing says what lies behind it. The size is
known from the header, before a pixel is decoded.
"""

import io
import struct
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jobs.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

MAX_IMAGE_BYTES = 64 * 1024 * 1024
MAX_IMAGE_PIXELS = 64 * 1024 * 1024
MIN_SIDE_PX, MAX_SIDE_PX = 16, 16_384
FORMATS = ("PNG", "JPEG", "WEBP")
# Pillow's plugins raise all of these for bytes that they do not understand.
_UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError,
    RuntimeError, AttributeError, struct.error,
)  # fmt: skip


def check_image(content: bytes) -> None:
    """Prove that an image can be used; decode all of it.

    Raises:
        InputError: it cannot; the message says why.
    """
    read_image(content)


def read_image(content: bytes) -> "np.ndarray":
    """Return an image upright, as (H, W, 3) uint8 in sRGB.

    Raises:
        InputError: it cannot be used; the message says why.
    """
    import numpy as np

    if not content:
        raise InputError("the file is empty")
    if len(content) > MAX_IMAGE_BYTES:
        raise InputError(f"an image must be at most {MAX_IMAGE_BYTES:,} bytes")
    with _opened(content) as image:
        return np.ascontiguousarray(np.asarray(_in_srgb(image), dtype=np.uint8))


@contextmanager
def _opened(content: bytes) -> "Generator[Image]":
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_header(image)
            image.load()
            yield ImageOps.exif_transpose(image)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError("expected a PNG, JPEG or WebP image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(_too_large("more")) from error
    except MemoryError:
        raise
    except _UNREADABLE as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"the image does not decode: {reason}") from error


def _check_header(image: "Image") -> None:
    width, height = image.size
    # a JPEG with further pictures for a second screen begins with the main one
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise InputError("the image is animated; save the frame that is meant as an image")
    if width * height > MAX_IMAGE_PIXELS or max(width, height) > MAX_SIDE_PX:
        raise InputError(_too_large(f"{width:,}x{height:,}"))
    if min(width, height) < MIN_SIDE_PX:
        raise InputError(
            f"an image must have at least {MIN_SIDE_PX} pixels a side, not {width}x{height}"
        )


def _too_large(came: str) -> str:
    return (
        f"an image must have at most {MAX_IMAGE_PIXELS:,} pixels and {MAX_SIDE_PX:,} a side, "
        f"not {came}"
    )


def _in_srgb(image: "Image") -> "Image":
    """Return an image in the mode RGB. `image.info` holds its colour profile."""
    profile: bytes | None = image.info.get("icc_profile")
    image = _without_alpha(_in_8_bit(image))
    if profile:
        return _converted(image, profile)
    return image if image.mode == "RGB" else image.convert("RGB")


def _in_8_bit(image: "Image") -> "Image":
    """Return a grey image of 16 bits in 8; Pillow reads colours of 16 bits as 8."""
    import numpy as np
    from PIL import Image

    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F" or values.min() < 0 or values.max() > 65_535:
        raise InputError(f"pixels must have 8 or 16 bits, not those of the mode {image.mode}")
    return Image.fromarray((values / 257).round().astype(np.uint8))


def _without_alpha(image: "Image") -> "Image":
    """Return an opaque image without its alpha channel.

    Raises:
        InputError: some pixels are transparent.
    """
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif "transparency" in image.info and image.mode in ("1", "L", "RGB"):
        image = image.convert("RGBA")
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La"):
        return image
    alpha: Any = image.getchannel(len(image.getbands()) - 1).getextrema()
    if alpha[0] < 255:
        raise InputError(
            "the image has transparent pixels; put it on a background and save it without them"
        )
    return image.convert("L" if image.mode in ("LA", "La") else "RGB")


def _converted(image: "Image", profile: bytes) -> "Image":
    """Return an image in sRGB by its colour profile."""
    from PIL import ImageCms

    remedy = "save the image as sRGB"
    try:
        source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(
            str(source.profile.xcolor_space).strip()
        )
        if mode == "RGB" and image.mode in ("1", "L"):
            image = image.convert("RGB")
        elif mode == "L" and image.mode == "1":
            image = image.convert("L")
        if mode != image.mode:
            raise InputError(f"the colour profile is not one for {image.mode} pixels; {remedy}")
        target = ImageCms.createProfile("sRGB")
        found = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, *_UNREADABLE) as error:
        raise InputError(f"the colour profile cannot be read; {remedy}") from error
    assert found is not None, "it is not converted in place"
    return found
