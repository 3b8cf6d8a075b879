"""Guidance in the joint attentions of Flux: two-stream blocks, then single-stream blocks.

Shapes: B rows of a call, N text rows with those of the negative lane, T text tokens, L image
tokens, S tokens of both, D channels.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxAttnProcessor

from nag.adapters.adapter import AUTHORS_FOR_FLUX, Adapter
from nag.adapters.joint.processor import NagJointProcessor, image_projections, text_projections
from nag.adapters.processor import mask_refusal
from nag.attention.text.negative_text import NegativeText
from nag.attention.text_lanes import LaneRows, QueryKeyValue
from nag.attention.text_lanes_hook import Edit, LanePlan

Rotary = tuple[torch.Tensor, torch.Tensor]  # cosines and sines, each (S, K), text before image
_rotate: Any = apply_rotary_emb


class NagFluxAttnProcessor(NagJointProcessor):
    """Replaces `FluxAttnProcessor`, or a copy of it, in both kinds of blocks."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if not self._is_guided(encoder_hidden_states):
            return self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
        text_rows = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if attention_mask is not None and len(attention_mask) != len(text_rows):
            raise mask_refusal(self.block)
        image = image_projections(attn, hidden_states)
        if encoder_hidden_states is None:
            return self._single(_rotated(image, image_rotary_emb, slice(None)), attention_mask)
        length = encoder_hidden_states.shape[1]
        text = text_projections(attn, encoder_hidden_states)
        image_BLD, text_NTD = self.lanes.guide(
            self._attend,
            _rotated(image, image_rotary_emb, slice(length, None)),
            _rotated(text, image_rotary_emb, slice(0, length)),
            attention_mask,
        )
        return attn.to_out[1](attn.to_out[0](image_BLD)), attn.to_add_out(text_NTD)

    def _single(self, sequence: QueryKeyValue, mask: torch.Tensor | None) -> torch.Tensor:
        """Return the output for a sequence of text and image, (N, S, D)."""
        return self.lanes.guide_sequence(self._attend(*sequence, mask))


def _rotated(projected: QueryKeyValue, rotary: Rotary | None, tokens: slice) -> QueryKeyValue:
    if rotary is None:
        return projected
    query, key, value = projected
    of_tokens = rotary[0][tokens], rotary[1][tokens]
    query = _rotate(query, of_tokens, sequence_dim=1)
    return query, _rotate(key, of_tokens, sequence_dim=1), value


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, FluxAttention)


def _parts(model: Any) -> Iterable[tuple[torch.nn.Module, Edit]]:
    for block in model.transformer_blocks:
        yield block.norm1, LaneRows.first
    for block in model.single_transformer_blocks:
        yield block, LaneRows.with_lane
    yield model.norm_out, LaneRows.first


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    return NegativeText(encoded[0], pooled=encoded[1])


LANES = LanePlan(
    _parts,
    pooled="pooled_projections",
    repeated=("timestep", "guidance", "controlnet_single_block_samples"),
)
ADAPTER = Adapter(
    models=(FluxTransformer2DModel,),
    processors={FluxAttnProcessor: NagFluxAttnProcessor},
    is_text_attention=_is_text_attention,
    negative_text=_negative_text,
    defaults=AUTHORS_FOR_FLUX,
    lanes=LANES,
)
