"""The member of the Shapes world that a rendered clip was nearest to becoming.

Distances are taken between latents. Only members that the clip's caption allows are candidates, so that a student which
learns from its own clips also learns to follow its captions.
"""

import torch

from pipelines.shapes.training.text import attribute_targets
from pipelines.shapes.world import ATTRIBUTES, ShapesClip, all_clips


class Snap:
    """Finds nearest members.

    Args:
        members_NCFHW: normalised latents of `world.all_clips()`, in its order.
    """

    def __init__(self, members_NCFHW: torch.Tensor) -> None:
        self._members_ND = members_NCFHW.float().flatten(1)
        self._norms_N = self._members_ND.square().sum(dim=1)
        clips = all_clips()
        self._values_N = {
            attribute: torch.tensor([values.index(getattr(clip, attribute)) for clip in clips])
            for attribute, values in ATTRIBUTES.items()
        }

    def __call__(
        self, latents_BCFHW: torch.Tensor, clips: list[ShapesClip], captions: list[str]
    ) -> torch.Tensor:
        """Indices of the members, (B,).

        Args:
            clips: what the captions were written about; they decide the attributes that a caption names.
        """
        latents_BD = latents_BCFHW.float().flatten(1)
        distances_BN = self._norms_N - 2 * (
            latents_BD @ self._members_ND.T
        )  # but for the clip's own norm
        named = attribute_targets(clips, captions)
        for attribute, values in ATTRIBUTES.items():
            is_other_BN = named[attribute][:, None] != self._values_N[attribute][None, :]
            is_named_B = named[attribute] < len(values)
            distances_BN = distances_BN.masked_fill(is_other_BN & is_named_B[:, None], torch.inf)
        return distances_BN.argmin(dim=1)
