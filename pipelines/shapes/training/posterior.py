"""The exact answer to a noisy state: the mean of the members of the world that it may come from.

The world is finite. So the mean of the clean latents, given a noisy state and a caption, is a sum
over the members that the caption allows, weighted by their likelihood. A model that learns this
mean learns from the answer itself instead of from one random example of it. It also has an answer
for a state between two members, where the model's own path has led it: the nearer one.

Inner products are taken in the principal directions of the members, a tenth of the values.
Shape suffixes: B states, N members, D values of the latents of a member, K directions.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from pipelines.shapes.world import ATTRIBUTES, ShapesClip

NUM_DIRECTIONS = 512  # they hold 99.5 % of the spread of the clips
SURE_WEIGHT = 0.99  # a member of this weight stands for the mean, with all its values
MIN_SIGMA = 0.01  # below it, likelihoods overflow; the nearest member has all the weight anyhow
SEED = 0


class Answer(NamedTuple):
    """The mean of the clean latents (B, ...), and the likeliest member of each state (B,)."""

    mean: torch.Tensor
    likeliest: torch.Tensor


class Posterior:
    """All members of the world, and their mean given a state.

    Args:
        members: their normalised latents, (N, ...).
        clips: the members, in the same order.
        attributes: the attributes that captions may name, and their values.
    """

    def __init__(
        self,
        members: torch.Tensor,
        clips: Sequence[ShapesClip],
        attributes: Mapping[str, tuple[str, ...]] = ATTRIBUTES,
    ) -> None:
        self.members = members.float()
        self._values = {
            name: torch.tensor([values.index(getattr(clip, name)) for clip in clips])
            for name, values in attributes.items()
        }
        flat_ND = self.members.flatten(1)
        self._centre_D = flat_ND.mean(dim=0)
        centred_ND = flat_ND - self._centre_D
        num_directions = min(NUM_DIRECTIONS, *centred_ND.shape)
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            _, _, self._directions_DK = torch.pca_lowrank(
                centred_ND, q=num_directions, center=False, niter=3
            )
        self._places_NK = centred_ND @ self._directions_DK
        self._norms_N = self._places_NK.square().sum(dim=1)

    def allowed(self, named: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the members that show all named attributes, (B, N) bool.

        Args:
            named: the class (B,) of each attribute; the class after the last leaves it open.
        """
        masks_BN = [
            (named[name][:, None] == values_N) | (named[name] > values_N.max())[:, None]
            for name, values_N in self._values.items()
        ]
        return torch.stack(masks_BN).all(dim=0)

    def __call__(
        self, states: torch.Tensor, sigmas_B: torch.Tensor, allowed_BN: torch.Tensor
    ) -> Answer:
        """Answer states of the form `(1 - sigma) * latents + sigma * noise`, (B, ...).

        At a sigma of 0 the answer is the nearest member.
        """
        kept_B1 = (1 - sigmas_B)[:, None]
        places_BK = (states.float().flatten(1) - kept_B1 * self._centre_D) @ self._directions_DK
        # the norm of the state itself is left out: it is the same for all members
        nearness_BN = kept_B1 * (places_BK @ self._places_NK.T - kept_B1 * self._norms_N / 2)
        likelihoods_BN = nearness_BN / sigmas_B.clamp_min(MIN_SIGMA)[:, None].square()
        weights_BN = likelihoods_BN.masked_fill(~allowed_BN.to(states.device), -torch.inf).softmax(
            dim=1
        )
        largest_B, likeliest_B = weights_BN.max(dim=1)
        mean = (weights_BN @ self._places_NK) @ self._directions_DK.T + self._centre_D
        mean = mean.view_as(states)
        is_sure_B = largest_B > SURE_WEIGHT
        mean[is_sure_B] = self.members[likeliest_B[is_sure_B]]
        return Answer(mean, likeliest_B)
