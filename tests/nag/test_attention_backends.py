"""Guidance attends by the backend that the stock processors attend by, and with no further mask."""

from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.attention_dispatch import attention_backend
from torch.nn import functional

from nag import NegativeText, guide
from nag.adapters.adapter import Adapter
from nag.adapters.joint.processor import attend_as
from nag.adapters.registry import MODULES
from tests.nag import cross_families, joint_families
from tests.nag.reference import mask

WITHOUT_MASKS = "_native_flash"  # a backend of diffusers that takes no mask
COSMOS = {"CosmosAttnProcessor2_0", "CosmosAttnProcessor2_5"}  # ours of it reads no setting


def test_a_stock_processor_without_a_backend_of_its_own_calls_torch() -> None:
    query, key, value = torch.randn(3, 1, 4, 2, 8).unbind()
    mask_SS = torch.ones(4, 4, dtype=torch.bool).tril()
    with attention_backend(WITHOUT_MASKS):
        found = attend_as(SimpleNamespace(), query, key, value, mask_SS)
    heads_first = (one.transpose(1, 2) for one in (query, key, value))
    expected = functional.scaled_dot_product_attention(*heads_first, attn_mask=mask_SS)
    assert torch.equal(found, expected.transpose(1, 2).flatten(2))


def test_stock_processors_with_a_backend_of_their_own_are_those_that_obey_one() -> None:
    """Ours attend by torch or by diffusers' dispatch, as this attribute of the stock one tells."""
    for module in set(MODULES.values()):
        adapter: Adapter = import_module(f"nag.adapters.{module}").ADAPTER
        for stock in adapter.processors:
            obeys = "dispatch_attention_fn" in stock.__call__.__code__.co_names
            has_own = hasattr(stock, "_attention_backend")
            assert obeys == (has_own or stock.__name__ in COSMOS), stock


def test_a_stock_processor_that_knows_no_backend_is_guided_under_any() -> None:
    family = joint_families.FAMILIES["Mochi"]
    pipeline = family.build()
    negative, *_ = family.negative()
    with guide(pipeline, negative):
        expected = joint_families.render(pipeline, family)
        with attention_backend(WITHOUT_MASKS):
            found = joint_families.render(pipeline, family)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["Kandinsky 6 without filler", "NucleusMoE"])
def test_a_mask_that_masks_nothing_is_no_mask(name: str) -> None:
    family = cross_families.FAMILIES[name]
    pipeline, negative = family.build(), replace(family.negative(1), attention_mask=None)
    pipeline_call: dict[str, Any] = {"rows": 1, "cfg": False}
    whole = replace(negative, attention_mask=torch.ones(negative.embeds.shape[:2]))
    with attention_backend(WITHOUT_MASKS):
        with guide(pipeline, negative):
            expected = family.render(pipeline, **pipeline_call)
        with guide(pipeline, whole):
            assert torch.equal(family.render(pipeline, **pipeline_call), expected)


def test_a_mask_that_masks_nothing_is_no_mask_in_a_lane_of_text() -> None:
    family = joint_families.FAMILIES["Qwen-Image"]
    pipeline, (negative, *_) = family.build(), family.negative()
    one = NegativeText(negative.embeds[:1])
    with attention_backend(WITHOUT_MASKS):
        whole = replace(one, attention_mask=mask(*[one.embeds.shape[1]] * 2))
        images: list[torch.Tensor] = []
        for text in (one, whole):
            with guide(pipeline, text):
                images.append(
                    joint_families.render(
                        pipeline, family, num_inference_steps=1, prompt_embeds_mask=None
                    )
                )
    assert torch.equal(*images)
