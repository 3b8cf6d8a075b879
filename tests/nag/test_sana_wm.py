"""SANA-WM: one clip a call, guided in the prompt's half as by hand."""

from typing import Any

import pytest
import torch

from nag import NagTextError, NasaParams, NegativeText, VsfParams, guide, install
from nag.params import GuidanceParams
from tests.builders import tiny
from tests.builders.tiny import TEXT_DIM
from tests.builders.tiny_sana_wm import a_camera, sana_wm_pipeline
from tests.nag.cross_attention_by_hand import ByHand, guided_by_hand
from tests.nag.cross_families import STRONG, seeded
from tests.nag.joint_families import assert_agrees, assert_differs
from tests.nag.reference import mask

LENGTH, NEGATIVE_LENGTH = 6, 4
NEGATIVE = NegativeText(seeded(2, 1, NEGATIVE_LENGTH, TEXT_DIM), mask(NEGATIVE_LENGTH, 3).long())


def render(pipeline: Any, *, cfg: bool = False, **others: Any) -> torch.Tensor:
    """Return the latents after two steps."""
    texts = {
        "prompt_embeds": seeded(1, 1, 1, LENGTH, TEXT_DIM),
        "prompt_attention_mask": mask(LENGTH, 5).long(),
        "negative_prompt_embeds": seeded(3, 1, 1, LENGTH, TEXT_DIM),
        "negative_prompt_attention_mask": mask(LENGTH, 4).long(),
    }
    call: dict[str, Any] = {
        **a_camera(),
        **texts,
        "prompt": "",
        "num_inference_steps": 2,
        "guidance_scale": 3.0 if cfg else 1.0,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "latent",
        "return_dict": False,
    }
    return pipeline(**{**call, **others})[0]


@pytest.mark.parametrize("cfg", [False, True])
def test_the_prompts_pass_alone_is_guided_as_by_hand(cfg: bool) -> None:
    pipeline = sana_wm_pipeline()
    attentions = [block.cross_attn for block in pipeline.transformer.blocks]
    plain = render(pipeline, cfg=cfg)
    by_hand = ByHand(
        NEGATIVE.embeds[:, None],
        NEGATIVE.attention_mask,
        "batched" if cfg else "single",
        text_mask="mask",
        of_text=("cond", "mask"),
        output="proj",
    )
    with guided_by_hand(pipeline.transformer, attentions, by_hand):
        expected = render(pipeline, cfg=cfg)
    with install(pipeline) as nag:
        assert (nag.coverage.guided, nag.coverage.total) == (2, 2)
        assert torch.equal(render(pipeline, cfg=cfg), plain)
        with nag.guide(NEGATIVE, **STRONG):
            guided = render(pipeline, cfg=cfg)
    assert_agrees(guided, expected)
    assert_differs(guided, plain)
    with guide(pipeline, NEGATIVE, nag_scale=1.0):
        assert torch.equal(render(pipeline, cfg=cfg), plain)
    assert torch.equal(render(pipeline, cfg=cfg), plain)


@pytest.mark.parametrize("params", [VsfParams(), NasaParams()])
def test_filler_of_either_prompt_is_not_seen_by_any_method(params: GuidanceParams) -> None:
    pipeline = sana_wm_pipeline()
    guided: list[torch.Tensor] = []
    for filler in (0.0, 50.0):
        prompt, negative = seeded(1, 1, 1, LENGTH, TEXT_DIM), NEGATIVE.embeds.clone()
        prompt[..., 5:, :], negative[:, 3:] = filler, filler
        with guide(pipeline, NegativeText(negative, NEGATIVE.attention_mask), params):
            guided.append(render(pipeline, prompt_embeds=prompt))
    assert_agrees(guided[1], guided[0])
    assert_differs(guided[0], render(pipeline))


def test_a_negative_prompt_of_words_is_encoded_as_the_pipelines_own() -> None:
    pipeline = sana_wm_pipeline()
    pipeline.register_modules(tokenizer=tiny.tokenizer(), text_encoder=tiny.text_encoder())
    of_words = {"max_sequence_length": LENGTH}
    encoded = pipeline.encode_prompt("a cat", "noise", chi_prompt=["draw "], **of_words)
    embeds, attention_mask = encoded[2:]
    with guide(pipeline, NegativeText(embeds[:, 0], attention_mask), **STRONG):
        guided = render(pipeline, cfg=True)
    with guide(pipeline, "noise", **of_words, **STRONG):
        assert_agrees(render(pipeline, cfg=True), guided)
    with (
        pytest.raises(NagTextError, match="expected one negative prompt, got 2"),
        guide(pipeline, ["noise", "blur"]),
    ):
        pass
