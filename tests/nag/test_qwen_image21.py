"""Qwen-Image 2.1: its other attention, kept keys, and calls with images."""

from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21FlexAttnProcessor

from nag import NagTextError, encode_negative_prompt, guide
from tests.builders import tiny_sequence
from tests.nag.joint_families import assert_agrees, assert_differs, seeded
from tests.nag.reference import mask
from tests.nag.sequence_families import FAMILIES, STRENGTHS, negatives, render

FAMILY = FAMILIES["Qwen-Image 2.1"]


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_sequence.qwen_image21_pipeline()


@pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("keeps", [True, False])
def test_kept_keys_and_flexible_attention_change_nothing(pipeline: Any, *, keeps: bool) -> None:
    negative = FAMILY.negative(negatives(FAMILY))
    with guide(pipeline, negative, **STRENGTHS):
        guided = render(pipeline, FAMILY)
    flexible = tiny_sequence.qwen_image21_pipeline()
    flexible.transformer.set_attn_processor(QwenImage21FlexAttnProcessor())
    plain = render(flexible, FAMILY, use_kv_cache=keeps)
    with guide(flexible, negative, nag_scale=1):
        assert torch.equal(render(flexible, FAMILY, use_kv_cache=keeps), plain)
    with guide(flexible, negative, **STRENGTHS):
        assert_agrees(render(flexible, FAMILY, use_kv_cache=keeps), guided)
    assert_differs(guided, plain)


def test_a_call_with_images_is_refused(pipeline: Any) -> None:
    call: dict[str, Any] = {
        "hidden_states": seeded(1, 1, 20, 4),
        "encoder_hidden_states": seeded(2, 1, 5, 16),
        "timestep": torch.tensor([0.5]),
        "img_shapes": [[(1, 2, 2), (1, 4, 4)]],
        "img_mask": torch.tensor([[0, 0, 1, 0, 0, 1, 1, 1, 1]]).bool(),
    }
    with torch.no_grad():
        pipeline.transformer(**call)
    with (
        pytest.raises(NagTextError, match="images among the conditions"),
        guide(pipeline, FAMILY.negative(negatives(FAMILY)), **STRENGTHS),
        pipeline.transformer.cache_context("cond"),
        torch.no_grad(),
    ):
        pipeline.transformer(**call)


def test_a_text_is_encoded_without_an_image(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    of_text = seeded(3, 2, 6, 16), mask(6, 6, 4), torch.zeros(2, 6)
    asked: list[Any] = []

    def encode(prompt: Any, image: Any, _device: Any) -> Any:
        asked.append((prompt, image))
        return of_text

    monkeypatch.setattr(pipeline, "_get_qwen_prompt_embeds", encode)
    negative = encode_negative_prompt(pipeline, ["red", "blue"])
    assert asked == [(["red", "blue"], None)]
    assert torch.equal(negative.embeds, of_text[0])
    assert negative.attention_mask is not None
    assert torch.equal(negative.attention_mask, of_text[1])
