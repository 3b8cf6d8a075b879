"""The base of the guiding processors in models where text and image are one sequence.

Shapes: B rows, S tokens of a row's sequence, N tokens of the negative prompt, D channels, H heads,
K channels a head.
"""

from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb

from nag.adapters.joint.processor import attend_as
from nag.adapters.processor import NagProcessor
from nag.attention.sequence.lanes import SequenceLanes
from nag.attention.text_lanes import QueryKeyValue
from nag.errors import NagTextError

_rotate: Any = apply_rotary_emb


class NagSequenceProcessor(NagProcessor):
    """Base of the processors that replace diffusers' own. In an unguided call those compute.

    Args:
        stock: the processor that it replaces. It keeps the settings, so that it can return.
        lanes: negative prompt of the call and the guidance method, one for each transformer.
        block: name of the attention in the pipeline, for error messages.
    """

    def __init__(self, stock: Any, lanes: SequenceLanes, block: str) -> None:
        super().__init__(stock, block)
        self.lanes = lanes

    def _is_guided(self, num_tokens: int) -> bool:
        """Return True if the call under way is guided.

        Args:
            num_tokens: tokens that reached the attention, with the negative prompt's.

        Raises:
            NagTextError: the block was called by itself, or a parallel plan has cut the sequence.
        """
        lane = self.lanes.lane
        if not self.lanes.is_in_call and self.lanes.is_guiding:
            raise NagTextError(f"{self.block}: only a call of the whole transformer is guided")
        if lane is not None and num_tokens != lane.length + lane.num_negative_tokens:
            raise NagTextError(
                f"{self.block}: text and image must stay whole: expected "
                f"{lane.length + lane.num_negative_tokens} tokens, got {num_tokens}"
            )
        return lane is not None

    def _guided(
        self,
        attn: Any,
        hidden: torch.Tensor,
        rotary: torch.Tensor,
        mask_BS: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the output for a sequence (B, S + N, D), projected."""
        output = self.lanes.guide(self._attend, _projections(attn, hidden), rotary, mask_BS)
        for layer in attn.to_out:
            output = layer(output)
        return output

    def _attend(
        self, projected: QueryKeyValue, rotary: torch.Tensor | None, mask: torch.Tensor | None
    ) -> torch.Tensor:
        query, key, value = projected
        if rotary is not None:
            query, key = (self._rotated(one, rotary) for one in (query, key))
        shared_by = query.shape[2] // key.shape[2]
        if shared_by > 1:  # several heads of queries share one of keys and values
            key, value = (one.repeat_interleave(shared_by, dim=2) for one in (key, value))
        if mask is not None:
            mask = mask.bool()[:, None, None]
        return attend_as(self.stock, query, key, value, mask)

    def _rotated(self, tokens: torch.Tensor, rotary: torch.Tensor) -> torch.Tensor:
        """Return tokens (rows, tokens, H, K) with their positions."""
        return _rotate(tokens, rotary, use_real=False)


def _projections(attn: Any, hidden: torch.Tensor) -> QueryKeyValue:
    query = attn.to_q(hidden)
    channels = query.shape[-1] // attn.heads
    query, key, value = (
        one.unflatten(-1, (-1, channels)) for one in (query, attn.to_k(hidden), attn.to_v(hidden))
    )
    query = query if attn.norm_q is None else attn.norm_q(query)
    return query, key if attn.norm_k is None else attn.norm_k(key), value
