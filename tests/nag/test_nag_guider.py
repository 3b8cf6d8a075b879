"""NagGuider renders the guided clip of a stock pipeline in one pass a step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.modular_pipelines.ltx.modular_blocks_ltx import LTXBlocks
from diffusers.modular_pipelines.wan.modular_blocks_wan import WanBlocks

from nag import NagGuider, NagParameterError, guide
from nag.params import NagStrengths
from tests.builders import tiny
from tests.nag.modular import modular, modular_clip, stock_clip
from tests.nag.reference import largest_difference

CLOSE = 2e-5
STRONG: NagStrengths = {"nag_scale": 9.0, "nag_alpha": 0.5}
MODULAR = [(tiny.wan_pipeline, WanBlocks), (tiny.ltx_pipeline, LTXBlocks)]


@pytest.mark.parametrize(("build", "blocks"), MODULAR)
def test_the_guider_renders_the_clip_that_guide_renders(build: Any, blocks: Any) -> None:
    stock = build()
    with guide(stock, "a dog", **STRONG):
        expected = stock_clip(stock, 1.0)
    pipeline = modular(build, blocks, NagGuider(**STRONG))
    calls: list[int] = []
    pipeline.transformer.register_forward_hook(lambda *_: calls.append(1))
    processors = dict(pipeline.transformer.attn_processors)
    assert largest_difference(modular_clip(pipeline), expected) < CLOSE
    assert len(calls) == 2  # one a step
    assert pipeline.transformer.attn_processors == processors


def test_a_scale_of_one_gives_the_plain_clip() -> None:
    stock = tiny.wan_pipeline()
    plain = stock_clip(stock, 1.0)
    pipeline = modular(tiny.wan_pipeline, WanBlocks, NagGuider(nag_scale=1))
    assert torch.equal(modular_clip(pipeline), plain)


def test_the_step_range_is_that_of_guide() -> None:
    first_half: NagStrengths = {**STRONG, "nag_end": 0.5}
    stock = tiny.wan_pipeline()
    with guide(stock, "a dog", **first_half):
        expected = stock_clip(stock, 1.0)
    pipeline = modular(tiny.wan_pipeline, WanBlocks, NagGuider(**first_half))
    assert largest_difference(modular_clip(pipeline), expected) < CLOSE


def test_a_clip_that_fails_leaves_the_model_as_it_was() -> None:
    pipeline = modular(tiny.wan_pipeline, WanBlocks, NagGuider(**STRONG))
    processors = dict(pipeline.transformer.attn_processors)
    good = modular_clip(pipeline)

    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    handle = pipeline.transformer.blocks[1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="no"):
        modular_clip(pipeline)
    handle.remove()
    assert torch.equal(modular_clip(pipeline), good)
    assert pipeline.transformer.attn_processors == processors


def test_a_clip_that_fails_before_the_model_is_called_leaves_no_guidance_behind() -> None:
    guider = NagGuider(**STRONG)
    pipeline = modular(tiny.wan_pipeline, WanBlocks, guider)
    good = modular_clip(pipeline)
    forward = pipeline.transformer.forward

    def fail(denoiser: Any) -> None:
        NagGuider.prepare_models(guider, denoiser)
        raise RuntimeError("no")

    pipeline.guider.prepare_models = fail
    with pytest.raises(RuntimeError, match="no"):
        modular_clip(pipeline)
    pipeline.update_components(guider=NagGuider(**STRONG))
    assert torch.equal(modular_clip(pipeline), good)
    assert pipeline.transformer.forward == forward


def test_a_guider_is_saved_and_loaded_with_its_strengths(tmp_path: Path) -> None:
    chosen: list[NagStrengths] = [{"nag_scale": 5.0, "nag_norm": "l2"}, {}]
    for strengths in chosen:
        NagGuider(**strengths).save_pretrained(tmp_path)
        loaded: Any = NagGuider.from_pretrained(tmp_path)
        assert loaded.strengths == strengths
        again: Any = NagGuider.from_config(loaded.config)
        assert again.strengths == strengths
    with pytest.raises(NagParameterError, match="nag_scale must be at least 1"):
        NagGuider(nag_scale=0.5)
