"""All single-stream families behave alike."""

import pytest
import torch
from peft import LoraConfig

from nag import (
    NagTextError,
    NegativeText,
    install,
)
from tests.builders.tiny import TEXT_DIM
from tests.nag.joint_families import assert_agrees, assert_differs
from tests.nag.sequence_by_hand import ByHand, sequences_by_hand
from tests.nag.sequence_families import (
    FAMILIES,
    STRENGTHS,
    Family,
    all_families,
    negatives,
    render,
)


@all_families
def test_a_batch_of_texts_of_two_lengths_is_guided_as_by_hand(family: Family) -> None:
    pipeline = family.build()
    with sequences_by_hand(pipeline, family.rows, ByHand(negatives(family, 2))):
        by_hand = render(pipeline, family, 2)
    plain = render(pipeline, family, 2)
    with install(pipeline) as nag:
        assert str(nag.coverage) == f"{family.coverage} of {family.coverage}"
        with nag.guide(family.negative(negatives(family, 2)), **STRENGTHS):
            guided = render(pipeline, family, 2)
    assert_agrees(guided, by_hand)
    assert_differs(guided, plain)


@all_families
def test_the_unconditional_pass_stays_unguided(family: Family) -> None:
    pipeline = family.build()
    unconditional = family.texts(3, 9, 12)
    arguments = family.arguments(unconditional, "negative_") | {family.scale: 3.0}
    by_hand = ByHand(negatives(family), tuple(unconditional))
    with sequences_by_hand(pipeline, family.rows, by_hand):
        expected = render(pipeline, family, 2, **arguments)
    with install(pipeline) as nag, nag.guide(family.negative(negatives(family)), **STRENGTHS):
        guided = render(pipeline, family, 2, **arguments)
    assert_agrees(guided, expected)
    assert_differs(guided, render(pipeline, family, 2, **arguments))


@all_families
def test_a_lora_is_guided_as_by_hand(family: Family) -> None:
    pipeline = family.build()
    with install(pipeline) as nag, nag.guide(family.negative(negatives(family)), **STRENGTHS):
        without = render(pipeline, family)
    pipeline.transformer.add_adapter(
        LoraConfig(r=2, target_modules=list(family.lora), init_lora_weights=False)
    )
    with sequences_by_hand(pipeline, family.rows, ByHand(negatives(family))):
        by_hand = render(pipeline, family)
    with install(pipeline) as nag, nag.guide(family.negative(negatives(family)), **STRENGTHS):
        guided = render(pipeline, family)
    assert_agrees(guided, by_hand)
    assert_differs(guided, without)


def test_ideogram_4_makes_a_negative_text_without_an_image() -> None:
    family = FAMILIES["Ideogram 4"]
    pipeline = family.build()
    with install(pipeline) as nag:
        with nag.guide(NegativeText(torch.ones(1, 3, TEXT_DIM)), **STRENGTHS):
            expected = render(pipeline, family)
        with nag.guide("red", max_sequence_length=9, **STRENGTHS):
            assert torch.equal(render(pipeline, family), expected)
    assert_differs(expected, render(pipeline, family))


@all_families
def test_texts_that_do_not_fit_are_refused(family: Family) -> None:
    pipeline = family.build()
    channels = ", ".join(map(str, family.token_shape))
    cases = [
        (f"(batch, tokens, {channels})", NegativeText(torch.ones(1, 4, 9))),
        ("1 row, or one for each prompt", family.negative(family.texts(2, 4, 4, 4))),
        (
            "must have a token that is text, got [0]" if family.has_masks else "takes none: leave",
            NegativeText(torch.ones(1, 4, *family.token_shape), torch.zeros(1, 4)),
        ),
    ]
    with install(pipeline) as nag:
        for message, wrong in cases:
            with pytest.raises(NagTextError) as refusal, nag.guide(wrong, **STRENGTHS):
                render(pipeline, family, 2)
            assert message in str(refusal.value)
        with nag.guide(family.negative(negatives(family)), **STRENGTHS):
            render(pipeline, family)
