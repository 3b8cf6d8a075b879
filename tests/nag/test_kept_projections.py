"""Keys and values of the text are made once a clip, and anew as soon as anything changes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nag import GuidanceParams, NagParams, NasaParams, NegativeText, VsfParams, install
from nag.adapters.cross.ltx import NagLTXVideoAttnProcessor
from nag.adapters.cross.wan import NagWanAttnProcessor
from nag.attention import kept_projections
from nag.attention.kept_projections import MAX_VIDEO_TOKENS, KeptProjections, KeyValue, project
from nag.installation.coverage import find_models
from nag.installation.installation import InstalledGuidance
from tests.builders import tiny
from tests.nag.reference import image, render, text
from tests.nag.test_lora import load, second_adapter

PROMPT, NEGATIVE, UNCONDITIONAL = text(1, 12, 1), text(1, 7, 2), text(1, 12, 3)
STRONG = NagParams(nag_scale=9, nag_tau=2.5, nag_alpha=0.5)
STEPS = 3
NUM_ATTENTIONS = 2  # a tiny transformer has two
BUILDS = [tiny.wan_pipeline, tiny.ltx_pipeline]

Change = Callable[[Any], object]


@pytest.fixture
def num_made(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count how often keys and values are made."""
    counts = {"made": 0}
    for processor in (NagWanAttnProcessor, NagLTXVideoAttnProcessor):
        make = processor._project

        def counting(self: Any, attn: Any, text: torch.Tensor, make: Any = make) -> Any:
            counts["made"] += 1
            return make(self, attn, text)

        monkeypatch.setattr(processor, "_project", counting)
    return counts


def guided(
    pipeline: Any,
    params: GuidanceParams = STRONG,
    change: Change | None = None,
    **arguments: Any,
) -> torch.Tensor:
    """Render under guidance; `change` is called with the pipeline after the first step."""

    def after_step(pipe: Any, index: int, _timestep: Any, _tensors: Any) -> dict[str, Any]:
        if change is not None and index == 0:
            change(pipe)
        return {}

    call = {"num_inference_steps": STEPS, "callback_on_step_end": after_step, **arguments}
    with install(pipeline) as nag, nag.guide(NegativeText(NEGATIVE), params):
        clip = render(pipeline, PROMPT, **call)
        assert_nothing_is_kept(nag)
        return clip


def assert_nothing_is_kept(nag: InstalledGuidance) -> None:
    hooks: list[Any] = [*nag._hooks]
    assert all(hook._projections._texts == [] for hook in hooks)
    assert all(concat.projections is None for hook in hooks for concat in hook._text_concats)


def with_guidance_scale(pipeline: Any) -> dict[str, Any]:
    """Return the arguments for classifier-free guidance."""
    call: dict[str, Any] = {"guidance_scale": 5.0, "negative_prompt_embeds": UNCONDITIONAL}
    if hasattr(pipeline.transformer, "caption_projection"):
        call["negative_prompt_attention_mask"] = torch.ones(1, 12, dtype=torch.bool)
    return call


@pytest.mark.parametrize("build", BUILDS)
def test_keys_and_values_are_made_once_a_clip(
    build: Callable[[], Any], num_made: dict[str, int]
) -> None:
    guided(build())
    assert num_made["made"] == NUM_ATTENTIONS


def test_each_text_of_classifier_free_guidance_is_made_once(num_made: dict[str, int]) -> None:
    wan, ltx = tiny.wan_pipeline(), tiny.ltx_pipeline()
    guided(wan, **with_guidance_scale(wan))
    assert num_made["made"] == 2 * NUM_ATTENTIONS, "two calls a step"
    guided(ltx, **with_guidance_scale(ltx))
    assert num_made["made"] == 3 * NUM_ATTENTIONS, "one call a step with both texts"


def test_outside_guide_every_step_makes_them(num_made: dict[str, int]) -> None:
    pipeline = tiny.ltx_pipeline()
    with install(pipeline):
        render(pipeline, PROMPT, num_inference_steps=STEPS)
    assert num_made["made"] == STEPS * NUM_ATTENTIONS


@pytest.mark.parametrize("build", [*BUILDS, tiny.wan_image_to_video_pipeline])
@pytest.mark.parametrize(
    "params", [STRONG, NagParams(9, 2.5, 0.5, nag_end=0.5), VsfParams(1.7, 0.2), NasaParams(0.8)]
)
def test_a_clip_is_the_same_to_the_bit_as_without_keeping(
    build: Callable[[], Any], params: GuidanceParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = build()
    call = with_guidance_scale(pipeline)
    if pipeline.transformer.config.get("added_kv_proj_dim"):
        call["image"] = image()
    kept = guided(pipeline, params, **call)
    monkeypatch.setattr(kept_projections, "MAX_VIDEO_TOKENS", 0)
    assert torch.equal(kept, guided(pipeline, params, **call))


def text_embedding(pipeline: Any) -> Any:
    transformer = pipeline.transformer
    if hasattr(transformer, "caption_projection"):
        return transformer.caption_projection
    return transformer.condition_embedder.text_embedder


def last_attention(pipeline: Any) -> Any:
    return find_models(pipeline)[0].text_attentions()[-1][1]


@torch.no_grad()
def scale_in_place(layer: Any) -> None:
    layer.weight.mul_(3)


def replace_weight(layer: Any) -> None:
    layer.weight = torch.nn.Parameter(layer.weight.detach() * 3)


def replace_data(layer: Any) -> None:
    layer.weight.data = layer.weight.detach() * 3


def replace_key_layer(pipeline: Any) -> None:
    attention = last_attention(pipeline)
    tripled = torch.nn.Linear(attention.to_k.in_features, attention.to_k.out_features)
    tripled.load_state_dict({k: 3 * v for k, v in attention.to_k.state_dict().items()})
    attention.to_k = tripled


def hook_value_layer(pipeline: Any) -> None:
    last_attention(pipeline).to_v.register_forward_hook(lambda _module, _args, out: 3 * out)


CHANGES: dict[str, Change] = {
    "key in place": lambda pipe: scale_in_place(last_attention(pipe).to_k),
    "value in place": lambda pipe: scale_in_place(last_attention(pipe).to_v),
    "norm in place": lambda pipe: scale_in_place(last_attention(pipe).norm_k),
    "embedding in place": lambda pipe: scale_in_place(text_embedding(pipe).linear_1),
    "another weight": lambda pipe: replace_weight(last_attention(pipe).to_v),
    "other data": lambda pipe: replace_data(last_attention(pipe).to_k),
    "another layer": replace_key_layer,
    "a hook": hook_value_layer,
    "a LoRA": load("one", 5),
    "the text in place": lambda _pipe: PROMPT.mul_(-1),
    "the negative prompt in place": lambda _pipe: NEGATIVE.mul_(-1),
}


@second_adapter
@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_in_the_middle_of_a_clip_counts_from_the_next_step(
    build: Callable[[], Any], change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = PROMPT.clone(), NEGATIVE.clone()

    def restore() -> None:
        for one, before in zip((PROMPT, NEGATIVE), texts, strict=True):
            one.copy_(before)

    def clip(change: Change | None) -> torch.Tensor:
        restore()
        return guided(build(), change=change)

    try:
        unchanged, changed = clip(None), clip(change)
        monkeypatch.setattr(kept_projections, "MAX_VIDEO_TOKENS", 0)
        assert torch.equal(changed, clip(change))
        assert not torch.equal(changed, unchanged)
    finally:
        restore()


def test_nothing_is_kept_after_a_clip_that_failed() -> None:
    pipeline = tiny.wan_pipeline()

    def fail(_pipe: Any) -> None:
        raise RuntimeError("out of disk")

    with install(pipeline) as nag, nag.guide(NegativeText(NEGATIVE), STRONG):
        with pytest.raises(RuntimeError, match="out of disk"):
            render(pipeline, PROMPT, callback_on_step_end=lambda pipe, *_: fail(pipe))
        assert_nothing_is_kept(nag)


@pytest.mark.parametrize(
    "context", [torch.inference_mode, torch.enable_grad], ids=["inference mode", "gradients"]
)
def test_tensors_whose_changes_do_not_show_are_not_kept(context: Callable[[], Any]) -> None:
    pipeline = tiny.wan_pipeline()
    attentions = [one for _, one in find_models(pipeline)[0].text_attentions()]
    projections = KeptProjections(pipeline.transformer, attentions)
    with context():
        embeds = torch.zeros(1, 3, 4)
        new = projections.of((embeds,), None)
        assert new is not None
        new["attention"] = (embeds, embeds)
        assert projections.of((embeds,), None) == {}
    with torch.no_grad():
        embeds = torch.zeros(1, 3, 4)
        kept = projections.of((embeds,), None)
        assert projections.of((embeds,), None) is kept


@torch.no_grad()
def test_the_texts_of_the_last_two_calls_are_kept() -> None:
    pipeline = tiny.ltx_pipeline()
    projections = KeptProjections(pipeline.transformer, [])
    texts = [(torch.zeros(1, 2, 3),) for _ in range(3)]
    kept = [projections.of(one, None) for one in texts]
    assert projections.of(texts[1], None) is kept[1]
    assert projections.of(texts[2], None) is kept[2]
    assert projections.of(texts[0], None) is not kept[0]
    assert len(projections._texts) == 2


def test_a_video_much_longer_than_its_text_keeps_nothing() -> None:
    text = torch.zeros(1, 3, 4)
    for num_video_tokens, is_kept in (
        (3 * MAX_VIDEO_TOKENS, True),
        (3 * MAX_VIDEO_TOKENS + 1, False),
    ):
        kept: dict[Any, KeyValue] = {}
        made = project(kept, "attention", num_video_tokens, text, lambda text: (text, text))
        assert made[0] is text
        assert ("attention" in kept) is is_kept
