"""Regional compilation: one graph serves every prompt, negative prompt and parameter."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._dynamo import config as dynamo_config
from torch._dynamo.utils import counters

from nag import NagParams, NegativeText, install
from tests import tiny
from tests.nag.reference import largest_difference, mask, render, text


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def clips(pipeline: Any, nag: Any, arguments: dict[str, Any], seeds: range) -> list[torch.Tensor]:
    rendered: list[torch.Tensor] = []
    for seed in seeds:
        negative_mask = mask(12, 3 + seed) if "prompt_attention_mask" in arguments else None
        params = NagParams(nag_scale=3 + seed, nag_tau=1.5 + 0.1 * seed, nag_alpha=0.3 + 0.05 * seed)
        with nag.guide(NegativeText(text(1, 12, 50 + seed), negative_mask), params):
            rendered.append(render(pipeline, text(1, 12, seed), **arguments))
    return rendered


@pytest.mark.parametrize("build", [tiny.wan_pipeline, tiny.ltx_pipeline])
def test_one_graph_serves_every_prompt_negative_prompt_and_parameter(build: Callable[[], Any]) -> None:
    pipeline = build()
    arguments: dict[str, Any] = {"prompt_attention_mask": mask(12, 9)} if build is tiny.ltx_pipeline else {}
    with install(pipeline) as nag:
        eager = clips(pipeline, nag, arguments, range(4))
        pipeline.transformer.compile_repeated_blocks(fullgraph=True)
        first = clips(pipeline, nag, arguments, range(1))
        num_graphs = counters["stats"]["unique_graphs"]
        assert num_graphs == 1  # the blocks of a model share it
        with dynamo_config.patch(error_on_recompile=True):
            compiled = first + clips(pipeline, nag, arguments, range(1, 4))
        assert counters["stats"]["unique_graphs"] == num_graphs
    for clip, truth in zip(compiled, eager, strict=True):
        assert largest_difference(clip, truth) < 2e-5
