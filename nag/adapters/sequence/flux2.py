"""Guidance in the attentions of Flux 2: two-stream blocks, then single-stream blocks.

Its modulation knows the timestep alone, and the image's positions are the same beside every text.
"""

from typing import Any

import torch
from diffusers import Flux2Transformer2DModel
from diffusers.models.transformers.transformer_flux2 import (
    Flux2Attention,
    Flux2AttnProcessor,
    Flux2KVAttnProcessor,
    Flux2KVParallelSelfAttnProcessor,
    Flux2ParallelSelfAttention,
    Flux2ParallelSelfAttnProcessor,
)

from nag.adapters.adapter import AUTHORS_FOR_FLUX, Adapter
from nag.adapters.sequence.flux2_processors import (
    FIRST,
    NagFlux2AttnProcessor,
    NagFlux2KVAttnProcessor,
    NagFlux2KVParallelSelfAttnProcessor,
    NagFlux2ParallelSelfAttnProcessor,
)
from nag.attention.sequence.text_hook import TextStreamPlan

MODE = "kv_cache_mode"  # argument of the model


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, Flux2Attention | Flux2ParallelSelfAttention)


def _ids_of(ids: torch.Tensor, length: int) -> torch.Tensor:
    """Return the positions of a text: the last axis counts, and the prompt's others are alike."""
    of_text = ids[..., :1, :].repeat_interleave(length, dim=-2)
    of_text[..., -1] = torch.arange(length, device=ids.device)
    return of_text


def _refusal(model: Any, arguments: dict[str, Any]) -> str | None:
    processor = model.transformer_blocks[0].attn.processor
    if arguments.get(MODE) is None or isinstance(processor, NagFlux2KVAttnProcessor):
        return None
    return f"{MODE} needs processors that keep keys and values, which Flux2KleinKVPipeline sets"


def _num_references(arguments: dict[str, Any]) -> int:
    return arguments.get("num_ref_tokens", 0) if arguments.get(MODE) == FIRST else 0


ADAPTER = Adapter(
    models=(Flux2Transformer2DModel,),
    processors={
        Flux2AttnProcessor: NagFlux2AttnProcessor,
        Flux2KVAttnProcessor: NagFlux2KVAttnProcessor,
        Flux2ParallelSelfAttnProcessor: NagFlux2ParallelSelfAttnProcessor,
        Flux2KVParallelSelfAttnProcessor: NagFlux2KVParallelSelfAttnProcessor,
    },
    is_text_attention=_is_text_attention,
    defaults=AUTHORS_FOR_FLUX,  # none are published for this family
    sequence=TextStreamPlan("txt_ids", _ids_of, _refusal, _num_references),
)
