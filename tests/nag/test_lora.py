"""LoRAs that are loaded, changed and unloaded under installed guidance leave no stale text."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nag import GuidanceParams, NagParams, NasaParams, NegativeText, VsfParams, install
from tests.builders import tiny
from tests.nag.reference import Guidance, cross_attention_by_hand, largest_difference, render, text

PROMPT, NEGATIVE = text(1, 12, 1), text(1, 7, 2)
CLOSE, FAR = 2e-5, 2e-2
STRONG = NagParams(nag_scale=9, nag_tau=2.5, nag_alpha=0.5)
# PEFT warns so of every second adapter; as an error inside diffusers' loading it would become a
# KeyError.
second_adapter = pytest.mark.filterwarnings(
    "ignore:Already found a `peft_config` attribute in the model:UserWarning"
)
METHODS: list[tuple[GuidanceParams, Guidance]] = [
    (STRONG, Guidance(NEGATIVE, scale=9, tau=2.5, alpha=0.5)),
    (VsfParams(1.7, 0.2), Guidance(NEGATIVE, method="vsf", scale=1.7, bias=0.2)),
    (NasaParams(0.8), Guidance(NEGATIVE, method="nasa", scale=0.8)),
]


def lora(pipeline: Any, seed: int = 5) -> dict[str, torch.Tensor]:
    """Return a LoRA of rank 2 on the text projection and the cross-attentions' keys and values."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for name, module in pipeline.transformer.named_modules():
        parent, _, last = name.rpartition(".")
        is_text = parent.endswith(("text_embedder", "caption_projection")) and last.startswith(
            "linear_"
        )
        if is_text or name.endswith(("attn2.to_k", "attn2.to_v")):
            key = f"transformer.{name}.lora_"
            weights[f"{key}A.weight"] = torch.randn(2, module.in_features, generator=generator)
            weights[f"{key}B.weight"] = 0.3 * torch.randn(
                module.out_features, 2, generator=generator
            )
    assert len(weights) == 2 * (2 + 2 * 2)
    return weights


def by_hand(pipeline: Any, guidance: Guidance = METHODS[0][1]) -> torch.Tensor:
    with cross_attention_by_hand(pipeline, guidance):
        return render(pipeline, PROMPT)


def clips_after(
    changes: list[Callable[[Any], None]],
    build: Callable[[], Any],
    params: GuidanceParams,
    guidance: Guidance,
) -> list[torch.Tensor]:
    """Return the clip before the first change and after each, on one installation.

    Each clip is compared with the clip by hand.
    """
    ours, reference = build(), build()
    clips: list[torch.Tensor] = []
    with install(ours) as nag, nag.guide(NegativeText(NEGATIVE), params):
        for change in (lambda _: None, *changes):
            change(ours)
            change(reference)
            nag.check_coverage()
            clips.append(render(ours, PROMPT))
            assert largest_difference(clips[-1], by_hand(reference, guidance)) < 2 * CLOSE
    return clips


def load(name: str, seed: int) -> Callable[[Any], None]:
    return lambda pipeline: pipeline.load_lora_weights(lora(pipeline, seed), adapter_name=name)


@pytest.mark.parametrize(("params", "guidance"), METHODS)
@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.ltx_pipeline])
def test_no_stale_text_after_a_lora_is_loaded_changed_and_unloaded(
    build: Callable[[], Any], params: GuidanceParams, guidance: Guidance
) -> None:
    changes: list[Callable[[Any], None]] = [
        load("style", 5),
        lambda pipeline: pipeline.set_adapters(["style"], [0.4]),
        lambda pipeline: pipeline.unload_lora_weights(),
    ]
    before, loaded, weaker, after = clips_after(changes, build, params, guidance)
    assert torch.equal(after, before)
    assert min(largest_difference(before, loaded), largest_difference(loaded, weaker)) > FAR


@second_adapter
@pytest.mark.parametrize(("params", "guidance"), METHODS)
@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.ltx_pipeline])
def test_two_loras_at_once_are_guided_as_their_weights_say_and_leave_nothing_behind(
    build: Callable[[], Any], params: GuidanceParams, guidance: Guidance
) -> None:
    changes: list[Callable[[Any], None]] = [
        load("few-step", 5),
        load("style", 6),
        lambda pipeline: pipeline.set_adapters(["few-step", "style"], [1.0, 0.5]),
        lambda pipeline: pipeline.delete_adapters("style"),
        lambda pipeline: pipeline.unload_lora_weights(),
    ]
    before, first, _, both, first_again, after = clips_after(changes, build, params, guidance)
    assert torch.equal(after, before)
    assert largest_difference(first_again, first) < CLOSE
    assert min(largest_difference(before, first), largest_difference(first, both)) > FAR


@second_adapter
@pytest.mark.parametrize(("params", "guidance"), METHODS)
@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.ltx_pipeline])
def test_loras_that_are_fused_and_then_unloaded_stay_in_the_weights_and_are_guided(
    build: Callable[[], Any], params: GuidanceParams, guidance: Guidance
) -> None:
    def load_both(pipeline: Any) -> None:
        load("few-step", 5)(pipeline)
        load("style", 6)(pipeline)
        pipeline.set_adapters(["few-step", "style"], [1.0, 0.5])

    changes: list[Callable[[Any], None]] = [
        load_both,
        lambda pipeline: pipeline.fuse_lora(adapter_names=["few-step", "style"]),
        lambda pipeline: pipeline.unload_lora_weights(),
    ]
    before, loaded, fused, unloaded = clips_after(changes, build, params, guidance)
    assert largest_difference(fused, loaded) < 1e-4
    assert largest_difference(unloaded, loaded) < 1e-4
    assert largest_difference(unloaded, before) > FAR


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
