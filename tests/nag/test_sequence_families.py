"""All single-stream families behave alike."""

from typing import Any

import pytest
import torch
from peft import LoraConfig

from nag import (
    AlreadyInstalledError,
    ForeignCallError,
    NagParameterError,
    NagTextError,
    NasaParams,
    NegativeText,
    UnsupportedProcessorError,
    VsfParams,
    install,
)
from nag.adapters.registry import adapter_of
from tests.nag.joint_families import assert_agrees, assert_differs
from tests.nag.sequence_by_hand import ByHand, sequences_by_hand
from tests.nag.sequence_families import (
    NEGATIVE_LENGTHS,
    STRENGTHS,
    Family,
    all_families,
    render,
    texts,
)
from tests.nag.test_joint_families import state


def negatives(family: Family, rows: int = 1) -> list[torch.Tensor]:
    return family.texts(2, *NEGATIVE_LENGTHS)[:rows]


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
    arguments = family.arguments(unconditional, "negative_") | {"guidance_scale": 3.0}
    by_hand = ByHand(negatives(family), tuple(unconditional))
    with sequences_by_hand(pipeline, family.rows, by_hand):
        expected = render(pipeline, family, 2, **arguments)
    with install(pipeline) as nag, nag.guide(family.negative(negatives(family)), **STRENGTHS):
        guided = render(pipeline, family, 2, **arguments)
    assert_agrees(guided, expected)
    assert_differs(guided, render(pipeline, family, 2, **arguments))


@all_families
def test_scale_one_and_the_time_outside_guide_are_the_plain_model(family: Family) -> None:
    pipeline = family.build()
    plain, before = render(pipeline, family), state(pipeline.transformer)
    with install(pipeline) as nag:
        with nag.guide(family.negative(negatives(family)), nag_scale=1):
            assert torch.equal(render(pipeline, family), plain)
        with nag.guide(family.negative(negatives(family)), **STRENGTHS):
            assert_differs(render(pipeline, family), plain)
        assert torch.equal(render(pipeline, family), plain)
    assert state(pipeline.transformer) == before
    assert torch.equal(render(pipeline, family), plain)


@all_families
def test_a_range_of_steps_is_guided(family: Family) -> None:
    pipeline = family.build()
    plain = render(pipeline, family)
    with install(pipeline) as nag:
        with nag.guide(family.negative(negatives(family)), **STRENGTHS):
            whole = render(pipeline, family)
        with nag.guide(family.negative(negatives(family)), nag_end=0.5, **STRENGTHS):
            first = render(pipeline, family)
    assert_differs(first, plain)
    assert not torch.equal(first, whole)


@all_families
def test_an_exception_in_the_middle_leaves_nothing_behind(family: Family) -> None:
    pipeline = family.build()
    plain, before = render(pipeline, family), state(pipeline.transformer)
    names = [name for name, _ in pipeline.transformer.named_modules()]
    last = pipeline.transformer.get_submodule([one for one in names if "to_out" in one][-1])
    handle = last.register_forward_hook(_interrupt)
    with (
        pytest.raises(KeyboardInterrupt),
        install(pipeline) as nag,
        nag.guide(family.negative(negatives(family)), **STRENGTHS),
    ):
        render(pipeline, family)
    handle.remove()
    assert state(pipeline.transformer) == before
    assert torch.equal(render(pipeline, family), plain)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


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


@all_families
def test_a_second_pipeline_on_the_same_model_is_refused_or_named(family: Family) -> None:
    pipeline = family.build()
    second = type(pipeline)(**pipeline.components)
    second.set_progress_bar_config(disable=True)
    with install(pipeline) as nag, nag.guide(family.negative(negatives(family)), **STRENGTHS):
        guided = render(pipeline, family)
        with pytest.raises(AlreadyInstalledError):
            install(second)
        if family.is_named:
            assert torch.equal(render(second, family), guided)
        else:
            with pytest.raises(ForeignCallError):
                render(second, family)


@all_families
def test_rivals_and_texts_that_do_not_fit_are_refused(family: Family) -> None:
    pipeline = family.build()
    cases = [
        ("(batch, tokens, 16)", NegativeText(torch.ones(1, 4, 9))),
        ("1 row, or one for each prompt", family.negative(texts(2, 4, 4, 4))),
        (
            "must have a token that is text, got [0]" if family.has_masks else "takes none: leave",
            NegativeText(torch.ones(1, 4, 16), torch.zeros(1, 4)),
        ),
    ]
    with install(pipeline) as nag:
        for params in (VsfParams(), NasaParams()):
            with (
                pytest.raises(NagParameterError, match="guided by NagParams alone, got"),
                nag.guide(family.negative(negatives(family)), params),
            ):
                pass
        for message, wrong in cases:
            with pytest.raises(NagTextError) as refusal, nag.guide(wrong, **STRENGTHS):
                render(pipeline, family, 2)
            assert message in str(refusal.value)
        with nag.guide(family.negative(negatives(family)), **STRENGTHS):
            render(pipeline, family)


@all_families
def test_a_foreign_processor_is_refused(family: Family) -> None:
    pipeline = family.build()
    adapter = adapter_of(pipeline.transformer)
    assert adapter is not None
    attention = adapter.text_attentions(pipeline.transformer)[-1][1]
    attention.set_processor(type("Foreign", (type(attention.processor),), {})())
    before = state(pipeline.transformer)
    with pytest.raises(UnsupportedProcessorError, match="has the processor Foreign"):
        install(pipeline)
    assert state(pipeline.transformer) == before
