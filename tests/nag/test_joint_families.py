"""All families with joint attention behave alike."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from nag import (
    NagTextError,
    NegativeText,
    install,
)
from tests.nag.joint_by_hand import joint_attention_by_hand
from tests.nag.joint_families import (
    LENGTH,
    Family,
    all_families,
    assert_agrees,
    assert_differs,
    layers,
    pooled,
    render,
    seeded,
    text,
)
from tests.nag.reference import mask


@all_families
def test_a_batch_is_guided_as_by_hand(family: Family) -> None:
    pipeline = family.build()
    negative, guidance, of_whole = family.negative(rows=2)
    with joint_attention_by_hand(pipeline, guidance, of_whole, family.rotate):
        by_hand = render(pipeline, family, 2)
    plain = render(pipeline, family, 2)
    with install(pipeline) as nag:
        assert str(nag.coverage) == f"{family.coverage} of {family.coverage}"
        with nag.guide(negative, **family.strengths()):
            guided = render(pipeline, family, 2)
    assert_agrees(guided, by_hand)
    assert_differs(guided, plain)


@all_families
def test_the_unconditional_pass_stays_unguided(family: Family) -> None:
    pipeline = family.build()
    negative, guidance, of_whole = family.negative()
    unconditional = family.texts(2, 5, "negative_")
    arguments: dict[str, Any] = {family.guidance_scale: 3.0, **unconditional}
    of_pass = text(2, 5)
    # CogView 3 Plus takes zeros in the place of embeddings.
    of_pass = torch.cat([of_pass, torch.zeros_like(of_pass[:1])])
    guidance = replace(guidance, unconditional=of_pass)
    with joint_attention_by_hand(pipeline, guidance, of_whole, family.rotate):
        by_hand = render(pipeline, family, 2, **arguments)
    with install(pipeline) as nag, nag.guide(negative, **family.strengths()):
        guided = render(pipeline, family, 2, **arguments)
    assert_agrees(guided, by_hand)


@all_families
def test_a_lora_on_both_streams_is_guided_as_by_hand(family: Family) -> None:
    pipeline = family.build()
    negative, guidance, of_whole = family.negative()
    with install(pipeline) as nag, nag.guide(negative, **family.strengths()):
        without = render(pipeline, family)
    config = LoraConfig(
        r=2,
        target_modules=[
            "to_k",
            "add_k_proj",
            "add_v_proj",
            "to_k_t",
            "img_attn_qkv",
            "txt_attn_qkv",
        ],
        init_lora_weights=False,
    )
    inject_adapter_in_model(config, pipeline.transformer)
    with joint_attention_by_hand(pipeline, guidance, of_whole, family.rotate):
        by_hand = render(pipeline, family)
    with install(pipeline) as nag, nag.guide(negative, **family.strengths()):
        guided = render(pipeline, family)
    assert_agrees(guided, by_hand)
    assert_differs(guided, without)


@all_families
def test_texts_that_do_not_fit_are_refused(family: Family) -> None:
    pipeline = family.build()
    negative, _, of_whole = family.negative()
    cases = [("(batch, tokens, 16)", NegativeText(seeded(1, 1, LENGTH, 9), pooled=of_whole))]
    if family.pooled:
        cases += [
            ("model takes pooled_", NegativeText(text(1, 2))),
            ("must be (batch, 12)", NegativeText(text(1, 2), pooled=seeded(2, 1, 5))),
            ("must have 1 rows", NegativeText(text(1, 2), pooled=pooled(2, 2))),
        ]
    if family.layers:
        whole = replace(negative, layer_embeds=None)
        cases.append((" too: give NegativeText the layer_embeds", whole))
        short = replace(negative, layer_embeds=layers(1, 2)[:1])
        cases.append(("layer_embeds must be (4, batch, tokens, 10)", short))
        several = replace(negative, layer_embeds=layers(2, 2))
        cases.append(("must be (layers, 1, tokens, channels)", several))
    if not family.has_own_lengths and not family.mask:
        cases.append(
            ("max_sequence_length of the call", NegativeText(text(1, 2, 4), pooled=of_whole))
        )
    if not (family.mask and family.sees_mask):
        masked = NegativeText(text(1, 2), mask(LENGTH, LENGTH), pooled=of_whole)
        cases.append(("this model takes none", masked))
    with install(pipeline) as nag:
        for message, wrong in cases:
            with (
                pytest.raises(NagTextError) as refusal,
                nag.guide(wrong, **family.strengths()),
            ):
                render(pipeline, family)
            assert message in str(refusal.value)
        with nag.guide(negative, **family.strengths()):
            render(pipeline, family)
