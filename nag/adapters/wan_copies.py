"""Guidance in models made from Wan, whose attention diffusers keeps as copies of Wan's.

They are SkyReels V2, Wan Animate and ChronoEdit. The copies compute as Wan's do. The blocks of Wan
Animate that attend to a face have a class of their own; they attend to no text.
"""

from typing import Any

from diffusers import (
    ChronoEditTransformer3DModel,
    SkyReelsV2Transformer3DModel,
    WanAnimateTransformer3DModel,
)
from diffusers.models.transformers import transformer_chronoedit, transformer_wan_animate
from diffusers.models.transformers.transformer_skyreels_v2 import (
    SkyReelsV2Attention,
    SkyReelsV2AttnProcessor,
)

from nag.adapters.adapter import Adapter
from nag.adapters.wan import NagWanAttnProcessor

ATTENTIONS = (
    SkyReelsV2Attention,
    transformer_wan_animate.WanAttention,
    transformer_chronoedit.WanAttention,
)


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, ATTENTIONS) and module.is_cross_attention


ADAPTER = Adapter(
    models=(
        SkyReelsV2Transformer3DModel,
        WanAnimateTransformer3DModel,
        ChronoEditTransformer3DModel,
    ),
    processors=dict.fromkeys(
        (
            SkyReelsV2AttnProcessor,
            transformer_wan_animate.WanAttnProcessor,
            transformer_chronoedit.WanAttnProcessor,
        ),
        NagWanAttnProcessor,
    ),
    is_text_attention=_is_text_attention,
)
