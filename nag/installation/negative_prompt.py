"""The negative prompt's embeddings, made by the pipeline's own text encoder."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from inspect import signature
from typing import Any

import torch

from nag.attention.text.negative_text import NegativeText
from nag.errors import NagTextError
from nag.installation.coverage import find_models

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
        NagTextError: the negative prompt is neither text, nor a list of texts, nor `NegativeText`,
            or the pipeline takes no `max_sequence_length`, or it is below 1, or the pipeline
            encodes a text with an image, or has no text encoder.

    Example:
        Two texts for a call with two prompts, of 48 tokens each:

        >>> negative = encode_negative_prompt(pipe, ["red", "a tree"], max_sequence_length=48)
        >>> negative.embeds.shape[:2]
        torch.Size([2, 48])
    """
    if isinstance(negative_prompt, NegativeText):
        return negative_prompt
    if max_sequence_length is not None and max_sequence_length < 1:
        raise NagTextError(f"max_sequence_length must be at least 1, not {max_sequence_length}")
    adapter, texts = find_models(pipeline)[0].adapter, _texts(negative_prompt)
    if not adapter.needs_no_image:
        _refuse_images(pipeline)
    encode, arguments = _encoder(pipeline)
    if adapter.takes_one_text and len(texts) > 1:
        raise NagTextError(
            f"{type(pipeline).__name__} renders one prompt a call: expected one negative prompt, "
            f"got {len(texts)}"
        )
    prompt = texts[0] if adapter.takes_one_text else texts
    arguments |= {"prompt": prompt, "device": pipeline._execution_device}
    arguments["batch_size"] = len(texts)  # some count their prompts by it
    takes = signature(encode).parameters
    if "task_prompt" in takes:  # VisualCloze joins three texts to one
        nothing = [None] * len(texts)
        arguments |= {"layout_prompt": nothing, "task_prompt": prompt, "content_prompt": nothing}
    has_length = "max_sequence_length" in takes
    has_length &= not any("max_sequence_length" in others for others in adapter.encodings)
    has_default_length = has_length and max_sequence_length is None
    if has_length:
        arguments["max_sequence_length"] = (
            _default_length(pipeline, encode) if has_default_length else max_sequence_length
        )
    elif max_sequence_length is not None:
        raise NagTextError(
            f"{type(pipeline).__name__} has one length for all texts: leave max_sequence_length out"
        )
    arguments = {name: value for name, value in arguments.items() if name in takes}
    with _named_encoders(pipeline):
        encoded = tuple(encode(**arguments, **others) for others in adapter.encodings)
    negative = adapter.negative_text(pipeline, encoded[0] if len(encoded) == 1 else encoded)
    return replace(negative, has_default_length=has_default_length and adapter.pads_text)


def _texts(negative_prompt: Any) -> list[str]:
    texts = [negative_prompt] if isinstance(negative_prompt, str) else negative_prompt
    if isinstance(texts, Sequence) and texts and all(isinstance(one, str) for one in texts):
        return list(texts)
    kind = type(negative_prompt).__name__
    remedy = "; wrap embeddings in NegativeText" if torch.is_tensor(negative_prompt) else ""
    raise NagTextError(f"the negative prompt must be a text or a list of texts, got {kind}{remedy}")


@contextmanager
def _named_encoders(pipeline: Any) -> Generator[None]:
    """Name the encoders that the pipeline was built without, if an encoding fails."""
    try:
        yield
    except Exception as error:
        missing = [
            name
            for name, part in getattr(pipeline, "components", {}).items()
            if part is None and name.startswith(("tokenizer", "text_encoder"))
        ]
        if not missing:
            raise
        raise NagTextError(
            f"{type(pipeline).__name__} has no {' and no '.join(missing)} to encode the "
            "negative prompt: give NegativeText of its embeddings"
        ) from error


def _refuse_images(pipeline: Any) -> None:
    """Raise if the pipeline encodes a text together with the images of its call."""
    name = "encode_prompt"
    is_refused = hasattr(pipeline, name) and "image" in signature(pipeline.encode_prompt).parameters
    if hasattr(pipeline, "encode_prompt_multiple_images"):
        name, is_refused = "encode_prompt_multiple_images", True
    if is_refused:
        raise NagTextError(
            f"{type(pipeline).__name__} encodes a text together with an image: give NegativeText "
            f"of what its {name} returns for the negative prompt and the image of the call"
        )


def _default_length(pipeline: Any, encode: Any) -> int:
    """Return the tokens of a text in a call that names no length."""
    of_call = signature(type(pipeline).__call__).parameters.get("max_sequence_length")
    default = (of_call or signature(encode).parameters["max_sequence_length"]).default
    return pipeline.default_max_sequence_length if default is None else default


def _caption_cleaning(pipeline: Any) -> dict[str, bool]:
    """Return the cleaning of prompts that the pipeline's call does by default."""
    of_call = signature(type(pipeline).__call__).parameters.get("clean_caption")
    return {} if of_call is None else {"clean_caption": of_call.default}


def _encode_prompt(pipeline: Any) -> Callable[..., Any]:
    """Return the text encoding of a stock pipeline.

    That of the first InstructPix2Pix has another name, and returns the embeddings alone.
    """
    if hasattr(pipeline, "encode_prompt"):
        return pipeline.encode_prompt
    encode: Any = pipeline._encode_prompt

    @wraps(encode)
    def encode_prompt(*args: Any, **kwargs: Any) -> tuple[Any]:
        return (encode(*args, **kwargs),)

    return encode_prompt


def _encoder(pipeline: Any) -> tuple[Any, dict[str, Any]]:
    """Return the pipeline's text encoding, and the arguments for a text without its opposite."""
    if not hasattr(pipeline, "blocks"):
        return _encode_prompt(pipeline), {
            "prompt_2": None,  # the same text for each encoder, as in the pipeline's call
            "prompt_3": None,
            "num_images_per_prompt": 1,
            "num_waveforms_per_prompt": 1,
            "do_classifier_free_guidance": False,
            "guidance_scale": 1.0,  # in its place in Bria's Fibo
            **_caption_cleaning(pipeline),
        }
    step = pipeline.blocks.sub_blocks.get("text_encoder")  # a modular pipeline's
    if not hasattr(step, "encode_prompt"):
        raise NagTextError(
            f"{type(pipeline).__name__} has no step that encodes one text: give NegativeText of "
            "the embeddings, which its own steps make"
        )
    # Wan's step fails without the unconditional embeddings (diffusers 0.42).
    return step.encode_prompt, {"components": pipeline, "prepare_unconditional_embeds": True}
