"""The base of the processors that guide. Each stands in for a stock one and has its settings."""

from typing import Any

import torch
from torch.nn import functional

from nag.errors import UnsupportedCallError
from nag.stand_ins import stock_of


class NagProcessor:
    """Base of the processors that replace diffusers' own.

    Args:
        stock: the processor that it replaces. It keeps the settings, so that it can return.
        block: name of the attention in the pipeline, such as `transformer.blocks.0.attn2`.
    """

    def __init__(self, stock: Any, block: str) -> None:
        self.stock = stock
        self.block = block

    def __reduce__(self) -> tuple[Any, ...]:
        return stock_of(self)

    # Diffusers reads and sets both on every processor that it finds.
    @property
    def _attention_backend(self) -> Any:
        return self.stock._attention_backend

    @_attention_backend.setter
    def _attention_backend(self, backend: Any) -> None:
        self.stock._attention_backend = backend

    @property
    def _parallel_config(self) -> Any:
        return self.stock._parallel_config

    @_parallel_config.setter
    def _parallel_config(self, config: Any) -> None:
        self.stock._parallel_config = config


def mask_refusal(block: str) -> UnsupportedCallError:
    """Return the error for a mask that does not come by the model's own argument for texts."""
    return UnsupportedCallError(
        f"{block}: a guided call takes no attention mask but those of the texts, got one: leave it "
        "out of the call's joint_attention_kwargs, attention_kwargs or cross_attention_kwargs"
    )


def attend_by_torch(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Attend as the stock processors do that call torch itself, whatever backend is set."""
    output = functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=bias
    )
    return output.transpose(1, 2).flatten(2, 3).to(query.dtype)
