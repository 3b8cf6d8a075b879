"""NagGuider reads the negative prompt where each family's modular pipeline has it, or refuses."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance, LTX2Guidance
from diffusers.modular_pipelines.ernie_image.modular_blocks_ernie_image import (
    ErnieImageCoreDenoiseStep,
)

from nag import NagGuider, NagParams, NagTextError, NegativeText, UnsupportedPipelineError, guide
from nag.attention.guider_calls import GuiderCalls
from nag.params import NagStrengths
from tests.builders import tiny_sequence
from tests.builders.tiny import TEXT_DIM
from tests.nag.guider_families import FAMILIES, LENGTH, STRONG, Modular, seeded
from tests.nag.reference import largest_difference

# numpy's, of torch in diffusers' schedulers
pytestmark = pytest.mark.filterwarnings("ignore:__array(_wrap)?__ (implementation|must)")
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
NOT_GUIDED: dict[str, Any] = {"nag_scale": 1}


@every_family
def test_the_guider_renders_what_guide_renders_with_the_same_negative_prompt(
    family: Modular,
) -> None:
    guided = family.render(family.pipeline(NagGuider(**STRONG)))
    # Not a disabled guider: the blocks of Stable Diffusion XL switch it on.
    pipeline = family.pipeline(ClassifierFreeGuidance(guidance_scale=1.0))
    with guide(pipeline, family.negative, **STRONG):
        expected = family.render(pipeline)
    assert torch.equal(guided, expected)
    plain_image = family.render(family.pipeline(NagGuider(**NOT_GUIDED)))
    assert largest_difference(guided, plain_image) > 1e-2 * float(plain_image.abs().max())


# Their families have other defaults than `NagParams`, and Z-Image's bounds another norm.
@pytest.mark.parametrize("name", ["Stable Diffusion XL", "Stable Diffusion 3", "Z-Image"])
@pytest.mark.parametrize("strengths", [{}, {"nag_tau": 1.1}])
def test_a_strength_that_is_not_given_is_the_default_of_the_family(
    name: str, strengths: NagStrengths
) -> None:
    family = FAMILIES[name]
    guided = family.render(family.pipeline(NagGuider(**strengths)))
    pipeline = family.pipeline(ClassifierFreeGuidance(guidance_scale=1.0))
    with guide(pipeline, family.negative, **strengths):
        assert torch.equal(family.render(pipeline), guided)
    with guide(pipeline, family.negative, NagParams(**strengths)):
        assert not torch.equal(family.render(pipeline), guided)


@pytest.mark.parametrize("name", ["Qwen-Image", "Qwen-Image 2.1", "HunyuanVideo 1.5", "Krea 2"])
def test_filler_of_the_negative_prompt_guides_by_nothing(name: str) -> None:
    family = FAMILIES[name]
    other = family.texts["negative_prompt_embeds"].clone()
    other[0, 3:] = 9.0
    pipeline = family.pipeline(NagGuider(**STRONG))
    expected = family.render(pipeline)
    assert torch.equal(family.render(pipeline, negative_prompt_embeds=other), expected)


def test_letters_that_the_negative_prompt_quotes_guide_too() -> None:
    family = FAMILIES["HunyuanVideo 1.5"]
    other = family.texts["negative_prompt_embeds_2"] + 1
    pipeline = family.pipeline(NagGuider(**STRONG))
    first = family.render(pipeline)
    assert not torch.equal(family.render(pipeline, negative_prompt_embeds_2=other), first)


def outputs(pipeline: Any, family: Modular) -> list[torch.Tensor]:
    """Return what the model returns in each call of one step."""
    found: list[torch.Tensor] = []
    handle = pipeline.transformer.register_forward_hook(lambda _m, _a, out: found.append(out[0]))
    family.render(pipeline)
    handle.remove()
    return found


def test_guide_knows_the_passes_of_a_guider_that_is_handed_values() -> None:
    """Blocks hand a guider the fields themselves, or names of them."""
    family = FAMILIES["Qwen-Image"]
    (guided,) = outputs(family.pipeline(NagGuider(**STRONG)), family)
    pipeline = family.pipeline(ClassifierFreeGuidance(guidance_scale=3.0))
    _, unconditional = outputs(pipeline, family)
    with guide(pipeline, family.negative, **STRONG):
        found = outputs(pipeline, family)
    assert torch.equal(found[0], guided)
    assert torch.equal(found[1], unconditional)


def test_weak_passes_of_the_guider_of_ltx_2_stay_unguided() -> None:
    guider = LTX2Guidance(
        3.0, stg_scale=1.0, modality_scale=2.0, spatio_temporal_guidance_blocks=[0]
    )
    a_timestep: Any = torch.tensor(1)
    calls = GuiderCalls(SimpleNamespace(guider=guider), lambda: None)
    guider.set_state(step=0, num_inference_steps=2, timestep=a_timestep)
    passes = guider.prepare_inputs({"encoder_hidden_states": (torch.zeros(1),) * 4})
    rows: list[str] = []
    for _ in passes:
        guider.prepare_models(torch.nn.Identity())
        rows.append(calls.guided_rows(None))
    assert rows == ["all", "none", "none", "none"]


@pytest.mark.parametrize("rows", [1, 2])
def test_a_call_without_a_negative_prompt_is_told_to_have_one(rows: int) -> None:
    """Stable Diffusion 3 hands tensors then, not pairs; their second row is another prompt."""
    family = FAMILIES["Stable Diffusion 3"]
    texts = {name: one[:rows] for name, one in family.texts.items()}
    of_negative = {name: None for name in texts if name.startswith("negative")}
    with pytest.raises(NagTextError, match="give the pipeline a negative_prompt"):
        family.render(family.pipeline(NagGuider(**STRONG)), **texts | of_negative)


def test_a_pipeline_with_its_text_elsewhere_is_refused_with_a_remedy_that_works() -> None:
    prompt, negative = [seeded(1, LENGTH, TEXT_DIM)], [seeded(2, LENGTH, TEXT_DIM)]
    family = Modular(
        tiny_sequence.ernie_image_pipeline,
        ErnieImageCoreDenoiseStep,
        {"prompt_embeds": prompt, "negative_prompt_embeds": negative},
        NegativeText(negative[0][None]),
    )
    with pytest.raises(UnsupportedPipelineError, match=r"ErnieImage.* text_bth.*nag\.guide\("):
        family.render(family.pipeline(NagGuider(**STRONG)))
    pipeline = family.pipeline(ClassifierFreeGuidance(guidance_scale=3.0))
    unguided = family.render(pipeline)
    with guide(pipeline, family.negative, **STRONG):
        assert largest_difference(family.render(pipeline), unguided) > 1e-2


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"encoder_hidden_states": (1, 2), "encoder_attention_mask_3": (3, 4)}, "mask_3"),
        ({"encoder_hidden_states": (1, 2, 1, 1)}, "more passes in encoder_hidden_states"),
    ],
)
def test_a_field_that_would_not_be_read_is_refused(fields: dict[str, Any], named: str) -> None:
    guider = NagGuider(**STRONG)
    with pytest.raises(UnsupportedPipelineError, match=f"{named}.*nag\\.guide"):  # noqa: PT012
        guider.prepare_inputs(fields)
        guider.prepare_models(FAMILIES["Helios"].build().transformer)
