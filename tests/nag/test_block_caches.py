"""Diffusers' caches of blocks (`enable_cache`) beside guidance."""

from typing import Any

import pytest
import torch
from diffusers.hooks import FirstBlockCacheConfig

from nag import UnsupportedPipelineError, install
from tests.nag.joint_families import FAMILIES, Family, render

CASES = [FAMILIES[name] for name in ("Flux", "Qwen-Image", "HunyuanVideo")]
EVERY_STEP_ALIKE, NO_STEP_ALIKE = FirstBlockCacheConfig(1e6), FirstBlockCacheConfig(0.0)


@pytest.mark.parametrize("family", CASES)
def test_a_step_gets_nothing_that_was_kept_of_guided_blocks(family: Family) -> None:
    pipeline = family.build()
    four: dict[str, Any] = {"num_inference_steps": 4}
    negative, calls = family.negative()[0], list[int]()
    with install(pipeline) as nag, nag.guide(negative, nag_end=0.5, **family.strengths()):
        guided = render(pipeline, family, **four)
        pipeline.transformer.enable_cache(NO_STEP_ALIKE)
        assert torch.equal(render(pipeline, family, **four), guided)
        pipeline.transformer.disable_cache()
        pipeline.transformer.enable_cache(EVERY_STEP_ALIKE)
        block: Any = pipeline.transformer.transformer_blocks[0]
        after: Any = pipeline.transformer.transformer_blocks[1].attn
        handles = [
            block.register_forward_hook(lambda *_: calls.append(0)),
            after.register_forward_hook(lambda *_: calls.append(1)),
        ]
        cached = render(pipeline, family, **four)
        for handle in handles:
            handle.remove()
    assert calls == [0, 1, 0] * 2  # the first step of each half makes all blocks
    assert cached.shape == guided.shape


@pytest.mark.parametrize("name", ["Flux", "HunyuanVideo"])
def test_a_batch_in_single_stream_blocks_is_refused(name: str) -> None:
    family = FAMILIES[name]
    pipeline = family.build()
    pipeline.transformer.enable_cache(EVERY_STEP_ALIKE)
    plain = render(pipeline, family, 2)
    with install(pipeline) as nag, nag.guide(family.negative()[0], **family.strengths()):
        with pytest.raises(UnsupportedPipelineError, match="switch the cache off"):
            render(pipeline, family, 2)
        render(pipeline, family, 1)
    pipeline.transformer._reset_stateful_cache()
    assert torch.equal(render(pipeline, family, 2), plain)
