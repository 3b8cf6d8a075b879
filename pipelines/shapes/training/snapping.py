"""The member of the Shapes world nearest to a rendered clip.

Distances are taken between latents. Only members that the caption of the clip allows are
candidates, so a student that learns from its own clips also learns to follow its captions.
"""

import torch

from pipelines.shapes.training.text import attribute_targets
from pipelines.shapes.world import ATTRIBUTES, ShapesClip, all_clips


class Snap:
    """A finder of nearest members.

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
        """Return the indices of the nearest members, (B,).

        Args:
            clips: clips that the captions describe; they decide which attributes a caption names.
        """
        latents_BD = latents_BCFHW.float().flatten(1)
        # the norm of the clip itself is left out: it does not change the order
        distances_BN = self._norms_N - 2 * (latents_BD @ self._members_ND.T)
        named = attribute_targets(clips, captions)
        for attribute, values in ATTRIBUTES.items():
            is_other_BN = named[attribute][:, None] != self._values_N[attribute][None, :]
            is_named_B = named[attribute] < len(values)
            distances_BN = distances_BN.masked_fill(is_other_BN & is_named_B[:, None], torch.inf)
        return distances_BN.argmin(dim=1)
