"""A refusal is one of the library's errors, and names a remedy that works."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance

from nag import NagError, NagTextError, NegativeText, UnsupportedCallError, VsfParams, guide
from tests.builders import tiny_images, tiny_joint
from tests.builders.tiny import TEXT_DIM
from tests.nag import joint_families
from tests.nag.guider_families import FAMILIES as MODULAR
from tests.nag.guider_families import seeded
from tests.nag.reference import mask

# numpy's, of torch in diffusers' schedulers
pytestmark = pytest.mark.filterwarnings("ignore:__array(_wrap)?__ (implementation|must)")


def image(pipeline: Any) -> torch.Tensor:
    return pipeline(
        prompt_embeds=seeded(1, 1, 6, TEXT_DIM),
        height=8,
        width=8,
        num_inference_steps=1,
        guidance_scale=1,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )[0]


@pytest.mark.parametrize("params", [None, VsfParams(vsf_scale=2.0)], ids=["NAG", "VSF"])
def test_filler_where_the_prompt_has_no_mask_is_cut_off(params: Any) -> None:
    pipeline = tiny_images.stable_diffusion_pipeline()
    negative = NegativeText(seeded(2, 1, 6, TEXT_DIM), mask(6, 3))
    with (
        guide(pipeline, negative, params),
        pytest.raises(NagTextError, match="cut NegativeText's embeds to the words"),
    ):
        image(pipeline)
    words = NegativeText(negative.embeds[:, :3])
    with guide(pipeline, words, params):
        expected = image(pipeline)
    with guide(pipeline, replace(words, attention_mask=mask(3, 3)), params):
        assert torch.equal(image(pipeline), expected)
    with guide(pipeline, NegativeText(negative.embeds), params):
        assert not torch.equal(image(pipeline), expected)  # filler guides as words


def test_a_mask_in_the_arguments_of_attention_is_an_error_of_the_library() -> None:
    family = joint_families.FAMILIES["Flux"]
    pipeline, (negative, *_) = family.build(), family.negative()
    number = family.texts(1, 1)["prompt_embeds"].shape[1] + 16
    every = torch.ones(1, 1, number, number, dtype=torch.bool)
    with (
        guide(pipeline, negative),
        pytest.raises(UnsupportedCallError, match="leave it out of the call's joint_") as refusal,
    ):
        joint_families.render(pipeline, family, joint_attention_kwargs={"attention_mask": every})
    assert isinstance(refusal.value, NagError)


@pytest.mark.parametrize(
    "build", [tiny_images.sdxl_pipeline, tiny_joint.sd3_pipeline, tiny_joint.qwen_image_pipeline]
)
def test_words_for_a_pipeline_without_encoders_are_refused(build: Any) -> None:
    with pytest.raises(NagTextError, match="no text_encoder.*give NegativeText"):
        guide(build(), "red").__enter__()


def test_words_for_a_modular_pipeline_that_only_denoises_are_refused() -> None:
    pipeline = MODULAR["Qwen-Image"].pipeline(ClassifierFreeGuidance())
    with pytest.raises(NagTextError, match="no step that encodes one text: give NegativeText"):
        guide(pipeline, "red").__enter__()
