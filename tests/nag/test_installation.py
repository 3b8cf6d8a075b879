"""Guidance is installed, covers the whole model, and is removed again."""

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook as AccelerateHook
from accelerate.hooks import add_hook_to_module, remove_hook_from_module
from diffusers import (
    DDPMPipeline,
    DDPMScheduler,
    DiTTransformer2DModel,
    FirstBlockCacheConfig,
    UNet2DModel,
)
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.transformers.transformer_ltx import LTXVideoAttnProcessor
from diffusers.models.transformers.transformer_wan import WanAttnProcessor

from nag import (
    AlreadyInstalledError,
    ForeignCallError,
    InstallationError,
    NagCoverageError,
    NagError,
    NagParams,
    NegativeText,
    UnnamedCallError,
    UnsupportedPipelineError,
    UnsupportedProcessorError,
    install,
)
from nag.adapters import text_processor
from tests.builders import tiny
from tests.nag.reference import largest_difference, render, text

FAR = 2e-2
STRONG = NagParams(nag_scale=9, nag_tau=2.5, nag_alpha=0.5)
NEGATIVE = NegativeText(text(1, 7, 2))
PROMPT = text(1, 12, 1)


def wan_2_2() -> Any:
    return tiny.wan_pipeline(two_transformers=True)


PIPELINES: list[Callable[[], Any]] = [
    tiny.wan_pipeline,
    wan_2_2,
    tiny.wan_image_to_video_pipeline,
    tiny.ltx_pipeline,
]


def with_parts(**transformers: Any) -> Any:
    return SimpleNamespace(progress_bar=None, **transformers)


def transformers_of(pipeline: Any) -> list[Any]:
    both = (pipeline.transformer, getattr(pipeline, "transformer_2", None))
    return [transformer for transformer in both if transformer is not None]


def state(pipeline: Any) -> list[Any]:
    """Return all that guidance could leave behind: processors, settings, both kinds of hooks."""
    found: list[Any] = []
    for transformer in transformers_of(pipeline):
        for name, processor in transformer.attn_processors.items():
            found.append((name, id(processor), type(processor), processor._attention_backend))
        found.append(list(transformer._forward_pre_hooks))
        found.append(list(transformer._forward_hooks))
        found.append(list(HookRegistry.check_if_exists_or_initialize(transformer).hooks))
        found.append(
            transformer.forward.__func__ if hasattr(transformer.forward, "__func__") else "wrapped"
        )
    return found


@pytest.mark.parametrize("build", PIPELINES)
def test_every_text_cross_attention_is_covered_and_counted(build: Callable[[], Any]) -> None:
    pipeline = build()
    names = [
        name
        for part in transformers_of(pipeline)
        for name, _ in part.named_modules()
        if name.endswith(".attn2")
    ]
    with install(pipeline) as nag:
        assert (nag.coverage.guided, nag.coverage.total) == (len(names), len(names))
        assert str(nag.check_coverage()) == f"{len(names)} of {len(names)}"
        stock = [
            name
            for part in transformers_of(pipeline)
            for name, processor in part.attn_processors.items()
            if type(processor) in (WanAttnProcessor, LTXVideoAttnProcessor)
        ]
        assert len(stock) == len(names)
        assert all(".attn1." in name for name in stock)


@pytest.mark.parametrize("build", PIPELINES)
def test_remove_restores_processors_and_hooks(build: Callable[[], Any]) -> None:
    pipeline = build()
    before = state(pipeline)
    nag = install(pipeline)
    assert state(pipeline) != before
    nag.remove()
    assert state(pipeline) == before
    nag.remove()
    assert state(pipeline) == before


@pytest.mark.parametrize("build", [tiny.wan_pipeline, wan_2_2, tiny.ltx_pipeline])
def test_processors_are_not_left_behind_after_an_exception(build: Callable[[], Any]) -> None:
    pipeline = build()
    plain, before = render(pipeline, PROMPT), state(pipeline)

    def fail(*_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), install(pipeline) as nag, nag.guide(NEGATIVE, STRONG):
        render(pipeline, PROMPT, callback_on_step_end=fail)
    assert state(pipeline) == before
    assert torch.equal(render(pipeline, PROMPT), plain)


@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.ltx_pipeline])
def test_an_exception_ends_guidance_and_leaves_it_installed(
    build: Callable[[], Any],
) -> None:
    pipeline = build()
    plain = render(pipeline, PROMPT)
    with install(pipeline) as nag:
        with pytest.raises(ZeroDivisionError), nag.guide(NEGATIVE, STRONG):
            render(pipeline, PROMPT, callback_on_step_end=lambda *_: 1 // 0)
        assert torch.equal(render(pipeline, PROMPT), plain)
        with nag.guide(NEGATIVE, STRONG):
            assert largest_difference(render(pipeline, PROMPT), plain) > FAR


@pytest.mark.parametrize("build", PIPELINES)
def test_a_second_install_is_refused_and_the_first_still_guides(build: Callable[[], Any]) -> None:
    pipeline = build()
    with install(pipeline) as nag:
        before = state(pipeline)
        with pytest.raises(AlreadyInstalledError, match="installed on this transformer already"):
            install(pipeline)
        assert state(pipeline) == before
        nag.check_coverage()


class ForeignProcessor(WanAttnProcessor):
    """A subclass of the stock processor, which may compute anything."""


def test_a_foreign_processor_is_refused_and_named_and_nothing_is_left_behind() -> None:
    pipeline = tiny.wan_pipeline()
    pipeline.transformer.blocks[1].attn2.set_processor(ForeignProcessor())
    before = state(pipeline)
    with pytest.raises(
        UnsupportedProcessorError,
        match=r"transformer\.blocks\.1\.attn2 has the processor ForeignProcessor",
    ):
        install(pipeline)
    assert state(pipeline) == before


def test_a_refusal_at_the_second_transformer_restores_the_first() -> None:
    pipeline = wan_2_2()
    pipeline.transformer_2.blocks[0].attn2.set_processor(ForeignProcessor())
    plain, before = render(pipeline, PROMPT), state(pipeline)
    with pytest.raises(
        UnsupportedProcessorError, match=r"^transformer_2\.blocks\.0.*ForeignProcessor"
    ):
        install(pipeline)
    assert state(pipeline) == before
    assert torch.equal(render(pipeline, PROMPT), plain)


@pytest.mark.parametrize("build", [tiny.wan_pipeline, wan_2_2])
def test_processors_replaced_after_install_are_found_before_the_clip_is_rendered(
    build: Callable[[], Any],
) -> None:
    pipeline = build()
    total = 2 * len(transformers_of(pipeline))
    with install(pipeline) as nag:
        foreign = ForeignProcessor()
        transformers_of(pipeline)[-1].blocks[1].attn2.set_processor(foreign)
        assert str(nag.coverage) == f"{total - 1} of {total}"
        with (
            pytest.raises(NagCoverageError, match=f"only {total - 1} of {total}"),
            nag.guide(NEGATIVE, STRONG),
        ):
            pass
    # `remove` leaves a foreign processor alone.
    assert transformers_of(pipeline)[-1].blocks[1].attn2.processor is foreign


def test_a_transformer_replaced_after_install_is_found_before_the_clip_is_rendered() -> None:
    pipeline = tiny.wan_pipeline()
    with install(pipeline) as nag:
        pipeline.transformer = tiny.wan_transformer(3)
        with (
            pytest.raises(NagCoverageError, match="replaced after guidance was installed"),
            nag.guide(NEGATIVE, STRONG),
        ):
            pass


def test_guide_after_remove_is_refused() -> None:
    nag = install(tiny.wan_pipeline())
    nag.remove()
    with pytest.raises(NagCoverageError, match="call install again"), nag.guide(NEGATIVE, STRONG):
        pass


def test_gradient_checkpointing_works_outside_a_guide_and_is_refused_inside() -> None:
    pipeline = tiny.wan_pipeline()
    model, prompt = pipeline.transformer, PROMPT.clone().requires_grad_()
    model.enable_gradient_checkpointing()

    def gradient() -> torch.Tensor:
        prompt.grad = None
        latents = torch.ones(1, model.config.in_channels, 2, 4, 4)
        with model.cache_context("cond"):
            output = model(latents, torch.tensor([500]), prompt, return_dict=False)[0]
        output.sum().backward()
        assert prompt.grad is not None
        return prompt.grad

    stock = gradient()
    with install(pipeline) as nag:
        assert largest_difference(gradient(), stock) < 1e-6
        with nag.guide(NEGATIVE, STRONG):
            with pytest.raises(NagCoverageError, match=r"call disable_gradient_checkpointing\(\)"):
                gradient()
            guided = render(pipeline, PROMPT)
            model.disable_gradient_checkpointing()
            assert largest_difference(gradient(), stock) > 1e-4
            assert torch.equal(render(pipeline, PROMPT), guided)
        assert largest_difference(gradient(), stock) < 1e-6


def test_guidance_does_not_depend_on_the_settings_of_torch_at_its_installation() -> None:
    pipeline = tiny.wan_pipeline()
    params = NagParams(nag_scale=1.003, nag_tau=2.6, nag_alpha=1.0)  # no bfloat16 numbers
    with install(pipeline) as nag, nag.guide(NEGATIVE, params):
        expected = render(pipeline, PROMPT)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.inference_mode(), torch.device("meta"):
            nag = install(pipeline)
    finally:
        torch.set_default_dtype(torch.float32)
    with nag, nag.guide(NEGATIVE, params):
        assert torch.equal(render(pipeline, PROMPT), expected)


def test_a_pipeline_of_another_family_is_refused_and_its_transformer_named() -> None:
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(4,),
        norm_num_groups=2,
        attention_head_dim=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    with pytest.raises(
        UnsupportedPipelineError,
        match=r"DDPMPipeline must have a transformer or UNet of .*, got UNet2DModel",
    ):
        install(DDPMPipeline(unet, DDPMScheduler()))  # pyright: ignore[reportArgumentType]
    dit = DiTTransformer2DModel(
        num_attention_heads=1, attention_head_dim=4, in_channels=4, num_layers=1, sample_size=4
    )
    with pytest.raises(UnsupportedPipelineError, match="got DiTTransformer2DModel"):
        install(with_parts(transformer=dit))
    with pytest.raises(UnsupportedPipelineError, match="got DiTTransformer2DModel"):
        install(with_parts(transformer=tiny.wan_transformer(), transformer_2=dit))


def test_each_reason_for_a_refusal_has_an_error_class_of_its_own() -> None:
    reasons = {AlreadyInstalledError, UnsupportedPipelineError, UnsupportedProcessorError}
    assert {*InstallationError.__subclasses__()} == reasons
    others = (InstallationError, NagCoverageError, UnnamedCallError, ForeignCallError)
    assert all(kind.__bases__ == (NagError,) for kind in others)


def test_a_model_without_cross_attentions_is_refused() -> None:
    transformer = tiny.wan_transformer()
    transformer.blocks = torch.nn.ModuleList()
    with pytest.raises(NagCoverageError, match="only 0 of 0"):
        install(with_parts(transformer=transformer))


@pytest.mark.parametrize("build", [tiny.wan_pipeline, wan_2_2, tiny.ltx_pipeline])
def test_an_attention_backend_set_after_install_is_used_and_survives_remove(
    build: Callable[[], Any],
) -> None:
    pipeline = build()
    with install(pipeline) as nag:
        with nag.guide(NEGATIVE, STRONG):
            before = render(pipeline, PROMPT)
        for transformer in transformers_of(pipeline):
            transformer.set_attention_backend("_native_math")
        with nag.guide(NEGATIVE, STRONG):
            assert largest_difference(render(pipeline, PROMPT), before) < 2e-5
        backends = {
            p._attention_backend
            for part in transformers_of(pipeline)
            for p in part.attn_processors.values()
        }
        assert backends == {AttentionBackendName._NATIVE_MATH}
    backends = {
        p._attention_backend
        for part in transformers_of(pipeline)
        for p in part.attn_processors.values()
    }
    assert backends == {AttentionBackendName._NATIVE_MATH}


def test_the_backend_of_a_processor_is_the_one_that_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[Any] = []
    stock = text_processor.dispatch_attention_fn

    def note(*args: Any, **kwargs: Any) -> Any:
        used.append((kwargs["backend"], kwargs["parallel_config"]))
        return stock(*args, **kwargs)

    monkeypatch.setattr(text_processor, "dispatch_attention_fn", note)
    for pipeline in (tiny.wan_pipeline(), tiny.ltx_pipeline()):
        pipeline.transformer.set_attention_backend("native")
        used.clear()
        with install(pipeline) as installed, installed.guide(NEGATIVE, STRONG):
            render(pipeline, PROMPT)
        assert len(used) == 2 * 2 * 2  # blocks, prompts, steps
        assert set(used) == {(AttentionBackendName.NATIVE, None)}


@pytest.mark.parametrize("build", PIPELINES)
def test_a_parallel_configuration_is_carried_over_and_back(build: Callable[[], Any]) -> None:
    pipeline = build()
    before, during = object(), object()
    processors = [p for part in transformers_of(pipeline) for p in part.attn_processors.values()]
    for processor in processors:
        processor._parallel_config = before
    with install(pipeline):
        installed = [p for part in transformers_of(pipeline) for p in part.attn_processors.values()]
        assert all(processor._parallel_config is before for processor in installed)
        for processor in installed:
            processor._parallel_config = during
    assert all(processor._parallel_config is during for processor in processors)


def test_model_offloading_that_unwraps_forward_after_a_clip_leaves_guidance_on() -> None:
    for pipeline in (tiny.wan_pipeline(), tiny.ltx_pipeline()):
        plain = render(pipeline, PROMPT)
        add_hook_to_module(pipeline.transformer, AccelerateHook())
        with install(pipeline) as nag, nag.guide(NEGATIVE, STRONG):
            guided = render(pipeline, PROMPT)
            # As `maybe_free_model_hooks` does when `enable_model_cpu_offload` is on.
            for _ in range(2):
                remove_hook_from_module(pipeline.transformer, recurse=True)
                add_hook_to_module(pipeline.transformer, AccelerateHook())
                assert torch.equal(render(pipeline, PROMPT), guided)
        assert largest_difference(guided, plain) > FAR
        assert torch.equal(render(pipeline, PROMPT), plain)
        remove_hook_from_module(pipeline.transformer, recurse=True)
        assert torch.equal(render(pipeline, PROMPT), plain)


def test_offloading_that_is_taken_off_before_guidance_leaves_a_working_pipeline() -> None:
    for pipeline in (tiny.wan_pipeline(), tiny.ltx_pipeline()):
        plain = render(pipeline, PROMPT)
        add_hook_to_module(pipeline.transformer, AccelerateHook())
        nag = install(pipeline)
        render(pipeline, PROMPT)
        pipeline.remove_all_hooks()
        assert torch.equal(render(pipeline, PROMPT), plain)
        nag.remove()
        assert torch.equal(render(pipeline, PROMPT), plain)


@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.ltx_pipeline])
def test_a_pipeline_whose_transformer_is_compiled_is_guided(build: Callable[[], Any]) -> None:
    pipeline = build()
    plain, stock = render(pipeline, PROMPT), pipeline.transformer
    with install(pipeline) as nag, nag.guide(NEGATIVE, STRONG):
        guided = render(pipeline, PROMPT)
    pipeline.transformer = torch.compile(stock, backend="eager")
    with install(pipeline) as nag:
        assert str(nag.coverage) == "2 of 2"
        with nag.guide(NEGATIVE, STRONG):
            assert largest_difference(render(pipeline, PROMPT), guided) < 2e-5
    assert largest_difference(render(pipeline, PROMPT), plain) < 2e-5
    pipeline.transformer = stock
    with install(pipeline) as nag, nag.guide(NEGATIVE, STRONG):
        pipeline.transformer = torch.compile(stock, backend="eager")
        assert largest_difference(render(pipeline, PROMPT), guided) < 2e-5


def test_guidance_that_nobody_removes_does_not_keep_the_model_alive() -> None:
    pipeline = tiny.wan_pipeline()
    install(pipeline)
    transformer = weakref.ref(pipeline.transformer)
    del pipeline
    gc.collect()
    assert transformer() is None


def test_the_bar_of_another_extension_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline: Any = tiny.wan_pipeline()
    theirs = pipeline.progress_bar
    monkeypatch.setattr(pipeline, "progress_bar", theirs, raising=False)
    nag = install(pipeline)
    assert pipeline.progress_bar != theirs
    nag.remove()
    assert vars(pipeline)["progress_bar"] == theirs


@pytest.mark.parametrize("is_theirs_first", [True, False])
def test_another_hook_on_the_transformer_works_beside_guidance_and_stays(
    is_theirs_first: bool,
) -> None:
    pipeline = tiny.wan_pipeline()
    calls: list[Any] = []
    plain = render(pipeline, PROMPT)

    class CountingHook(ModelHook):
        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(module)
            return args, kwargs

    registry = HookRegistry.check_if_exists_or_initialize(pipeline.transformer)
    if is_theirs_first:
        registry.register_hook(CountingHook(), "theirs")
    with install(pipeline) as nag:
        if not is_theirs_first:
            registry.register_hook(CountingHook(), "theirs")
        with nag.guide(NEGATIVE, STRONG):
            assert largest_difference(render(pipeline, PROMPT), plain) > FAR
    assert torch.equal(render(pipeline, PROMPT), plain)
    assert len(calls) == 4


@pytest.mark.parametrize("is_cache_first", [True, False])
def test_a_block_cache_that_caches_nothing_changes_nothing(is_cache_first: bool) -> None:
    cfg: dict[str, Any] = {"guidance_scale": 3.0, "negative_prompt_embeds": text(1, 12, 3)}
    pipeline = tiny.wan_pipeline()
    with install(pipeline) as nag, nag.guide(NEGATIVE, STRONG):
        guided = render(pipeline, PROMPT, **cfg)
    if is_cache_first:
        pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.0))
    with install(pipeline) as nag:
        if not is_cache_first:
            pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.0))
        with nag.guide(NEGATIVE, STRONG):
            assert largest_difference(render(pipeline, PROMPT, **cfg), guided) < 2e-5
