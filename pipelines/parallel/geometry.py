"""The measures of a video transformer that decide how it can be cut, and what a cut costs. Loads without torch."""

from dataclasses import dataclass
from typing import Literal

from pipelines.types import VideoShape


@dataclass(frozen=True)
class ModelGeometry:
    """One transformer, and how its autoencoder's latents become tokens.

    Args:
        ffn_dim: inner width of the feed-forward network.
        num_text_tokens: of one prompt, as the transformer gets it.
        frames_per_token: of video, in one token after the first; `height_per_token`, `width_per_token`: pixels.
        num_transformers: 2 where early and late steps have one each; a step runs one of them.
    """

    family: Literal["wan", "ltx"]
    num_layers: int
    num_heads: int
    head_dim: int
    ffn_dim: int
    num_text_tokens: int
    frames_per_token: int
    height_per_token: int
    width_per_token: int
    num_transformers: int = 1

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.num_heads * self.head_dim

    def num_tokens(self, shape: VideoShape) -> int:
        """Video tokens of a clip."""
        frames = (shape.num_frames - 1) // self.frames_per_token + 1
        return frames * (shape.height // self.height_per_token) * (shape.width // self.width_per_token)
