"""The Shapes world: one flat shape on a plain background, and the drawing of a clip of it.

Decides which colours, shapes, motions and backgrounds exist and how they look. `captions` words a
clip and `judge` reads one from frames. Both draw with this module, so the three agree.

Shape suffixes: B clips, T frames, H and W pixels, C = 3 channels.
"""

from dataclasses import dataclass
from itertools import product

import torch

SIZE_PX = 64
NUM_FRAMES = 17
FPS = 8

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 45, 45),
    "green": (45, 175, 70),
    "blue": (50, 80, 225),
    "yellow": (240, 215, 50),
    "purple": (165, 50, 205),
    "cyan": (50, 205, 225),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (15, 15, 15),
    "white": (240, 240, 240),
    "gray": (125, 125, 125),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross")
MOTIONS: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "still": (0, 0),
}
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "motion": tuple(MOTIONS),
    "background": tuple(BACKGROUNDS),
}

# Every shape of "radius" r has the area of a circle of radius r and its centroid at its centre, so
# that area and centroid do not give the kind away.
RADIUS_PX = 9.0
SPEED_PX = 1.0  # pixels a frame: half a latent cell of 8 px per latent frame of 4 frames
LATTICE_PX = 8  # centres start on the corners of the latents' cells
FIRST_CENTRE_PX, LAST_CENTRE_PX = 16, 48
# The autoencoder learns from clips drawn anywhere, within these limits.
MIN_RADIUS_PX, MAX_RADIUS_PX = 7.0, 10.0
MIN_SPEED_PX, MAX_SPEED_PX = 1.0, 1.5
MARGIN_PX = 2.0
SQUARE_HALF_SIDE = 0.8862  # sqrt(pi) / 2
TRIANGLE_CIRCUMRADIUS = 1.5551  # sqrt(4 pi / (3 sqrt 3))
CROSS_HALF_LENGTH = 1.1890  # sqrt(9 pi / 20), for arms a third as wide as long
_REACH = {  # reach from the centre, in radii: sideways, up, down
    "circle": (1.0, 1.0, 1.0),
    "square": (SQUARE_HALF_SIDE,) * 3,
    "triangle": (TRIANGLE_CIRCUMRADIUS * 0.8660, TRIANGLE_CIRCUMRADIUS, TRIANGLE_CIRCUMRADIUS / 2),
    "cross": (CROSS_HALF_LENGTH,) * 3,
}


@dataclass(frozen=True)
class ShapesClip:
    """One clip of the world: its four attributes, and its place in the frame."""

    colour: str
    shape: str
    motion: str
    background: str
    radius_px: float
    start_xy_px: tuple[float, float]
    speed_px: float  # pixels a frame; 0 if the motion is "still"


def sample_clip(generator: torch.Generator, *, anywhere: bool = False, **fixed: str) -> ShapesClip:
    """Draw a clip uniformly; the whole shape stays inside the frame from first to last frame.

    Args:
        generator: a CPU generator, the only source of chance.
        anywhere: any size, place and speed. Otherwise a member of the world: one size, one speed,
            and places on a lattice that falls in with the cells of the latents, which a tiny
            transformer can learn to draw sharply.
        fixed: attributes that are not drawn, such as `colour="red"`.
    """
    chosen = {
        name: fixed.get(name) or values[int(torch.randint(len(values), (), generator=generator))]
        for name, values in ATTRIBUTES.items()
    }
    place = _place_anywhere if anywhere else _place_on_lattice
    radius_px, start_xy_px, speed_px = place(chosen["shape"], chosen["motion"], generator)
    return ShapesClip(**chosen, radius_px=radius_px, start_xy_px=start_xy_px, speed_px=speed_px)


Place = tuple[float, tuple[float, float], float]  # radius, centre in the first frame, speed


def _place_on_lattice(_shape: str, motion: str, generator: torch.Generator) -> Place:
    x, y = (
        places[int(torch.randint(len(places), (), generator=generator))]
        for places in _lattice(motion)
    )
    return RADIUS_PX, (x, y), _speed_px(motion)


def _lattice(motion: str) -> list[list[float]]:
    """Return the start positions of a member per axis; it stays within the outermost ones."""
    travel_px = _speed_px(motion) * (NUM_FRAMES - 1)
    axes: list[list[float]] = []
    for direction in MOTIONS[motion]:
        first = FIRST_CENTRE_PX + travel_px * (direction < 0)
        last = LAST_CENTRE_PX - travel_px * (direction > 0)
        axes.append(
            [first + LATTICE_PX * place for place in range(int((last - first) // LATTICE_PX) + 1)]
        )
    return axes


def _speed_px(motion: str) -> float:
    return SPEED_PX if motion != "still" else 0.0


def all_clips() -> list[ShapesClip]:
    """Return every member of the world: 6,120 clips."""
    return [
        ShapesClip(
            *attributes, radius_px=RADIUS_PX, start_xy_px=(x, y), speed_px=_speed_px(attributes[2])
        )
        for attributes in product(*ATTRIBUTES.values())
        for x, y in product(*_lattice(attributes[2]))
    ]


def _place_anywhere(shape: str, motion: str, generator: torch.Generator) -> Place:
    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    radius_px = uniform(MIN_RADIUS_PX, MAX_RADIUS_PX)
    direction_x, direction_y = MOTIONS[motion]
    speed_px = uniform(MIN_SPEED_PX, MAX_SPEED_PX) if motion != "still" else 0.0
    travel_px = speed_px * (NUM_FRAMES - 1)
    side, above, below = (MARGIN_PX + radius_px * reach for reach in _REACH[shape])
    start_x = uniform(
        side + travel_px * (direction_x < 0), SIZE_PX - side - travel_px * (direction_x > 0)
    )
    start_y = uniform(
        above + travel_px * (direction_y < 0), SIZE_PX - below - travel_px * (direction_y > 0)
    )
    return radius_px, (start_x, start_y), speed_px


def coverage(
    shape: str, dx: torch.Tensor, dy: torch.Tensor, radius_px: torch.Tensor
) -> torch.Tensor:
    """Return the share of each pixel that the shape covers, from the signed distance to its edge.

    Args:
        shape: one of `SHAPES`.
        dx, dy: pixel position relative to the centre of the shape, in pixels, of any common shape.
        radius_px: radius in pixels, broadcastable to `dx` and `dy`.

    Returns:
        Values from 0 to 1, of the shape of `dx`.
    """
    if shape == "circle":
        distance = torch.sqrt(dx * dx + dy * dy) - radius_px
    elif shape == "square":
        distance = torch.maximum(dx.abs(), dy.abs()) - radius_px * SQUARE_HALF_SIDE
    elif shape == "triangle":
        inradius = radius_px * (TRIANGLE_CIRCUMRADIUS / 2)
        slope = 0.8660 * dx.abs() - 0.5 * dy  # outward normals of the two upper sides
        distance = torch.maximum(slope, dy) - inradius
    elif shape == "cross":
        length = radius_px * CROSS_HALF_LENGTH
        flat = torch.maximum(dx.abs() - length, dy.abs() - length / 3)
        upright = torch.maximum(dx.abs() - length / 3, dy.abs() - length)
        distance = torch.minimum(flat, upright)
    else:
        raise ValueError(f"expected a shape of {', '.join(SHAPES)}, got {shape!r}")
    return (0.5 - distance).clamp(0, 1)


def pixel_grid() -> tuple[torch.Tensor, torch.Tensor]:
    """Return x and y of the centre of each pixel, each (H, W)."""
    axis = torch.arange(SIZE_PX, dtype=torch.float32) + 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def render(clip: ShapesClip) -> torch.Tensor:
    """Draw the clip.

    Returns:
        (T, H, W, 3) float32 in 0..255, antialiased at the edge of the shape.
    """
    time = torch.arange(NUM_FRAMES, dtype=torch.float32).view(-1, 1, 1)
    direction_x, direction_y = MOTIONS[clip.motion]
    x, y = pixel_grid()
    dx = x - (clip.start_xy_px[0] + direction_x * clip.speed_px * time)
    dy = y - (clip.start_xy_px[1] + direction_y * clip.speed_px * time)
    alpha = coverage(clip.shape, dx, dy, torch.tensor(clip.radius_px)).unsqueeze(-1)  # (T, H, W, 1)
    foreground = torch.tensor(COLOURS[clip.colour], dtype=torch.float32)
    background = torch.tensor(BACKGROUNDS[clip.background], dtype=torch.float32)
    return background + alpha * (foreground - background)


def render_uint8(clips: list[ShapesClip]) -> torch.Tensor:
    """Draw clips as 8-bit video, channels first: (N, C, T, H, W) uint8."""
    return torch.stack([render(clip).round().to(torch.uint8).permute(3, 0, 1, 2) for clip in clips])
