"""One picture of many clips: blocks of rows, columns to compare, a few frames of each clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from jobs.media.frames import Font, fitting, load_font

FRAMES_SHOWN, FONT_PX = 4, 14
GAP_PX, FRAME_GAP_PX, HEADER_PX, LABEL_PX = 10, 2, 26, 22
PAPER, INK = (255, 255, 255), (30, 30, 30)


@dataclass(frozen=True, eq=False)
class SheetClip:
    """One clip and its place on the sheet.

    Args:
        block: the heading above its row, such as a prompt.
        column: the heading above its column, such as a negative prompt.
        line: the row within its block, such as a seed.
        label: text in its corner; empty for none.
    """

    block: str
    column: str
    line: int
    frames: np.ndarray  # (T, H, W, 3) uint8
    label: str = ""


@dataclass(frozen=True, eq=False)
class _Grid:
    """The sheet without its pictures: headings, lines and sizes in pixels."""

    blocks: list[str]
    columns: list[str]
    lines: dict[str, list[int]]
    strip_width: int
    strip_height: int

    @classmethod
    def of(cls, clips: Sequence[SheetClip], num_frames: int) -> "_Grid":
        blocks, columns = (
            list(dict.fromkeys(getattr(clip, name) for clip in clips))
            for name in ("block", "column")
        )
        lines = {
            block: sorted({clip.line for clip in clips if clip.block == block}) for block in blocks
        }
        widths = (_strip_width(clip.frames, num_frames) for clip in clips)
        return cls(blocks, columns, lines, max(widths), max(clip.frames.shape[1] for clip in clips))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        heights = sum(self.height_of(block) for block in self.blocks)
        return GAP_PX + len(self.columns) * (self.strip_width + GAP_PX), HEADER_PX + heights

    def height_of(self, block: str) -> int:
        return LABEL_PX + len(self.lines[block]) * (self.strip_height + FRAME_GAP_PX) + GAP_PX

    def left_of(self, column: str) -> int:
        return GAP_PX + self.columns.index(column) * (self.strip_width + GAP_PX)


def sheet_size(clips: Sequence[SheetClip], num_frames: int = FRAMES_SHOWN) -> tuple[int, int]:
    """Return width and height of a sheet in pixels."""
    return _Grid.of(clips, num_frames).size


def draw_contact_sheet(
    clips: Sequence[SheetClip],
    path: Path,
    font: Font | None = None,
    num_frames: int = FRAMES_SHOWN,
) -> None:
    """Write a picture, whose kind the suffix of its path says.

    Blocks and columns stand in their order of first appearance, lines by number.

    Args:
        font: font of the headings; None for the packaged one, which has Latin letters alone.
        num_frames: frames that are shown of each clip.
    """
    grid, font = _Grid.of(clips, num_frames), font or load_font(None, FONT_PX)
    sheet = Image.new("RGB", grid.size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for column in grid.columns:
        draw.text((grid.left_of(column), 6), fitting(column, grid.strip_width, font), INK, font)
    top, tops = HEADER_PX, dict[str, int]()
    for block in grid.blocks:
        tops[block] = top + LABEL_PX
        draw.text((GAP_PX, top), fitting(block, sheet.width - 2 * GAP_PX, font), INK, font)
        top += grid.height_of(block)
    for clip in clips:
        row = grid.lines[clip.block].index(clip.line)
        place = (
            grid.left_of(clip.column),
            tops[clip.block] + row * (grid.strip_height + FRAME_GAP_PX),
        )
        sheet.paste(Image.fromarray(film_strip(clip.frames, num_frames)), place)
        if clip.label:
            text = fitting(clip.label, grid.strip_width - 4, font)
            box = draw.textbbox((place[0] + 3, place[1] + 1), text, font)
            draw.rectangle((box[0] - 3, place[1], box[2] + 3, box[3] + 2), PAPER)
            draw.text((place[0] + 3, place[1] + 1), text, INK, font)
    sheet.save(path)


def negative_heading(negative_prompt: str) -> str:
    """Return the heading of a column in a comparison of negative prompts."""
    return f"negative prompt: {negative_prompt}" if negative_prompt else "no negative prompt"


def film_strip(frames: np.ndarray, num_frames: int = FRAMES_SHOWN) -> np.ndarray:
    """Return a few frames from first to last, side by side: (H, W', 3) uint8."""
    chosen = frames[
        np.linspace(0, len(frames) - 1, min(num_frames, len(frames))).round().astype(int)
    ]
    gap = np.full((chosen.shape[1], FRAME_GAP_PX, 3), 255, dtype=np.uint8)
    return np.concatenate([part for frame in chosen for part in (frame, gap)][:-1], axis=1)


def _strip_width(frames: np.ndarray, num_frames: int) -> int:
    number = min(num_frames, len(frames))
    return number * frames.shape[2] + (number - 1) * FRAME_GAP_PX
