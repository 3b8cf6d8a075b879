"""A text's mask of booleans stays one: some attention backends, such as flash_varlen, need that."""

from typing import Any

import pytest
import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    _normalize_attn_mask,
)

from nag import guide
from tests.nag.every_family import CASES, OF_BUILDERS

pytestmark = OF_BUILDERS


@pytest.mark.parametrize("name", ["LongCat audio", "Kandinsky 6", "NucleusMoE", "PRX", "SANA-WM"])
def test_guidance_hands_on_masks_that_the_backends_for_varying_lengths_take(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    pipeline = case.build()
    with guide(pipeline, case.negative, **case.strengths):
        expected = case.quick(pipeline)
    backends: dict[Any, Any] = _AttentionBackendRegistry._backends
    native, masks = backends[AttentionBackendName.NATIVE], list[torch.Tensor]()

    def strict(
        query: torch.Tensor, key: torch.Tensor, attn_mask: Any = None, **others: Any
    ) -> torch.Tensor:
        if attn_mask is not None:
            masks.append(_normalize_attn_mask(attn_mask, len(query), key.shape[1]))
        return native(query=query, key=key, attn_mask=attn_mask, **others)

    monkeypatch.setitem(backends, AttentionBackendName.NATIVE, strict)
    with guide(pipeline, case.negative, **case.strengths):
        assert torch.equal(case.quick(pipeline), expected)
    assert masks
