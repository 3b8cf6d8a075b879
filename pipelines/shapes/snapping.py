"""The member of the Shapes world that a rendered clip was nearest to becoming, and the one that it ought to become.

Distances are taken between latents. Only members that the clip's caption allows are candidates. Left to the nearest
member alone, a student that learns from its own clips draws what it draws a little too often ever more often (without
the prices below, 70 % of open backgrounds were black after 200 updates). So where a caption leaves an attribute open,
a second choice is made under prices: the values that were chosen too often cost more, until each has its share.
"""

import torch

from pipelines.shapes.text import attribute_targets
from pipelines.shapes.world import ATTRIBUTES, ShapesClip, all_clips

PRICE_STEP = 0.3  # how fast the price of a value follows its surplus, in mean square distance a batch
MAX_PRICE = 3.0
SHARE_MEMORY = 0.9  # of the moving average of shares, per batch


class Snap:
    """Finds members, and keeps the prices of values.

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
        self._prices = {attribute: torch.zeros(len(values)) for attribute, values in ATTRIBUTES.items()}
        self.shares = {attribute: torch.full((len(v),), 1 / len(v)) for attribute, v in ATTRIBUTES.items()}

    def __call__(
        self, latents_BCFHW: torch.Tensor, clips: list[ShapesClip], captions: list[str]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of the nearest members, (B,), and of the nearest ones under the prices, (B,).

        Args:
            clips: what the captions were written about; they decide the attributes that a caption names.
        """
        latents_BD = latents_BCFHW.float().flatten(1)
        products_BN = latents_BD @ self._members_ND.T
        distances_BN = self._norms_N - 2 * products_BN + latents_BD.square().sum(dim=1, keepdim=True)
        distances_BN = distances_BN / latents_BD.shape[1]
        named = attribute_targets(clips, captions)
        for attribute, values in ATTRIBUTES.items():
            is_other_BN = named[attribute][:, None] != self._values_N[attribute][None, :]
            is_named_B = named[attribute] < len(values)
            distances_BN = distances_BN.masked_fill(is_other_BN & is_named_B[:, None], torch.inf)
        prices_N = sum(self._prices[attribute][values_N] for attribute, values_N in self._values_N.items())
        fair_B = (distances_BN + prices_N).argmin(dim=1)
        for attribute, values in ATTRIBUTES.items():
            self._reprice(attribute, self._values_N[attribute][fair_B[named[attribute] == len(values)]])
        return distances_BN.argmin(dim=1), fair_B

    def _reprice(self, attribute: str, chosen: torch.Tensor) -> None:
        if not len(chosen):
            return
        prices, shares = self._prices[attribute], self.shares[attribute]
        found = torch.bincount(chosen, minlength=len(prices)) / len(chosen)
        shares.mul_(SHARE_MEMORY).add_(found, alpha=1 - SHARE_MEMORY)
        prices.add_(PRICE_STEP * (shares - 1 / len(prices))).clamp_(-MAX_PRICE, MAX_PRICE)
