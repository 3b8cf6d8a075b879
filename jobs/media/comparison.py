"""Several MP4s side by side in one, each with a caption, by ffmpeg.

Decides the grid, and what happens to clips that differ: each is scaled to its cell without changing
its proportions, a shorter one holds its last frame, and all run at the highest rate. Captions are
drawn by Pillow, so that no text reaches a filter of ffmpeg.
"""

import math
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from PIL import Image, ImageDraw

from jobs.media.decode_check import opened_frames
from jobs.media.encode import COLOUR_FILTERS, frame_rate
from jobs.media.ffmpeg import run_ffmpeg
from jobs.media.frames import Font, fitting, load_font

MIN_CLIPS, MAX_CLIPS = 2, 9
GAP_PX, CAPTION_PX, FONT_PX = 8, 22, 15  # between cells; of a line of a caption; of its letters
PAPER, INK = (24, 24, 24), (235, 235, 235)


@dataclass(frozen=True)
class ComparedClip:
    """A clip of a comparison.

    Args:
        captions: lines below it.
    """

    path: Path
    width: int
    height: int
    num_frames: int
    fps: float
    captions: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        return self.num_frames / self.fps


@dataclass(frozen=True)
class ComparisonParams:
    """The settings of a comparison.

    Args:
        columns: number of columns; None for the grid that is nearest to a square.
        height: height of each clip in pixels; None for that of the highest one.
        sound: number of the clip, from 1, whose sound is kept; None drops all sound.
        font: font of the captions; None for the packaged one, which has Latin letters alone.
    """

    columns: int | None = None
    height: int | None = None
    sound: int | None = None
    font: Path | None = None


@dataclass(frozen=True)
class Layout:
    """The places of the clips, in pixels, all even."""

    width: int
    height: int
    cell_width: int
    cell_height: int
    places: tuple[tuple[int, int], ...]


def layout_of(clips: list[ComparedClip], params: ComparisonParams) -> Layout:
    """Return the grid: three clips stand in a row, four in two rows, nine in three."""
    number = len(clips)
    default = number if number <= 3 else math.ceil(math.sqrt(number))
    columns = min(params.columns or default, number)
    rows = math.ceil(number / columns)
    cell_height = _even(params.height or max(clip.height for clip in clips))
    cell_width = _even(max(cell_height * clip.width / clip.height for clip in clips))
    below = _even(CAPTION_PX * max(len(clip.captions) for clip in clips) + GAP_PX)
    places = tuple(
        (
            GAP_PX + (index % columns) * (cell_width + GAP_PX),
            GAP_PX + (index // columns) * (cell_height + below),
        )
        for index in range(number)
    )
    width = GAP_PX + columns * (cell_width + GAP_PX)
    return Layout(width, GAP_PX + rows * (cell_height + below), cell_width, cell_height, places)


def write_comparison(clips: list[ComparedClip], path: Path, params: ComparisonParams) -> None:
    """Write an MP4 of 2 to 9 clips; the file appears at `path` whole or not at all.

    Raises:
        CheckError: a clip does not decode.
        EncodeError: ffmpeg failed.
        RefusedError: the font is none.
    """
    layout, font = layout_of(clips, params), load_font(params.font, FONT_PX)
    for clip in clips:  # ffmpeg would take a broken one for a short one
        with opened_frames(clip.path) as (_, frames):
            for _ in frames:
                pass
    prefix = f".{path.stem[:32]}-"
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as folder:
        background = Path(folder, "captions.png")
        draw_captions(clips, layout, font, background)
        unfinished = Path(folder, "comparison.mp4")
        run_ffmpeg(arguments(clips, layout, params, background, unfinished), memoryview(b""))
        unfinished.replace(path)


def draw_captions(clips: list[ComparedClip], layout: Layout, font: Font, path: Path) -> None:
    """Write the picture on which the clips are laid, with the captions below their cells."""
    picture = Image.new("RGB", (layout.width, layout.height), PAPER)
    draw = ImageDraw.Draw(picture)
    for clip, (left, top) in zip(clips, layout.places, strict=True):
        for number, caption in enumerate(clip.captions):
            below = top + layout.cell_height + 3 + number * CAPTION_PX
            draw.text((left, below), fitting(caption, layout.cell_width, font), INK, font)
    picture.save(path)


def arguments(
    clips: list[ComparedClip],
    layout: Layout,
    params: ComparisonParams,
    background: Path,
    target: Path,
) -> list[str]:
    """Return ffmpeg's arguments. The background is input 0, the clips are 1 and further."""
    rate = max(frame_rate(clip.fps) for clip in clips)
    rate_text = f"{rate.numerator}/{rate.denominator}"
    num_frames = math.ceil(Fraction(max(clip.duration_s for clip in clips)) * rate - Fraction(1, 2))
    inputs = ["-loop", "1", "-framerate", rate_text, "-i", f"file:{background.resolve()}"]
    for clip in clips:
        inputs += ["-i", f"file:{clip.path.resolve()}"]
    sound = [] if params.sound is None else ["-map", f"{params.sound}:a?", "-c:a", "aac"]
    return [
        *inputs,
        *("-filter_complex", _filters(layout, rate_text), "-map", "[out]", *sound),
        *("-frames:v", str(num_frames), "-map_metadata", "-1", "-c:v", "libx264"),
        *("-preset", "medium", "-crf", "18", "-threads", "4", "-color_primaries", "bt709"),
        *("-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "tv"),
        *("-movflags", "+faststart", "-f", "mp4", f"file:{target}"),
    ]  # fmt: skip


def _filters(layout: Layout, rate: str) -> str:
    """Return the graph of filters: each clip scaled, centred, held at its end, laid on the page."""
    width, height = layout.cell_width, layout.cell_height
    page = "0:v"
    graph: list[str] = []
    for number, (left, top) in enumerate(layout.places, 1):
        # the clips are BT.709, which swscale does not take for granted
        graph.append(
            f"[{number}:v]scale={width}:{height}:force_original_aspect_ratio=decrease:"
            "in_color_matrix=bt709:in_range=limited:out_range=full:flags=lanczos,format=gbrp,"
            f"setsar=1,fps={rate},tpad=stop_mode=clone:stop=-1[clip{number}]"
        )
        x, y = f"{left}+({width}-w)/2", f"{top}+({height}-h)/2"
        graph.append(
            f"[{page}][clip{number}]overlay=x={x}:y={y}:format=gbrp:eof_action=repeat[page{number}]"
        )
        page = f"page{number}"
    return ";".join([*graph, f"[{page}]{COLOUR_FILTERS}[out]"])


def _even(pixels: float) -> int:
    return max(2 * round(pixels / 2), 2)
