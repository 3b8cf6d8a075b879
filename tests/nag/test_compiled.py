"""With compiled blocks, each method has one graph for every prompt and every strength."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._dynamo import config as dynamo_config
from torch._dynamo.utils import counters

from nag import GuidanceParams, NagParams, NasaParams, NegativeText, VsfParams, install
from tests.builders import tiny
from tests.nag.cross_families import FAMILIES, STRONG
from tests.nag.reference import largest_difference, mask, render, text


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


METHODS: dict[str, Callable[[int], GuidanceParams]] = {
    "nag": lambda seed: NagParams(
        nag_scale=3 + seed, nag_tau=1.5 + 0.1 * seed, nag_alpha=0.3 + 0.05 * seed
    ),
    "nag-l2": lambda seed: NagParams(nag_scale=3 + seed, nag_tau=1.5 + 0.1 * seed, nag_norm="l2"),
    "vsf": lambda seed: VsfParams(1 + 0.3 * seed, 0.1 * seed),
    "nasa": lambda seed: NasaParams(0.3 + 0.1 * seed),
}


def clips(
    pipeline: Any,
    nag: Any,
    arguments: dict[str, Any],
    seeds: range,
    method: Callable[[int], GuidanceParams],
) -> list[torch.Tensor]:
    rendered: list[torch.Tensor] = []
    for seed in seeds:
        negative, negative_mask = text(1, 12, 50 + seed), mask(12, 3 + seed)
        is_ltx = "prompt_attention_mask" in arguments
        if not is_ltx:
            negative *= negative_mask[..., None]  # Wan's padding
        with nag.guide(NegativeText(negative, negative_mask if is_ltx else None), method(seed)):
            rendered.append(render(pipeline, text(1, 12, seed), **arguments))
    return rendered


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.ltx_pipeline])
def test_one_graph_serves_every_prompt_negative_prompt_and_strength(
    build: Callable[[], Any], method: Callable[[int], GuidanceParams]
) -> None:
    pipeline = build()
    arguments: dict[str, Any] = (
        {"prompt_attention_mask": mask(12, 9)} if build is tiny.ltx_pipeline else {}
    )
    with install(pipeline) as nag:
        eager = clips(pipeline, nag, arguments, range(4), method)
        pipeline.transformer.compile_repeated_blocks(fullgraph=True)
        first = clips(pipeline, nag, arguments, range(1), method)
        num_graphs = counters["stats"]["unique_graphs"]
        assert num_graphs == 1  # the blocks of a model share it
        with dynamo_config.patch(error_on_recompile=True):
            compiled = first + clips(pipeline, nag, arguments, range(1, 4), method)
        assert counters["stats"]["unique_graphs"] == num_graphs
    for clip, truth in zip(compiled, eager, strict=True):
        assert largest_difference(clip, truth) < 2e-5


def test_a_method_that_comes_back_finds_its_graph_again() -> None:
    pipeline = tiny.wan_pipeline()
    with install(pipeline) as nag:
        eager = [clips(pipeline, nag, {}, range(2), method) for method in METHODS.values()]
        pipeline.transformer.compile_repeated_blocks(fullgraph=True)
        compiled = [clips(pipeline, nag, {}, range(1), method) for method in METHODS.values()]
        assert counters["stats"]["unique_graphs"] == len(METHODS)
        with dynamo_config.patch(error_on_recompile=True):
            for rendered, method in zip(compiled, METHODS.values(), strict=True):
                rendered.extend(clips(pipeline, nag, {}, range(1, 2), method))
    for rendered, truths in zip(compiled, eager, strict=True):
        for clip, truth in zip(rendered, truths, strict=True):
            assert largest_difference(clip, truth) < 2e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("name", ["SDXL", "SDXL with image prompts"])
def test_a_compiled_unet_is_one_graph_with_its_hook_and_gives_the_same_image(name: str) -> None:
    family = FAMILIES[name]
    pipeline = family.build()
    negative = family.negative(2)
    with install(pipeline) as nag, nag.guide(negative, **STRONG):
        eager = family.render(pipeline, cfg=True)
    compiled: Any = torch.compile(pipeline.unet, backend="eager", fullgraph=True)
    pipeline.unet = compiled
    with install(pipeline) as nag, nag.guide(negative, **STRONG):
        assert largest_difference(family.render(pipeline, cfg=True), eager) < 2e-5 * eager.std()
    assert not counters["graph_break"]
