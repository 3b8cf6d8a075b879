"""Whole LTX pipelines under NAG, against cross-attention by hand.

The texts are padded, as LTX's always are.
"""

from typing import Any

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    LTXEulerAncestralRFScheduler,
    LTXI2VLongMultiPromptPipeline,
    UniPCMultistepScheduler,
)

from nag import NagParams, NegativeText, install
from tests.builders import tiny
from tests.nag.reference import (
    Guidance,
    cross_attention_by_hand,
    largest_difference,
    mask,
    render,
    text,
)

PROMPT, PROMPT_MASK = text(1, 12, 1), mask(12, 9)
NEGATIVE, NEGATIVE_MASK = text(1, 7, 2), mask(7, 4)
CFG: dict[str, Any] = {
    "guidance_scale": 3.0,
    "negative_prompt_embeds": text(1, 12, 3),
    "negative_prompt_attention_mask": mask(12, 5),
}
CLOSE, FAR = 2e-5, 2e-2  # float32 against float64; guided against unguided
STRONG = NagParams(nag_scale=9, nag_tau=2.5, nag_alpha=0.5)
SCHEDULERS: dict[str, Any] = {
    "euler": FlowMatchEulerDiscreteScheduler,
    "unipc": lambda: UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    ),
}


def nag_render(
    prompt: torch.Tensor,
    negative: NegativeText,
    params: NagParams = STRONG,
    pipeline: Any = None,
    **arguments: Any,
) -> torch.Tensor:
    pipeline = pipeline or tiny.ltx_pipeline()
    with install(pipeline) as nag, nag.guide(negative, params):
        return render(pipeline, prompt, **arguments)


def hand_render(
    prompt: torch.Tensor,
    negative: NegativeText,
    params: NagParams = STRONG,
    steps: tuple[int, ...] | None = None,
    pipeline: Any = None,
    **arguments: Any,
) -> torch.Tensor:
    guidance = Guidance(
        negative.embeds,
        negative.attention_mask,
        scale=params.nag_scale,
        tau=params.nag_tau,
        alpha=params.nag_alpha,
        unconditional=arguments.get("negative_prompt_embeds"),
        steps=steps,
    )
    pipeline = pipeline or tiny.ltx_pipeline()
    with cross_attention_by_hand(pipeline, guidance):
        return render(pipeline, prompt, **arguments)


PADDED = NegativeText(NEGATIVE, NEGATIVE_MASK)


@pytest.mark.parametrize("negative_length", [1, 7, 12, 31])
def test_prompts_of_different_length_are_cut_by_tokens_not_by_channels(
    negative_length: int,
) -> None:
    negative = NegativeText(
        text(1, negative_length, 2), mask(negative_length, (negative_length + 1) // 2)
    )
    arguments: dict[str, Any] = {"prompt_attention_mask": PROMPT_MASK}
    ours = nag_render(PROMPT, negative, **arguments)
    assert largest_difference(ours, hand_render(PROMPT, negative, **arguments)) < CLOSE
    assert largest_difference(ours, render(tiny.ltx_pipeline(), PROMPT, **arguments)) > FAR


def test_the_parts_of_the_negative_under_its_mask_change_nothing() -> None:
    other = NEGATIVE.clone()
    other[:, 4:] = 50 * text(1, 3, 11)
    arguments: dict[str, Any] = {"prompt_attention_mask": PROMPT_MASK}
    ours = nag_render(PROMPT, PADDED, **arguments)
    assert torch.equal(ours, nag_render(PROMPT, NegativeText(other, NEGATIVE_MASK), **arguments))
    unmasked = nag_render(PROMPT, NegativeText(other, torch.ones_like(NEGATIVE_MASK)), **arguments)
    assert largest_difference(ours, unmasked) > FAR


def test_the_parts_of_the_prompt_under_its_mask_change_nothing() -> None:
    other = PROMPT.clone()
    other[:, 9:] = 50 * text(1, 3, 11)
    ours = nag_render(PROMPT, PADDED, prompt_attention_mask=PROMPT_MASK)
    assert torch.equal(ours, nag_render(other, PADDED, prompt_attention_mask=PROMPT_MASK))
    assert largest_difference(ours, nag_render(other, PADDED)) > FAR


def test_a_padded_negative_is_the_negative_without_its_padding() -> None:
    short = NegativeText(NEGATIVE[:, :4], NEGATIVE_MASK[:, :4])
    arguments: dict[str, Any] = {"prompt_attention_mask": PROMPT_MASK}
    padded = nag_render(PROMPT, PADDED, **arguments)
    assert largest_difference(padded, nag_render(PROMPT, short, **arguments)) < CLOSE


def test_a_negative_without_a_mask_counts_as_all_tokens() -> None:
    arguments: dict[str, Any] = {"prompt_attention_mask": PROMPT_MASK}
    whole = nag_render(PROMPT, NegativeText(NEGATIVE, torch.ones_like(NEGATIVE_MASK)), **arguments)
    assert torch.equal(nag_render(PROMPT, NegativeText(NEGATIVE), **arguments), whole)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_the_type_of_the_masks_does_not_matter(dtype: torch.dtype) -> None:
    negative = NegativeText(NEGATIVE, NEGATIVE_MASK.to(dtype))
    truth = hand_render(PROMPT, PADDED, prompt_attention_mask=PROMPT_MASK)
    for prompt_mask in (PROMPT_MASK, PROMPT_MASK.long(), PROMPT_MASK.float()):
        assert (
            largest_difference(
                nag_render(PROMPT, negative, prompt_attention_mask=prompt_mask), truth
            )
            < CLOSE
        )


def test_every_row_of_a_batch_is_guided_by_its_own_negative_not_only_the_first_half() -> None:
    prompts, negative = text(3, 12, 4), NegativeText(text(3, 7, 5), mask(7, 2, 7, 4))
    arguments: dict[str, Any] = {"prompt_attention_mask": mask(12, 12, 3, 8)}
    ours = nag_render(prompts, negative, **arguments)
    assert largest_difference(ours, hand_render(prompts, negative, **arguments)) < CLOSE
    plain = render(tiny.ltx_pipeline(), prompts, **arguments)
    for row in range(3):
        assert largest_difference(ours[row], plain[row]) > FAR


def test_a_clip_in_a_batch_has_its_text_in_its_own_row_and_is_the_clip_alone() -> None:
    prompts, prompt_mask = text(3, 12, 4), mask(12, 12, 3, 8)
    negative = NegativeText(text(3, 7, 5), mask(7, 2, 7, 4))
    cfg: dict[str, Any] = {
        "guidance_scale": 3.0,
        "negative_prompt_embeds": text(3, 12, 6),
        "negative_prompt_attention_mask": mask(12, 5, 6, 7),
    }
    together = nag_render(prompts, negative, prompt_attention_mask=prompt_mask, **cfg)
    for row in range(3):
        one = slice(row, row + 1)
        alone = nag_render(
            prompts[one],
            NegativeText(negative.embeds[one], mask(7, 2, 7, 4)[one]),
            generator=torch.Generator().manual_seed(row),
            prompt_attention_mask=prompt_mask[one],
            guidance_scale=3.0,
            negative_prompt_embeds=cfg["negative_prompt_embeds"][one],
            negative_prompt_attention_mask=cfg["negative_prompt_attention_mask"][one],
        )
        assert largest_difference(together[one], alone) < 1e-5


def test_one_negative_is_shared_by_all_rows_of_a_batch() -> None:
    prompts = text(3, 12, 4)
    arguments: dict[str, Any] = {"prompt_attention_mask": mask(12, 12, 3, 8)}
    shared = nag_render(prompts, PADDED, **arguments)
    repeated = NegativeText(NEGATIVE.repeat(3, 1, 1), NEGATIVE_MASK.repeat(3, 1))
    assert torch.equal(shared, nag_render(prompts, repeated, **arguments))
    assert largest_difference(shared, hand_render(prompts, PADDED, **arguments)) < CLOSE


@pytest.mark.parametrize("params", [NagParams(nag_scale=1), NagParams(nag_alpha=0)])
@pytest.mark.parametrize("cfg", [{}, CFG])
def test_no_guidance_is_the_plain_pipeline_bit_for_bit(
    params: NagParams, cfg: dict[str, Any]
) -> None:
    plain = render(tiny.ltx_pipeline(), PROMPT, prompt_attention_mask=PROMPT_MASK, **cfg)
    assert torch.equal(
        nag_render(PROMPT, PADDED, params, prompt_attention_mask=PROMPT_MASK, **cfg), plain
    )


def test_outside_guide_and_after_remove_it_is_the_plain_pipeline_bit_for_bit() -> None:
    pipeline = tiny.ltx_pipeline()
    plain = render(pipeline, PROMPT, prompt_attention_mask=PROMPT_MASK)
    with install(pipeline) as nag:
        assert torch.equal(render(pipeline, PROMPT, prompt_attention_mask=PROMPT_MASK), plain)
        with nag.guide(PADDED, STRONG):
            assert (
                largest_difference(
                    render(pipeline, PROMPT, prompt_attention_mask=PROMPT_MASK), plain
                )
                > FAR
            )
        assert torch.equal(render(pipeline, PROMPT, prompt_attention_mask=PROMPT_MASK), plain)
    assert torch.equal(render(pipeline, PROMPT, prompt_attention_mask=PROMPT_MASK), plain)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("negative_rows", [1, 2])
def test_classifier_free_guidance_may_have_another_negative_prompt_than_nag(
    rows: int, negative_rows: int
) -> None:
    cfg: dict[str, Any] = {
        "prompt_attention_mask": mask(12, 9, 4)[:rows],
        "guidance_scale": 3.0,
        "negative_prompt_embeds": text(rows, 12, 6),
        "negative_prompt_attention_mask": mask(12, 5, 6)[:rows],
    }
    negative_rows = min(rows, negative_rows)
    prompts, negative = (
        text(rows, 12, 4),
        NegativeText(text(negative_rows, 7, 5), mask(7, 2, 6)[:negative_rows]),
    )
    ours = nag_render(prompts, negative, **cfg)
    assert largest_difference(ours, hand_render(prompts, negative, **cfg)) < 4 * CLOSE
    assert largest_difference(ours, render(tiny.ltx_pipeline(), prompts, **cfg)) > FAR


def test_the_unconditional_half_of_the_batched_call_is_not_guided() -> None:
    halves: list[tuple[torch.Tensor, torch.Tensor]] = []
    for guided in (False, True):
        pipeline = tiny.ltx_pipeline()
        outputs: list[torch.Tensor] = []
        pipeline.transformer.register_forward_hook(
            lambda *args, into=outputs: into.append(args[2][0])
        )
        if guided:
            nag_render(PROMPT, PADDED, pipeline=pipeline, prompt_attention_mask=PROMPT_MASK, **CFG)
        else:
            render(pipeline, PROMPT, prompt_attention_mask=PROMPT_MASK, **CFG)
        halves.append((outputs[0][0], outputs[0][1]))
    (plain_unconditional, plain_conditional), (unconditional, conditional) = halves
    assert torch.equal(unconditional, plain_unconditional)
    assert largest_difference(conditional, plain_conditional) > FAR


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(
    ("start", "end", "steps"),
    [(0.0, 0.5, (0, 1)), (0.25, 0.75, (1, 2)), (0.5, 1.0, (2, 3)), (0.3, 0.4, ())],
)
def test_the_step_range_guides_exactly_its_steps(
    scheduler: str, start: float, end: float, steps: tuple[int, ...]
) -> None:
    def build() -> Any:
        pipeline = tiny.ltx_pipeline()
        pipeline.scheduler = SCHEDULERS[scheduler]()
        return pipeline

    params = NagParams(nag_scale=9, nag_alpha=0.5, nag_start=start, nag_end=end)
    arguments: dict[str, Any] = {
        "num_inference_steps": 4,
        "prompt_attention_mask": PROMPT_MASK,
        **CFG,
    }
    ours = nag_render(PROMPT, PADDED, params, build(), **arguments)
    truth = hand_render(PROMPT, PADDED, params, steps, build(), **arguments)
    assert largest_difference(ours, truth) < 4 * CLOSE
    assert torch.equal(ours, render(build(), PROMPT, **arguments)) == (not steps)


@pytest.mark.parametrize("is_fused_first", [True, False])
def test_fused_projections_give_the_same_clip(is_fused_first: bool) -> None:
    pipeline = tiny.ltx_pipeline()
    separate = nag_render(PROMPT, PADDED, pipeline=pipeline)
    if is_fused_first:
        pipeline.transformer.fuse_qkv_projections()
    with install(pipeline) as nag, nag.guide(PADDED, STRONG):
        pipeline.transformer.fuse_qkv_projections()
        assert largest_difference(render(pipeline, PROMPT), separate) < CLOSE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_pipelines_are_guided_and_finite(dtype: torch.dtype) -> None:
    pipeline = tiny.ltx_pipeline()
    arguments: dict[str, Any] = {"prompt_attention_mask": PROMPT_MASK}
    full = nag_render(PROMPT, PADDED, pipeline=pipeline, **arguments)
    pipeline.transformer.to(dtype)
    guided = nag_render(PROMPT.to(dtype), PADDED, pipeline=pipeline, **arguments)
    assert torch.isfinite(guided).all()
    assert largest_difference(guided, full) < 0.2
    assert largest_difference(guided, render(pipeline, PROMPT.to(dtype), **arguments)) > FAR


def long_videos() -> Any:
    parts: dict[str, Any] = tiny.ltx_pipeline().components
    parts["scheduler"] = LTXEulerAncestralRFScheduler()
    pipeline: Any = LTXI2VLongMultiPromptPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def long_video(pipeline: Any, **arguments: Any) -> torch.Tensor:
    call: dict[str, Any] = {
        "prompt": "red | blue", "height": 32, "width": 32, "num_frames": 17,
        "temporal_tile_size": 16, "temporal_overlap": 8, "max_sequence_length": 12,
        "output_type": "latent",
    }  # fmt: skip
    return pipeline(**call, **arguments).frames


def test_the_step_range_of_a_long_video_is_that_of_the_steps_that_a_window_takes() -> None:
    pipeline, seen = long_videos(), list[bool]()
    sigmas, middle = torch.linspace(1, 0, 6), NagParams(nag_start=0.25, nag_end=0.75)
    with install(pipeline) as nag, nag.guide("green", middle, max_sequence_length=12):
        handle = pipeline.transformer.register_forward_pre_hook(
            lambda _model, _args, kwargs: seen.append(
                kwargs["encoder_hidden_states"].shape[1] > 12
            ),
            with_kwargs=True,
        )
        long_video(pipeline, sigmas=sigmas, guidance_scale=1.0, skip_steps_sigma_threshold=0.9)
        handle.remove()
    assert seen == [False, True, True, False] * 2


def test_a_long_video_is_guided_in_each_window_with_the_prompt_of_that_window() -> None:
    pipeline = long_videos()

    def render_long() -> torch.Tensor:
        return long_video(
            pipeline, negative_prompt="mud", guidance_scale=3.0, num_inference_steps=3
        )

    plain = render_long()
    with install(pipeline) as nag:
        with nag.guide("green", STRONG, max_sequence_length=12):
            ours = render_long()
        with nag.guide("green", NagParams(9, 2.5, 0.5, nag_end=0.4), max_sequence_length=12):
            first_step = render_long()
        with nag.guide("green", nag_scale=1, max_sequence_length=12):
            assert torch.equal(render_long(), plain)
    with torch.no_grad():
        green, mud = (
            pipeline.encode_prompt(word, do_classifier_free_guidance=False, max_sequence_length=12)
            for word in ("green", "mud")
        )
    for clip, steps in ((ours, None), (first_step, (0,))):
        guidance = Guidance(*green[:2], tau=2.5, alpha=0.5, unconditional=mud[0], steps=steps)
        with cross_attention_by_hand(pipeline, guidance):
            assert largest_difference(render_long(), clip) < CLOSE
        assert largest_difference(clip, plain) > FAR
    assert largest_difference(ours, first_step) > FAR
