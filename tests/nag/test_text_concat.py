"""A text that does not fit a call is refused, and guidance never goes off in silence."""

import re
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import WanPipeline

from nag import (
    AlreadyInstalledError,
    NagParameterError,
    NagParams,
    NagTextError,
    NegativeText,
    encode_negative_prompt,
    guide,
    install,
)
from tests.builders import tiny
from tests.nag.reference import image, largest_difference, mask, render, state, text

PROMPT = text(1, 12, 1)
FAR = 2e-2
STRONG = NagParams(nag_scale=9, nag_tau=2.5, nag_alpha=0.5)


def refused(pipeline: Any, negative: NegativeText, prompt: torch.Tensor, **arguments: Any) -> str:
    with (
        install(pipeline) as nag,
        nag.guide(negative, STRONG),
        pytest.raises(NagTextError) as refusal,
    ):
        render(pipeline, prompt, **arguments)
    return str(refusal.value)


@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.ltx_pipeline])
def test_a_negative_batch_that_does_not_match_is_refused_not_left_unguided(build: Any) -> None:
    message = refused(build(), NegativeText(text(2, 7, 2)), text(3, 12, 1))
    assert "2 rows" in message
    assert "guides 3" in message


def test_a_negative_batch_is_compared_with_the_guided_half_of_ltx_alone() -> None:
    cfg: dict[str, Any] = {
        "guidance_scale": 3.0,
        "negative_prompt_embeds": text(2, 12, 3),
        "negative_prompt_attention_mask": mask(12, 5, 5),
    }
    message = refused(tiny.ltx_pipeline(), NegativeText(text(4, 7, 2)), text(2, 12, 1), **cfg)
    assert "4 rows" in message
    assert "guides 2" in message


@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.ltx_pipeline])
@pytest.mark.parametrize("shape", [(1, 7, 15), (7, 16), (1, 0, 16), (0, 7, 16), (1, 1, 7, 16)])
def test_embeddings_of_the_wrong_shape_are_refused_not_left_unguided(
    build: Any, shape: tuple[int, ...]
) -> None:
    message = refused(build(), NegativeText(torch.zeros(shape)), text(1, 12, 1))
    assert "0 rows" in message or ("(batch, tokens, 16)" in message and str(shape) in message)


@pytest.mark.parametrize("parts", [(None,), ("a dog",), (text(1, 7, 2), [1] * 7)])
def test_embeddings_that_are_no_tensors_are_refused_where_they_are_given(parts: Any) -> None:
    with pytest.raises(NagTextError, match=r"NegativeText\.\w+ must be a tensor, got"):
        NegativeText(*parts)


@pytest.mark.parametrize("shape", [(1, 6), (2, 7), (7,), (1, 7, 1)])
def test_a_mask_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    message = refused(
        tiny.ltx_pipeline(), NegativeText(text(1, 7, 2), torch.ones(shape)), text(1, 12, 1)
    )
    assert "(1, 7)" in message
    assert str(shape) in message


def test_a_prompt_mask_that_is_not_batch_by_tokens_is_refused() -> None:
    bias = torch.zeros(1, 1, 12)
    with_mask: dict[str, Any] = {"prompt_attention_mask": bias}
    assert "(1, 1, 12)" in refused(
        tiny.ltx_pipeline(), NegativeText(text(1, 7, 2)), text(1, 12, 1), **with_mask
    )


def test_a_masked_negative_is_refused_where_the_model_takes_no_mask() -> None:
    message = refused(tiny.wan_pipeline(), NegativeText(text(1, 7, 2), mask(7, 4)), text(1, 12, 1))
    assert "the prompt has none" in message


def test_an_inner_guide_replaces_the_outer_one_until_it_is_left() -> None:
    pipeline, prompt = tiny.wan_pipeline(), text(1, 12, 1)
    plain = render(pipeline, prompt)
    with install(pipeline) as nag, nag.guide(NegativeText(text(1, 7, 2)), STRONG):
        outer = render(pipeline, prompt)
        with nag.guide(NegativeText(text(1, 9, 5)), NagParams(nag_scale=4)):
            inner = render(pipeline, prompt)
        assert torch.equal(render(pipeline, prompt), outer)
    assert len({tensor.sum().item() for tensor in (plain, outer, inner)}) == 3


@pytest.mark.parametrize("is_installed_first", [True, False])
def test_guides_that_are_left_in_another_order_end_with_the_last_of_them(
    is_installed_first: bool,
) -> None:
    pipeline, prompt = tiny.wan_pipeline(), text(1, 12, 1)
    plain, before = render(pipeline, prompt), state(pipeline.transformer)
    first, second = NegativeText(text(1, 7, 2)), NegativeText(text(1, 9, 5))
    with guide(pipeline, second, STRONG):
        expected = render(pipeline, prompt)
    with install(pipeline) if is_installed_first else nullcontext() as nag:
        one, other = (
            guide(pipeline, negative, STRONG) if nag is None else nag.guide(negative, STRONG)
            for negative in (first, second)
        )
        one.__enter__()
        other.__enter__()
        one.__exit__(None, None, None)
        assert torch.equal(render(pipeline, prompt), expected)
        other.__exit__(None, None, None)
        assert nag is None or not nag.is_guiding
        assert torch.equal(render(pipeline, prompt), plain)
    assert state(pipeline.transformer) == before


def test_a_guide_that_fails_to_start_leaves_no_guidance_behind() -> None:
    pipeline, prompt = tiny.wan_pipeline(), text(1, 12, 1)
    plain = render(pipeline, prompt)
    with install(pipeline) as nag:
        with (
            pytest.raises(RuntimeError),
            nag.guide(NegativeText(text(1, 7, 2)), NagParams(nag_scale=1e39)),
        ):
            pass  # beyond float32
        assert torch.equal(render(pipeline, prompt), plain)


def test_a_call_that_bypasses_the_hooks_is_refused_guided_or_not() -> None:
    cases = (
        (tiny.wan_pipeline(), PROMPT),
        (tiny.wan_image_to_video_pipeline(), text(1, 512, 1)),
        (tiny.ltx_pipeline(), PROMPT),
    )
    for pipeline, prompt in cases:
        arguments = {"image": image()} if prompt is not PROMPT else {}
        calls: list[dict[str, Any]] = []
        handle = pipeline.transformer.register_forward_pre_hook(
            lambda _module, _args, call, into=calls: into.append(call), with_kwargs=True
        )
        render(pipeline, prompt, **arguments)
        handle.remove()
        with torch.no_grad(), install(pipeline) as nag:
            render(pipeline, prompt, **arguments)
            for negative in (NegativeText(text(1, 7, 2)), NegativeText(prompt)):
                with (
                    nag.guide(negative, STRONG),
                    pytest.raises(NagTextError, match="by a call of it and stay whole"),
                ):
                    pipeline.transformer.forward(**calls[0])


@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.ltx_pipeline])
def test_text_that_is_cut_on_its_way_to_the_processors_is_refused(build: Any) -> None:
    pipeline = build()
    transformer = pipeline.transformer
    project = (
        transformer.caption_projection
        if hasattr(transformer, "caption_projection")
        else transformer.condition_embedder.text_embedder
    )
    # As a parallel plan may.
    project.register_forward_hook(lambda _module, _args, projected: projected[:, :10])
    message = refused(pipeline, NegativeText(text(1, 7, 2)), PROMPT)
    assert "expected 19 tokens, got 10" in message
    assert re.match(r"transformer\.(transformer_)?blocks\.0\.attn2: ", message)


def test_a_positional_text_gets_the_negative_prompt_too() -> None:
    driver: Any = SimpleNamespace(progress_bar=None, transformer=tiny.wan_transformer())
    arguments = (torch.ones(1, 8, 1, 2, 2), torch.tensor([900.0]), text(1, 12, 1))
    names = ("hidden_states", "timestep", "encoder_hidden_states")
    with torch.no_grad(), install(driver) as nag:
        plain = driver.transformer(*arguments).sample
        with (
            nag.guide(NegativeText(text(1, 7, 2)), STRONG),
            driver.transformer.cache_context("cond"),
        ):
            by_position = driver.transformer(*arguments).sample
            by_name = driver.transformer(**dict(zip(names, arguments, strict=True))).sample
    assert torch.equal(by_position, by_name)
    assert largest_difference(by_name, plain) > FAR


@pytest.mark.parametrize("length", [None, 40])
def test_the_negative_prompt_is_encoded_as_wan_encodes_its_prompt(length: int | None) -> None:
    pipeline = tiny.wan_pipeline()
    with torch.no_grad():
        expected, _ = pipeline.encode_prompt(
            "ugly, blurry", None, False, max_sequence_length=length or 512
        )
    negative = encode_negative_prompt(pipeline, "ugly, blurry", length)
    assert negative.attention_mask is None
    assert not negative.embeds.requires_grad
    assert torch.equal(negative.embeds, expected)


@pytest.mark.parametrize("length", [None, 40])
def test_the_negative_prompt_is_encoded_with_its_mask_as_ltx_encodes_its_prompt(
    length: int | None,
) -> None:
    pipeline = tiny.ltx_pipeline()
    with torch.no_grad():
        expected, expected_mask, *_ = pipeline.encode_prompt(
            "ugly, blurry", None, False, max_sequence_length=length or 128
        )
    negative = encode_negative_prompt(pipeline, "ugly, blurry", length)
    assert negative.attention_mask is not None
    assert expected is not None
    assert expected_mask is not None
    assert torch.equal(negative.embeds, expected)
    assert torch.equal(negative.attention_mask, expected_mask)
    assert 0 < negative.attention_mask.sum() < negative.attention_mask.numel()


@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.ltx_pipeline])
def test_one_with_statement_guides_with_a_text_and_takes_everything_off(build: Any) -> None:
    pipeline = build()
    call: dict[str, Any] = {
        "prompt": "a red cat",
        "height": 32,
        "width": 32,
        "num_frames": 5,
        "num_inference_steps": 2,
        "guidance_scale": 1.0,
        "output_type": "np",
    }

    def clip() -> torch.Tensor:
        return torch.from_numpy(pipeline(**call, generator=torch.Generator().manual_seed(0)).frames)

    plain = clip()
    with guide(pipeline, "blurry", STRONG) as nag:
        guided = clip()
        assert str(nag.coverage) == "2 of 2"
    negative = encode_negative_prompt(pipeline, "blurry")
    with guide(pipeline, negative, STRONG):
        assert torch.equal(clip(), guided)
    with install(pipeline) as nag:
        for either in ("blurry", negative):
            with nag.guide(either, STRONG):
                assert torch.equal(clip(), guided)
    assert not torch.equal(guided, plain)
    assert torch.equal(clip(), plain)


def clip_of(pipeline: Any, prompts: list[str], **arguments: Any) -> torch.Tensor:
    call: dict[str, Any] = {
        "prompt": prompts,
        "height": 32,
        "width": 32,
        "num_frames": 5,
        "num_inference_steps": 1,
        "guidance_scale": 1.0,
        "output_type": "latent",
        "generator": torch.Generator().manual_seed(0),
    }
    return pipeline(**call | arguments).frames


@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.ltx_pipeline])
def test_each_prompt_has_its_negative_prompt_also_with_several_videos_of_each(build: Any) -> None:
    pipeline = build()
    negatives, prompts = ["ugly", "blurry"], ["a cat", "a dog"]
    shape = clip_of(pipeline, prompts[:1])
    latents = [torch.randn_like(shape) for _ in range(2)]
    with guide(pipeline, negatives, STRONG):
        four = clip_of(
            pipeline, prompts, num_videos_per_prompt=2, latents=torch.cat([*latents, *latents])
        )
    for row, (prompt, negative) in enumerate(zip(prompts, negatives, strict=True)):
        for video in range(2):
            with guide(pipeline, negative, STRONG):
                alone = clip_of(pipeline, [prompt], latents=latents[video])
            assert largest_difference(four[2 * row + video : 2 * row + video + 1], alone) < 2e-5


def test_two_negative_prompts_for_four_prompts_are_refused() -> None:
    message = refused(tiny.wan_pipeline(), NegativeText(text(2, 7, 2)), text(4, 12, 1))
    assert "2 rows and the call guides 4" in message


@pytest.mark.parametrize(("build", "default"), [(tiny.wan_pipeline, 512), (tiny.ltx_pipeline, 128)])
def test_a_token_limit_that_guide_was_not_given_is_noticed(build: Any, default: int) -> None:
    pipeline = build()
    with guide(pipeline, "ugly", STRONG):
        clip_of(pipeline, ["a cat"])
        with pytest.raises(NagTextError, match=rf"has {default} tokens.*prompt has 40: give guide"):
            clip_of(pipeline, ["a cat"], max_sequence_length=40)
    with guide(pipeline, "ugly", STRONG, max_sequence_length=40):
        clip_of(pipeline, ["a cat"], max_sequence_length=40)
        clip_of(pipeline, ["a cat"])  # both lengths were chosen


@pytest.mark.parametrize(
    ("negative", "got"),
    [
        (None, "NoneType"), (7, "int"), ([], "list"), (["ugly", 3], "list"),
        (torch.zeros(1, 7, 16), "Tensor; wrap embeddings in NegativeText"),
    ],
)  # fmt: skip
def test_a_negative_prompt_that_is_no_text_is_refused(negative: Any, got: str) -> None:
    with (
        pytest.raises(NagTextError, match=f"must be a text or a list of texts, got {got}$"),
        guide(tiny.wan_pipeline(), negative, STRONG),
    ):
        pass


def test_strengths_are_given_as_arguments_too() -> None:
    pipeline, prompt = tiny.wan_pipeline(), text(1, 12, 1)
    negative = NegativeText(text(1, 7, 2))
    with guide(pipeline, negative, NagParams(nag_scale=7, nag_alpha=0.5)):
        expected = render(pipeline, prompt)
    with guide(pipeline, negative, nag_scale=7, nag_alpha=0.5):
        assert torch.equal(render(pipeline, prompt), expected)
    with install(pipeline) as nag, nag.guide(negative, nag_scale=7, nag_alpha=0.5):
        assert torch.equal(render(pipeline, prompt), expected)
    for arguments, message in (
        ({"params": STRONG, "nag_scale": 7}, "give params or nag_scale, not both"),
        ({"nag_scael": 7}, "unknown strength nag_scael; known are nag_scale"),
        ({"nag_scale": 0.5}, "nag_scale must be at least 1"),
    ):
        call: dict[str, Any] = arguments
        with pytest.raises(NagParameterError, match=message), guide(pipeline, negative, **call):
            pass


def test_guide_inside_guide_replaces_it_until_it_is_left() -> None:
    pipeline, prompt = tiny.wan_pipeline(), text(1, 12, 1)
    plain = render(pipeline, prompt)
    with guide(pipeline, NegativeText(text(1, 9, 5)), nag_scale=4):
        outer = render(pipeline, prompt)
        with guide(pipeline, NegativeText(text(1, 7, 2)), STRONG):
            inner = render(pipeline, prompt)
        assert torch.equal(render(pipeline, prompt), outer)
        other: Any = WanPipeline(**pipeline.components)
        with pytest.raises(AlreadyInstalledError), guide(other, NegativeText(text(1, 7, 2))):
            pass
    assert torch.equal(render(pipeline, prompt), plain)
    assert len({tensor.sum().item() for tensor in (plain, outer, inner)}) == 3
