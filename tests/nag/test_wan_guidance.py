"""Whole Wan pipelines under NAG, against cross-attention by hand."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
    WanVideoToVideoPipeline,
)

from nag import NagParams, NegativeText, install
from nag.attention.negative_prompt_hook import NegativePromptHook
from tests.builders import tiny
from tests.nag.reference import (
    NEGATIVE_LENGTH,
    Guidance,
    cross_attention_by_hand,
    image,
    largest_difference,
    render,
    text,
)

PROMPT, NEGATIVE, UNCONDITIONAL = text(1, 12, 1), text(1, NEGATIVE_LENGTH, 2), text(1, 12, 3)
CLOSE, FAR = 2e-5, 2e-2  # float32 against float64; guided against unguided
STRONG = NagParams(nag_scale=9, nag_tau=2.5, nag_alpha=0.5)
SCHEDULERS: dict[str, Callable[[], Any]] = {
    "unipc": lambda: UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    ),
    "euler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
}


def nag_render(
    pipeline: Any,
    prompt: torch.Tensor,
    negative: torch.Tensor,
    params: NagParams = STRONG,
    **arguments: Any,
) -> torch.Tensor:
    with install(pipeline) as nag, nag.guide(NegativeText(negative), params):
        return render(pipeline, prompt, **arguments)


def hand_render(
    pipeline: Any,
    prompt: torch.Tensor,
    negative: torch.Tensor,
    params: NagParams = STRONG,
    **arguments: Any,
) -> torch.Tensor:
    guidance = Guidance(
        negative,
        scale=params.nag_scale,
        tau=params.nag_tau,
        alpha=params.nag_alpha,
        unconditional=arguments.get("negative_prompt_embeds"),
        steps=arguments.pop("steps", None),
    )
    with cross_attention_by_hand(pipeline, guidance):
        return render(pipeline, prompt, **arguments)


def transformer_outputs(pipeline: Any) -> list[torch.Tensor]:
    outputs: list[torch.Tensor] = []
    for transformer in (pipeline.transformer, pipeline.transformer_2):
        if transformer is not None:
            transformer.register_forward_hook(
                lambda _module, _args, output: outputs.append(output[0])
            )
    return outputs


@pytest.mark.parametrize("negative_length", [1, NEGATIVE_LENGTH, 12, 31])
def test_prompts_of_different_length_are_cut_by_tokens_not_by_channels(
    negative_length: int,
) -> None:
    negative = text(1, negative_length, 2)
    ours = nag_render(tiny.wan_pipeline(), PROMPT, negative)
    truth = hand_render(tiny.wan_pipeline(), PROMPT, negative)
    assert largest_difference(ours, truth) < CLOSE
    assert largest_difference(ours, render(tiny.wan_pipeline(), PROMPT)) > FAR


@pytest.mark.parametrize(
    "params", [NagParams(), NagParams(11, 3.5, 0.5), NagParams(2, 1.01, 1.0), NagParams(9, 0.5)]
)
def test_every_parameter_acts_as_published(params: NagParams) -> None:
    ours = nag_render(tiny.wan_pipeline(), PROMPT, NEGATIVE, params)
    assert (
        largest_difference(ours, hand_render(tiny.wan_pipeline(), PROMPT, NEGATIVE, params)) < CLOSE
    )


def test_every_row_of_a_batch_is_guided_by_its_own_negative_not_only_the_first_half() -> None:
    prompts, negatives = text(3, 12, 4), text(3, NEGATIVE_LENGTH, 5)
    ours = nag_render(tiny.wan_pipeline(), prompts, negatives)
    assert largest_difference(ours, hand_render(tiny.wan_pipeline(), prompts, negatives)) < CLOSE
    plain = render(tiny.wan_pipeline(), prompts)
    for row in range(3):
        assert largest_difference(ours[row], plain[row]) > FAR


def test_a_clip_in_a_batch_is_the_clip_alone() -> None:
    prompts, negatives = text(3, 12, 4), text(3, NEGATIVE_LENGTH, 5)
    together = nag_render(tiny.wan_pipeline(), prompts, negatives)
    for row in range(3):
        one = slice(row, row + 1)
        alone = nag_render(
            tiny.wan_pipeline(),
            prompts[one],
            negatives[one],
            generator=torch.Generator().manual_seed(row),
        )
        assert largest_difference(together[one], alone) < 1e-5


def test_one_negative_is_shared_by_all_rows_of_a_batch() -> None:
    prompts = text(3, 12, 4)
    shared = nag_render(tiny.wan_pipeline(), prompts, NEGATIVE)
    assert torch.equal(shared, nag_render(tiny.wan_pipeline(), prompts, NEGATIVE.repeat(3, 1, 1)))
    assert largest_difference(shared, hand_render(tiny.wan_pipeline(), prompts, NEGATIVE)) < CLOSE


@pytest.mark.parametrize("params", [NagParams(nag_scale=1), NagParams(nag_alpha=0)])
@pytest.mark.parametrize("two_transformers", [False, True])
def test_no_guidance_is_the_plain_pipeline_bit_for_bit(
    params: NagParams, two_transformers: bool
) -> None:
    plain = render(tiny.wan_pipeline(two_transformers), PROMPT)
    assert torch.equal(
        nag_render(tiny.wan_pipeline(two_transformers), PROMPT, NEGATIVE, params), plain
    )


@pytest.mark.parametrize("two_transformers", [False, True])
def test_outside_guide_and_after_remove_it_is_the_plain_pipeline_bit_for_bit(
    two_transformers: bool,
) -> None:
    pipeline = tiny.wan_pipeline(two_transformers)
    plain = render(pipeline, PROMPT, num_inference_steps=3)
    with install(pipeline) as nag:
        assert torch.equal(render(pipeline, PROMPT, num_inference_steps=3), plain)
        with nag.guide(NegativeText(NEGATIVE), STRONG):
            assert largest_difference(render(pipeline, PROMPT, num_inference_steps=3), plain) > FAR
        assert torch.equal(render(pipeline, PROMPT, num_inference_steps=3), plain)
    assert torch.equal(render(pipeline, PROMPT, num_inference_steps=3), plain)


def test_a_clip_does_not_depend_on_the_clip_before_it() -> None:
    pipeline = tiny.wan_pipeline()
    first = nag_render(pipeline, PROMPT, NEGATIVE)
    with install(pipeline) as nag:
        with nag.guide(NegativeText(text(1, 30, 8)), NagParams(4, 2, 1)):
            render(pipeline, text(2, 20, 9))
        with nag.guide(NegativeText(NEGATIVE), STRONG):
            assert torch.equal(render(pipeline, PROMPT), first)


def test_classifier_free_guidance_may_have_another_negative_prompt_than_nag() -> None:
    cfg: dict[str, Any] = {"guidance_scale": 4.0, "negative_prompt_embeds": UNCONDITIONAL}
    ours = nag_render(tiny.wan_pipeline(), PROMPT, NEGATIVE, **cfg)
    assert (
        largest_difference(ours, hand_render(tiny.wan_pipeline(), PROMPT, NEGATIVE, **cfg))
        < 4 * CLOSE
    )
    assert largest_difference(ours, render(tiny.wan_pipeline(), PROMPT, **cfg)) > FAR


def test_the_unconditional_call_of_classifier_free_guidance_is_not_guided() -> None:
    cfg: dict[str, Any] = {"guidance_scale": 4.0, "negative_prompt_embeds": UNCONDITIONAL}
    plain, guided = tiny.wan_pipeline(), tiny.wan_pipeline()
    plain_outputs, guided_outputs = transformer_outputs(plain), transformer_outputs(guided)
    render(plain, PROMPT, **cfg)
    nag_render(guided, PROMPT, NEGATIVE, **cfg)
    (plain_conditional, plain_unconditional), (conditional, unconditional) = (
        plain_outputs[:2],
        guided_outputs[:2],
    )
    assert torch.equal(unconditional, plain_unconditional)
    assert largest_difference(conditional, plain_conditional) > FAR


def test_one_install_guides_both_transformers_of_wan_2_2() -> None:
    plain, guided = (
        tiny.wan_pipeline(two_transformers=True),
        tiny.wan_pipeline(two_transformers=True),
    )
    calls = {"transformer": 0, "transformer_2": 0}
    for name in calls:

        def count(*_: Any, name: str = name) -> None:
            calls[name] += 1

        getattr(guided, name).register_forward_hook(count)
    ours = nag_render(guided, PROMPT, NEGATIVE, num_inference_steps=4)
    assert min(calls.values()) > 0
    assert sum(calls.values()) == 4
    assert (
        largest_difference(ours, hand_render(plain, PROMPT, NEGATIVE, num_inference_steps=4))
        < CLOSE
    )


def test_wan_2_2_with_classifier_free_guidance_is_the_reference_too() -> None:
    cfg: dict[str, Any] = {
        "guidance_scale": 4.0,
        "guidance_scale_2": 2.0,
        "negative_prompt_embeds": UNCONDITIONAL,
    }
    ours = nag_render(
        tiny.wan_pipeline(two_transformers=True), PROMPT, NEGATIVE, num_inference_steps=3, **cfg
    )
    truth = hand_render(
        tiny.wan_pipeline(two_transformers=True), PROMPT, NEGATIVE, num_inference_steps=3, **cfg
    )
    assert largest_difference(ours, truth) < 4 * CLOSE


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(
    ("start", "end", "steps"),
    [(0.0, 0.5, (0, 1)), (0.25, 0.75, (1, 2)), (0.5, 1.0, (2, 3)), (0.3, 0.4, ())],
)
def test_the_step_range_guides_exactly_its_steps(
    scheduler: str, start: float, end: float, steps: tuple[int, ...]
) -> None:
    def build() -> WanPipeline:
        pipeline = tiny.wan_pipeline()
        pipeline.scheduler = SCHEDULERS[scheduler]()
        return pipeline

    params = NagParams(nag_scale=9, nag_alpha=0.5, nag_start=start, nag_end=end)
    cfg: dict[str, Any] = {
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
        "negative_prompt_embeds": UNCONDITIONAL,
    }
    ours = nag_render(build(), PROMPT, NEGATIVE, params, **cfg)
    assert (
        largest_difference(ours, hand_render(build(), PROMPT, NEGATIVE, params, steps=steps, **cfg))
        < 4 * CLOSE
    )
    assert torch.equal(ours, render(build(), PROMPT, **cfg)) == (not steps)


@pytest.mark.parametrize(
    ("start", "end", "guided"), [(0.0, 0.5, [1, 1, 0, 0]), (0.5, 1.0, [0, 0, 1, 1])]
)
def test_the_step_range_counts_only_the_steps_that_are_taken(
    start: float, end: float, guided: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Video to video takes only the last steps of its schedule."""
    seen: list[int] = []
    ask = NegativePromptHook._guided_rows

    def remember(hook: NegativePromptHook) -> Any:
        rows = ask(hook)
        seen.append(int(rows == "all"))
        return rows

    monkeypatch.setattr(NegativePromptHook, "_guided_rows", remember)
    wan: Any = tiny.wan_pipeline()
    pipeline = WanVideoToVideoPipeline(
        wan.tokenizer, wan.text_encoder, wan.transformer, wan.vae, wan.scheduler
    )
    call: dict[str, Any] = {
        "latents": torch.ones(1, 8, 2, 4, 4), "prompt_embeds": PROMPT, "height": 32, "width": 32,
        "num_inference_steps": 8, "strength": 0.5, "guidance_scale": 1.0, "output_type": "latent",
    }  # fmt: skip
    with (
        install(pipeline) as nag,
        nag.guide(NegativeText(NEGATIVE), NagParams(nag_start=start, nag_end=end)),
    ):
        pipeline(**call)
    assert seen == guided


def test_the_step_range_starts_anew_with_each_clip() -> None:
    pipeline = tiny.wan_pipeline()
    params = NagParams(nag_scale=9, nag_end=0.5)
    with install(pipeline) as nag, nag.guide(NegativeText(NEGATIVE), params):
        first = render(pipeline, PROMPT, num_inference_steps=4)
        assert torch.equal(render(pipeline, PROMPT, num_inference_steps=4), first)


def test_the_step_range_counts_over_both_transformers_of_wan_2_2() -> None:
    params = NagParams(nag_scale=9, nag_alpha=0.5, nag_start=0.5)
    ours = nag_render(
        tiny.wan_pipeline(two_transformers=True), PROMPT, NEGATIVE, params, num_inference_steps=4
    )
    pipeline = tiny.wan_pipeline(two_transformers=True)
    boundary = 0.7 * pipeline.scheduler.config.num_train_timesteps
    pipeline.scheduler.set_timesteps(4)
    steps_of_second = [int(t < boundary) for t in pipeline.scheduler.timesteps]
    assert steps_of_second == [0, 0, 0, 1]  # so steps 2 and 3 are one in each transformer
    first = hand_render_two(PROMPT, NEGATIVE, params, {"transformer": (2,), "transformer_2": (0,)})
    assert largest_difference(ours, first) < CLOSE


def hand_render_two(
    prompt: torch.Tensor,
    negative: torch.Tensor,
    params: NagParams,
    steps: dict[str, tuple[int, ...]],
) -> torch.Tensor:
    """Guide the steps given for each transformer, counted from the first step that it takes."""
    pipeline = tiny.wan_pipeline(two_transformers=True)
    strength: dict[str, Any] = {
        "scale": params.nag_scale,
        "tau": params.nag_tau,
        "alpha": params.nag_alpha,
    }
    first = SimpleNamespace(transformer=pipeline.transformer)
    second = SimpleNamespace(transformer=pipeline.transformer_2)
    with (
        cross_attention_by_hand(first, Guidance(negative, steps=steps["transformer"], **strength)),
        cross_attention_by_hand(
            second, Guidance(negative, steps=steps["transformer_2"], **strength)
        ),
    ):
        return render(pipeline, prompt, num_inference_steps=4)


IMAGE_TO_VIDEO_TEXT = [512, 12]


def image_to_video_call(
    transformer: Any, num_image_tokens: int, num_text_tokens: int
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad(), transformer.cache_context("cond"):
        return transformer(
            hidden_states=torch.randn(2, 20, 2, 4, 4, generator=generator),
            timestep=torch.tensor([900.0, 900.0]),
            encoder_hidden_states=text(2, num_text_tokens, 1),
            encoder_hidden_states_image=torch.randn(2, num_image_tokens, 20, generator=generator),
            return_dict=False,
        )[0]


@pytest.mark.parametrize("num_image_tokens", [257, 514, 1])
@pytest.mark.parametrize("num_text_tokens", IMAGE_TO_VIDEO_TEXT)
def test_image_tokens_are_attended_unguided_however_many(
    num_image_tokens: int, num_text_tokens: int
) -> None:
    driver: Any = SimpleNamespace(
        progress_bar=None, transformer=tiny.wan_transformer(image_dim=20, in_channels=20)
    )
    plain = image_to_video_call(driver.transformer, num_image_tokens, num_text_tokens)
    with install(driver) as nag:
        with nag.guide(NegativeText(NEGATIVE), STRONG):
            ours = image_to_video_call(driver.transformer, num_image_tokens, num_text_tokens)
        # The stock processor takes the last 512 tokens for text, however long the text is.
        unguided = [image_to_video_call(driver.transformer, num_image_tokens, num_text_tokens)]
        with nag.guide(NegativeText(NEGATIVE), NagParams(nag_scale=1)):
            unguided.append(
                image_to_video_call(driver.transformer, num_image_tokens, num_text_tokens)
            )
    assert all(torch.equal(one, plain) for one in unguided)
    with cross_attention_by_hand(driver, Guidance(NEGATIVE, scale=9, tau=2.5, alpha=0.5)):
        truth = image_to_video_call(driver.transformer, num_image_tokens, num_text_tokens)
    assert largest_difference(ours, truth) < CLOSE


def test_first_and_last_frame_tokens_come_in_pairs_of_rows_and_are_both_attended() -> None:
    transformer = tiny.wan_transformer(image_dim=20, in_channels=20, pos_embed_seq_len=514)
    driver: Any = SimpleNamespace(progress_bar=None, transformer=transformer)

    def call() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad(), transformer.cache_context("cond"):
            return transformer(
                hidden_states=torch.randn(1, 20, 2, 4, 4, generator=generator),
                timestep=torch.tensor([900.0]),
                encoder_hidden_states=text(1, 512, 1),
                # First and last frame.
                encoder_hidden_states_image=torch.randn(2, 257, 20, generator=generator),
                return_dict=False,
            )[0]

    plain = call()
    with install(driver) as nag:
        assert torch.equal(call(), plain)
        with nag.guide(NegativeText(NEGATIVE), STRONG):
            ours = call()
    with cross_attention_by_hand(driver, Guidance(NEGATIVE, scale=9, tau=2.5, alpha=0.5)):
        assert largest_difference(ours, call()) < CLOSE
    assert largest_difference(ours, plain) > FAR


def test_the_image_to_video_pipeline_is_the_reference_with_classifier_free_guidance() -> None:
    prompt, negative = text(1, 512, 1), text(1, 512, 2)
    arguments: dict[str, Any] = {
        "guidance_scale": 3.0,
        "negative_prompt_embeds": text(1, 512, 3),
        "image": image(),
    }
    ours = nag_render(tiny.wan_image_to_video_pipeline(), prompt, negative, **arguments)
    truth = hand_render(tiny.wan_image_to_video_pipeline(), prompt, negative, **arguments)
    assert largest_difference(ours, truth) < 4 * CLOSE
    assert (
        largest_difference(ours, render(tiny.wan_image_to_video_pipeline(), prompt, **arguments))
        > FAR
    )


def test_the_first_and_last_frame_pipeline_is_the_reference() -> None:
    prompt = text(1, 512, 1)
    arguments: dict[str, Any] = {"image": image(), "last_image": image(1)}
    ours = nag_render(
        tiny.wan_image_to_video_pipeline(with_last_image=True), prompt, NEGATIVE, **arguments
    )
    truth = hand_render(
        tiny.wan_image_to_video_pipeline(with_last_image=True), prompt, NEGATIVE, **arguments
    )
    assert largest_difference(ours, truth) < CLOSE


@pytest.mark.parametrize("params", [NagParams(nag_scale=1), NagParams(nag_alpha=0)])
def test_image_to_video_without_guidance_is_the_plain_pipeline_bit_for_bit(
    params: NagParams,
) -> None:
    prompt, pipeline = text(1, 512, 1), tiny.wan_image_to_video_pipeline()
    plain = render(pipeline, prompt, image=image())
    assert torch.equal(nag_render(pipeline, prompt, NEGATIVE, params, image=image()), plain)
    with install(pipeline):
        assert torch.equal(render(pipeline, prompt, image=image()), plain)
    assert torch.equal(render(pipeline, prompt, image=image()), plain)


def fused(pipeline: Any) -> None:
    pipeline.transformer.fuse_qkv_projections()


@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.wan_image_to_video_pipeline])
@pytest.mark.parametrize("is_fused_first", [True, False])
def test_fused_projections_give_the_same_clip(
    build: Callable[[], Any], is_fused_first: bool
) -> None:
    prompt = text(1, 512, 1)
    arguments: dict[str, Any] = (
        {"image": image()} if build is tiny.wan_image_to_video_pipeline else {}
    )
    pipeline = build()
    separate = nag_render(pipeline, prompt, NEGATIVE, **arguments)
    if is_fused_first:
        fused(pipeline)
    with install(pipeline) as nag, nag.guide(NegativeText(NEGATIVE), STRONG):
        fused(pipeline)
        assert pipeline.transformer.blocks[0].attn2.fused_projections
        assert largest_difference(render(pipeline, prompt, **arguments), separate) < CLOSE
        pipeline.transformer.unfuse_qkv_projections()
        assert torch.equal(render(pipeline, prompt, **arguments), separate)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.wan_image_to_video_pipeline])
def test_half_precision_pipelines_are_guided_and_finite(
    build: Callable[[], Any], dtype: torch.dtype
) -> None:
    prompt = text(1, 512, 1).to(dtype)
    arguments: dict[str, Any] = (
        {"image": image()} if build is tiny.wan_image_to_video_pipeline else {}
    )
    pipeline = build()
    full = nag_render(pipeline, prompt.float(), NEGATIVE, **arguments)
    pipeline.transformer.to(dtype)
    # The negative is float32: it is cast to the prompt's.
    guided = nag_render(pipeline, prompt, NEGATIVE, **arguments)
    assert torch.isfinite(guided).all()
    assert largest_difference(guided, full) < 0.2
    assert largest_difference(guided, render(pipeline, prompt, **arguments)) > FAR


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_vace_is_the_reference_in_both_of_its_lanes(guidance_scale: float) -> None:
    arguments: dict[str, Any] = {
        "guidance_scale": guidance_scale,
        "negative_prompt_embeds": UNCONDITIONAL,
        "latents": torch.randn(1, 8, 2, 4, 4, generator=torch.Generator().manual_seed(0)),
        "generator": None,
    }
    pipeline = tiny.wan_vace_pipeline()
    plain = render(pipeline, PROMPT, **arguments)
    with install(pipeline) as nag:
        assert str(nag.coverage) == "3 of 3"
        with nag.guide(NegativeText(NEGATIVE), STRONG):
            ours = render(pipeline, PROMPT, **arguments)
    truth = hand_render(pipeline, PROMPT, NEGATIVE, **arguments)
    assert largest_difference(ours, truth) < 4 * CLOSE
    assert largest_difference(ours, plain) > FAR
