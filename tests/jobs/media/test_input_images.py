"""Images that clips begin with come out upright, as 8-bit sRGB, in the size of the clip."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from jobs.errors import InputError
from jobs.media.fitting import fit_picture
from jobs.media.input_images import read_image
from jobs.media.input_videos import check_video, read_video
from pipelines.clip_inputs import Fit
from tests.builders.input_files import BLUE, RED, image_bytes, saved, video_bytes

SRGB: Any = ImageCms.createProfile("sRGB")


def colour_of(content: bytes) -> list[int]:
    """Return the colour of an image of one colour."""
    pixels = read_image(content).reshape(-1, 3)
    assert (pixels == pixels[0]).all()
    return pixels[0].tolist()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_colour_stays_the_same_in_every_mode_of_8_bits(mode: str) -> None:
    assert colour_of(saved(Image.new("RGB", (32, 16), RED).convert(mode))) == [*RED]


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_a_grey_image_has_three_equal_channels(mode: str) -> None:
    assert colour_of(saved(Image.new("L", (32, 16), 255).convert(mode))) == [255] * 3


def test_16_bits_become_8_by_rounding() -> None:
    greys = np.repeat(np.array([0, 127, 129, 257, 32_768, 65_535], np.uint16), 6)
    image = Image.fromarray(np.broadcast_to(greys, (16, 36)).copy())
    assert image.mode == "I;16"
    found = read_image(saved(image))
    assert found[0, ::6].tolist() == [[grey] * 3 for grey in (0, 0, 1, 1, 128, 255)]


def test_cmyk_without_a_profile_becomes_rgb_by_the_plain_formula() -> None:
    cmyk = Image.new("CMYK", (32, 16), (255, 0, 0, 0))  # cyan
    red, green, blue = colour_of(saved(cmyk, format="JPEG", quality=100))
    assert red < 5
    assert min(green, blue) > 250


def test_a_colour_profile_is_converted_to_srgb() -> None:
    """A profile whose green is its red: red pixels become green ones."""
    linear = image_bytes((128, 128, 128), icc_profile=ImageCms.ImageCmsProfile(SRGB).tobytes())
    assert colour_of(linear) == [128] * 3  # sRGB itself changes nothing
    swapped = bytearray(ImageCms.ImageCmsProfile(SRGB).tobytes())
    entries = {bytes(swapped[at : at + 4]): at for at in range(132, 132 + 12 * 20, 12)}
    red, green = entries[b"rXYZ"], entries[b"gXYZ"]
    place_of_red = bytes(swapped[red + 4 : red + 12])
    swapped[red + 4 : red + 12] = swapped[green + 4 : green + 12]
    swapped[green + 4 : green + 12] = place_of_red
    found = colour_of(image_bytes((255, 0, 0), icc_profile=bytes(swapped)))
    assert found[1] > 250
    assert max(found[0], found[2]) < 60


def test_a_profile_for_other_pixels_is_refused() -> None:
    profile = ImageCms.ImageCmsProfile(SRGB).tobytes()
    cmyk = saved(Image.new("CMYK", (32, 16)), format="JPEG", icc_profile=profile)
    with pytest.raises(InputError, match="colour profile is not one for CMYK pixels; save the"):
        read_image(cmyk)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_exif_is_applied(orientation: int) -> None:
    """A camera that was turned writes its pixels turned, and says so."""
    upright = Image.new("RGB", (64, 32), BLUE)
    upright.paste(RED, (0, 0, 16, 16))  # at the top left
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    written = upright if turn is None else upright.transpose(turn)
    found = read_image(saved(written, exif=exif))
    assert np.array_equal(found, np.asarray(upright))


def test_an_image_that_is_transparent_anywhere_is_refused() -> None:
    image = Image.new("P", (32, 16), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert colour_of(saved(image)) == [10, 20, 30]
    with pytest.raises(InputError, match="the image has transparent pixels"):
        read_image(saved(image, transparency=0))
    assert colour_of(saved(image, transparency=1)) == [10, 20, 30]  # no pixel has that colour
    with pytest.raises(InputError, match="the image has transparent pixels"):
        read_image(saved(Image.new("RGB", (32, 16), RED), transparency=RED))


@pytest.mark.parametrize(
    ("fit", "corner", "middle"),
    [("cover", RED, RED), ("stretch", BLUE, RED), ("contain", (0, 0, 0), RED)],
)
def test_a_wide_picture_is_fitted_into_a_square(
    fit: Fit, corner: tuple[int, ...], middle: tuple[int, ...]
) -> None:
    wide = np.empty((40, 120, 3), np.uint8)
    wide[:] = BLUE
    wide[:, 30:90] = RED  # the middle, wider than a square
    found = fit_picture(wide, 32, 32, fit)
    assert found.shape == (32, 32, 3)
    assert found[0, 0].tolist() == [*corner]
    assert found[16, 16].tolist() == [*middle]
    assert np.array_equal(found, fit_picture(wide, 32, 32, fit))
    assert np.array_equal(found, found[:, ::-1]), "left and right lose as much"


def test_contain_adds_equal_borders_and_keeps_all_of_the_picture() -> None:
    tall = np.full((80, 20, 3), 255, np.uint8)
    found = fit_picture(tall, 64, 32, "contain")
    assert found.any(axis=(0, 2)).tolist() == [28 <= column < 36 for column in range(64)]
    assert found[:, 28:36].min() == 255


@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
def test_a_picture_of_the_clips_size_is_not_resampled(fit: Fit) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    assert np.array_equal(fit_picture(noise, 48, 32, fit), noise)


def test_a_video_is_read_up_to_the_frames_that_a_clip_needs(tmp_path: Any) -> None:
    content = video_bytes(tmp_path, 9, 48, 64)
    assert check_video(content) == 9
    frames = list(read_video(content, 5))
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 5
    assert [round(float(frame.mean()) / 32) for frame in frames] == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="the video has 9 frames, the clip needs 10"):
        list(read_video(content, 10))


def test_a_jpeg_with_a_second_picture_for_a_screen_is_one_image() -> None:
    first, body = Image.new("RGB", (32, 16), RED), io.BytesIO()
    first.save(body, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16), BLUE)])
    assert read_image(body.getvalue()).shape == (16, 32, 3)
