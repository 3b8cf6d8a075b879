"""Bria's Fibo 2 besides what all single streams share: images to edit, and texts of its encoder."""

from typing import Any

import pytest
import torch
from PIL import Image

from nag import NegativeText, encode_negative_prompt, guide, install
from tests.builders.tiny_fibo2 import NUM_TEXTS, TEXT_DIM, fibo2_pipeline, with_vae
from tests.nag.joint_families import assert_agrees, assert_differs
from tests.nag.sequence_by_hand import ByHand, sequences_by_hand
from tests.nag.sequence_families import FAMILIES, STRENGTHS, negatives, render

FIBO2 = FAMILIES["Fibo 2"]
OF_ENCODER: dict[str, Any] = {"prompt_embeds": None, "prompt_embeds_mask": None}


@pytest.mark.parametrize("num_images", [1, 2])
def test_an_image_and_those_to_edit_are_guided_as_by_hand(num_images: int) -> None:
    pipeline = with_vae(fibo2_pipeline())
    pipeline.default_sample_size = 8  # several images are cropped to about this
    images = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")][:num_images]
    with sequences_by_hand(pipeline, FIBO2.rows, ByHand(negatives(FIBO2))):
        by_hand = render(pipeline, FIBO2, image=images)
    plain = render(pipeline, FIBO2, image=images)
    with install(pipeline) as nag, nag.guide(FIBO2.negative(negatives(FIBO2)), **STRENGTHS):
        guided = render(pipeline, FIBO2, image=images)
    assert_agrees(guided, by_hand)
    assert_differs(guided, plain)
    assert_differs(plain, render(pipeline, FIBO2))


def test_a_text_is_encoded_without_the_images_of_the_call() -> None:
    pipeline = fibo2_pipeline()
    negative = encode_negative_prompt(pipeline, ["red", "a tree"])
    embeds, is_text = pipeline.encode_prompt(["red", "a tree"])
    assert torch.equal(negative.embeds, embeds.transpose(1, 2))
    assert negative.embeds.shape == (2, 2, NUM_TEXTS, TEXT_DIM)
    assert negative.attention_mask is not None
    assert torch.equal(negative.attention_mask, is_text)
    assert encode_negative_prompt(pipeline, "red").attention_mask is None


def test_each_step_is_guided_where_the_first_ones_have_another_prompt() -> None:
    """The letters that a caption quotes are drawn, and shown to the encoder from a step on."""
    pipeline = fibo2_pipeline()
    lengths: list[int] = []
    handle = pipeline.transformer.register_forward_pre_hook(
        lambda _model, _args, call: lengths.append(call["encoder_hidden_states"].shape[2]),
        with_kwargs=True,
    )
    call: dict[str, Any] = OF_ENCODER | {
        "prompt": ['{"short_description":"","text_render":[{"text":"a"}]}']
    }
    plain = render(pipeline, FIBO2, **call)
    handle.remove()
    assert len(set(lengths)) == 2
    embeds, _ = pipeline.encode_prompt(["a tree"])
    with sequences_by_hand(pipeline, FIBO2.rows, ByHand(list(embeds.transpose(1, 2)))):
        by_hand = render(pipeline, FIBO2, **call)
    with guide(pipeline, "a tree", **STRENGTHS):
        guided = render(pipeline, FIBO2, **call)
    assert_agrees(guided, by_hand)
    assert_differs(guided, plain)


def test_prompts_and_negative_prompts_of_one_number_of_gist_tokens_are_guided_as_by_hand() -> None:
    """Then no text is filled up, and the image stands behind the gist tokens."""
    pipeline = fibo2_pipeline()
    call: dict[str, Any] = OF_ENCODER | {"prompt": ["a fox in snow", "a red fox"]}
    embeds, is_text = pipeline.encode_prompt(["a tree", "a cat and a dog"])
    texts = embeds.transpose(1, 2)
    ones = [one[mask] for one, mask in zip(texts, is_text, strict=True)]
    with sequences_by_hand(pipeline, FIBO2.rows, ByHand(ones)):
        by_hand = render(pipeline, FIBO2, 2, **call)
    with guide(pipeline, NegativeText(texts, is_text), **STRENGTHS):
        assert_agrees(render(pipeline, FIBO2, 2, **call), by_hand)
