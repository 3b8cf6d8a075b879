"""Points in the feature space of any vision model of transformers, for Frechet distances.

Published FID figures use one Inception network with weights in a pickle, which is not loaded; a
distance by another model is compared with distances by that model alone.

Shape suffixes: N pictures, H and W pixels, C = 3 channels, D features.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipelines.errors import ScoringError
from pipelines.scoring.pretrained import load_image_processor, load_model, pixels_of
from pipelines.scoring.scored_clip import ScoredClip, Scores

if TYPE_CHECKING:
    import numpy as np


class ImageFeatures:
    """A vision model with its processor.

    Args:
        folder: the folder of the weights, which were inspected.
        is_patch: True to look at a patch in the middle of each picture, in its own pixels and as
            large as the model's input; a smaller picture is refused.

    Source: whole pictures: Heusel et al., arXiv 1706.08500; patches: Lin et al., SDXL-Lightning,
    arXiv 2402.13929.
    """

    def __init__(self, folder: Path, device: torch.device, *, is_patch: bool) -> None:
        from transformers import AutoModel

        self._model = load_model(AutoModel, folder, device)
        self._images = load_image_processor(folder)
        self._device = device
        self._patch_px = _input_px(self._images) if is_patch else None

    def score(self, clip: ScoredClip) -> Scores:
        """Return the vector of each still."""
        import numpy as np

        return Scores({}, {}, np.stack([self.vector(still) for still in clip.stills]))

    @torch.inference_mode()
    def vector(self, picture_HWC: "np.ndarray") -> "np.ndarray":
        """Return the point of a picture, (D,) float32.

        Raises:
            ScoringError: the picture is smaller than a patch, or the model gives no vector.
        """
        if self._patch_px is not None:
            picture_HWC = middle_patch(picture_HWC, self._patch_px)
        pixels = pixels_of(self._images, [picture_HWC], self._device)
        if hasattr(self._model, "get_image_features"):
            found: Any = self._model.get_image_features(pixel_values=pixels)
        else:
            found = self._model(pixel_values=pixels)
        vector = found if isinstance(found, torch.Tensor) else found.pooler_output
        if vector is None:
            raise ScoringError(
                f"{type(self._model).__name__} gives no vector of a picture (pooler_output); name "
                "another model, such as DINOv2 or CLIP's"
            )
        return vector.flatten().float().cpu().numpy()


def middle_patch(picture_HWC: "np.ndarray", side_px: int) -> "np.ndarray":
    """Return the square in the middle of a picture. Raises ScoringError if it does not fit."""
    height, width = picture_HWC.shape[:2]
    if min(height, width) < side_px:
        raise ScoringError(
            f"a patch of {side_px} pixels needs frames at least as large, got {width}x{height}; "
            "use fid, or a model with a smaller input"
        )
    top, left = (height - side_px) // 2, (width - side_px) // 2
    return picture_HWC[top : top + side_px, left : left + side_px]


def _input_px(processor: Any) -> int:
    """Return the side of a model's input, by its processor."""
    is_cropped = getattr(processor, "do_center_crop", False)
    size: Any = processor.crop_size if is_cropped else processor.size
    sides = [size[name] for name in ("height", "width", "shortest_edge") if size.get(name)]
    return int(max(sides))
