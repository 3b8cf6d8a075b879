"""The negative prompt's embeddings, made by the pipeline's own text encoder."""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from diffusers import LTX2VideoTransformer3DModel, LTXVideoTransformer3DModel

from nag.attention.text_concat import NegativeText
from nag.errors import NagTextError
from nag.installation.coverage import find_transformers

NegativePrompt = str | Sequence[str] | NegativeText


@torch.no_grad()
def encode_negative_prompt(
    pipeline: Any, negative_prompt: NegativePrompt, max_sequence_length: int | None = None
) -> NegativeText:
    """Return the text's embeddings, made as the pipeline makes those of its prompt.

    Args:
        pipeline: stock or modular pipeline.
        negative_prompt: one text for all prompts of a call, or a list with one for each. Embeddings
            are returned unchanged.
        max_sequence_length: tokens of a text; None takes the default of the pipeline.

    Raises:
        NagTextError: the negative prompt is neither text, nor a list of texts, nor `NegativeText`.
    """
    if isinstance(negative_prompt, NegativeText):
        return negative_prompt
    texts = _texts(negative_prompt)
    encode, arguments = _encoder(pipeline)
    has_default_length = max_sequence_length is None
    if has_default_length:
        max_sequence_length = signature(encode).parameters["max_sequence_length"].default
        arguments_of_call = signature(type(pipeline).__call__).parameters
        if "max_sequence_length" in arguments_of_call:
            max_sequence_length = arguments_of_call["max_sequence_length"].default
    encoded = encode(
        prompt=texts,
        max_sequence_length=max_sequence_length,
        device=pipeline._execution_device,
        **arguments,
    )
    (transformer, *_) = find_transformers(pipeline).values()
    if isinstance(transformer, LTX2VideoTransformer3DModel):
        embeds, audio_embeds, mask = pipeline.connectors(
            *encoded[:2], padding_side=pipeline.tokenizer.padding_side
        )
        return NegativeText(embeds, mask, has_default_length, audio_embeds)
    has_mask = isinstance(transformer, LTXVideoTransformer3DModel)
    return NegativeText(encoded[0], encoded[1] if has_mask else None, has_default_length)


def _texts(negative_prompt: Any) -> list[str]:
    texts = [negative_prompt] if isinstance(negative_prompt, str) else negative_prompt
    if isinstance(texts, Sequence) and texts and all(isinstance(one, str) for one in texts):
        return list(texts)
    kind = type(negative_prompt).__name__
    remedy = "; wrap embeddings in NegativeText" if torch.is_tensor(negative_prompt) else ""
    raise NagTextError(f"the negative prompt must be a text or a list of texts, got {kind}{remedy}")


def _encoder(pipeline: Any) -> tuple[Any, dict[str, Any]]:
    """Return the pipeline's text encoding, and the arguments for a text without its opposite."""
    if hasattr(pipeline, "encode_prompt"):
        return pipeline.encode_prompt, {"do_classifier_free_guidance": False}
    step = pipeline.blocks.sub_blocks["text_encoder"]  # a modular pipeline's
    # Wan's step fails without the unconditional embeddings (diffusers 0.42).
    return step.encode_prompt, {"components": pipeline, "prepare_unconditional_embeds": True}
