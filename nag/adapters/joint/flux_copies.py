"""Guidance in models made from Flux, whose attention diffusers keeps as copies of Flux's.

They are Ovis-Image, LongCat-Image and Bria. The copies compute as Flux's do; none of these models
takes a pooled text.
"""

from dataclasses import replace
from typing import Any

from diffusers import (
    BriaTransformer2DModel,
    LongCatImageTransformer2DModel,
    OvisImageTransformer2DModel,
)
from diffusers.models.transformers.transformer_bria import BriaAttention, BriaAttnProcessor
from diffusers.models.transformers.transformer_longcat_image import (
    LongCatImageAttention,
    LongCatImageAttnProcessor,
)
from diffusers.models.transformers.transformer_ovis_image import (
    OvisImageAttention,
    OvisImageAttnProcessor,
)

from nag.adapters.adapter import Adapter
from nag.adapters.joint import flux

ATTENTIONS = (OvisImageAttention, LongCatImageAttention, BriaAttention)


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, ATTENTIONS)


ADAPTER = Adapter(
    models=(OvisImageTransformer2DModel, LongCatImageTransformer2DModel, BriaTransformer2DModel),
    processors=dict.fromkeys(
        (OvisImageAttnProcessor, LongCatImageAttnProcessor, BriaAttnProcessor),
        flux.NagFluxAttnProcessor,
    ),
    is_text_attention=_is_text_attention,
    # None are published: Flux's.
    defaults=flux.ADAPTER.defaults,
    lanes=replace(flux.LANES, pooled=None),
)
