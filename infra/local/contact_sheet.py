"""One picture of many clips: prompts down, negative prompts across, a few frames of each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FRAMES_SHOWN = 4
GAP_PX, FRAME_GAP_PX, HEADER_PX, LABEL_PX = 10, 2, 26, 22
PAPER, INK = (255, 255, 255), (30, 30, 30)


@dataclass(frozen=True, eq=False)
class SheetClip:
    """One clip, and where on the sheet it belongs."""

    prompt: str
    negative_prompt: str
    seed: int
    frames: np.ndarray  # (T, H, W, 3) uint8


def draw_contact_sheet(clips: list[SheetClip], path: Path) -> None:
    """Writes a PNG: a block of rows for each prompt, one row a seed; a column for each negative prompt."""
    prompts = list(dict.fromkeys(clip.prompt for clip in clips))
    negatives = sorted({clip.negative_prompt for clip in clips}, key=lambda text: (text != "", text))
    seeds = sorted({clip.seed for clip in clips})
    strips = {(clip.prompt, clip.negative_prompt, clip.seed): film_strip(clip.frames) for clip in clips}
    height, width = (max(strip.shape[axis] for strip in strips.values()) for axis in (0, 1))
    block = LABEL_PX + len(seeds) * (height + FRAME_GAP_PX) + GAP_PX
    sheet = Image.new("RGB", (GAP_PX + len(negatives) * (width + GAP_PX), HEADER_PX + len(prompts) * block), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, negative in enumerate(negatives):
        heading = f"negative prompt: {negative}" if negative else "no negative prompt"
        draw.text((GAP_PX + column * (width + GAP_PX), 6), shortened(heading, width, font), INK, font)
    for row, prompt in enumerate(prompts):
        top = HEADER_PX + row * block
        draw.text((GAP_PX, top), shortened(f"prompt: {prompt}", sheet.width - 2 * GAP_PX, font), INK, font)
        for column, negative in enumerate(negatives):
            for line, seed in enumerate(seeds):
                strip = strips.get((prompt, negative, seed))
                if strip is not None:
                    left = GAP_PX + column * (width + GAP_PX)
                    sheet.paste(Image.fromarray(strip), (left, top + LABEL_PX + line * (height + FRAME_GAP_PX)))
    sheet.save(path)


def film_strip(frames: np.ndarray) -> np.ndarray:
    """A few frames from first to last, side by side: (H, W', 3) uint8."""
    chosen = frames[np.linspace(0, len(frames) - 1, min(FRAMES_SHOWN, len(frames))).round().astype(int)]
    gap = np.full((chosen.shape[1], FRAME_GAP_PX, 3), 255, dtype=np.uint8)
    return np.concatenate([part for frame in chosen for part in (frame, gap)][:-1], axis=1)


def shortened(text: str, width_px: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, cut to fit; one line, whatever it held."""
    text = " ".join(text.split())
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "...") > width_px:
        text = text[:-1]
    return text + "..."
