"""LTX-2 pipelines under guidance, in video and sound, against both cross-attentions by hand.

2.0 has plain cross-attentions; 2.3 has gates behind them, and changes the text in each step.
"""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    LTX2ConditionPipeline,
    LTX2HDRPipeline,
    LTX2ImageToVideoPipeline,
    LTX2InContextPipeline,
)
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_hdr_lora import LTX2HDRReferenceCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_ic_lora import LTX2ReferenceCondition
from PIL import Image

from nag import (
    NagParams,
    NagTextError,
    NasaParams,
    NegativeText,
    VsfParams,
    encode_negative_prompt,
    guide,
    install,
)
from tests.builders import tiny_ltx2
from tests.nag.ltx2_by_hand import ALL_PASSES, Text, by_hand, render, texts
from tests.nag.reference import Guidance, largest_difference, mask

Latents = tuple[torch.Tensor, ...]
CLOSE, FAR = 2e-5, 2e-2  # float32 against float64; guided against unguided
STRONG = NagParams(nag_scale=9, nag_tau=2.5, nag_alpha=0.5)
BY_HAND: dict[str, Any] = {"scale": 9, "tau": 2.5, "alpha": 0.5}
VERSIONS = pytest.mark.parametrize("is_23", [False, True], ids=["2.0", "2.3"])


@pytest.fixture(scope="module")
def built() -> Callable[[bool], Any]:
    """Return each version's pipeline, which no test here changes."""
    pipelines = {is_23: tiny_ltx2.pipeline(is_23=is_23) for is_23 in (False, True)}
    return pipelines.__getitem__


def negative_text(negative: Text, negative_mask: torch.Tensor | None = None) -> NegativeText:
    return NegativeText(negative[0], negative_mask, audio_embeds=negative[1])


def guidance(negative_mask: torch.Tensor | None = None, **strengths: Any) -> Guidance:
    return Guidance(torch.empty(0), negative_mask, **BY_HAND | strengths)


def assert_close(ours: Latents, truth: Latents, bound: float = CLOSE) -> None:
    for one, other in zip(ours, truth, strict=True):
        assert largest_difference(one, other) < bound


def assert_far(ours: Latents, plain: Latents) -> None:
    for one, other in zip(ours, plain, strict=True):
        assert largest_difference(one, other) > FAR


@VERSIONS
def test_each_row_is_guided_in_video_and_sound_by_its_own_negative_of_its_own_length(
    built: Any, is_23: bool
) -> None:
    pipeline = built(is_23)
    prompt, prompt_mask = texts(pipeline, 2, 12, 1), mask(12, 9, 4)
    negative, negative_mask = texts(pipeline, 2, 7, 2), mask(7, 2, 6)
    with guide(pipeline, negative_text(negative, negative_mask), STRONG) as installed:
        assert str(installed.coverage) == f"{2 * tiny_ltx2.NUM_BLOCKS} of 4"
        ours = render(pipeline, prompt, prompt_mask)
    with by_hand(pipeline, guidance(negative_mask), negative):
        assert_close(ours, render(pipeline, prompt, prompt_mask))
    plain = render(pipeline, prompt, prompt_mask)
    for row in (slice(0, 1), slice(1, 2)):
        assert_far((ours[0][row], ours[1][row]), (plain[0][row], plain[1][row]))


@VERSIONS
def test_one_prediction_agrees_with_the_plain_formula_to_rounding(built: Any, is_23: bool) -> None:
    pipeline, found = built(is_23), list[Latents]()
    prompt, negative = texts(pipeline, 1, 12, 1), texts(pipeline, 1, 7, 2)

    def note(_module: Any, _args: Any, result: Latents) -> None:
        found.append(result)

    handle = pipeline.transformer.register_forward_hook(note)
    with guide(pipeline, negative_text(negative), STRONG):
        render(pipeline, prompt, mask(12, 12))
    with by_hand(pipeline, guidance(), negative):
        render(pipeline, prompt, mask(12, 12))
    handle.remove()
    for ours, truth in zip(found[0], found[2], strict=True):  # the first step of each
        assert largest_difference(ours, truth) < 2e-6 * truth.abs().max().item()


@VERSIONS
def test_a_text_goes_through_the_connectors_as_the_prompt_does(built: Any, is_23: bool) -> None:
    pipeline, length = built(is_23), tiny_ltx2.MAX_TOKENS
    with guide(pipeline, "a dog", STRONG, max_sequence_length=length):
        ours = render(pipeline, "a red cat")
    with torch.no_grad():
        embeds, text_mask, _, _ = pipeline.encode_prompt(
            "a dog", do_classifier_free_guidance=False, max_sequence_length=length
        )
        video, audio, _ = pipeline.connectors(embeds, text_mask, padding_side="left")
    with by_hand(pipeline, guidance(), (video, audio)):
        assert_close(ours, render(pipeline, "a red cat"))
    assert_far(ours, render(pipeline, "a red cat"))
    with guide(pipeline, "a dog", STRONG), pytest.raises(NagTextError, match="1024 tokens"):
        render(pipeline, "a red cat")  # another number of tokens than `guide` knows


@VERSIONS
def test_only_the_prompts_rows_are_guided_among_all_passes_of_the_pipeline(
    built: Any, is_23: bool
) -> None:
    """The unconditional half, spatio-temporal and modality guidance stay as they are."""
    pipeline = built(is_23)
    prompt, unconditional = texts(pipeline, 2, 12, 1), texts(pipeline, 2, 12, 3)
    negative, words = texts(pipeline, 1, 7, 2), mask(12, 9, 4)
    call: dict[str, Any] = {"unconditional": unconditional, **ALL_PASSES}
    plain = render(pipeline, prompt, words, **call)
    with install(pipeline) as installed:
        with installed.guide(negative_text(negative), STRONG):
            ours = render(pipeline, prompt, words, **call)
        with installed.guide(negative_text(negative), nag_scale=1):
            unguided = render(pipeline, prompt, words, **call)
    with by_hand(pipeline, guidance(), negative, unconditional):
        assert_close(ours, render(pipeline, prompt, words, **call), 20 * CLOSE)
    assert_far(ours, plain)
    assert all(map(torch.equal, unguided, plain))


@VERSIONS
@pytest.mark.parametrize(
    ("params", "method"),
    [
        (VsfParams(vsf_scale=0.8, vsf_bias=0.2), {"method": "vsf", "scale": 0.8, "bias": 0.2}),
        (NasaParams(nasa_scale=0.4), {"method": "nasa", "scale": 0.4}),
        (NagParams(nag_scale=9, nag_alpha=0.5, nag_norm="l2"), {"norm": 2}),
    ],
    ids=["vsf", "nasa", "l2"],
)
def test_the_rival_methods_guide_both_attentions(
    built: Any, is_23: bool, params: Any, method: dict[str, Any]
) -> None:
    pipeline = built(is_23)
    prompt, negative, words = texts(pipeline, 1, 12, 1), texts(pipeline, 1, 7, 2), mask(7, 4)
    with guide(pipeline, negative_text(negative, words), params):
        ours = render(pipeline, prompt, mask(12, 9))
    with by_hand(pipeline, guidance(words, **method), negative):
        assert_close(ours, render(pipeline, prompt, mask(12, 9)))


def test_a_clip_that_fails_leaves_a_plain_pipeline(built: Any) -> None:
    pipeline = built(True)
    stock = dict(pipeline.transformer.attn_processors)
    prompt, words = texts(pipeline, 1, 12, 1), mask(12, 9)
    plain = render(pipeline, prompt, words)

    def stop(*_: Any) -> Any:
        raise RuntimeError("stopped in the first step")

    negative = negative_text(texts(pipeline, 1, 7, 2))
    with pytest.raises(RuntimeError, match="first step"), guide(pipeline, negative, STRONG):
        render(pipeline, prompt, words, callback_on_step_end=stop)
    assert pipeline.transformer.attn_processors == stock
    assert all(map(torch.equal, render(pipeline, prompt, words), plain))


def test_a_negative_prompt_without_a_text_for_the_sound_is_refused(built: Any) -> None:
    pipeline = built(False)
    video, _ = texts(pipeline, 1, 7, 2)
    with (
        guide(pipeline, NegativeText(video), STRONG),
        pytest.raises(NagTextError, match="transformer: .*the audio_embeds that"),
    ):
        render(pipeline, texts(pipeline, 1, 12, 1), mask(12, 9))


IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
# No H.264 of the image: it needs PyAV.
INPUTS: dict[Any, dict[str, Any]] = {
    LTX2ImageToVideoPipeline: {"image": IMAGE, "image_crf": 0},
    LTX2ConditionPipeline: {"conditions": [LTX2VideoCondition(IMAGE, crf=0)]},
    LTX2InContextPipeline: {"reference_conditions": [LTX2ReferenceCondition(IMAGE)]},
    LTX2HDRPipeline: {"reference_conditions": [LTX2HDRReferenceCondition(IMAGE)]},
}


@pytest.mark.parametrize("kind", INPUTS)
def test_a_clip_from_an_image_is_guided_in_the_prompts_rows_among_all_passes(kind: Any) -> None:
    pipeline: Any = kind(**tiny_ltx2.parts())
    pipeline.set_progress_bar_config(disable=True)
    known = signature(kind.__call__).parameters  # one without sound takes nothing for it
    passes = {name: value for name, value in ALL_PASSES.items() if name in known}
    call: dict[str, Any] = {**passes, "negative_prompt": "mud", **INPUTS[kind]}
    negative, unconditional = (
        encode_negative_prompt(pipeline, words, tiny_ltx2.MAX_TOKENS) for words in ("a dog", "mud")
    )
    with guide(pipeline, negative, STRONG):
        ours = render(pipeline, "a red cat", **call)
    with by_hand(pipeline, guidance(), text_of(negative), text_of(unconditional)):
        assert_close(ours, render(pipeline, "a red cat", **call))
    assert_far(ours, render(pipeline, "a red cat", **call))


def text_of(encoded: NegativeText) -> Text:
    assert encoded.audio_embeds is not None
    return encoded.embeds, encoded.audio_embeds


def test_a_clip_in_high_dynamic_range_is_guided_from_texts_behind_the_connectors() -> None:
    pipeline: Any = LTX2HDRPipeline(**tiny_ltx2.parts())
    pipeline.set_progress_bar_config(disable=True)
    video, sound = texts(pipeline, 1, 12, 1)
    call: dict[str, Any] = {
        "connector_video_embeds": video,
        "connector_audio_embeds": sound,
        **INPUTS[LTX2HDRPipeline],
    }
    words = texts(pipeline, 1, 7, 2)
    with guide(pipeline, negative_text(words), STRONG):
        ours = render(pipeline, None, **call)
    with by_hand(pipeline, guidance(), words):
        assert_close(ours, render(pipeline, None, **call))
    with guide(pipeline, "a dog", STRONG, max_sequence_length=tiny_ltx2.MAX_TOKENS):
        assert_far(ours, render(pipeline, None, **call))
    assert_far(ours, render(pipeline, None, **call))
