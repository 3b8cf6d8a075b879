"""Guidance in the blocks of Krea 2, which has text and image in one sequence, the text first.

A token of the text is several hidden states of the encoder, which the model fuses. Text has no
positions, so the image's are the same beside every text.

Shapes: S tokens of a row's sequence, N tokens of the negative prompt.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import Krea2Transformer2DModel
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_krea2 import Krea2Attention, Krea2AttnProcessor

from nag.adapters.adapter import AUTHORS_FOR_FLUX, Adapter, embeds_and_mask
from nag.adapters.sequence.processor import NagSequenceProcessor
from nag.attention.sequence.blocks_hook import Arguments, EmbeddedText, SequencePlan

Rotary = tuple[torch.Tensor, torch.Tensor]  # cosines and sines, each (S, K)
_rotate: Any = apply_rotary_emb


class NagKrea2AttnProcessor(NagSequenceProcessor):
    """Replaces `Krea2AttnProcessor` in the blocks that take text and image.

    The gate comes after guidance.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
    ) -> torch.Tensor:
        if not self._is_guided(hidden_states.shape[1]):
            return self.stock(attn, hidden_states, attention_mask, image_rotary_emb)
        query, key, value = (
            layer(hidden_states).unflatten(-1, (-1, attn.head_dim))
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        query, key = attn.norm_q(query), attn.norm_k(key)
        if image_rotary_emb is not None:
            query, key = _rotated(query, image_rotary_emb), _rotated(key, image_rotary_emb)
        mask_BS = None if attention_mask is None else attention_mask[:, 0, 0]
        output = self.lanes.guide(self._attend, (query, key, value), None, mask_BS)
        return attn.to_out[0](output * torch.sigmoid(attn.to_gate(hidden_states)))


def _rotated(tokens: torch.Tensor, rotary: Rotary) -> torch.Tensor:
    """Return the tokens with their positions; the negative prompt's, behind the S, have none."""
    sequence, negative = tokens.tensor_split([rotary[0].shape[0]], dim=1)
    return torch.cat([_rotate(sequence, rotary, sequence_dim=1), negative], dim=1)


def _is_text_attention(name: str, module: Any) -> bool:
    # The attentions that fuse the text see that alone.
    return name.startswith("transformer_blocks.") and isinstance(module, Krea2Attention)


def _blocks(model: Any) -> Iterable[torch.nn.Module]:
    return model.transformer_blocks


def _text(arguments: Arguments) -> torch.Tensor:
    return arguments["encoder_hidden_states"]


def _image_starts(_model: Any, arguments: Arguments) -> list[int]:
    num_rows, length = arguments["encoder_hidden_states"].shape[:2]
    return [length] * num_rows


def _embed(model: Any, arguments: Arguments, text: torch.Tensor) -> EmbeddedText:
    tokens = model.txt_in(model.text_fusion(text[None]))
    return EmbeddedText(tokens, arguments["hidden_states"].shape[1])


ADAPTER = Adapter(
    models=(Krea2Transformer2DModel,),
    processors={Krea2AttnProcessor: NagKrea2AttnProcessor},
    is_text_attention=_is_text_attention,
    negative_text=embeds_and_mask,
    defaults=AUTHORS_FOR_FLUX,  # none are published for this family
    sequence=SequencePlan(_blocks, _text, _image_starts, _embed),
)
