"""Guidance in the joint attentions of Bria's Fibo, which has those of Flux.

Every block takes half of the text's channels from one more layer of the text encoder. The model
joins text and image in each single-stream block, and its modulation knows the timestep alone. All
tokens of a text have one position, so the lanes may have two lengths.

Shapes: N rows with those of the negative lane, S tokens of text and image, D channels.
"""

from typing import Any

import torch
from diffusers import BriaFiboTransformer2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_bria import BriaAttnProcessor
from diffusers.models.transformers.transformer_bria_fibo import (
    BriaFiboAttention,
    BriaFiboAttnProcessor,
)

from nag.adapters.adapter import Adapter
from nag.adapters.joint import chroma, flux
from nag.attention.text.negative_text import NegativeText
from nag.attention.text_lanes import QueryKeyValue
from nag.attention.text_lanes_hook import LanePlan


class NagBriaFiboAttnProcessor(flux.NagFluxAttnProcessor):
    """Replaces `BriaFiboAttnProcessor`, and `BriaAttnProcessor` in single-stream blocks."""

    def _single(self, sequence: QueryKeyValue, mask: torch.Tensor | None) -> torch.Tensor:
        rows = self.lanes.rows
        assert rows is not None
        query, key, value = sequence
        image_NLD, text_NTD = self.lanes.guide(
            self._attend,
            (query[:, rows.width :], key[:, rows.width :], value[:, rows.width :]),
            (query[:, : rows.width], key[:, : rows.width], value[:, : rows.width]),
            mask,
        )
        return torch.cat([text_NTD, image_NLD], dim=1)


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, BriaFiboAttention | Attention)


def _negative_text(pipeline: Any, encoded: Any) -> NegativeText:
    model = pipeline.transformer
    num_blocks = len(model.transformer_blocks) + len(model.single_transformer_blocks)
    layers = list(encoded[5])[-num_blocks:]  # as the pipeline's call chooses them
    layers += layers[-1:] * (num_blocks - len(layers))
    return NegativeText(encoded[0], encoded[3], layer_embeds=torch.stack(layers))


ADAPTER = Adapter(
    models=(BriaFiboTransformer2DModel,),
    processors=dict.fromkeys((BriaFiboAttnProcessor, BriaAttnProcessor), NagBriaFiboAttnProcessor),
    is_text_attention=_is_text_attention,
    negative_text=_negative_text,
    pads_text=False,
    # None are published: Flux's.
    defaults=flux.ADAPTER.defaults,
    lanes=LanePlan(
        chroma.parts,
        chroma.outputs,
        repeated=("timestep", "guidance"),
        has_own_lengths=True,
        layers="text_encoder_layers",
        positions="txt_ids",
        mask_in="joint_attention_kwargs",
    ),
)
