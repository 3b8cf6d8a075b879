"""Value Sign Flip where text and image attend to one another: the image sees the flipped text."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from nag import NagParameterError, NagTextError, NasaParams, NegativeText, VsfParams, guide, install
from tests.nag.joint_by_hand import joint_attention_by_hand
from tests.nag.joint_families import (
    FAMILIES,
    Family,
    assert_agrees,
    assert_differs,
    pooled,
    render,
    text,
)
from tests.nag.reference import Guidance, mask

PARAMS = VsfParams(vsf_scale=1.5, vsf_bias=0.3)
NEGATIVE = NegativeText(text(2, 2, 4), mask(4, 4, 3), pooled=pooled(2, 2))
BY_HAND = Guidance(NEGATIVE.embeds, NEGATIVE.attention_mask, 1.5, method="vsf", bias=0.3)
families = pytest.mark.parametrize("name", ["SD3", "Qwen-Image"])


@families
def test_a_batch_is_guided_as_by_hand(name: str) -> None:
    family = FAMILIES[name]
    pipeline = family.build()
    # The prompt's pooled text is that of its row in the lane too.
    with joint_attention_by_hand(pipeline, BY_HAND, None, family.rotate):
        by_hand = render(pipeline, family, 2)
    plain = render(pipeline, family, 2)
    with guide(pipeline, NEGATIVE, PARAMS):
        guided = render(pipeline, family, 2)
    assert_agrees(guided, by_hand)
    assert_differs(guided, plain)
    with guide(pipeline, NEGATIVE, VsfParams(vsf_scale=0)):
        assert torch.equal(render(pipeline, family, 2), plain)
    assert torch.equal(render(pipeline, family, 2), plain)


@families
def test_the_unconditional_pass_stays_unguided(name: str) -> None:
    family = FAMILIES[name]
    pipeline = family.build()
    arguments: dict[str, Any] = {family.guidance_scale: 3.0, **family.texts(2, 5, "negative_")}
    by_hand = replace(BY_HAND, unconditional=text(2, 5))
    with joint_attention_by_hand(pipeline, by_hand, None, family.rotate):
        expected = render(pipeline, family, 2, **arguments)
    with guide(pipeline, NEGATIVE, PARAMS):
        assert_agrees(render(pipeline, family, 2, **arguments), expected)


def test_the_filler_of_a_text_must_be_known() -> None:
    family: Family = FAMILIES["SD3"]
    pipeline = family.build()
    with (
        pytest.raises(NagTextError, match="must know which tokens of the negative prompt are text"),
        guide(pipeline, replace(NEGATIVE, attention_mask=None), PARAMS),
    ):
        render(pipeline, family, 2)
    qwen = FAMILIES["Qwen-Image"]
    pipeline = qwen.build()
    whole = NegativeText(NEGATIVE.embeds)  # its pipeline leaves out a mask of text alone
    with guide(pipeline, whole, PARAMS):
        unmasked = render(pipeline, qwen, 2)
    with guide(pipeline, replace(whole, attention_mask=mask(4, 4, 4)), PARAMS):
        assert_agrees(render(pipeline, qwen, 2), unmasked)


def test_a_method_that_a_model_has_not_is_refused_with_the_reason() -> None:
    for name, params, reason in (
        ("SD3", NasaParams(), "NASA is defined for cross-attention alone"),
        ("HunyuanVideo", VsfParams(), "defined for Stable Diffusion 3 and Qwen-Image alone"),
        ("Flux", VsfParams(), "code for Flux flips no values in single-stream blocks"),
    ):
        family = FAMILIES[name]
        with (
            install(family.build()) as nag,
            pytest.raises(NagParameterError, match=reason),
            nag.guide(family.negative()[0], params),
        ):
            pass
