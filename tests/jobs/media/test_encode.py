import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import DiskFullError, EncodeError
from jobs.media.decode_check import decode_mp4
from jobs.media.encode import encode_mp4, encoding_arguments, fitted, frame_rate
from jobs.media.tags import format_ffmetadata, parse_ffmetadata, read_metadata
from jobs.settings.run_config import EncodingConfig
from pipelines.request import VideoFrames

FAST = EncodingConfig(preset="ultrafast")


def one_colour(colour: tuple[int, int, int], num_frames: int = 5, fps: float = 8) -> VideoFrames:
    return VideoFrames(np.full((num_frames, 32, 48, 3), colour, np.uint8), fps)


def noise(num_frames: int = 9, fps: float = 8) -> VideoFrames:
    return VideoFrames(
        np.random.default_rng(0).integers(0, 256, (num_frames, 32, 48, 3), np.uint8), fps
    )


def ffmpeg(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", *arguments]
    return subprocess.run(command, capture_output=True, check=False)


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 30, 120)]
)
def test_a_pure_colour_comes_back_within_three_levels(
    tmp_path: Path, colour: tuple[int, int, int]
) -> None:
    encode_mp4(one_colour(colour), tmp_path / "clip.mp4", EncodingConfig(), {})
    decoded = decode_mp4(tmp_path / "clip.mp4").frames
    assert np.abs(decoded.astype(int) - np.array(colour)).max() <= 3


@pytest.mark.parametrize(
    ("colour", "luma"),
    [
        ((255, 0, 0), 16 + 219 * 0.2126),
        ((0, 255, 0), 16 + 219 * 0.7152),
        ((0, 0, 255), 16 + 219 * 0.0722),
    ],
)
def test_luma_is_computed_with_the_bt709_matrix_in_limited_range(
    tmp_path: Path, colour: tuple[int, int, int], luma: float
) -> None:
    path = tmp_path / "clip.mp4"
    encode_mp4(one_colour(colour), path, EncodingConfig(), {})
    planes = ffmpeg(
        "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"
    ).stdout
    assert np.abs(np.frombuffer(planes, np.uint8)[: 32 * 48] - luma).max() <= 1.5


def test_the_stream_is_h264_yuv420p_and_bt709_without_sound(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    encode_mp4(noise(), path, EncodingConfig(), {})
    said = ffmpeg("-i", str(path)).stderr.decode()
    assert "h264" in said
    assert "yuv420p(tv, bt709, progressive)" in said
    assert "Audio" not in said


def test_the_index_stands_before_the_data(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    encode_mp4(noise(), path, FAST, {})
    assert 0 < path.read_bytes().find(b"moov") < path.read_bytes().find(b"mdat")


@pytest.mark.parametrize("fps", [1, 8, 16, 23.976, 24000 / 1001, 30000 / 1001, 12.5, 240])
@pytest.mark.parametrize("num_frames", [1, 2, 9])
def test_rate_and_count_are_exact(tmp_path: Path, fps: float, num_frames: int) -> None:
    encode_mp4(noise(num_frames, fps), tmp_path / "clip.mp4", FAST, {})
    decoded = decode_mp4(tmp_path / "clip.mp4")
    assert decoded.frames.shape == (num_frames, 32, 48, 3)
    assert decoded.fps == pytest.approx(fps, rel=1e-6)


@pytest.mark.parametrize(
    ("size", "small"),
    [
        ((832, 480), (480, 276)),
        ((480, 832), (276, 480)),
        ((64, 64), (64, 64)),
        ((8192, 2), (480, 2)),
    ],
)
def test_a_small_mp4_keeps_the_proportions_and_even_sides(
    size: tuple[int, int], small: tuple[int, int]
) -> None:
    assert fitted(*size, 480) == small


def test_a_small_mp4_has_every_frame_and_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    encode_mp4(one_colour((200, 30, 120)), path, FAST, {"a": "b"}, max_px=24)
    decoded = decode_mp4(path)
    assert decoded.frames.shape == (5, 16, 24, 3)
    assert decoded.fps == 8
    assert np.abs(decoded.frames.astype(int) - (200, 30, 120)).max() <= 3
    assert read_metadata(path) == {"a": "b"}


def test_a_frame_rate_becomes_its_exact_ratio() -> None:
    assert (frame_rate(23.976).as_integer_ratio(), frame_rate(24000 / 1001).as_integer_ratio()) == (
        (2997, 125),
        (24000, 1001),
    )


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "-leading",
        "a=b;c#d\\e'f\"g",
        "two\nlines\r\nand\ta tab\r",
        "ends in a backslash\\",
        "\\\n\\\\",
        "[STREAM]\n;comment\n#comment\n\n",
        "  spaces  ",
        "ein Kreis läuft; 円が動く 🎈\u2028",
        "é=\\#" * 5000,
        "🎈" * 20_000 + "\\",
    ],
)
def test_metadata_comes_back_exactly(tmp_path: Path, value: str) -> None:
    tags = {"clip_id": value, "comment": value, "z.last": "end"}
    encode_mp4(noise(1), tmp_path / "clip.mp4", FAST, tags)
    assert read_metadata(tmp_path / "clip.mp4") == tags


METADATA_TEXT = st.text(
    st.one_of(
        st.sampled_from("\\\n\r=;#[]'\"-"),
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=15, deadline=None)
@given(first=METADATA_TEXT, second=METADATA_TEXT)
def test_any_text_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, first: str, second: str
) -> None:
    path = tmp_path_factory.mktemp("metadata") / "clip.mp4"
    encode_mp4(noise(1), path, FAST, {"first": first, "second": second})
    assert read_metadata(path) == {"first": first, "second": second}


@pytest.mark.parametrize(
    "tags",
    [
        {"": "x"},
        {"a=b": "x"},
        {"-a": "x"},
        {"a": ""},
        {"a": "\0"},
        {"encoder": "x"},
        {"a": "\ud800"},
    ],
)
def test_metadata_that_would_not_survive_is_refused(tags: dict[str, str]) -> None:
    with pytest.raises(EncodeError, match="metadata"):
        format_ffmetadata(tags)


def test_tags_of_a_stream_are_not_taken_for_tags_of_the_file() -> None:
    assert parse_ffmetadata(b";FFMETADATA1\na=\\[x\nb\\=c=d\n[STREAM]\ne=f\n") == {
        "a": "[x",
        "b=c": "d",
    }


def test_tags_that_are_not_utf_8_are_read_with_replacement_characters() -> None:
    assert parse_ffmetadata(b";FFMETADATA1\na=\xff\n") == {"a": "\ufffd"}


def test_the_same_frames_give_the_same_bytes_without_date_or_version(tmp_path: Path) -> None:
    for name in ("one.mp4", "two.mp4"):
        encode_mp4(noise(), tmp_path / name, EncodingConfig(), {"clip_id": "x"})
    written = (tmp_path / "one.mp4").read_bytes()
    assert written == (tmp_path / "two.mp4").read_bytes()
    assert b"x264 - core" not in written
    assert b"Lavf" not in written


def test_a_file_name_is_never_an_option_a_pattern_or_a_protocol(tmp_path: Path) -> None:
    path = tmp_path / "-y http:%03d ü'\".mp4"
    encode_mp4(noise(1), path, FAST, {"a": "b"})
    assert read_metadata(path) == {"a": "b"}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 32, 48, 3), np.float32),
        np.zeros((32, 48, 3), np.uint8),
        np.zeros((2, 32, 48, 4), np.uint8),
        np.zeros((0, 32, 48, 3), np.uint8),
        np.zeros((2, 31, 48, 3), np.uint8),
        np.zeros((2, 32, 49, 3), np.uint8),
        np.zeros((2, 32, 96, 3), np.uint8)[:, :, ::2],
    ],
)
def test_frames_that_would_be_changed_are_refused(tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(EncodeError, match=r"\(T, H, W, 3\)"):
        encode_mp4(VideoFrames(frames, 8), tmp_path / "clip.mp4", FAST, {})
    assert not list(tmp_path.iterdir())


def test_the_error_holds_ffmpegs_last_lines_and_no_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.media.encode.COLOUR_FILTERS", "no_such_filter")
    with pytest.raises(EncodeError, match="no_such_filter"):
        encode_mp4(noise(), tmp_path / "clip.mp4", FAST, {})
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"before")
    monkeypatch.setattr("jobs.media.encode.COLOUR_FILTERS", "no_such_filter")
    with pytest.raises(EncodeError):
        encode_mp4(noise(), path, FAST, {})
    assert path.read_bytes() == b"before"


def test_a_disk_that_fills_up_under_ffmpeg_is_retryable_and_ffmpegs_lines_are_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to_the_full_device(*arguments: Any) -> list[str]:
        return [*encoding_arguments(*arguments)[:-1], "file:/dev/full"]

    monkeypatch.setattr("jobs.media.encode.encoding_arguments", to_the_full_device)
    with pytest.raises(DiskFullError, match=r"free some, or set workers\.spool_folder") as caught:
        encode_mp4(noise(), tmp_path / "clip.mp4", FAST, {})
    assert "ffmpeg failed with code" in str(caught.value.__cause__)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_an_encode_error(tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match="cannot write"):
        encode_mp4(noise(), tmp_path / "missing" / "clip.mp4", FAST, {})


def test_a_missing_ffmpeg_is_an_encode_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "missing"))
    with pytest.raises(EncodeError, match="cannot start ffmpeg"):
        encode_mp4(noise(), tmp_path / "clip.mp4", FAST, {})


def test_reading_the_tags_of_garbage_is_an_encode_error(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"garbage" * 100)
    with pytest.raises(EncodeError, match="ffmpeg failed"):
        read_metadata(tmp_path / "clip.mp4")
