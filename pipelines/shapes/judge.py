"""The exact judge of the Shapes world: reads four attributes of a clip and decides if it is clean.

The judge draws the clip again: it estimates background, colour, centre and size from the frames,
draws this clip with `world`, and calls the clip clean if frames and drawing agree. It does not see
the prompt.

Shape suffixes: T frames, H and W pixels, C = 3 channels.
"""

from dataclasses import dataclass

import numpy as np
import torch

from pipelines.shapes.world import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    RADIUS_PX,
    SHAPES,
    coverage,
    pixel_grid,
)

# All thresholds were set on true clips that went through the autoencoder and H.264, not on
# generated ones; `evaluate` prints the share of true clips that pass.
MAX_COLOUR_DISTANCE = (
    60.0  # largest distance, out of 441, of an estimated colour from the nearest one
)
MAX_SIZE_RATIO = 1.2  # a shape's size against the world's, either way, on the average of the frames
MIN_AREA_PX = 0.3 * np.pi * RADIUS_PX**2  # a smaller area in one frame does not count as a shape
STILL_PX = 4.0  # a shape that moves less from first to last frame stands still
MOVING_PX = 10.0  # a motion of the world is 16 px
MAX_WOBBLE_PX = 1.5  # largest distance of a centre from the straight, even path
NOISE_LEVELS = 24.0  # a pixel may be off by this much of 255 in each channel without being counted
MAX_ERROR = 0.25  # counted error over the shape's own contrast, in the worst frame


@dataclass(frozen=True)
class Verdict:
    """The attributes that a clip shows; None for an attribute that cannot be read.

    Args:
        is_clean: True if the clip is a member of the world: one whole shape of the right size and
            of even colour, on an even path, on a plain background, and nothing else.
        error: mean absolute difference between the clip and the clip drawn again, beyond the noise
            allowance, relative to the contrast of the shape, in the worst frame.
        moved_px: movement of the shape to the right and down from the first to the last frame,
            along the straight line through its centres; None if no shape is found.
    """

    colour: str | None
    shape: str | None
    motion: str | None
    background: str | None
    is_clean: bool
    error: float
    moved_px: tuple[float, float] | None = None


def _nearest(colour: torch.Tensor, palette: dict[str, tuple[int, int, int]]) -> str | None:
    distances = {
        name: (colour - torch.tensor(rgb, dtype=torch.float32)).norm().item()
        for name, rgb in palette.items()
    }
    name = min(distances, key=distances.__getitem__)
    return name if distances[name] <= MAX_COLOUR_DISTANCE else None


def judge(frames: np.ndarray) -> Verdict:
    """Read a clip.

    Args:
        frames: (T, 64, 64, 3) uint8.
    """
    frames_THWC = torch.from_numpy(np.ascontiguousarray(frames)).float()
    border = torch.cat([frames_THWC[:, :2].flatten(0, 2), frames_THWC[:, -2:].flatten(0, 2)])
    background_C = border.median(dim=0).values
    background = _nearest(background_C, BACKGROUNDS)

    colour_C = _foreground_colour(frames_THWC, background_C)
    if colour_C is None:
        return Verdict(None, None, None, background, is_clean=False, error=float("inf"))
    axis_C = colour_C - background_C
    alpha_THW = (((frames_THWC - background_C) @ axis_C) / axis_C.square().sum()).clamp(0, 1)
    alpha_THW = torch.where(alpha_THW > 0.1, alpha_THW, torch.zeros(()))
    area_T = alpha_THW.sum(dim=(1, 2))
    if area_T.min() < MIN_AREA_PX:
        return Verdict(
            _nearest(colour_C, COLOURS), None, None, background, is_clean=False, error=float("inf")
        )
    x, y = pixel_grid()
    centre_x_T, centre_y_T = ((alpha_THW * axis).sum(dim=(1, 2)) / area_T for axis in (x, y))
    radius_T = (area_T / torch.pi).sqrt()

    dx_THW, dy_THW = x - centre_x_T.view(-1, 1, 1), y - centre_y_T.view(-1, 1, 1)
    drawings = {shape: coverage(shape, dx_THW, dy_THW, radius_T.view(-1, 1, 1)) for shape in SHAPES}
    misfits = {
        shape: (drawing - alpha_THW).abs().sum().item() for shape, drawing in drawings.items()
    }
    shape = min(misfits, key=misfits.__getitem__)

    drawn_THWC = background_C + drawings[shape].unsqueeze(-1) * axis_C
    excess_THWC = ((frames_THWC - drawn_THWC).abs() - NOISE_LEVELS).clamp_min(0)
    error = (excess_THWC.sum(dim=(1, 2, 3)) / (area_T * axis_C.abs().sum())).max().item()
    moved_px, wobble_px = _path(centre_x_T, centre_y_T)
    motion, is_even = _direction(moved_px), wobble_px <= MAX_WOBBLE_PX
    colour = _nearest(colour_C, COLOURS)
    size_ratio = radius_T.mean().item() / RADIUS_PX
    is_sized = 1 / MAX_SIZE_RATIO <= size_ratio <= MAX_SIZE_RATIO
    is_clean = (
        None not in (colour, motion, background) and is_sized and is_even and error <= MAX_ERROR
    )
    return Verdict(colour, shape, motion, background, is_clean, error, moved_px)


def _foreground_colour(
    frames_THWC: torch.Tensor, background_C: torch.Tensor
) -> torch.Tensor | None:
    """Return the median colour of the pixels farthest from the background; None if all are near."""
    distance_THW = (frames_THWC - background_C).norm(dim=-1)
    peak = distance_THW.flatten().quantile(0.98)  # a shape covers 6.2 % of the frame
    if peak < MAX_COLOUR_DISTANCE:
        return None
    return frames_THWC[distance_THW >= 0.8 * peak].median(dim=0).values


def _path(x_T: torch.Tensor, y_T: torch.Tensor) -> tuple[tuple[float, float], float]:
    """Return the displacement on the nearest straight, even path, and the largest distance."""
    time_T = torch.arange(len(x_T), dtype=torch.float32)
    time_T = (time_T - time_T.mean()) / time_T.std()
    moved: list[float] = []
    wobble = 0.0
    for path_T in (x_T, y_T):
        slope = (path_T * time_T).sum() / time_T.square().sum()
        moved.append((slope * (time_T[-1] - time_T[0])).item())
        wobble = max(wobble, (path_T - path_T.mean() - slope * time_T).abs().max().item())
    return (moved[0], moved[1]), wobble


def _direction(moved_px: tuple[float, float]) -> str | None:
    """Return the motion of the world that fits a displacement, or None."""
    for name, direction in MOTIONS.items():
        along = moved_px[0] * direction[0] + moved_px[1] * direction[1]
        across = abs(moved_px[0] * direction[1]) + abs(moved_px[1] * direction[0])
        if name == "still":
            if max(map(abs, moved_px)) < STILL_PX:
                return name
        elif along > MOVING_PX and across < STILL_PX:
            return name
    return None
