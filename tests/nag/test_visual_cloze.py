"""VisualCloze: its prompt comes in two texts, and its whole pipeline renders with two others."""

from dataclasses import replace
from inspect import signature
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, VisualClozeGenerationPipeline, VisualClozePipeline
from PIL import Image

from nag import ForeignCallError, encode_negative_prompt, guide
from tests.builders import tiny_joint
from tests.nag.joint_by_hand import joint_attention_by_hand
from tests.nag.joint_families import FAMILIES, assert_agrees, assert_differs
from tests.nag.reference import image

FLUX = FAMILIES["Flux"]
SIDE, LENGTH = 32, 9


def build(kind: Any) -> Any:
    plain = tiny_joint.flux_pipeline(
        FluxPipeline, tiny_joint.autoencoder(), in_channels=16 + 16 + 256, out_channels=16
    )
    parts = tiny_joint.with_encoders(plain).components
    needed = signature(kind.__init__).parameters.keys() & parts.keys()
    pipeline = kind(**{name: parts[name] for name in needed}, resolution=SIDE)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def render(pipeline: Any) -> torch.Tensor:
    red, blue = (Image.new("RGB", (SIDE, SIDE), color) for color in ("red", "blue"))
    return pipeline(
        task_prompt="paint it",
        content_prompt="a tree",
        image=[[red, blue], [blue, None]],
        num_inference_steps=2,
        max_sequence_length=LENGTH,
        output_type="latent",
        return_dict=False,
        generator=torch.Generator().manual_seed(0),
    )[0]


def test_the_only_pass_of_a_grid_of_images_is_guided_by_words() -> None:
    pipeline = build(VisualClozeGenerationPipeline)
    plain = render(pipeline)
    negative = encode_negative_prompt(pipeline, "mud", max_sequence_length=LENGTH)
    own: Any = FluxPipeline(**pipeline.components)
    with torch.no_grad():
        embeds, pooled, _ = own.encode_prompt("mud", None, max_sequence_length=LENGTH)
    assert torch.equal(negative.embeds, embeds), "the negative prompt is the text alone"
    assert negative.pooled is not None
    assert torch.equal(negative.pooled, pooled)
    with guide(pipeline, "mud", max_sequence_length=LENGTH, **FLUX.strengths()):
        guided = render(pipeline)
    guidance = replace(FLUX.negative()[1], negative=embeds)
    with joint_attention_by_hand(pipeline, guidance, pooled, FLUX.rotate):
        by_hand = render(pipeline)
    assert_agrees(guided, by_hand)
    assert_differs(guided, plain)


def test_the_whole_pipeline_is_guided_by_the_two_inside_it() -> None:
    pipeline = build(VisualClozePipeline)
    strengths: dict[str, Any] = {"max_sequence_length": LENGTH, **FLUX.strengths()}
    plain = render(pipeline.generation_pipe)
    with (
        guide(pipeline.generation_pipe, "mud", **strengths),
        pytest.raises(ForeignCallError, match="install it on the pipeline that renders"),
    ):
        pipeline.upsampling_pipe(
            prompt="a tree",
            image=image(),
            mask_image=image(1),
            height=64,
            width=64,
            num_inference_steps=2,
        )
    with (
        guide(pipeline.upsampling_pipe, "mud", **strengths),
        pytest.raises(ForeignCallError, match="install it on the pipeline that renders"),
    ):
        render(pipeline)
    with guide(pipeline.generation_pipe, "mud", **strengths):
        assert_differs(render(pipeline.generation_pipe), plain)
    assert torch.equal(render(pipeline.generation_pipe), plain)
