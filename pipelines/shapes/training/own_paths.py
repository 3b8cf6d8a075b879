"""States on the model's own paths, where its errors have led it.

A model that learns from true states alone never sees what it makes of its own: a clip that is half
a circle and half a square, which it then draws to the end. Here it learns the way out, to the
likelier of the two.

Shape suffixes: B clips, C latent channels, F latent frames, H and W latent cells, N members.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from pipelines.shapes.captions import caption
from pipelines.shapes.training.models import ShapesModel
from pipelines.shapes.training.paths.state_store import StateStore
from pipelines.shapes.training.paths.trajectory import trajectory
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.text import EncodedCaptions, attribute_targets
from pipelines.shapes.world import sample_clip

NUM_STEPS = (4, 8, 8, 12, 25)  # lengths of paths, drawn evenly
GUIDANCE_SCALES = (1.0, 3.0)

# From states (B, C, F, H, W), sigmas (B,) and captions.
Flow = Callable[[torch.Tensor, torch.Tensor, EncodedCaptions], torch.Tensor]


class State(NamedTuple):
    """A noisy clip, with the caption that it is to follow."""

    latents: torch.Tensor  # (C, F, H, W)
    sigma: torch.Tensor  # ()
    caption: str
    allowed: torch.Tensor  # (N,) bool, the members that the caption allows


class OwnPaths(StateStore[State]):
    """States of rendered paths.

    Args:
        model: its shape of latents, and the sampler of its pipeline.
        flow: the transformer that learns.
        encode: function from captions to their tokens.
        num_clips: clips that are rendered at once.
    """

    def __init__(
        self,
        model: ShapesModel,
        flow: Flow,
        encode: Callable[[list[str]], EncodedCaptions],
        posterior: Posterior,
        num_clips: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(generator)
        self._flow, self._encode, self._posterior = flow, encode, posterior
        self._scheduler, self._latent_shape = model.build_scheduler(), model.latent_shape
        self._num_clips = num_clips

    @torch.no_grad()
    def _render(self) -> list[State]:
        clips = [sample_clip(self.generator) for _ in range(self._num_clips)]
        captions = [caption(clip, self.generator) for clip in clips]
        allowed_BN = self._posterior.allowed(attribute_targets(clips, captions))
        text, empty = self._encode(captions), self._encode([""] * len(clips))
        guidance_scale = self.draw(GUIDANCE_SCALES)

        def flow(states: torch.Tensor, sigmas_B: torch.Tensor) -> torch.Tensor:
            prompted = self._flow(states, sigmas_B, text)
            if guidance_scale == 1:
                return prompted
            unprompted = self._flow(states, sigmas_B, empty)
            return unprompted + guidance_scale * (prompted - unprompted)

        noise = torch.randn(len(clips), *self._latent_shape, generator=self.generator)
        noise = noise.to(text.embeds.device)
        passed, _ = trajectory(self._scheduler, flow, noise, self.draw(NUM_STEPS))
        return [
            state
            for latents, sigmas_B in passed
            for state in map(State, latents, sigmas_B, captions, allowed_BN)
        ]
