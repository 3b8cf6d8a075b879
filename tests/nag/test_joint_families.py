"""All families with joint attention behave alike."""

from dataclasses import replace
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
from tests.nag.joint_by_hand import joint_attention_by_hand
from tests.nag.joint_families import (
    LENGTH,
    Family,
    all_families,
    assert_agrees,
    assert_differs,
    pooled,
    render,
    seeded,
    text,
)
from tests.nag.reference import mask


def state(model: Any) -> list[Any]:
    """Return all that guidance could leave behind on a model."""
    return [
        (
            name,
            id(getattr(module, "processor", None)),
            list(module._forward_pre_hooks.values()),
            list(module._forward_hooks.values()),
            sorted(vars(module)),
        )
        for name, module in model.named_modules()
    ]


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
    guidance = replace(guidance, unconditional=unconditional["negative_prompt_embeds"])
    with joint_attention_by_hand(pipeline, guidance, of_whole, family.rotate):
        by_hand = render(pipeline, family, 2, **arguments)
    with install(pipeline) as nag, nag.guide(negative, **family.strengths()):
        guided = render(pipeline, family, 2, **arguments)
    assert_agrees(guided, by_hand)


@all_families
def test_scale_one_and_the_time_outside_guide_are_the_plain_model(family: Family) -> None:
    pipeline = family.build()
    negative, _, _ = family.negative()
    plain, before = render(pipeline, family), state(pipeline.transformer)
    with install(pipeline) as nag:
        with nag.guide(negative, nag_scale=1):
            assert torch.equal(render(pipeline, family), plain)
        with nag.guide(negative, **family.strengths()):
            assert_differs(render(pipeline, family), plain)
        assert torch.equal(render(pipeline, family), plain)
    assert state(pipeline.transformer) == before
    assert torch.equal(render(pipeline, family), plain)


@all_families
def test_a_range_of_steps_is_guided(family: Family) -> None:
    pipeline = family.build()
    negative, _, _ = family.negative()
    plain = render(pipeline, family)
    with install(pipeline) as nag:
        with nag.guide(negative, **family.strengths()):
            whole = render(pipeline, family)
        with nag.guide(negative, nag_end=0.5, **family.strengths()):
            first = render(pipeline, family)
    assert_differs(first, plain)
    assert not torch.equal(first, whole)


@all_families
def test_an_exception_in_the_middle_leaves_nothing_behind(family: Family) -> None:
    pipeline = family.build()
    negative, _, _ = family.negative()
    plain, before = render(pipeline, family), state(pipeline.transformer)
    last = pipeline.transformer.get_submodule(
        [name for name in dict(pipeline.transformer.named_modules()) if name.endswith(".to_q")][-1]
    )
    handle = last.register_forward_hook(_interrupt)
    with (
        pytest.raises(KeyboardInterrupt),
        install(pipeline) as nag,
        nag.guide(negative, **family.strengths()),
    ):
        render(pipeline, family)
    handle.remove()
    assert state(pipeline.transformer) == before
    assert torch.equal(render(pipeline, family), plain)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@all_families
def test_a_lora_on_both_streams_is_guided_as_by_hand(family: Family) -> None:
    pipeline = family.build()
    negative, guidance, of_whole = family.negative()
    with install(pipeline) as nag, nag.guide(negative, **family.strengths()):
        without = render(pipeline, family)
    pipeline.transformer.add_adapter(
        LoraConfig(
            r=2, target_modules=["to_k", "add_k_proj", "add_v_proj"], init_lora_weights=False
        )
    )
    with joint_attention_by_hand(pipeline, guidance, of_whole, family.rotate):
        by_hand = render(pipeline, family)
    with install(pipeline) as nag, nag.guide(negative, **family.strengths()):
        guided = render(pipeline, family)
    assert_agrees(guided, by_hand)
    assert_differs(guided, without)


@all_families
def test_a_second_pipeline_on_the_same_model_is_refused_or_named(family: Family) -> None:
    pipeline = family.build()
    second = type(pipeline)(**pipeline.components)
    second.set_progress_bar_config(disable=True)
    negative, _, _ = family.negative()
    with install(pipeline) as nag, nag.guide(negative, **family.strengths()):
        guided = render(pipeline, family)
        with pytest.raises(AlreadyInstalledError):
            install(second)
        if family.names_calls:
            assert torch.equal(render(second, family), guided)
        else:
            with pytest.raises(ForeignCallError):
                render(second, family)


@all_families
def test_the_rivals_are_refused_before_a_call(family: Family) -> None:
    pipeline = family.build()
    negative, _, _ = family.negative()
    with install(pipeline) as nag:
        for params in (VsfParams(), NasaParams()):
            with (
                pytest.raises(NagParameterError, match="guided by NagParams alone, got"),
                nag.guide(negative, params),
            ):
                pass
        assert not nag.is_guiding


@all_families
def test_texts_that_do_not_fit_are_refused(family: Family) -> None:
    pipeline = family.build()
    negative, _, of_whole = family.negative()
    cases = [("(batch, tokens, 16)", NegativeText(seeded(1, 1, LENGTH, 9), pooled=of_whole))]
    if family.pooled:
        cases += [
            ("pooled_projections too", NegativeText(text(1, 2))),
            ("must be (batch, 12)", NegativeText(text(1, 2), pooled=seeded(2, 1, 5))),
            ("must have 1 rows", NegativeText(text(1, 2), pooled=pooled(2, 2))),
        ]
    if not family.mask:
        cases += [
            ("max_sequence_length of the call", NegativeText(text(1, 2, 4), pooled=of_whole)),
            (
                "this model takes none",
                NegativeText(text(1, 2), mask(LENGTH, LENGTH), pooled=of_whole),
            ),
        ]
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


@all_families
def test_a_foreign_processor_is_refused(family: Family) -> None:
    pipeline = family.build()
    block: Any = pipeline.transformer.transformer_blocks[0]
    attention = block.attn1 if hasattr(block, "attn1") else block.attn
    stock: Any = attention.processor

    attention.set_processor(type("Foreign", (type(stock),), {})())
    before = state(pipeline.transformer)
    with pytest.raises(UnsupportedProcessorError, match="transformer_blocks.0.attn.* has the proc"):
        install(pipeline)
    assert state(pipeline.transformer) == before
