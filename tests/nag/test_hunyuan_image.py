"""HunyuanImage: the letters that a prompt quotes are a second text."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nag import NagTextError, NegativeText, encode_negative_prompt, guide
from tests.builders import tiny_joint
from tests.nag.joint_by_hand import joint_attention_by_hand
from tests.nag.joint_families import (
    FAMILIES,
    GLYPHS,
    LENGTH,
    assert_agrees,
    assert_differs,
    glyphs,
    render,
    seeded,
    text,
)
from tests.nag.reference import Guidance, mask

IMAGE = FAMILIES["HunyuanImage"]


def test_a_negative_prompt_that_quotes_nothing_has_no_letters() -> None:
    pipeline = tiny_joint.hunyuan_image_pipeline()
    embeds, of_text = text(1, 2), mask(LENGTH, LENGTH - 2)
    nothing = mask(GLYPHS, 0)
    guidance = Guidance(
        embeds, of_text, scale=5.0, tau=1.5, alpha=0.5, glyphs=glyphs(1, 3), glyph_mask=nothing
    )
    with joint_attention_by_hand(pipeline, guidance, None, IMAGE.rotate):
        by_hand = render(pipeline, IMAGE, 2)
    with guide(pipeline, NegativeText(embeds, of_text), **IMAGE.strengths()):
        guided = render(pipeline, IMAGE, 2)
    assert_agrees(guided, by_hand)
    quoting = NegativeText(
        embeds, of_text, glyph_embeds=glyphs(1, 3), glyph_mask=mask(GLYPHS, GLYPHS)
    )
    with guide(pipeline, quoting, **IMAGE.strengths()):
        assert_differs(render(pipeline, IMAGE, 2), guided)


def test_the_refiner_is_guided_without_letters() -> None:
    pipeline = tiny_joint.hunyuan_image_pipeline()
    pipeline.transformer = tiny_joint.hunyuan_image_transformer(
        text_embed_2_dim=None, guidance_embeds=True, patch_size=(1, 1, 1), rope_axes_dim=(4, 4, 4)
    )
    negative = NegativeText(text(1, 2), mask(LENGTH, LENGTH - 1))
    guidance = Guidance(negative.embeds, negative.attention_mask, scale=5.0, tau=1.5, alpha=0.5)
    call: dict[str, Any] = {
        "hidden_states": seeded(9, 2, 4, 2, 4, 4),
        "timestep": torch.full((2,), 700.0),
        "guidance": torch.full((2,), 3000.0),
        "encoder_hidden_states": text(2, 1),
        "encoder_attention_mask": mask(LENGTH, LENGTH, LENGTH - 3),
        "return_dict": False,
    }

    def predict() -> torch.Tensor:
        with torch.no_grad(), pipeline.transformer.cache_context("pred_cond"):
            return pipeline.transformer(**call)[0]

    plain = predict()
    with joint_attention_by_hand(pipeline, guidance, None, IMAGE.rotate):
        by_hand = predict()
    with guide(pipeline, negative, **IMAGE.strengths()):
        guided = predict()
    assert_agrees(guided, by_hand)
    assert_differs(guided, plain)


@pytest.mark.parametrize(
    ("message", "letters"),
    [
        ("as the prompt's are", (seeded(1, 1, 3, tiny_joint.GLYPH_DIM), mask(3, 3))),
        ("and its glyph_mask (batch, tokens)", (glyphs(1, 1), None)),
        ("must have 1 rows", (glyphs(2, 1), mask(GLYPHS, 1, 1))),
    ],
)
def test_letters_that_do_not_fit_are_refused(message: str, letters: tuple[Any, Any]) -> None:
    pipeline = tiny_joint.hunyuan_image_pipeline()
    embeds, of_letters = letters
    wrong = NegativeText(
        text(1, 2), mask(LENGTH, LENGTH), glyph_embeds=embeds, glyph_mask=of_letters
    )
    with pytest.raises(NagTextError) as refusal, guide(pipeline, wrong, **IMAGE.strengths()):
        render(pipeline, IMAGE)
    assert message in str(refusal.value)


def test_two_negative_texts_are_encoded_with_the_letters_that_they_quote() -> None:
    pipeline = tiny_joint.hunyuan_image_pipeline()
    pipeline.text_encoder_2 = SimpleNamespace(config=SimpleNamespace(d_model=tiny_joint.GLYPH_DIM))
    pipeline.tokenizer_2_max_length = GLYPHS
    of_letters = glyphs(1, 5), mask(GLYPHS, 2)
    pipeline._get_qwen_prompt_embeds = lambda prompt, **_: (
        text(len(prompt), 4),
        mask(LENGTH, *[LENGTH] * len(prompt)),
    )
    pipeline._get_byt5_prompt_embeds = lambda **_: of_letters
    negative = encode_negative_prompt(pipeline, ["red", 'the word "NO"'])
    assert negative.embeds.shape == (2, LENGTH, tiny_joint.TEXT_DIM)
    assert negative.glyph_embeds is not None
    assert negative.glyph_mask is not None
    assert not negative.glyph_mask[0].any()
    assert torch.equal(negative.glyph_embeds[1:], of_letters[0])
    assert torch.equal(negative.glyph_mask[1:].bool(), of_letters[1].bool())
