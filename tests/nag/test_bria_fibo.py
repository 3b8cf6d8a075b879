"""Bria's Fibo besides what all families share: texts alone, and the layers of its encoder."""

from functools import partial
from typing import Any

import pytest
import torch
from diffusers import BriaFiboEditPipeline

from nag import encode_negative_prompt, guide
from tests.builders import tiny_diffusion_transformers as tiny_dits
from tests.nag.joint_families import FAMILIES, assert_differs, render, text

FIBO = FAMILIES["Bria Fibo"]


@pytest.mark.parametrize(("num_layers", "chosen"), [(6, [2, 3, 4, 5]), (3, [0, 1, 2, 2])])
def test_a_text_brings_the_layers_that_the_call_chooses(num_layers: int, chosen: list[int]) -> None:
    pipeline = tiny_dits.fibo_pipeline()
    pipeline.num_layers = num_layers
    negative = encode_negative_prompt(pipeline, ["2 2 0 7 7", "2 2 1 7 4"])
    assert torch.equal(negative.embeds, text(2, 2))
    assert negative.attention_mask is not None
    assert negative.attention_mask.sum(dim=1).tolist() == [7, 4]
    generator = torch.Generator().manual_seed(2)
    of_encoder = torch.randn(num_layers, 2, 7, tiny_dits.LAYER_DIM, generator=generator)
    assert negative.layer_embeds is not None
    assert torch.equal(negative.layer_embeds, of_encoder[chosen])


def test_a_negative_prompt_longer_than_the_prompt_is_guided() -> None:
    pipeline = tiny_dits.fibo_pipeline()
    plain = render(pipeline, FIBO)
    with guide(pipeline, "2 1 0 7 7"):
        short = render(pipeline, FIBO)
    with guide(pipeline, "2 1 0 9 7"):  # another text, with filler
        assert_differs(render(pipeline, FIBO), short)
    assert_differs(short, plain)


def test_an_edited_image_is_guided_as_a_new_one() -> None:
    pipeline = tiny_dits.fibo_pipeline(BriaFiboEditPipeline)
    pipeline.num_layers = tiny_dits.NUM_LAYERS
    pipeline.get_prompt_embeds = partial(tiny_dits.FiboOfSeeds.get_prompt_embeds, pipeline)
    call: dict[str, Any] = {
        "prompt": ['{"edit_instruction": "1 1 0 7 7"}'],
        "guidance_scale": 3.0,
        "negative_prompt": ["5 1 0 7 7"],
    }
    plain = render(pipeline, FIBO, **call)
    with guide(pipeline, "2 1 0 9 7"):
        guided = render(pipeline, FIBO, **call)
    of_one = tiny_dits.fibo_pipeline()
    with guide(of_one, "2 1 0 9 7"):
        assert torch.equal(render(of_one, FIBO, **call), guided)
    assert_differs(guided, plain)
