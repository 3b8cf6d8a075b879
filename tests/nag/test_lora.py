"""A LoRA that comes, changes and goes under an installed NAG: no text of the weights before stays behind."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nag import NagParams, NegativeText, install
from tests import tiny
from tests.nag.reference import Guidance, cross_attention_by_hand, largest_difference, render, text

PROMPT, NEGATIVE = text(1, 12, 1), text(1, 7, 2)
CLOSE, FAR = 2e-5, 2e-2
STRONG = NagParams(nag_scale=9, nag_tau=2.5, nag_alpha=0.5)


def lora(pipeline: Any) -> dict[str, torch.Tensor]:
    """Of rank 2, on the text's projection and on the keys and values of the cross-attentions."""
    generator = torch.Generator().manual_seed(5)
    weights: dict[str, torch.Tensor] = {}
    for name, module in pipeline.transformer.named_modules():
        is_text = "text_embedder.linear" in name or "caption_projection.linear" in name
        if is_text or name.endswith(("attn2.to_k", "attn2.to_v")):
            key = f"transformer.{name}.lora_"
            weights[f"{key}A.weight"] = torch.randn(2, module.in_features, generator=generator)
            weights[f"{key}B.weight"] = 0.3 * torch.randn(module.out_features, 2, generator=generator)
    assert len(weights) == 2 * (2 + 2 * 2)
    return weights


def by_hand(pipeline: Any) -> torch.Tensor:
    with cross_attention_by_hand(pipeline, Guidance(NEGATIVE, scale=9, tau=2.5, alpha=0.5)):
        return render(pipeline, PROMPT)


@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.ltx_pipeline])
def test_no_stale_text_after_a_lora_is_loaded_changed_and_unloaded(build: Callable[[], Any]) -> None:
    ours, reference = build(), build()
    with install(ours) as nag, nag.guide(NegativeText(NEGATIVE), STRONG):
        clips = [render(ours, PROMPT)]
        truths = [by_hand(reference)]
        for pipeline in (ours, reference):
            pipeline.load_lora_weights(lora(pipeline), adapter_name="style")
        clips.append(render(ours, PROMPT))
        truths.append(by_hand(reference))
        nag.check_coverage()
        for pipeline in (ours, reference):
            pipeline.set_adapters(["style"], [0.4])
        clips.append(render(ours, PROMPT))
        truths.append(by_hand(reference))
        for pipeline in (ours, reference):
            pipeline.unload_lora_weights()
        clips.append(render(ours, PROMPT))
        truths.append(by_hand(reference))
    for clip, truth in zip(clips, truths, strict=True):
        assert largest_difference(clip, truth) < 2 * CLOSE
    assert torch.equal(clips[3], clips[0])
    assert min(largest_difference(clips[0], clips[1]), largest_difference(clips[1], clips[2])) > FAR


@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.ltx_pipeline])
def test_a_fused_lora_is_guided_as_an_unfused_one(build: Callable[[], Any]) -> None:
    pipeline = build()
    with install(pipeline) as nag, nag.guide(NegativeText(NEGATIVE), STRONG):
        pipeline.load_lora_weights(lora(pipeline), adapter_name="style")
        unfused = render(pipeline, PROMPT)
        pipeline.fuse_lora()
        assert largest_difference(render(pipeline, PROMPT), unfused) < 1e-4


def test_a_lora_scale_given_to_the_call_reaches_a_guided_call_too() -> None:
    ours, reference = tiny.wan_pipeline(), tiny.wan_pipeline()
    for pipeline in (ours, reference):
        pipeline.load_lora_weights(lora(pipeline), adapter_name="style")
    scale: dict[str, Any] = {"attention_kwargs": {"scale": 0.4}}
    with install(ours) as nag, nag.guide(NegativeText(NEGATIVE), STRONG):
        scaled = render(ours, PROMPT, **scale)
        assert largest_difference(scaled, render(ours, PROMPT)) > FAR
    reference.set_adapters(["style"], [0.4])
    assert largest_difference(scaled, by_hand(reference)) < 2 * CLOSE
