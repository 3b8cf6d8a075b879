"""The rivals of NAG where the image has its own keys and values beside those of the text."""

from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_prx import apply_rope

from nag import GuidanceParams, NasaParams, VsfParams, guide
from tests.nag.cross_families import FAMILIES

VSF, NASA = VsfParams(1.7, 0.2), NasaParams(0.8)


def attended(*parts: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return one attention over the tokens of all parts."""
    weights = torch.cat([logits for logits, _ in parts], dim=-1).softmax(dim=-1)
    return weights @ torch.cat([values for _, values in parts], dim=-2)


def by_hand(attn: Any, negative: torch.Tensor, negative_mask: torch.Tensor, params: Any) -> Any:
    """Return the call of an attention of PRX under guidance, in float64."""

    def forward(
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        image_rotary_emb: torch.Tensor,
    ) -> torch.Tensor:
        projected = attn.img_qkv_proj(hidden_states).unflatten(2, (3, attn.heads, -1))
        query, key, image_value = projected.transpose(1, 3).unbind(2)
        query = apply_rope(attn.norm_q(query), image_rotary_emb).double()
        image_key = apply_rope(attn.norm_k(key), image_rotary_emb).double()

        def of(key: torch.Tensor) -> torch.Tensor:
            return query @ key.double().mT / attn.head_dim**0.5

        def of_text(text: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            keys = attn.txt_kv_proj(text).unflatten(2, (2, attn.heads, -1))
            key, value = keys.transpose(1, 3).unbind(2)
            logits = of(attn.norm_added_k(key))
            return logits.masked_fill(~mask.bool()[:, None, None], -torch.inf), value.double()

        image = of(image_key), image_value.double()
        prompt = of_text(encoder_hidden_states, attention_mask)
        logits, values = of_text(negative, negative_mask)
        if isinstance(params, VsfParams):
            flipped = logits - params.vsf_bias, -params.vsf_scale * values
            output = attended(prompt, image, flipped)
        else:
            output = attended(prompt, image)
            output = output - params.nasa_scale * attended((logits, values), image)
        return attn.to_out[0](output.transpose(1, 2).flatten(2).float())

    return forward


@pytest.mark.parametrize("params", [VSF, NASA])
def test_a_rival_beside_the_image_is_its_formula(params: GuidanceParams) -> None:
    family = FAMILIES["PRX Pixel"]
    pipeline, negative = family.build(), family.negative(2)
    plain = family.render(pipeline, cfg=False)
    with guide(pipeline, negative, params):
        guided = family.render(pipeline, cfg=False)
    with torch.no_grad():
        text = pipeline.transformer.txt_in(negative.embeds)
    assert negative.attention_mask is not None
    for block in pipeline.transformer.blocks:
        attention = block.attention
        attention.forward = by_hand(attention, text, negative.attention_mask, params)
    expected = family.render(pipeline, cfg=False)
    assert (guided - expected).norm() < 1e-5 * expected.norm()
    assert (guided - plain).norm() > 1e-3 * plain.norm()
