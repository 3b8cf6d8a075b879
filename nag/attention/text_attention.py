"""One cross-attention to concatenated text, as a processor hands it to a guidance method.

Shapes: B batch, L video tokens, T text tokens of both prompts, N of them the negative prompt's,
D channels, H heads, K channels a head.
"""

from dataclasses import dataclass
from typing import Protocol

import torch


class Attend(Protocol):
    """The attention of an architecture.

    Returns (B, L, D): heads merged, before the output projection. `bias` is added to the logits,
    or is True where a token is seen: some attention backends take no other mask.
    """

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor: ...


@dataclass(frozen=True, eq=False)
class TextAttention:
    """Queries of the video; keys and values of the prompt, then those of the negative prompt.

    Args:
        attend: attention of the architecture.
        query: (B, L, H, K).
        key: (B, T, H, K).
        value: (B, T, H, K).
        positive_length: tokens of the prompt, 0 to T; the negative prompt's tokens follow them.
        bias: (B, H, 1, T), the text's own mask, True where a token is seen, or the values that it
            adds to the logits; None without a mask.
        negative_mask: (B, N) bool, True where a token of the negative prompt is text; None
            without a negative prompt.
    """

    attend: Attend
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    positive_length: int
    bias: torch.Tensor | None = None
    negative_mask: torch.Tensor | None = None

    def rows(self, rows: slice) -> "TextAttention":
        """Return this attention for some rows of the batch."""
        return TextAttention(
            self.attend,
            self.query[rows],
            self.key[rows],
            self.value[rows],
            self.positive_length,
            None if self.bias is None else self.bias[rows],
            None if self.negative_mask is None else self.negative_mask[rows],
        )

    def positive(self) -> torch.Tensor:
        """Attend to the prompt alone, as the stock processor does."""
        return self._over(slice(0, self.positive_length))

    def negative(self) -> torch.Tensor:
        """Attend to the negative prompt alone."""
        return self._over(slice(self.positive_length, None))

    def _over(self, tokens: slice) -> torch.Tensor:
        bias = None if self.bias is None else self.bias[..., tokens]
        return self.attend(self.query, self.key[:, tokens], self.value[:, tokens], bias)


def additive_bias(mask: torch.Tensor | None, query: torch.Tensor) -> torch.Tensor | None:
    """Return a mask as values that are added to the logits; one of these is returned as it is."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, -torch.inf)
