"""The text cross-attentions of a pipeline, and how many of them are guided.

It decides which modules count as text cross-attentions, and which processor replaces the stock one.
"""

from typing import Any

import torch
from diffusers import (
    LTX2VideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from diffusers.models.transformers.transformer_ltx import LTXAttention, LTXVideoAttnProcessor
from diffusers.models.transformers.transformer_ltx2 import (
    LTX2Attention,
    LTX2AudioVideoAttnProcessor,
    LTX2PerturbedAttnProcessor,
)
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from diffusers.utils.torch_utils import is_compiled_module

from nag.adapters.ltx import NagLTX2AudioVideoAttnProcessor, NagLTXVideoAttnProcessor
from nag.adapters.text_processor import NagTextProcessor
from nag.adapters.wan import NagWanAttnProcessor
from nag.attention.text_concat import AUDIO_TEXT, VIDEO_TEXT, TextInput
from nag.coverage import Coverage
from nag.errors import NagCoverageError, UnsupportedPipelineError

# Guided processor by the stock processor that it replaces.
PROCESSORS: dict[type, type[NagTextProcessor]] = {
    WanAttnProcessor: NagWanAttnProcessor,
    LTXVideoAttnProcessor: NagLTXVideoAttnProcessor,
    LTX2AudioVideoAttnProcessor: NagLTX2AudioVideoAttnProcessor,
    LTX2PerturbedAttnProcessor: NagLTX2AudioVideoAttnProcessor,
}
_TRANSFORMERS = (
    WanTransformer3DModel,
    WanVACETransformer3DModel,
    LTXVideoTransformer3DModel,
    LTX2VideoTransformer3DModel,
)


def find_transformers(pipeline: Any) -> dict[str, Any]:
    """Return the pipeline's transformers by name: one, or two in Wan 2.2.

    A transformer that `torch.compile` wraps is returned without its wrapper, which calls it.

    Raises:
        UnsupportedPipelineError: a transformer is not Wan's or LTX's, or there is none.
    """
    parts = {name: getattr(pipeline, name, None) for name in ("transformer", "transformer_2")}
    parts = {
        name: part._orig_mod if is_compiled_module(part) else part
        for name, part in parts.items()
        if part is not None
    }
    if not parts or not all(isinstance(part, _TRANSFORMERS) for part in parts.values()):
        unet = getattr(pipeline, "unet", None)
        kinds = [type(part).__name__ for part in (*parts.values(), unet) if part is not None]
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} must have Wan or LTX transformers "
            f"({', '.join(kind.__name__ for kind in _TRANSFORMERS)}), "
            f"got {', '.join(kinds) or 'none'}"
            f"{'; a UNet cannot be guided' if unet is not None else ''}"
        )
    return parts


def find_text_attentions(transformer: torch.nn.Module) -> list[tuple[str, Any]]:
    """Return every text cross-attention with its name, found by its class and role."""
    return [
        (name, module)
        for name, module in transformer.named_modules()
        if (isinstance(module, WanAttention) and module.is_cross_attention)
        or (isinstance(module, LTXAttention) and name.endswith(".attn2"))
        or (isinstance(module, LTX2Attention) and name.endswith((".attn2", ".audio_attn2")))
    ]


def text_inputs_of(transformer: torch.nn.Module) -> tuple[TextInput, ...]:
    """Return the texts that a transformer takes: LTX-2 takes a second one, for the sound."""
    has_audio = isinstance(transformer, LTX2VideoTransformer3DModel)
    return (VIDEO_TEXT, AUDIO_TEXT) if has_audio else (VIDEO_TEXT,)


def text_input_of(attention: str) -> TextInput:
    """Return the text that reaches an attention, by the name of that attention."""
    return AUDIO_TEXT if attention.endswith(".audio_attn2") else VIDEO_TEXT


def is_guided(attention: Any) -> bool:
    """Return True if the attention has a processor of this library."""
    return isinstance(attention.processor, tuple(PROCESSORS.values()))


def count_coverage(transformers: dict[str, Any]) -> Coverage:
    """Count the guided attentions on the modules themselves, as they are now."""
    attentions = [
        attention for model in transformers.values() for _, attention in find_text_attentions(model)
    ]
    return Coverage(sum(is_guided(attention) for attention in attentions), len(attentions))


def prove_coverage(pipeline: Any, transformers: dict[str, Any]) -> Coverage:
    """Prove that every text cross-attention of the pipeline is guided.

    Args:
        pipeline: pipeline that guidance was installed on.
        transformers: its transformers at that time.

    Raises:
        NagCoverageError: a processor or a transformer was replaced since, or there is nothing to
            guide.
    """
    if find_transformers(pipeline) != transformers:
        raise NagCoverageError(
            "the pipeline's transformers were replaced after guidance was installed; "
            "install it again"
        )
    coverage = count_coverage(transformers)
    if coverage.total == 0 or coverage.guided != coverage.total:
        raise NagCoverageError(
            f"only {coverage} text cross-attentions are guided; "
            "install guidance after every other extension"
        )
    return coverage
