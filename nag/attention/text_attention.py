"""One cross-attention to packed text, as a family's processor hands it to a method of guidance.

Decides where the prompt's tokens end and the negative prompt's begin; what is made of the two is in `methods`.
Shapes: B batch, L video tokens, T text tokens of both prompts, N of them the negative prompt's, D channels, H heads,
K channels a head.
"""

from dataclasses import dataclass
from typing import Protocol

import torch


class Attend(Protocol):
    """The family's attention: (B, L, D), heads merged, before the output projection; `bias` is added to the logits."""

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor: ...


@dataclass(frozen=True, eq=False)
class TextAttention:
    """Queries of the video, keys and values of the prompt with those of the negative prompt behind them.

    Args:
        bias: what the text's own mask adds to the logits, if it has one.
        negative_mask: which tokens of the negative prompt are text; None where there is no negative prompt.
    """

    attend: Attend
    query: torch.Tensor  # (B, L, H, K)
    key: torch.Tensor  # (B, T, H, K)
    value: torch.Tensor  # (B, T, H, K)
    bias: torch.Tensor | None = None  # (B, H, 1, T)
    negative_mask: torch.Tensor | None = None  # (B, N)

    @property
    def positive_length(self) -> int:
        num_negative = 0 if self.negative_mask is None else self.negative_mask.shape[1]
        return self.key.shape[1] - num_negative

    def rows(self, rows: slice) -> "TextAttention":
        """The same for some rows of the batch."""
        return TextAttention(
            self.attend,
            self.query[rows],
            self.key[rows],
            self.value[rows],
            None if self.bias is None else self.bias[rows],
            None if self.negative_mask is None else self.negative_mask[rows],
        )

    def positive(self) -> torch.Tensor:
        """Attention to the prompt alone: what the stock processor computes."""
        return self._over(slice(0, self.positive_length))

    def negative(self) -> torch.Tensor:
        """Attention to the negative prompt alone."""
        return self._over(slice(self.positive_length, None))

    def _over(self, tokens: slice) -> torch.Tensor:
        bias = None if self.bias is None else self.bias[..., tokens]
        return self.attend(self.query, self.key[:, tokens], self.value[:, tokens], bias)
