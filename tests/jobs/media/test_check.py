import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import CheckError
from jobs.media.decode_check import check_mp4, decode_mp4
from jobs.media.encode import encode_mp4
from jobs.settings.run_config import EncodingConfig
from pipelines.request import VideoFrames, VideoShape

SHAPE = VideoShape(num_frames=9, height=32, width=48)


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    frames = np.random.default_rng(0).integers(0, 256, (9, 32, 48, 3), np.uint8)
    path = tmp_path_factory.mktemp("check") / "clip.mp4"
    encode_mp4(VideoFrames(frames, 8), path, EncodingConfig(), {"clip_id": "x"})
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, mp4: bytes) -> Path:
    (tmp_path / "clip.mp4").write_bytes(mp4)
    return tmp_path / "clip.mp4"


def test_a_clip_as_requested_passes(path: Path) -> None:
    check_mp4(path, SHAPE, 8.0)


def test_frames_come_back_in_order(tmp_path: Path) -> None:
    frames = np.empty((12, 32, 48, 3), np.uint8)
    frames[:] = np.arange(0, 240, 20).astype(np.uint8)[:, None, None, None]
    encode_mp4(VideoFrames(frames, 8), tmp_path / "clip.mp4", EncodingConfig(), {})
    assert np.abs(decode_mp4(tmp_path / "clip.mp4").frames.astype(int) - frames).max() <= 3


@pytest.mark.parametrize("width", [6, 8, 12, 16, 24, 48, 64, 72, 854])
def test_a_width_that_decord_pads_decodes_all_the_same(tmp_path: Path, width: int) -> None:
    frames = np.zeros((3, 32, width, 3), np.uint8)
    frames[:, :, : width // 2] = (200, 30, 120)
    frames[:, :16, width // 2 :] = (0, 255, 0)
    encode_mp4(VideoFrames(frames, 8), tmp_path / "clip.mp4", EncodingConfig(crf=1), {})
    decoded = decode_mp4(tmp_path / "clip.mp4").frames
    assert decoded.shape == frames.shape
    # the columns next to the edge carry its mixed chroma
    assert np.median(np.abs(decoded.astype(int) - frames)) <= 3
    assert np.abs(decoded[:, 2:14, -1].astype(int) - (0, 255, 0)).max() <= 3


@pytest.mark.parametrize(
    ("shape", "fps", "message"),
    [
        (VideoShape(10, 32, 48), 8.0, "expected 10 frames, found 9"),
        (VideoShape(9, 48, 32), 8.0, "expected 32x48 pixels, found 48x32"),
        (SHAPE, 16.0, "expected 16 frames per second, found 8"),
        (SHAPE, 8.008, "expected 8.008 frames per second, found 8"),
    ],
)
def test_a_difference_is_named(path: Path, shape: VideoShape, fps: float, message: str) -> None:
    with pytest.raises(CheckError, match=message):
        check_mp4(path, shape, fps)


def test_all_differences_are_named_at_once(path: Path) -> None:
    with pytest.raises(CheckError, match=r"5 frames.*64x64.*24 frames per second"):
        check_mp4(path, VideoShape(5, 64, 64), 24.0)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, mp4: bytes) -> None:
    path = tmp_path / "clip.mp4"
    for length in [*range(0, 64, 7), *range(64, len(mp4), len(mp4) // 40), len(mp4) - 1]:
        path.write_bytes(mp4[:length])
        with pytest.raises(CheckError):
            check_mp4(path, SHAPE, 8.0)


def test_an_mp4_with_bytes_after_its_end_is_refused(path: Path, mp4: bytes) -> None:
    path.write_bytes(mp4 + b"tail of another file")
    with pytest.raises(CheckError, match="cut off or no MP4"):
        check_mp4(path, SHAPE, 8.0)


def test_data_that_is_not_video_is_refused(path: Path, mp4: bytes) -> None:
    start = mp4.find(b"mdat") + 4
    path.write_bytes(mp4[:start] + b"\xff" * (len(mp4) - start))
    with pytest.raises(CheckError, match=r"does not decode|found"):
        check_mp4(path, SHAPE, 8.0)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 64, b"garbage" * 1000, b"\x00\x00\x00\x18ftypisom" + b"\0" * 12]
)
def test_a_file_that_is_not_an_mp4_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CheckError, match="MP4"):
        check_mp4(path, SHAPE, 8.0)


def test_a_missing_file_is_a_check_error(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="cannot read"):
        check_mp4(tmp_path / "missing.mp4", SHAPE, 8.0)


def test_damage_never_kills_the_process_nor_escapes_as_another_error(
    tmp_path: Path, mp4: bytes
) -> None:
    """Run in a process of its own, since decord's C++ might crash it."""
    (tmp_path / "clip.mp4").write_bytes(mp4)
    script = """
import random, sys
from pathlib import Path
from jobs.media.decode_check import check_mp4
from jobs.errors import CheckError
from pipelines.request import VideoShape
path = Path(sys.argv[1])
whole, chooser, refused = path.read_bytes(), random.Random(0), 0
for attempt in range(60):
    damaged = bytearray(whole)
    for _ in range(chooser.choice([1, 8, 64])):
        damaged[chooser.randrange(len(damaged) if attempt % 2 else 1500)] = chooser.randrange(256)
    path.write_bytes(damaged)
    try:
        check_mp4(path, VideoShape(9, 32, 48), 8.0)
    except CheckError:
        refused += 1
print(refused)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "clip.mp4")]
    finished = subprocess.run(command, capture_output=True, check=False, timeout=60, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert int(finished.stdout) > 10
