"""All families whose blocks update the text, in lanes or in one sequence, behave alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from nag import (
    AlreadyInstalledError,
    ForeignCallError,
    NagParameterError,
    NasaParams,
    NegativeText,
    UnsupportedProcessorError,
    VsfParams,
    install,
)
from nag.installation.coverage import find_models
from tests.nag import joint_families, sequence_families
from tests.nag.joint_families import assert_differs
from tests.nag.reference import state


@dataclass(frozen=True)
class Case:
    """One family, with its tiny pipeline, a negative prompt and a guided call.

    Args:
        names_calls: True if its pipeline names the calls of its transformer.
        has_flip: True if Value Sign Flip guides it too.
    """

    build: Callable[[], Any]
    negative: NegativeText
    strengths: dict[str, Any]
    render: Callable[[Any], torch.Tensor]
    names_calls: bool
    has_flip: bool = False


def _joint(family: joint_families.Family) -> Case:
    return Case(
        family.build,
        family.negative()[0],
        family.strengths(),
        lambda pipeline: joint_families.render(pipeline, family),
        family.names_calls,
        family.has_flip,
    )


def _sequence(family: sequence_families.Family) -> Case:
    return Case(
        family.build,
        family.negative(sequence_families.negatives(family)),
        sequence_families.STRENGTHS,
        lambda pipeline: sequence_families.render(pipeline, family),
        family.is_named,
    )


CASES = {name: _joint(one) for name, one in joint_families.FAMILIES.items()} | {
    name: _sequence(one) for name, one in sequence_families.FAMILIES.items()
}
all_cases = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def last_attention(pipeline: Any) -> Any:
    return find_models(pipeline)[0].text_attentions()[-1][1]


@all_cases
def test_scale_one_and_the_time_outside_guide_are_the_plain_model(case: Case) -> None:
    pipeline = case.build()
    plain, before = case.render(pipeline), state(pipeline.transformer)
    with install(pipeline) as nag:
        with nag.guide(case.negative, nag_scale=1):
            assert torch.equal(case.render(pipeline), plain)
        with nag.guide(case.negative, **case.strengths):
            assert_differs(case.render(pipeline), plain)
        assert torch.equal(case.render(pipeline), plain)
    assert state(pipeline.transformer) == before
    assert torch.equal(case.render(pipeline), plain)


@all_cases
def test_a_range_of_steps_is_guided(case: Case) -> None:
    pipeline = case.build()
    plain = case.render(pipeline)
    with install(pipeline) as nag:
        with nag.guide(case.negative, **case.strengths):
            whole = case.render(pipeline)
        with nag.guide(case.negative, nag_end=0.5, **case.strengths):
            first = case.render(pipeline)
    assert_differs(first, plain)
    assert not torch.equal(first, whole)


@all_cases
def test_an_exception_in_the_middle_leaves_nothing_behind(case: Case) -> None:
    pipeline = case.build()
    plain, before = case.render(pipeline), state(pipeline.transformer)
    handle = last_attention(pipeline).register_forward_hook(_interrupt)
    with (
        pytest.raises(KeyboardInterrupt),
        install(pipeline) as nag,
        nag.guide(case.negative, **case.strengths),
    ):
        case.render(pipeline)
    handle.remove()
    assert state(pipeline.transformer) == before
    assert torch.equal(case.render(pipeline), plain)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@all_cases
def test_a_second_pipeline_on_the_same_model_is_refused_or_named(case: Case) -> None:
    pipeline = case.build()
    second = type(pipeline)(**pipeline.components)
    second.set_progress_bar_config(disable=True)
    with install(pipeline) as nag, nag.guide(case.negative, **case.strengths):
        guided = case.render(pipeline)
        with pytest.raises(AlreadyInstalledError):
            install(second)
        if case.names_calls:
            assert torch.equal(case.render(second), guided)
        else:
            with pytest.raises(ForeignCallError):
                case.render(second)


@all_cases
def test_the_rivals_are_refused_before_a_call(case: Case) -> None:
    with install(case.build()) as nag:
        rivals = (NasaParams(),) if case.has_flip else (VsfParams(), NasaParams())
        for params in rivals:
            with (
                pytest.raises(NagParameterError, match="guided by NagParams alone, got"),
                nag.guide(case.negative, params),
            ):
                pass
        assert not nag.is_guiding


@all_cases
def test_a_foreign_processor_is_refused(case: Case) -> None:
    pipeline = case.build()
    name, attention = find_models(pipeline)[0].text_attentions()[-1]
    attention.processor = type("Foreign", (type(attention.processor),), {})()
    before = state(pipeline.transformer)
    with pytest.raises(UnsupportedProcessorError, match=f"{name} has the processor Foreign"):
        install(pipeline)
    assert state(pipeline.transformer) == before
