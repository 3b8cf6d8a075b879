"""The poster and the thumbnail of a clip: the right frame, size and colour, from any road."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.errors import EncodeError
from jobs.media.encode import encode_mp4
from jobs.media.posters import draw_posters, middle, posters_of_mp4
from jobs.settings.run_config import EncodingConfig
from pipelines.request import VideoFrames

GREEN = (40, 170, 60)


def clip(width: int, height: int, num_frames: int = 5) -> np.ndarray:
    """Return black frames with a green one in the middle."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames[num_frames // 2] = GREEN
    return frames


def pixels(jpeg: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
        return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    ("width", "height", "poster", "thumbnail"),
    [
        (64, 32, (32, 64), (32, 64)),
        (832, 480, (480, 832), (185, 320)),
        (1920, 1080, (720, 1280), (180, 320)),
        (480, 832, (832, 480), (555, 320)),
        (2562, 2, (1, 1280), (1, 320)),
    ],
)
def test_posters_show_the_middle_frame_and_are_scaled_down_only(
    width: int, height: int, poster: tuple[int, int], thumbnail: tuple[int, int]
) -> None:
    drawn = draw_posters(clip(width, height, num_frames=3))
    assert pixels(drawn.poster).shape == (*poster, 3)
    assert pixels(drawn.thumbnail).shape == (*thumbnail, 3)
    for jpeg in (drawn.poster, drawn.thumbnail):
        assert np.abs(pixels(jpeg) - GREEN).max() <= 3


@pytest.mark.parametrize("num_frames", [1, 2, 5, 8])
def test_posters_of_an_mp4_are_those_of_its_frames_but_for_the_encoding(
    tmp_path: Path, num_frames: int
) -> None:
    frames, path = clip(64, 48, num_frames), tmp_path / "clip.mp4"
    encode_mp4(VideoFrames(frames, 8), path, EncodingConfig(preset="ultrafast"), {})
    found = posters_of_mp4(path.read_bytes(), num_frames)
    assert np.abs(pixels(found.poster) - pixels(draw_posters(frames).poster)).max() <= 4


def test_posters_of_a_large_mp4_are_scaled_down_too(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    encode_mp4(VideoFrames(clip(1600, 80), 8), path, EncodingConfig(preset="ultrafast"), {})
    found = posters_of_mp4(path.read_bytes(), 5)
    assert pixels(found.poster).shape == (64, 1280, 3)
    assert pixels(found.thumbnail).shape == (16, 320, 3)


def test_an_mp4_without_the_frame_has_no_posters(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    encode_mp4(VideoFrames(clip(32, 32), 8), path, EncodingConfig(preset="ultrafast"), {})
    with pytest.raises(EncodeError, match="no frame 50"):
        posters_of_mp4(path.read_bytes(), 100)
    with pytest.raises(EncodeError):
        posters_of_mp4(path.read_bytes()[:300], 5)
    with pytest.raises(EncodeError):
        posters_of_mp4(b"not an MP4", 5)


def test_one_frame_is_its_own_middle() -> None:
    assert [middle(num_frames) for num_frames in (1, 2, 3, 81)] == [0, 1, 1, 40]
