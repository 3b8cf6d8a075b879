"""All families with a separate text cross-attention behave alike: one row of a table for each."""

import re
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    TextKVCacheConfig,
)
from diffusers.models.attention_processor import SlicedAttnProcessor, XFormersAttnProcessor
from peft import LoraConfig, inject_adapter_in_model

from nag import (
    AlreadyInstalledError,
    ForeignCallError,
    NagTextError,
    NasaParams,
    NegativeText,
    UnsupportedPipelineError,
    UnsupportedProcessorError,
    VsfParams,
    install,
)
from tests.builders import tiny_images, tiny_text_transformers
from tests.nag.cross_attention_by_hand import guided_by_hand
from tests.nag.cross_families import FAMILIES, LENGTH, STRONG, Family
from tests.nag.every_family import text_layers
from tests.nag.reference import state

pytestmark = [
    # numpy's, of torch in diffusers' schedulers
    pytest.mark.filterwarnings("ignore:__array(_wrap)?__ (implementation|must)"),
    # diffusers' own, which the pipeline of PRX uses
    pytest.mark.filterwarnings("ignore:`LoraLoaderMixin` is deprecated:FutureWarning"),
]
all_families = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


def text_attentions(family: Family, pipeline: Any) -> list[Any]:
    """Return the attentions that the stock model gives a text, in the order of their calls."""
    found: list[Any] = []
    handles = [
        module.register_forward_pre_hook(
            lambda one, args, kwargs: (
                found.append(one)
                if _text_of(args, kwargs) is not None and one not in found
                else None
            ),
            with_kwargs=True,
        )
        for name, module in family.model_of(pipeline).named_modules()
        if hasattr(module, "processor") and re.fullmatch(family.attentions or ".*", name)
    ]
    family.render(pipeline, 1, cfg=False, num_inference_steps=1)
    for handle in handles:
        handle.remove()
    return found


def _text_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[1] if len(args) > 1 else kwargs.get("encoder_hidden_states", kwargs.get("context"))


@all_families
def test_every_row_is_guided_as_by_hand_and_no_unconditional_one(family: Family) -> None:
    pipeline, rows = family.build(), family.num_with_cfg
    attentions = text_attentions(family, pipeline)
    plain = family.render(pipeline, rows, cfg=True)
    with install(pipeline) as nag:
        assert (nag.coverage.guided, nag.coverage.total) == (family.coverage,) * 2
        assert family.coverage == len(attentions) + family.text_blocks
        with nag.guide(family.negative(rows), **family.strengths):
            ours = family.render(pipeline, rows, cfg=True)
    guidance = family.guidance(rows, cfg=True)
    with guided_by_hand(family.model_of(pipeline), attentions, guidance):
        by_hand = family.render(pipeline, rows, cfg=True)
    assert distance(ours, by_hand) < 1e-5
    is_bounded = torch.cat(guidance.is_bounded)
    assert 0 < is_bounded.sum() < len(is_bounded)
    for row in range(rows):
        assert distance(ours[row], plain[row]) > 1e-3


@all_families
def test_nothing_is_changed_at_scale_one_or_after_an_exception(family: Family) -> None:
    def render() -> torch.Tensor:
        return family.render(pipeline, 1, cfg=True, num_inference_steps=1)

    pipeline = family.build()
    model = family.model_of(pipeline)
    plain, before, own = render(), state(model), sorted(vars(pipeline))
    with install(pipeline) as nag:
        with nag.guide(family.negative(1), nag_scale=1.0):
            assert torch.equal(render(), plain)
        handle = model.register_forward_hook(lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError), nag.guide(family.negative(1), **STRONG):
            render()
        handle.remove()
        assert torch.equal(render(), plain)
    assert state(model) == before
    assert sorted(vars(pipeline)) == own
    assert torch.equal(render(), plain)


@all_families
def test_another_pipeline_and_a_text_that_does_not_fit_are_refused(family: Family) -> None:
    pipeline = family.build()
    other = type(pipeline)(**{**pipeline.components, **family.settings})
    other.set_progress_bar_config(disable=True)
    with install(pipeline) as nag:
        with pytest.raises(AlreadyInstalledError):
            install(other)
        refused = nullcontext() if family.is_named else pytest.raises(ForeignCallError)
        with nag.guide(family.negative(1), **STRONG), refused:
            family.render(other, 1, cfg=False)
        with nag.guide(family.negative(3), **STRONG), pytest.raises(NagTextError, match="3 rows"):
            family.render(pipeline, 1, cfg=False)


def test_texts_that_are_longer_than_the_positions_of_kandinsky_6_are_refused() -> None:
    family = FAMILIES["Kandinsky 6"]
    pipeline = family.build()
    negative = NegativeText(torch.zeros(1, 2048 - LENGTH + 1, family.width))
    with install(pipeline) as nag, nag.guide(negative), pytest.raises(NagTextError, match="2048"):
        family.render(pipeline, 1, cfg=False)


def test_kept_keys_of_a_text_are_refused_inside_guide_and_stay_in_use_outside() -> None:
    family = FAMILIES["NucleusMoE"]
    pipeline = family.build()
    plain = family.render(pipeline, 1, cfg=False)
    pipeline.transformer.enable_cache(TextKVCacheConfig())
    with install(pipeline) as nag:
        assert distance(family.render(pipeline, 1, cfg=False), plain) < 1e-5
        with nag.guide(family.negative(1)), pytest.raises(NagTextError, match="disable_cache"):
            family.render(pipeline, 1, cfg=False)
        assert distance(family.render(pipeline, 1, cfg=False), plain) < 1e-5


@pytest.mark.parametrize("name", ["Stable Diffusion", "SDXL with image prompts"])
def test_a_lora_is_guided_as_by_hand_by_one_negative_for_all_prompts(name: str) -> None:
    family = FAMILIES[name]
    pipeline = family.build()
    attentions = text_attentions(family, pipeline)
    plain = family.render(pipeline, cfg=False)
    torch.manual_seed(5)
    model = family.model_of(pipeline)
    model.add_adapter(
        LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False)
    )
    with install(pipeline) as nag, nag.guide(family.negative(1), **family.strengths):
        ours = family.render(pipeline, cfg=False)
    with guided_by_hand(model, attentions, family.guidance(1, cfg=False)):
        by_hand = family.render(pipeline, cfg=False)
    assert distance(ours, by_hand) < 1e-5
    assert distance(ours, plain) > 1e-3


@all_families
def test_a_lora_on_all_layers_of_a_text_attention_is_guided_as_by_hand(family: Family) -> None:
    def render() -> torch.Tensor:
        return family.render(pipeline, 1, cfg=True)

    pipeline = family.build()
    attentions, model = text_attentions(family, pipeline), family.model_of(pipeline)
    lora = LoraConfig(r=2, target_modules=text_layers(pipeline), init_lora_weights=False)
    with install(pipeline) as nag, nag.guide(family.negative(1), **family.strengths):
        without = render()
        torch.manual_seed(5)
        inject_adapter_in_model(lora, model)
        ours = render()
    with guided_by_hand(model, attentions, family.guidance(1, cfg=True)):
        by_hand = render()
    assert distance(ours, by_hand) < 1e-5
    assert distance(ours, without) > 1e-3


# --- UNets alone


SCHEDULERS: dict[str, Any] = {
    "DDIM, which does not count": DDIMScheduler(clip_sample=False, steps_offset=1),
    "PNDM, which repeats a timestep": PNDMScheduler(skip_prk_steps=True, steps_offset=1),
    "DPM-Solver": DPMSolverMultistepScheduler(),
    "Euler": EulerDiscreteScheduler(),
}


def guided_steps(pipeline: Any, family: Family, **arguments: Any) -> list[bool]:
    """Return for each call of the model whether its text holds the negative prompt."""
    seen: list[bool] = []
    attention = text_attentions(family, pipeline)[0]
    handle = attention.to_k.register_forward_pre_hook(
        lambda _module, args: seen.append(args[0].shape[1] > LENGTH)
    )
    with install(pipeline) as nag, nag.guide(family.negative(1), nag_start=0.25, nag_end=0.75):
        family.render(pipeline, 1, cfg=False, **arguments)
    handle.remove()
    return seen


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=list(SCHEDULERS))
def test_the_step_range_guides_its_steps_with_every_kind_of_scheduler(scheduler: Any) -> None:
    family = FAMILIES["SDXL"]
    pipeline = tiny_images.sdxl_pipeline(scheduler=scheduler)
    # A hook on the projections has them made anew in each step.
    seen = guided_steps(pipeline, family, num_inference_steps=8)
    count = len(seen)  # PNDM has a step more
    assert seen == [0.25 <= step / count < 0.75 for step in range(count)]


@pytest.mark.parametrize(("arguments", "count"), [({"denoising_end": 0.5}, 4), ({}, 8)])
@pytest.mark.parametrize("name", ["SDXL", "SDXL InstructPix2Pix", "SDXL with a ControlNet"])
def test_the_step_range_is_that_of_the_steps_that_a_loop_takes(
    name: str, arguments: dict[str, Any], count: int
) -> None:
    family = FAMILIES[name]
    seen = guided_steps(family.build(), family, num_inference_steps=8, **arguments)
    assert seen == [0.25 <= step / count < 0.75 for step in range(count)]


@pytest.mark.parametrize("name", ["Stable Diffusion", "InstructPix2Pix"])
def test_a_negative_prompt_as_text_is_that_of_the_pipelines_own_encoder(name: str) -> None:
    family, pipeline = FAMILIES[name], FAMILIES[name].build()
    if name == "InstructPix2Pix":
        embeds = pipeline._encode_prompt("red", "cpu", 1, False)
    else:
        embeds, _ = pipeline.encode_prompt("red", "cpu", 1, False)
    with install(pipeline) as nag:
        with nag.guide("red"):
            of_text = family.render(pipeline, cfg=True)
        with nag.guide(NegativeText(embeds), nag_scale=3.0, nag_tau=2.5, nag_alpha=0.5):
            assert torch.equal(family.render(pipeline, cfg=True), of_text)


def test_a_negative_prompt_as_text_has_the_mask_of_the_pipelines_own_encoder() -> None:
    family, pipeline = FAMILIES["PixArt"], tiny_text_transformers.pixart_pipeline_with_encoder()
    with torch.no_grad():
        embeds, its_mask, *_ = pipeline.encode_prompt(
            "red", False, device="cpu", max_sequence_length=6
        )
    with install(pipeline) as nag:
        with nag.guide("red", max_sequence_length=6, **STRONG):
            of_text = family.render(pipeline, cfg=True)
        with nag.guide(NegativeText(embeds, its_mask), **STRONG):
            assert torch.equal(family.render(pipeline, cfg=True), of_text)
        with nag.guide(NegativeText(embeds), **STRONG):
            assert distance(family.render(pipeline, cfg=True), of_text) > 1e-3


def test_a_loop_that_fails_leaves_no_processors_of_perturbed_attention_guidance() -> None:
    family = FAMILIES["SDXL with perturbation"]
    pipeline = family.build()
    before = dict(pipeline.unet.attn_processors)
    with (
        install(pipeline) as nag,
        nag.guide(family.negative(3), **STRONG),
        pytest.raises(NagTextError, match="3 rows"),
    ):
        family.render(pipeline, 2, cfg=True)
    assert pipeline.unet.attn_processors == before
    assert "_set_pag_attn_processor" not in vars(pipeline)


def test_the_strength_of_image_prompts_can_change_under_guidance_and_weights_stay_in_place() -> (
    None
):
    family = FAMILIES["SDXL with image prompts"]
    pipeline = family.build()
    names = list(pipeline.unet.state_dict())
    with install(pipeline) as nag, nag.guide(family.negative(1), **STRONG):
        assert list(pipeline.unet.state_dict()) == names
        strong = family.render(pipeline, cfg=True)
        pipeline.set_ip_adapter_scale([0.0, 0.0])
        assert distance(family.render(pipeline, cfg=True), strong) > 1e-3
    processors = pipeline.unet.attn_processors.values()
    scales = [one.scale for one in processors if hasattr(one, "to_k_ip")]
    assert scales == [[0.0, 0.0]] * family.coverage


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"encoder_hid_dim": 24, "encoder_hid_dim_type": "image_proj"}, "mixes the text"),
        ({"addition_embed_type": "text_image"}, "takes images beside the text"),
    ],
)
def test_a_unet_whose_text_is_more_than_tokens_is_refused(
    settings: dict[str, Any], reason: str
) -> None:
    pipeline = tiny_images.stable_diffusion_pipeline(its_unet=tiny_images.unet(**settings))
    with pytest.raises(UnsupportedPipelineError, match=reason):
        install(pipeline)


@pytest.mark.parametrize("processor", [SlicedAttnProcessor(1), XFormersAttnProcessor()])
def test_processors_without_a_guided_counterpart_are_refused(processor: Any) -> None:
    pipeline = tiny_images.stable_diffusion_pipeline()
    pipeline.unet.set_attn_processor(processor)
    with pytest.raises(UnsupportedProcessorError, match=type(processor).__name__):
        install(pipeline)


@pytest.mark.parametrize("params", [VsfParams(), NasaParams()])
def test_the_rivals_guide_every_row_too(params: Any) -> None:
    family = FAMILIES["AnimateDiff"]
    pipeline = family.build()
    plain = family.render(pipeline, cfg=True)
    with install(pipeline) as nag, nag.guide(family.negative(2), params):
        guided = family.render(pipeline, cfg=True)
    assert torch.isfinite(guided).all()
    for row in range(2):
        assert distance(guided[row], plain[row]) > 1e-3
