"""Guidance in the text cross-attentions of Kandinsky 3.

Its UNet pools the text into the embedding of time, by an attention of its own: that of the prompt.
"""

import re
from typing import Any

from diffusers import Kandinsky3UNet
from diffusers.models.attention_processor import Attention

from nag.adapters.adapter import Adapter
from nag.adapters.cross_attention import PROCESSORS
from nag.attention.block_text.pool import TextPool
from nag.attention.text.negative_text import NegativeText

# The first attention of each block attends to the image.
ATTENTION = re.compile(r"(down|up)_blocks\.\d+\.attentions\.[1-9]\d*\.attention")
POOL = TextPool("add_time_condition", "context", "context_mask")


def _is_text_attention(name: str, module: Any) -> bool:
    return isinstance(module, Attention) and ATTENTION.fullmatch(name) is not None


def _pools(_unet: Any) -> tuple[TextPool, ...]:
    return (POOL,)


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    embeds, _, mask, _ = encoded
    return NegativeText(embeds, mask)


ADAPTER = Adapter(
    models=(Kandinsky3UNet,),
    processors=PROCESSORS,
    is_text_attention=_is_text_attention,
    negative_text=_negative_text,
    pools=_pools,
)
