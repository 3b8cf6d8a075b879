"""Several clips in one MP4: their places, captions, lengths, rates and sound."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import CheckError, RefusedError
from jobs.media.comparison import (
    ComparedClip,
    ComparisonParams,
    layout_of,
    write_comparison,
)
from jobs.media.decode_check import decode_mp4
from jobs.media.ffmpeg import find_ffmpeg, run_ffmpeg
from jobs.media.frames import fitting, load_font, sample_frames
from tests.builders.pictures import BLUE, GREEN, RED, Colour, ColouredClip

NO_PARAMS = ComparisonParams()


def compared(clip: ColouredClip, folder: Path, *captions: str) -> ComparedClip:
    height, width = clip.size
    path = clip.write(folder / f"{clip.name}.mp4")
    captions = captions or (clip.name,)
    return ComparedClip(path, width, height, clip.num_frames, clip.fps, captions)


def is_about(frame: np.ndarray, place: tuple[int, int], colour: Colour) -> bool:
    left, top = place
    return bool(np.abs(frame[top, left].astype(int) - np.array(colour)).max() < 14)


def test_each_clip_is_in_its_cell_and_a_shorter_one_holds_its_last_frame(tmp_path: Path) -> None:
    short = ColouredClip("short", RED, GREEN, num_frames=3, fps=4.0)  # 0.75 s
    long = ColouredClip("long", BLUE, RED, size=(64, 32), num_frames=9, fps=8.0)  # 1.125 s
    clips = [compared(short, tmp_path), compared(long, tmp_path)]
    write_comparison(clips, tmp_path / "out.mp4", NO_PARAMS)
    video, layout = decode_mp4(tmp_path / "out.mp4"), layout_of(clips, NO_PARAMS)
    assert (video.fps, len(video.frames)) == (8.0, 9)
    assert video.frames.shape[1:3] == (layout.height, layout.width)
    middles = [
        (left + layout.cell_width // 2, top + layout.cell_height // 2)
        for left, top in layout.places
    ]
    assert is_about(video.frames[0], middles[0], RED)
    assert is_about(video.frames[0], middles[1], BLUE)
    assert all(is_about(frame, middles[0], GREEN) for frame in video.frames[5:])
    assert is_about(video.frames[-1], middles[1], RED)
    beside = layout.places[1][0] + 4, middles[1][1]  # the narrow clip is centred in its cell
    assert not is_about(video.frames[0], beside, BLUE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.mp4", "out.mp4", "short.mp4"]


def test_captions_of_any_text_stand_below_their_clips(tmp_path: Path) -> None:
    texts = ("it's 100%: [a];,\\n", "%{pts} \x1b[2J \U0001f98a \u202e")
    clips = [compared(ColouredClip(name), tmp_path, *texts) for name in ("one", "two")]
    clips[1] = replace(clips[1], captions=("", ""))
    write_comparison(clips, tmp_path / "out.mp4", NO_PARAMS)
    frame, layout = decode_mp4(tmp_path / "out.mp4").frames[0], layout_of(clips, NO_PARAMS)
    below = [
        frame[top + layout.cell_height + 4 :, left : left + layout.cell_width]
        for left, top in layout.places
    ]
    assert below[0].max() > 150
    assert below[1].max() < 60


@pytest.mark.parametrize(
    ("number", "columns", "grid"),
    [(2, None, (2, 1)), (3, None, (3, 1)), (4, None, (2, 2)), (5, None, (3, 2)),
     (9, None, (3, 3)), (4, 4, (4, 1)), (3, 9, (3, 1)), (2, 1, (1, 2))],
)  # fmt: skip
def test_the_grid_is_nearly_square_unless_columns_are_given(
    number: int, columns: int | None, grid: tuple[int, int]
) -> None:
    clips = [ComparedClip(Path("x"), 47, 33, 5, 8.0, ("a",))] * number
    layout = layout_of(clips, ComparisonParams(columns=columns))
    lefts, tops = ({place[axis] for place in layout.places} for axis in (0, 1))
    assert (len(lefts), len(tops)) == grid
    assert len(set(layout.places)) == number
    assert not [one for one in (layout.width, layout.height, layout.cell_width) if one % 2]


def with_sound(path: Path) -> None:
    """Add a tone to an MP4."""
    loud = path.with_suffix(".loud.mp4")
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=0.5", "-c:v", "copy", "-shortest"]
    run_ffmpeg(["-i", f"file:{path}", *tone, f"file:{loud}"], memoryview(b""))
    loud.replace(path)


def streams(path: Path) -> list[str]:
    said = subprocess.run(
        [find_ffmpeg(), "-hide_banner", "-i", str(path)], capture_output=True, check=False
    )
    return re.findall(r"Stream #.*?: (Video|Audio)", said.stderr.decode())


@pytest.mark.parametrize(
    ("sound", "kinds"), [(None, ["Video"]), (1, ["Video"]), (2, ["Video", "Audio"])]
)
def test_sound_is_dropped_unless_that_of_a_clip_is_kept(
    tmp_path: Path, sound: int | None, kinds: list[str]
) -> None:
    clips = [compared(ColouredClip(name), tmp_path) for name in ("silent", "loud")]
    with_sound(clips[1].path)
    write_comparison(clips, tmp_path / "out.mp4", ComparisonParams(sound=sound))
    assert streams(tmp_path / "out.mp4") == kinds


def test_a_broken_clip_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    clips = [compared(ColouredClip(name), tmp_path) for name in ("whole", "broken")]
    clips[1].path.write_bytes(clips[1].path.read_bytes()[:-40])
    with pytest.raises(CheckError, match=r"broken\.mp4"):
        write_comparison(clips, tmp_path / "out.mp4", NO_PARAMS)
    assert not (tmp_path / "out.mp4").exists()


def test_some_frames_of_a_clip_are_its_first_its_last_and_those_between(tmp_path: Path) -> None:
    path = ColouredClip("one", BLUE, RED, size=(32, 64), num_frames=9).write(tmp_path / "one.mp4")
    frames = sample_frames(path, 3, 32)
    assert frames.shape == (3, 16, 32, 3)
    assert is_about(frames[0], (9, 9), BLUE)
    assert is_about(frames[2], (9, 9), RED)
    assert len(sample_frames(path, 40, 999)) == 9


def test_a_text_is_cut_to_its_width() -> None:
    font = load_font(None, 14)
    cut = fitting("a very long prompt " * 50, 120, font)
    assert cut.endswith("...")
    assert 80 < font.getlength(cut) <= 120
    assert fitting("short\n text", 120, font) == "short text"


def test_a_file_that_is_no_font_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.ttf").write_bytes(b"no font")
    with pytest.raises(RefusedError, match="--font: expected a TrueType or OpenType font"):
        load_font(tmp_path / "x.ttf", 14)
