"""Whole pipelines under every method, against cross-attention by hand in float64."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest
import torch

from nag import (
    GuidanceParams,
    NagParameterError,
    NagParams,
    NasaParams,
    NegativeText,
    VsfParams,
    encode_negative_prompt,
    guide,
    install,
)
from tests.builders import tiny
from tests.nag.reference import (
    NEGATIVE_LENGTH,
    Guidance,
    cross_attention_by_hand,
    image,
    largest_difference,
    mask,
    render,
    text,
)

CLOSE, FAR = 2e-5, 2e-2  # float32 against float64; guided against unguided
NAG, VSF, NASA = NagParams(9, 2.5, 0.5), VsfParams(1.7, 0.2), NasaParams(0.8)
METHODS: list[GuidanceParams] = [NAG, replace(NAG, nag_norm="l2"), VSF, VsfParams(4.0, 0.0), NASA]
RIVALS: list[GuidanceParams] = [VSF, NASA]


@dataclass(frozen=True, eq=False)
class Case:
    """A pipeline and its call; the negative prompt is shorter or longer than the prompt."""

    build: Callable[[], Any]
    prompt: torch.Tensor
    negative: NegativeText
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])


@cache
def case(
    family: str, batch: int, has_cfg: bool = False, negative_length: int = NEGATIVE_LENGTH
) -> Case:
    prompt, negative = text(batch, 12, 1), NegativeText(text(batch, negative_length, 2))
    cfg: dict[str, Any] = (
        {"guidance_scale": 3.0, "negative_prompt_embeds": text(batch, 12, 3)} if has_cfg else {}
    )
    if family == "wan":
        return Case(tiny.wan_pipeline, prompt, negative, cfg)
    if family == "wan-2.2":
        return Case(lambda: tiny.wan_pipeline(two_transformers=True), prompt, negative, cfg)
    if family == "wan-image":
        cfg = {**cfg, "negative_prompt_embeds": text(batch, 512, 3)} if has_cfg else {}
        arguments = {**cfg, "image": image()}
        return Case(tiny.wan_image_to_video_pipeline, text(batch, 512, 1), negative, arguments)
    if has_cfg:
        cfg["negative_prompt_attention_mask"] = mask(12, 5, 8)[:batch]
    negative = replace(negative, attention_mask=mask(negative_length, 4, 6)[:batch])
    return Case(
        tiny.ltx_pipeline,
        prompt,
        negative,
        {"prompt_attention_mask": mask(12, 9, 3)[:batch], **cfg},
    )


def strengths(params: GuidanceParams) -> dict[str, Any]:
    """Return the guidance as the reference takes it."""
    if isinstance(params, VsfParams):
        return {"method": "vsf", "scale": params.vsf_scale, "bias": params.vsf_bias}
    if isinstance(params, NasaParams):
        return {"method": "nasa", "scale": params.nasa_scale}
    norm = {"l1": 1, "l2": 2}[params.nag_norm]
    return {
        "scale": params.nag_scale,
        "tau": params.nag_tau,
        "alpha": params.nag_alpha,
        "norm": norm,
    }


def ours(case: Case, params: GuidanceParams, pipeline: Any = None) -> torch.Tensor:
    pipeline = pipeline or case.build()
    with install(pipeline) as nag, nag.guide(case.negative, params):
        return render(pipeline, case.prompt, **case.arguments)


def by_hand(case: Case, params: GuidanceParams, pipeline: Any = None) -> torch.Tensor:
    pipeline = pipeline or case.build()
    unconditional = case.arguments.get("negative_prompt_embeds")
    negative = (case.negative.embeds, case.negative.attention_mask)
    guidance = Guidance(*negative, unconditional=unconditional, **strengths(params))
    with cross_attention_by_hand(pipeline, guidance):
        return render(pipeline, case.prompt, **case.arguments)


@cache
def plain(case: Case) -> torch.Tensor:
    return render(case.build(), case.prompt, **case.arguments)


@pytest.mark.parametrize("params", METHODS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("has_cfg", [False, True])
@pytest.mark.parametrize("family", ["wan", "ltx"])
def test_every_method_is_its_published_formula(
    family: str, has_cfg: bool, batch: int, params: GuidanceParams
) -> None:
    chosen = case(family, batch, has_cfg)
    guided, unguided = ours(chosen, params), plain(chosen)
    assert largest_difference(guided, by_hand(chosen, params)) < 4 * CLOSE
    for row in range(batch):
        assert largest_difference(guided[row], unguided[row]) > FAR


@pytest.mark.parametrize("params", RIVALS)
@pytest.mark.parametrize("has_cfg", [False, True])
@pytest.mark.parametrize(("family", "batch"), [("wan-2.2", 2), ("wan-image", 1), ("wan-image", 2)])
def test_rivals_on_two_transformers_and_beside_image_tokens_are_their_formulas(
    family: str, batch: int, has_cfg: bool, params: GuidanceParams
) -> None:
    chosen = case(family, batch, has_cfg)
    guided = ours(chosen, params)
    assert largest_difference(guided, by_hand(chosen, params)) < 4 * CLOSE
    # 512 tokens of prompt outweigh a short negative.
    assert largest_difference(guided, plain(chosen)) > FAR / 10


@pytest.mark.parametrize("params", RIVALS)
@pytest.mark.parametrize("family", ["wan", "ltx"])
@pytest.mark.parametrize("negative_length", [1, 12, 31])
def test_prompts_of_different_length_are_cut_by_tokens(
    family: str, negative_length: int, params: GuidanceParams
) -> None:
    chosen = case(family, 1, negative_length=negative_length)
    assert largest_difference(ours(chosen, params), by_hand(chosen, params)) < CLOSE


@pytest.mark.parametrize("params", [VsfParams(0.0), VsfParams(0.0, 3.0), NasaParams(0.0)])
@pytest.mark.parametrize("has_cfg", [False, True])
@pytest.mark.parametrize("family", ["wan", "wan-2.2", "wan-image", "ltx"])
def test_a_strength_of_zero_is_the_plain_pipeline_bit_for_bit(
    family: str, has_cfg: bool, params: GuidanceParams
) -> None:
    chosen = case(family, 1, has_cfg)
    assert torch.equal(ours(chosen, params), plain(chosen))


@pytest.mark.parametrize("params", METHODS)
@pytest.mark.parametrize("batch", [1, 2])
def test_the_unconditional_half_of_ltx_is_left_alone_bit_for_bit(
    batch: int, params: GuidanceParams
) -> None:
    chosen = case("ltx", batch, has_cfg=True)
    halves: list[tuple[torch.Tensor, ...]] = []
    for render_with in (
        ours,
        lambda case, _, pipeline: render(pipeline, case.prompt, **case.arguments),
    ):
        pipeline, outputs = chosen.build(), list[torch.Tensor]()
        pipeline.transformer.register_forward_hook(
            lambda *args, into=outputs: into.append(args[2][0])
        )
        render_with(chosen, params, pipeline)
        halves.append(outputs[0].chunk(2))
    (unconditional, conditional), (plain_unconditional, plain_conditional) = halves
    assert torch.equal(unconditional, plain_unconditional)
    assert largest_difference(conditional, plain_conditional) > FAR


def padded(negative: torch.Tensor, num_rows: int) -> torch.Tensor:
    return torch.cat([negative, torch.zeros(len(negative), num_rows, tiny.TEXT_DIM)], dim=1)


def test_vsf_takes_wans_negative_without_the_zero_rows_behind_it() -> None:
    short = case("wan", 1)
    long = replace(short, negative=NegativeText(padded(short.negative.embeds, 40)))
    assert largest_difference(ours(long, VSF), ours(short, VSF)) < CLOSE
    assert largest_difference(ours(long, VSF), by_hand(short, VSF)) < CLOSE
    # Padding would have done this.
    assert largest_difference(by_hand(long, VSF), by_hand(short, VSF)) > FAR
    # These attend to the negative as the model was trained to: with its padding.
    for params in (NAG, NASA):
        assert largest_difference(ours(long, params), by_hand(long, params)) < CLOSE


def test_vsf_takes_each_row_of_a_wan_batch_without_its_own_padding() -> None:
    chosen = case("wan", 2)
    negative = chosen.negative.embeds.clone()
    negative[1, 3:] = 0
    batch = replace(chosen, negative=NegativeText(negative))
    with cross_attention_by_hand(
        pipeline := chosen.build(),
        Guidance(negative, mask(NEGATIVE_LENGTH, NEGATIVE_LENGTH, 3), **strengths(VSF)),
    ):
        truth = render(pipeline, chosen.prompt)
    assert largest_difference(ours(batch, VSF), truth) < CLOSE


def test_vsf_of_a_negative_that_is_padding_alone_is_the_plain_clip_and_finite() -> None:
    wan = replace(case("wan", 1), negative=NegativeText(torch.zeros(1, 7, tiny.TEXT_DIM)))
    ltx = replace(case("ltx", 1), negative=NegativeText(text(1, 7, 2), mask(7, 0)))
    for chosen in (wan, ltx):
        assert largest_difference(ours(chosen, VSF), plain(chosen)) < CLOSE


def test_vsf_leaves_masked_tokens_of_ltx_out() -> None:
    chosen = case("ltx", 1)
    other = chosen.negative.embeds.clone()
    other[:, 4:] = 50 * text(1, 3, 11)
    assert torch.equal(
        ours(replace(chosen, negative=replace(chosen.negative, embeds=other)), VSF),
        ours(chosen, VSF),
    )


def test_a_vsf_bias_that_is_large_leaves_the_prompt_alone() -> None:
    for family in ("wan", "ltx"):
        chosen = case(family, 1)
        assert largest_difference(ours(chosen, VsfParams(1.7, 50.0)), plain(chosen)) < CLOSE


@pytest.mark.parametrize("family", ["wan", "ltx"])
def test_the_method_may_change_from_call_to_call_on_one_installation(family: str) -> None:
    chosen = case(family, 1)
    pipeline = chosen.build()
    with install(pipeline) as nag:
        for params in (*METHODS, *reversed(METHODS)):
            with nag.guide(chosen.negative, params):
                assert torch.equal(
                    render(pipeline, chosen.prompt, **chosen.arguments), ours(chosen, params)
                )
        assert torch.equal(render(pipeline, chosen.prompt, **chosen.arguments), plain(chosen))
        assert str(nag.check_coverage()) == "2 of 2"


def test_an_inner_method_replaces_the_outer_one_until_it_is_left() -> None:
    chosen = case("wan", 1)
    pipeline = chosen.build()
    with install(pipeline) as nag, nag.guide(chosen.negative, VSF):
        outer = render(pipeline, chosen.prompt)
        with nag.guide(chosen.negative, NASA):
            assert torch.equal(render(pipeline, chosen.prompt), ours(chosen, NASA))
        with nag.guide(chosen.negative, VsfParams(0.5)):
            assert torch.equal(render(pipeline, chosen.prompt), ours(chosen, VsfParams(0.5)))
        assert torch.equal(render(pipeline, chosen.prompt), outer)


def test_parameters_of_no_method_are_refused_and_leave_no_guidance_behind() -> None:
    chosen = case("wan", 1)
    pipeline, wrong = chosen.build(), {"nag_scale": 9}
    with install(pipeline) as nag:
        with (
            pytest.raises(
                NagParameterError, match="one of NagParams, VsfParams, NasaParams, got dict"
            ),
            nag.guide(chosen.negative, wrong),  # pyright: ignore[reportArgumentType]
        ):
            pass
        assert torch.equal(render(pipeline, chosen.prompt), plain(chosen))


@pytest.mark.parametrize("params", RIVALS)
@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.ltx_pipeline])
def test_one_with_statement_guides_by_text_with_any_method(
    build: Callable[[], Any], params: GuidanceParams
) -> None:
    pipeline, prompt = build(), text(1, 12, 1)
    unguided = render(pipeline, prompt)
    with guide(pipeline, "blurry", params, max_sequence_length=40):
        guided = render(pipeline, prompt)
    negative = encode_negative_prompt(pipeline, "blurry", 40)
    assert torch.equal(guided, ours(Case(build, prompt, negative), params, pipeline))
    assert largest_difference(guided, unguided) > FAR
    assert torch.equal(render(pipeline, prompt), unguided)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("params", RIVALS)
@pytest.mark.parametrize("family", ["wan", "ltx"])
def test_half_precision_pipelines_are_guided_and_finite(
    family: str, params: GuidanceParams, dtype: torch.dtype
) -> None:
    chosen = case(family, 2, has_cfg=True)
    half = replace(
        chosen,
        prompt=chosen.prompt.to(dtype),
        arguments={
            **chosen.arguments,
            "negative_prompt_embeds": chosen.arguments["negative_prompt_embeds"].to(dtype),
        },
    )
    pipeline = chosen.build()
    pipeline.transformer.to(dtype)
    guided = ours(half, params, pipeline)
    assert torch.isfinite(guided).all()
    assert largest_difference(guided, ours(chosen, params)) < 0.3
    assert largest_difference(guided, render(pipeline, half.prompt, **half.arguments)) > FAR


def test_zero_rows_before_the_last_token_are_text() -> None:
    embeds = text(2, 5, 0)
    embeds[0, 1] = embeds[0, 3:] = embeds[1, 4:] = 0
    truth = torch.tensor([[True, True, True, False, False], [True, True, True, True, False]])
    assert torch.equal(NegativeText(embeds).token_mask(), truth)
    assert torch.equal(NegativeText(embeds, mask(5, 2, 4).float()).token_mask(), mask(5, 2, 4))


def test_wans_own_encoding_ends_in_zero_rows_that_are_found() -> None:
    negative = encode_negative_prompt(tiny.wan_pipeline(), "ugly, blurry")
    num_tokens = int(negative.token_mask().sum())
    tokens = tiny.tokenizer()("ugly, blurry")["input_ids"]
    assert num_tokens == len(tokens)
    assert not negative.embeds[:, num_tokens:].any()
