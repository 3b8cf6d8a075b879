"""The parts that the guiding attention processors of all architectures share.

Shapes: B batch, L video tokens, T text tokens, D channels, H heads, K channels a head.
"""

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn

from nag.adapters.processor import NagProcessor
from nag.attention.kept_projections import KeyValue, project
from nag.attention.text_concat import TextConcat
from nag.errors import NagTextError


class NagTextProcessor(NagProcessor):
    """Base of the processors that replace diffusers' own in the text cross-attentions.

    Args:
        stock: the processor that it replaces. It keeps the settings, so that it can return.
        text_concat: layout of the text and the guidance method, one for each transformer.
        block: name of the attention in the pipeline, such as `transformer.blocks.0.attn2`.
    """

    def __init__(self, stock: Any, text_concat: TextConcat, block: str) -> None:
        super().__init__(stock, block)
        self.text_concat = text_concat

    def _refuse_text(self, length: int) -> NagTextError:
        """Return the error for a text that bypassed the hook, or was cut by a parallel plan."""
        return NagTextError(
            f"{self.block}: the text must reach the transformer by a call of it and stay whole: "
            f"expected {self.text_concat.layout.length} tokens, got {length}"
        )

    def _key_value(self, attn: Any, text_BTD: torch.Tensor, num_video_tokens: int) -> KeyValue:
        """Return the text's keys and values, each (B, T, H, K), kept or made anew."""
        return project(
            self.text_concat.projections,
            self,
            num_video_tokens,
            text_BTD,
            lambda text: self._project(attn, text),
        )

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        """Make the text's keys and values with the attention's own layers."""
        raise NotImplementedError

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        # Every rank of a sharded model has the whole text, so this attention communicates nothing.
        output = dispatch_attention_fn(
            query, key, value, attn_mask=bias, backend=self._attention_backend, parallel_config=None
        )
        return output.flatten(2, 3).to(query.dtype)


def split_heads(attn: Any, projected_BTD: torch.Tensor) -> torch.Tensor:
    """Return (B, T, H, K) from (B, T, D)."""
    return projected_BTD.unflatten(2, (attn.heads, -1))
