"""One picture of many clips: blocks of rows, columns to compare, a few frames of each clip."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FRAMES_SHOWN = 4
GAP_PX, FRAME_GAP_PX, HEADER_PX, LABEL_PX = 10, 2, 26, 22
PAPER, INK = (255, 255, 255), (30, 30, 30)


@dataclass(frozen=True, eq=False)
class SheetClip:
    """One clip and its place on the sheet.

    Args:
        block: the heading above its row, such as a prompt.
        column: the heading above its column, such as a negative prompt.
        line: the row within its block, such as a seed.
    """

    block: str
    column: str
    line: int
    frames: np.ndarray  # (T, H, W, 3) uint8


def draw_contact_sheet(clips: list[SheetClip], path: Path) -> None:
    """Write a PNG. Blocks and columns stand in their order of first appearance, lines by number."""
    blocks, columns = (
        list(dict.fromkeys(getattr(clip, name) for clip in clips)) for name in ("block", "column")
    )
    strips = {(clip.block, clip.column, clip.line): film_strip(clip.frames) for clip in clips}
    height, width = (max(strip.shape[axis] for strip in strips.values()) for axis in (0, 1))
    lines = {
        block: sorted({clip.line for clip in clips if clip.block == block}) for block in blocks
    }
    heights = [LABEL_PX + len(lines[block]) * (height + FRAME_GAP_PX) + GAP_PX for block in blocks]
    sheet = Image.new(
        "RGB", (GAP_PX + len(columns) * (width + GAP_PX), HEADER_PX + sum(heights)), PAPER
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for index, column in enumerate(columns):
        draw.text((GAP_PX + index * (width + GAP_PX), 6), shortened(column, width, font), INK, font)
    top = HEADER_PX
    for block, block_height in zip(blocks, heights, strict=True):
        draw.text((GAP_PX, top), shortened(block, sheet.width - 2 * GAP_PX, font), INK, font)
        for index, column in enumerate(columns):
            for row, line in enumerate(lines[block]):
                strip = strips.get((block, column, line))
                if strip is not None:
                    left = GAP_PX + index * (width + GAP_PX)
                    sheet.paste(
                        Image.fromarray(strip),
                        (left, top + LABEL_PX + row * (height + FRAME_GAP_PX)),
                    )
        top += block_height
    sheet.save(path)


def negative_heading(negative_prompt: str) -> str:
    """Return the heading of a column in a comparison of negative prompts."""
    return f"negative prompt: {negative_prompt}" if negative_prompt else "no negative prompt"


def film_strip(frames: np.ndarray) -> np.ndarray:
    """Return a few frames from first to last, side by side: (H, W', 3) uint8."""
    chosen = frames[
        np.linspace(0, len(frames) - 1, min(FRAMES_SHOWN, len(frames))).round().astype(int)
    ]
    gap = np.full((chosen.shape[1], FRAME_GAP_PX, 3), 255, dtype=np.uint8)
    return np.concatenate([part for frame in chosen for part in (frame, gap)][:-1], axis=1)


def shortened(text: str, width_px: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return the text as one line, cut to fit."""
    text = " ".join(text.split())
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "...") > width_px:
        text = text[:-1]
    return text + "..."
