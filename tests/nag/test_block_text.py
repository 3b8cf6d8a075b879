"""Models that make the text of their blocks of all its tokens: what single ones have besides."""

from dataclasses import replace

import pytest
import torch

from nag import NagTextError, NegativeText, encode_negative_prompt, install
from tests.builders import tiny_pooled_text
from tests.nag.cross_families import FAMILIES, STRONG

HUNYUAN, LONGCAT = FAMILIES["HunyuanDiT"], FAMILIES["LongCat audio"]


def test_a_text_is_encoded_by_both_encoders_of_hunyuan_dit_in_their_own_lengths() -> None:
    pipeline = tiny_pooled_text.hunyuan_dit_with_encoders()
    negative = encode_negative_prompt(pipeline, ["red", "a blue dog"])
    with torch.no_grad():
        first, _, its_mask, _ = pipeline.encode_prompt(
            ["red", "a blue dog"], do_classifier_free_guidance=False, text_encoder_index=0
        )
        second, _, second_mask, _ = pipeline.encode_prompt(
            ["red", "a blue dog"], do_classifier_free_guidance=False, text_encoder_index=1
        )
    assert (first.shape[1], second.shape[1]) == (77, 256)
    parts = negative.embeds, negative.attention_mask, negative.second_embeds, negative.second_mask
    for ours, of_pipeline in zip(parts, (first, its_mask, second, second_mask), strict=True):
        assert ours is not None
        assert torch.equal(ours, of_pipeline)
    with pytest.raises(NagTextError, match="leave max_sequence_length out"):
        encode_negative_prompt(pipeline, "red", 12)


def test_a_text_without_its_second_part_or_of_another_length_is_refused() -> None:
    pipeline, whole = HUNYUAN.build(), HUNYUAN.negative(1)
    mask = whole.attention_mask
    assert mask is not None
    cases = (
        (NegativeText(whole.embeds, mask), "takes encoder_hidden_states_t5 too: give"),
        (replace(whole, embeds=whole.embeds[:, :3], attention_mask=mask[:, :3]), "6 tokens.*got 3"),
    )
    for negative, message in cases:
        with (
            install(pipeline) as nag,
            nag.guide(negative, **STRONG),
            pytest.raises(NagTextError, match=message),
        ):
            HUNYUAN.render(pipeline, 1, cfg=False)


def test_a_negative_prompt_as_text_is_that_of_longcats_own_encoder() -> None:
    pipeline = LONGCAT.build()
    embeds, lengths = pipeline.encode_prompt(["red", "blue dogs"], torch.device("cpu"))
    its_mask = torch.arange(embeds.shape[1])[None] < lengths[:, None]
    assert not its_mask.all()
    with install(pipeline) as nag:
        with nag.guide(["red", "blue dogs"], **STRONG):
            of_text = LONGCAT.render(pipeline, cfg=True)
        with nag.guide(NegativeText(embeds, its_mask), **STRONG):
            assert torch.equal(LONGCAT.render(pipeline, cfg=True), of_text)
