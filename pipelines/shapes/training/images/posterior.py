"""The exact posterior mean of the Shapes images: the noise-free target of their denoisers.

The world is finite, so the mean of the images that fit a noisy state and a caption is a sum over
the members that the caption allows, weighted by their likelihood. A denoiser that learns this mean
learns from the answer itself instead of from one random sample of it.

Shape suffixes: B states, N members, D values of the latents of one image.
"""

from collections.abc import Mapping

import torch

from pipelines.shapes.images import IMAGE_ATTRIBUTES, all_images

OPEN = -1  # the class of an attribute that a caption leaves open


class Members:
    """All members of the world.

    Args:
        latents: normalised latents of `images.all_images()`, in its order, (N, ...).
    """

    def __init__(self, latents: torch.Tensor) -> None:
        self.latents = latents.float()
        self._flat_ND = self.latents.flatten(1)
        self._norms_N = self._flat_ND.square().sum(dim=1)
        images = all_images()
        self.values = {
            name: torch.tensor([values.index(getattr(image, name)) for image in images])
            for name, values in IMAGE_ATTRIBUTES.items()
        }

    def allowed(self, named: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the members that show all named attributes, (B, N) bool.

        Args:
            named: the class (B,) of each attribute, `OPEN` where the caption leaves it open.
        """
        masks_BN = [
            (named[name][:, None] == values_N[None]) | (named[name] == OPEN)[:, None]
            for name, values_N in self.values.items()
        ]
        return torch.stack(masks_BN).all(dim=0)

    def mean(
        self,
        states: torch.Tensor,
        sigmas_B: torch.Tensor,
        allowed_BN: torch.Tensor,
        sharpness: float = 1.0,
    ) -> torch.Tensor:
        """Return the mean of the clean latents given the states, of the shape of `states`.

        A state is `(1 - sigma) * latents + sigma * noise`.

        Args:
            sharpness: factor on the log-likelihoods; above 1 the likeliest members weigh more.
        """
        states_BD = states.float().flatten(1)
        kept_B1 = (1 - sigmas_B)[:, None]
        # the norm of the state itself is left out: it is the same for all members
        distances_BN = kept_B1.square() * self._norms_N - 2 * kept_B1 * (
            states_BD @ self._flat_ND.T
        )
        likelihoods_BN = -0.5 * sharpness * distances_BN / sigmas_B.clamp_min(0.01)[:, None] ** 2
        weights_BN = likelihoods_BN.masked_fill(~allowed_BN, -torch.inf).softmax(dim=1)
        return (weights_BN @ self._flat_ND).view_as(states)
