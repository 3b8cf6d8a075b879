"""Guidance in the joint attentions of Chroma, which has those of Flux.

Its modulation knows the timestep alone. The model joins text and image between the two kinds of
blocks. Its mask covers both, and comes as numbers: attention adds 1 to the logits of two tokens
that count, and 0 to the others. The negative lane gets the same of its own text.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import ChromaTransformer2DModel

from nag.adapters.adapter import Adapter
from nag.adapters.joint import flux
from nag.attention.text.layout import TextInput
from nag.attention.text.negative_text import NegativeText
from nag.attention.text_lanes import LaneRows
from nag.attention.text_lanes_hook import Edit, LanePlan


def parts(model: Any) -> Iterable[tuple[torch.nn.Module, Edit]]:
    """Return the parts of a model that take the rows of the call."""
    for block in model.transformer_blocks:
        yield block.norm1, LaneRows.first
    yield model.norm_out, LaneRows.first


def outputs(model: Any) -> Iterable[tuple[torch.nn.Module, Edit]]:
    """Return the last part before the single-stream blocks, which repeats the image."""
    yield [model.x_embedder, *model.transformer_blocks][-1], LaneRows.with_lane


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    return NegativeText(encoded[0], encoded[2])


ADAPTER = Adapter(
    models=(ChromaTransformer2DModel,),
    processors=flux.ADAPTER.processors,
    is_text_attention=flux.ADAPTER.is_text_attention,
    texts=(TextInput("encoder_hidden_states", "attention_mask"),),
    negative_text=_negative_text,
    # None are published: Flux's.
    defaults=flux.ADAPTER.defaults,
    lanes=LanePlan(parts, outputs, repeated=("timestep",)),
)
