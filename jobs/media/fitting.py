"""Pictures brought to the size of a clip.

`cover` scales a picture until it fills the clip and cuts what is beyond, equally at both sides.
`contain` scales it until all of it is in the clip and fills the rest with black. `stretch` gives
each side its own scale. All resample with Lanczos; a picture of the clip's size stays as it is.
"""

from typing import TYPE_CHECKING

from pipelines.clip_inputs import Fit

if TYPE_CHECKING:
    import numpy as np

    Size = tuple[int, int]  # width, height


def fit_picture(picture: "np.ndarray", width: int, height: int, fit: Fit) -> "np.ndarray":
    """Return a picture (h, w, 3) as (height, width, 3), uint8."""
    import numpy as np
    from PIL import Image

    own = picture.shape[1], picture.shape[0]
    if own == (width, height):
        return picture
    image, wanted, lanczos = Image.fromarray(picture), (width, height), Image.Resampling.LANCZOS
    match fit:
        case "stretch":
            image = image.resize(wanted, lanczos)
        case "cover":
            image = image.resize(wanted, lanczos, box=_cut(own, wanted))
        case "contain":
            size = _contained(own, wanted)
            whole = Image.new("RGB", wanted)
            place = (width - size[0]) // 2, (height - size[1]) // 2
            whole.paste(image.resize(size, lanczos), place)
            image = whole
    return np.asarray(image)


def _cut(own: "Size", wanted: "Size") -> tuple[float, float, float, float]:
    """Return the largest part of a picture in the proportions of the clip: its middle."""
    factor = min(own[0] / wanted[0], own[1] / wanted[1])
    width, height = wanted[0] * factor, wanted[1] * factor
    left, top = max(0.0, (own[0] - width) / 2), max(0.0, (own[1] - height) / 2)
    return left, top, min(left + width, own[0]), min(top + height, own[1])


def _contained(own: "Size", wanted: "Size") -> "Size":
    factor = min(wanted[0] / own[0], wanted[1] / own[1])
    width, height = round(own[0] * factor), round(own[1] * factor)
    return min(wanted[0], max(1, width)), min(wanted[1], max(1, height))
