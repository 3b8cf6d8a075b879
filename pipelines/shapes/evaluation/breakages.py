"""Clips that are broken on purpose, to measure the judge: its verdict on each kind.

Each kind spoils a true clip in one way in which models and guidance do it. *Frozen* alone makes
another member of the world, a clip that stands still: the judge is right to call it clean, and must
not read the motion.

Shape suffixes: T frames, H and W pixels, C = 3 channels.
"""

import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from pipelines.shapes.world import (
    ATTRIBUTES,
    BACKGROUNDS,
    FIRST_CENTRE_PX,
    LAST_CENTRE_PX,
    SIZE_PX,
    ShapesClip,
    render,
    sample_clip,
)

Break = Callable[[ShapesClip, torch.Generator], torch.Tensor]
GHOST_OPACITY = 0.5
PALE_OPACITY = 0.5
BLUR_PX = 2.5
SIZES = (0.65, 1.5)  # relative to the size of the world's shapes
JUMP_PX = 8


TRUE = "true"  # the kind that is not broken


def broken_frames(kind: str, clip: ShapesClip, generator: torch.Generator) -> np.ndarray:
    """Draw the clip broken, as (T, H, W, 3) uint8.

    Args:
        kind: a kind of `BREAKAGES`, or `TRUE` for the clip as it is.
    """
    frames_THWC = render(clip) if kind == TRUE else BREAKAGES[kind](clip, generator)
    return frames_THWC.round().clamp(0, 255).to(torch.uint8).contiguous().numpy()


def _plain(level: float) -> Break:
    return lambda clip, _generator: torch.full_like(render(clip), level)


def _noise(clip: ShapesClip, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(render(clip).shape, generator=generator) * 255


def _frozen(clip: ShapesClip, _generator: torch.Generator) -> torch.Tensor:
    frames_THWC = render(clip)
    return frames_THWC[:1].expand_as(frames_THWC)


def _ghost(clip: ShapesClip, generator: torch.Generator) -> torch.Tensor:
    """Add a second, half transparent shape in another corner of the frame."""
    other = sample_clip(generator, motion="still", background=clip.background)
    corner = tuple(
        FIRST_CENTRE_PX if start > SIZE_PX / 2 else LAST_CENTRE_PX for start in clip.start_xy_px
    )
    ghost = replace(other, start_xy_px=corner)
    return render(clip) + GHOST_OPACITY * (render(ghost) - _background(ghost))


def _pale(clip: ShapesClip, _generator: torch.Generator) -> torch.Tensor:
    return torch.lerp(_background(clip), render(clip), PALE_OPACITY)


def _blurred(clip: ShapesClip, _generator: torch.Generator) -> torch.Tensor:
    offset = torch.arange(-8, 9, dtype=torch.float32)
    weights = torch.exp(-0.5 * (offset / BLUR_PX).square())
    kernel = weights.outer(weights)
    frames_TCHW = torch.nn.functional.pad(
        render(clip).permute(0, 3, 1, 2), (8, 8, 8, 8), mode="replicate"
    )
    blurred = torch.nn.functional.conv2d(
        frames_TCHW.flatten(0, 1).unsqueeze(1), (kernel / kernel.sum())[None, None]
    )
    return blurred.view(-1, 3, SIZE_PX, SIZE_PX).permute(0, 2, 3, 1)


def _between_shapes(clip: ShapesClip, generator: torch.Generator) -> torch.Tensor:
    """Draw half of one shape and half of another in the same place."""
    return torch.lerp(
        render(clip), render(replace(clip, shape=_other("shape", clip.shape, generator))), 0.5
    )


def _wrong_size(clip: ShapesClip, generator: torch.Generator) -> torch.Tensor:
    size = SIZES[int(torch.randint(len(SIZES), (), generator=generator))]
    return render(replace(clip, radius_px=clip.radius_px * size))


def _jumping(clip: ShapesClip, _generator: torch.Generator) -> torch.Tensor:
    """Shift every second frame towards the middle."""
    frames_THWC = render(clip).clone()
    shift = JUMP_PX if clip.start_xy_px[1] < SIZE_PX / 2 else -JUMP_PX
    frames_THWC[1::2] = frames_THWC[1::2].roll(shift, dims=1)
    return frames_THWC


def _uneven_colour(clip: ShapesClip, generator: torch.Generator) -> torch.Tensor:
    """Draw the left part of the shape in one colour and the right part in another."""
    other = replace(clip, colour=_other("colour", clip.colour, generator))
    left_of_middle = torch.arange(SIZE_PX).view(1, 1, -1, 1) < clip.start_xy_px[0]
    return torch.where(left_of_middle, render(clip), render(other))


def _between_colours(clip: ShapesClip, generator: torch.Generator) -> torch.Tensor:
    return torch.lerp(
        render(clip), render(replace(clip, colour=_other("colour", clip.colour, generator))), 0.5
    )


def _background(clip: ShapesClip) -> torch.Tensor:
    return torch.tensor(BACKGROUNDS[clip.background], dtype=torch.float32)


def _other(attribute: str, value: str, generator: torch.Generator) -> str:
    others = [other for other in ATTRIBUTES[attribute] if other != value]
    return others[int(torch.randint(len(others), (), generator=generator))]


BREAKAGES: dict[str, Break] = {
    "grey": _plain(127.0),
    "black": _plain(0.0),
    "noise": _noise,
    "frozen": _frozen,
    "ghost of a second shape": _ghost,
    "half transparent": _pale,
    "blurred": _blurred,
    "between two shapes": _between_shapes,
    "wrong size": _wrong_size,
    "jumping": _jumping,
    "uneven colour": _uneven_colour,
    "between two colours": _between_colours,
}


def draw_broken(kind: str, index: int) -> tuple[ShapesClip, np.ndarray]:
    """Return an example of a kind from an endless sequence: the true clip and the broken frames.

    The clip of *frozen* always moves.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{kind} {index}".encode()))
    clip = sample_clip(generator)
    while kind == "frozen" and clip.motion == "still":
        clip = sample_clip(generator)
    return clip, broken_frames(kind, clip, generator)
