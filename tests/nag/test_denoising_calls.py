"""Each call of a transformer is guided or not as its pipeline means it; other calls are refused."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    ClassifierFreeGuidance,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
    LTXPipeline,
    SkipLayerGuidance,
    SmoothedEnergyGuidance,
    WanPipeline,
    WanVideoToVideoPipeline,
)
from diffusers.modular_pipelines.ltx.modular_blocks_ltx import LTXBlocks
from diffusers.modular_pipelines.wan.modular_blocks_wan import WanBlocks

from nag import (
    ForeignCallError,
    NagCoverageError,
    NagParams,
    NagTextError,
    NegativeText,
    UnnamedCallError,
    encode_negative_prompt,
    guide,
    install,
)
from nag.attention.denoising_calls import PipelineCalls
from nag.attention.guider_calls import GuiderCalls
from tests.builders import tiny, tiny_images
from tests.nag.cross_families import FAMILIES
from tests.nag.modular import modular, modular_clip, stock_clip
from tests.nag.reference import Guidance, cross_attention_by_hand, largest_difference, render, text

CLOSE, FAR = 2e-5, 2e-2
STRONG = NagParams(nag_scale=9, nag_tau=2.5, nag_alpha=0.5)
PROMPT, NEGATIVE, UNCONDITIONAL = text(1, 12, 1), text(1, 7, 2), text(1, 12, 3)


def by_hand(pipeline: Any, unconditional: torch.Tensor | None = None) -> Any:
    return cross_attention_by_hand(
        pipeline,
        Guidance(NEGATIVE, scale=9, tau=2.5, alpha=0.5, unconditional=unconditional),
    )


# --- video to video: two calls a step without names


class OtherOrder(WanVideoToVideoPipeline):
    """A subclass with a loop of its own, which may call the transformer in any order."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


def video_to_video(kind: type[WanVideoToVideoPipeline] = WanVideoToVideoPipeline) -> Any:
    wan: Any = tiny.wan_pipeline()
    pipeline = kind(wan.tokenizer, wan.text_encoder, wan.transformer, wan.vae, wan.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def from_latents(pipeline: Any, **arguments: Any) -> torch.Tensor:
    call: dict[str, Any] = {
        "prompt_embeds": PROMPT,
        "negative_prompt_embeds": UNCONDITIONAL,
        "latents": torch.randn(1, 8, 2, 4, 4, generator=torch.Generator().manual_seed(0)),
        "height": 32,
        "width": 32,
        "num_inference_steps": 2,
        "output_type": "latent",
    }
    return pipeline(**call | arguments).frames


def test_video_to_video_at_its_default_guidance_guides_the_prompt_alone() -> None:
    pipeline = video_to_video()
    plain = from_latents(pipeline)
    with guide(pipeline, NegativeText(NEGATIVE), STRONG):
        ours = from_latents(pipeline)
        with pytest.raises(RuntimeError):  # a clip that fails in the middle of a step
            from_latents(pipeline, negative_prompt_embeds=text(1, 12, 3)[..., :-1])
        assert torch.equal(from_latents(pipeline), ours)
        assert largest_difference(from_latents(pipeline, guidance_scale=1.0), plain) > FAR
    with by_hand(pipeline, UNCONDITIONAL):
        assert largest_difference(from_latents(pipeline), ours) < 4 * CLOSE
    assert largest_difference(ours, plain) > FAR


def test_a_text_that_is_prompt_and_unconditional_text_at_once_is_guided_once_a_step() -> None:
    same = {"negative_prompt_embeds": PROMPT}
    named, unnamed = tiny.wan_pipeline(), video_to_video()
    latents = torch.randn(1, 8, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    with guide(named, NegativeText(NEGATIVE), STRONG):
        expected = render(named, PROMPT, guidance_scale=5.0, latents=latents.clone(), **same)
    with guide(unnamed, NegativeText(NEGATIVE), STRONG):
        ours = from_latents(
            unnamed, num_inference_steps=2, strength=1.0, latents=latents.clone(), **same
        )
    assert largest_difference(ours, expected) < CLOSE


def test_guidance_that_is_switched_off_for_a_step_does_not_confuse_the_calls() -> None:
    pipeline = video_to_video()

    def toggle(_pipeline: Any, step: int, _time: Any, tensors: Any) -> Any:
        pipeline._guidance_scale = 5.0 if step else 1.0  # off in the second step alone
        return tensors

    arguments: dict[str, Any] = {"num_inference_steps": 3, "strength": 1.0}
    with by_hand(pipeline, UNCONDITIONAL):
        expected = from_latents(pipeline, callback_on_step_end=toggle, **arguments)
    with guide(pipeline, NegativeText(NEGATIVE), STRONG):
        ours = from_latents(pipeline, callback_on_step_end=toggle, **arguments)
    assert largest_difference(ours, expected) < 4 * CLOSE


def test_without_strength_no_call_is_refused() -> None:
    pipeline = video_to_video(OtherOrder)
    plain = from_latents(pipeline)
    with guide(pipeline, NegativeText(NEGATIVE), nag_scale=1):
        assert torch.equal(from_latents(pipeline), plain)


def test_calls_without_a_name_in_an_unknown_order_are_refused() -> None:
    pipeline = video_to_video(OtherOrder)
    with guide(pipeline, NegativeText(NEGATIVE), STRONG):
        from_latents(pipeline, guidance_scale=1.0)
        with pytest.raises(UnnamedCallError, match=r"OtherOrder calls .* without a name"):
            from_latents(pipeline)
    from_latents(pipeline)


# --- modular pipelines: the guider names the passes


MODULAR = [(tiny.wan_pipeline, WanBlocks, 512), (tiny.ltx_pipeline, LTXBlocks, 128)]


@pytest.mark.parametrize(("build", "blocks", "_length"), MODULAR)
def test_a_modular_pipeline_gives_the_clip_of_the_stock_one(
    build: Any, blocks: Any, _length: int
) -> None:
    stock, pipeline = build(), modular(build, blocks, ClassifierFreeGuidance(guidance_scale=4.0))
    plain = modular_clip(pipeline)
    with guide(stock, "blurry", STRONG):
        expected = stock_clip(stock, 4.0)
    with guide(pipeline, "blurry", STRONG):
        guided = modular_clip(pipeline)
    assert largest_difference(guided, expected) < CLOSE
    assert largest_difference(guided, plain) > 1e-3
    assert torch.equal(modular_clip(pipeline), plain)
    assert not {"prepare_models", "prepare_inputs_from_block_state"} & vars(pipeline.guider).keys()


def test_a_perturbed_pass_of_the_prompt_is_guided_as_the_prompt_is() -> None:
    """Without classifier-free guidance the perturbed pass comes second."""
    guider = SkipLayerGuidance(
        guidance_scale=1.0, skip_layer_guidance_layers=[0], skip_layer_guidance_scale=2.0,
        skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0,
    )  # fmt: skip
    pipeline = modular(tiny.wan_pipeline, WanBlocks, guider)
    rows: list[str] = []
    with install(pipeline) as installed, installed.guide("blurry", STRONG):
        calls: Any = installed._calls
        ask = calls.guided_rows
        calls.guided_rows = lambda name: rows.append(ask(name)) or rows[-1]
        modular_clip(pipeline)
    assert rows == ["all"] * 3  # this guider perturbs one of the two steps


@pytest.mark.parametrize(("build", "blocks", "length"), MODULAR)
def test_a_modular_pipeline_encodes_the_negative_prompt_as_the_stock_one(
    build: Any, blocks: Any, length: int
) -> None:
    stock, pipeline = build(), modular(build, blocks, ClassifierFreeGuidance())
    for asked in (None, 40):
        ours = encode_negative_prompt(pipeline, "ugly", asked)
        expected = encode_negative_prompt(stock, "ugly", asked)
        assert ours.embeds.shape[1] == (asked or length)
        assert torch.equal(ours.embeds, expected.embeds)
        assert (ours.attention_mask is None) == (expected.attention_mask is None)


@pytest.mark.parametrize(("build", "blocks", "_length"), MODULAR)
def test_the_step_range_of_a_modular_pipeline_is_that_of_the_stock_one(
    build: Any, blocks: Any, _length: int
) -> None:
    first_half = NagParams(nag_scale=9, nag_alpha=0.5, nag_end=0.5)
    stock, pipeline = build(), modular(build, blocks, ClassifierFreeGuidance(guidance_scale=4.0))
    with guide(stock, "blurry", first_half):
        expected = stock_clip(stock, 4.0)
    with guide(pipeline, "blurry", first_half):
        assert largest_difference(modular_clip(pipeline), expected) < CLOSE


def test_a_guider_replaced_after_install_is_noticed() -> None:
    pipeline = modular(tiny.wan_pipeline, WanBlocks, ClassifierFreeGuidance())
    with guide(pipeline, "blurry", STRONG):
        pipeline.update_components(guider=ClassifierFreeGuidance())
        with pytest.raises(ForeignCallError, match="again after an update of its guider"):
            modular_clip(pipeline)


def test_a_guider_that_does_not_count_its_calls_is_followed_all_the_same() -> None:
    """SmoothedEnergyGuidance never counts, so its own count names no pass."""
    guider = SmoothedEnergyGuidance(guidance_scale=4.0, seg_guidance_layers=[0])
    pipeline = modular(tiny.wan_pipeline, WanBlocks, guider)
    rows: list[str] = []
    with install(pipeline) as installed, installed.guide("blurry", STRONG):
        calls: Any = installed._calls
        ask = calls.guided_rows
        calls.guided_rows = lambda name: rows.append(ask(name)) or rows[-1]
        modular_clip(pipeline)
    assert rows[:2] == ["all", "none"]
    assert rows.count("none") == 2


def test_a_modular_clip_that_failed_leaves_no_call_open() -> None:
    pipeline = modular(tiny.ltx_pipeline, LTXBlocks, ClassifierFreeGuidance(guidance_scale=4.0))
    stock = tiny.ltx_pipeline()
    other: Any = LTXPipeline(**{**stock.components, "transformer": pipeline.transformer})
    other.set_progress_bar_config(disable=True)
    with guide(pipeline, "blurry", STRONG):
        with pytest.raises(NagTextError):
            modular_clip(pipeline, max_sequence_length=40)
        with pytest.raises(ForeignCallError):
            render(other, PROMPT)


def test_one_guider_in_two_places_is_observed_once_and_restored() -> None:
    guider = ClassifierFreeGuidance(guidance_scale=4.0)
    pipeline = modular(tiny.wan_pipeline, WanBlocks, guider)
    before = dict(vars(guider))
    calls = GuiderCalls(SimpleNamespace(guider=guider, guider_2=guider), lambda: None)
    with guide(pipeline, "blurry", STRONG):
        modular_clip(pipeline)
    assert vars(guider).keys() != before.keys()
    calls.remove()
    assert vars(guider).keys() == before.keys()


# --- another pipeline on the same transformer


def second(pipeline: Any) -> Any:
    other = type(pipeline)(**pipeline.components)
    other.set_progress_bar_config(disable=True)
    return other


def test_a_second_pipeline_on_the_transformer_never_takes_the_state_of_the_first() -> None:
    pipeline = tiny.ltx_pipeline()
    other = second(pipeline)
    both: dict[str, Any] = {
        "negative_prompt_embeds": UNCONDITIONAL,
        "negative_prompt_attention_mask": torch.ones(1, 12, dtype=torch.bool),
        "guidance_scale": 4.0,
    }
    plain = render(other, PROMPT, **both)
    with install(pipeline) as nag:
        render(pipeline, PROMPT)  # without classifier-free guidance
        with nag.guide(NegativeText(NEGATIVE), STRONG):
            with pytest.raises(ForeignCallError, match="LTXPipeline that guidance was installed"):
                render(other, PROMPT, **both)
            guided = render(pipeline, PROMPT, **both)
        assert torch.equal(render(other, PROMPT, **both), plain)
    with guide(other, NegativeText(NEGATIVE), STRONG):
        assert torch.equal(render(other, PROMPT, **both), guided)


def test_a_second_pipeline_that_names_its_calls_is_guided_as_it_should_be() -> None:
    pipeline, cfg = tiny.wan_pipeline(), {"negative_prompt_embeds": UNCONDITIONAL}
    other: Any = WanPipeline.from_pipe(pipeline)
    other.set_progress_bar_config(disable=True)
    with guide(other, NegativeText(NEGATIVE), STRONG):
        expected = render(other, PROMPT, guidance_scale=4.0, **cfg)
    with install(pipeline) as nag:
        render(pipeline, PROMPT)
        with nag.guide(NegativeText(NEGATIVE), STRONG):
            assert torch.equal(render(other, PROMPT, guidance_scale=4.0, **cfg), expected)
        with (
            nag.guide(NegativeText(NEGATIVE), NagParams(nag_end=0.5)),
            pytest.raises(ForeignCallError),  # its step is unknown
        ):
            render(other, PROMPT)


def test_a_clip_that_failed_leaves_no_loop_open() -> None:
    pipeline = tiny.ltx_pipeline()
    other = second(pipeline)
    with guide(pipeline, NegativeText(NEGATIVE), STRONG):
        with pytest.raises(ZeroDivisionError):
            render(pipeline, PROMPT, callback_on_step_end=lambda *_: 1 // 0)
        with pytest.raises(ForeignCallError):
            render(other, PROMPT)


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize(
    "kind", [LTXPipeline, LTXImageToVideoPipeline, LTXConditionPipeline, WanPipeline]
)
def test_the_loop_of_each_pipeline_is_inside_its_progress_bar(kind: Any) -> None:
    build = tiny.wan_pipeline if kind is WanPipeline else tiny.ltx_pipeline
    stock = build()
    pipeline = kind(**stock.components)
    pipeline.set_progress_bar_config(disable=True)
    seen: list[bool] = []
    calls = PipelineCalls(pipeline, lambda: None, lambda: None)
    pipeline.transformer.register_forward_pre_hook(lambda *_: seen.append(bool(calls._loops)))
    arguments: dict[str, Any] = {}
    if kind is LTXImageToVideoPipeline:
        arguments["image"] = torch.zeros(1, 3, 32, 32)
    render(pipeline, PROMPT, **arguments)
    calls.remove()
    assert seen == [True, True]
    assert not calls._loops
    assert "progress_bar" not in vars(pipeline)


# --- callbacks that call the pipeline, or change its scheduler


def test_a_clip_inside_the_callback_of_another_leaves_both_as_they_are_alone() -> None:
    family, pipeline = FAMILIES["Stable Diffusion"], tiny_images.stable_diffusion_pipeline()
    inner: list[torch.Tensor] = []

    def preview(_pipeline: Any, _step: int, _time: Any, tensors: Any) -> Any:
        if not inner:
            inner.append(family.render(pipeline, cfg=True))
        return tensors

    with guide(pipeline, family.negative(1), nag_scale=5, nag_end=0.5):
        alone = family.render(pipeline, cfg=True)
        outer = family.render(pipeline, cfg=True, callback_on_step_end=preview)
    assert torch.equal(inner[0], alone)
    assert torch.equal(outer, alone)
    assert "step" not in vars(pipeline.scheduler)


def test_a_loop_that_was_left_without_an_end_does_not_disturb_the_next_one() -> None:
    pipeline = video_to_video()
    with guide(pipeline, NegativeText(NEGATIVE), STRONG):
        alone = from_latents(pipeline)
        left = iter(pipeline.progress_bar(range(2)))  # a traceback keeps such a loop alive
        next(left)
        assert torch.equal(from_latents(pipeline), alone)
        left.close()
        assert torch.equal(from_latents(pipeline), alone)
    assert "step" not in vars(pipeline.scheduler)


@pytest.mark.parametrize("params", [STRONG, replace(STRONG, nag_end=0.5)])
def test_a_scheduler_that_a_callback_copies_or_replaces_is_followed(params: NagParams) -> None:
    pipeline = video_to_video()
    stock, four_steps = pipeline.scheduler, {"num_inference_steps": 4, "strength": 1.0}

    def replace_scheduler(pipeline: Any, step: int, _time: Any, tensors: Any) -> Any:
        copied = deepcopy(pipeline.scheduler)
        assert copied.step.__self__ is copied  # and not a copy of the whole pipeline
        if step == 0:
            pipeline.scheduler = copied
        return tensors

    with guide(pipeline, NegativeText(NEGATIVE), params):
        alone = from_latents(pipeline, **four_steps)
        ours = from_latents(pipeline, callback_on_step_end=replace_scheduler, **four_steps)
    assert torch.equal(ours, alone)
    assert "step" not in vars(stock)
    assert vars(pipeline.scheduler).get("step") in (None, pipeline.scheduler.step)


# --- a model that changes inside the `with`


def replace_all(pipeline: Any) -> None:
    pipeline.transformer.set_attn_processor(type(pipeline.transformer.blocks[0].attn1.processor)())


def replace_one(pipeline: Any) -> None:
    attention = pipeline.transformer.blocks[1].attn2
    attention.set_processor(type(pipeline.transformer.blocks[0].attn1.processor)())


def replace_by_another_guided(pipeline: Any) -> None:
    attention = pipeline.transformer.blocks[1].attn2
    attention.set_processor(type(attention.processor)(attention.processor.stock, None, "other"))


def replace_transformer(pipeline: Any) -> None:
    pipeline.transformer = tiny.wan_transformer(3)


CHANGES = [replace_all, replace_one, replace_by_another_guided, replace_transformer]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("is_in_the_loop", [False, True])
def test_a_model_that_changes_while_it_is_guided_is_noticed(
    change: Callable[[Any], None], is_in_the_loop: bool
) -> None:
    pipeline = tiny.wan_pipeline()

    def at_step_end(_pipeline: Any, _step: int, _time: Any, tensors: Any) -> Any:
        change(pipeline)
        return tensors

    with guide(pipeline, NegativeText(NEGATIVE), STRONG):
        render(pipeline, PROMPT)
        arguments: dict[str, Any] = {}
        if is_in_the_loop:
            arguments["callback_on_step_end"] = at_step_end
        else:
            change(pipeline)
        with pytest.raises(NagCoverageError, match=r"only \d of 2|replaced after guidance"):
            render(pipeline, PROMPT, **arguments)


def test_a_model_that_changes_while_it_is_not_guided_renders_plainly() -> None:
    pipeline = tiny.wan_pipeline()
    plain = render(pipeline, PROMPT)
    with install(pipeline):
        replace_all(pipeline)
        assert torch.equal(render(pipeline, PROMPT), plain)
