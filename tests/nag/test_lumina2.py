"""Lumina 2: texts from the encoder, with the system prompt before them."""

from typing import Any

import torch

from nag import encode_negative_prompt, guide
from tests.builders import tiny, tiny_sequence
from tests.nag.joint_families import assert_differs
from tests.nag.sequence_families import FAMILIES, STRENGTHS, render


def test_a_text_is_encoded_as_the_prompt_is() -> None:
    pipeline = tiny_sequence.lumina2_pipeline()
    pipeline.register_modules(text_encoder=tiny.text_encoder(), tokenizer=tiny.tokenizer())
    pipeline.system_prompt = "be red"
    call: dict[str, Any] = {
        "prompt": ["a fox", "snow"],
        "prompt_embeds": None,
        "prompt_attention_mask": None,
        "max_sequence_length": 40,
    }
    plain = render(pipeline, FAMILIES["Lumina 2"], 2, **call)
    with guide(pipeline, "a tree", max_sequence_length=40, **STRENGTHS):
        guided = render(pipeline, FAMILIES["Lumina 2"], 2, **call)
    assert_differs(guided[:1], plain[:1])
    assert_differs(guided[1:], plain[1:])
    encoded = encode_negative_prompt(pipeline, "a tree", max_sequence_length=40)
    embeds, mask, *_ = pipeline.encode_prompt(
        "a tree", do_classifier_free_guidance=False, max_sequence_length=40
    )
    assert torch.equal(encoded.embeds, embeds)
    assert encoded.attention_mask is not None
    assert torch.equal(encoded.attention_mask, mask)
