"""HiDream besides what all families share: oblong images, and its four encoders."""

from typing import Any

import torch

from nag import encode_negative_prompt, install
from tests.builders import tiny_diffusion_transformers as tiny_dits
from tests.nag.joint_by_hand import joint_attention_by_hand
from tests.nag.joint_families import (
    FAMILIES,
    assert_agrees,
    assert_differs,
    layers,
    pooled,
    render,
    text,
)

HIDREAM = FAMILIES["HiDream"]


def test_an_oblong_image_is_guided_without_its_filler() -> None:
    pipeline = tiny_dits.hidream_pipeline(max_resolution=(16, 12))
    negative, guidance, whole = HIDREAM.negative()
    size = {"height": 32, "width": 128}
    with joint_attention_by_hand(pipeline, guidance, whole):
        by_hand = render(pipeline, HIDREAM, 2, **size)
    plain = render(pipeline, HIDREAM, 2, **size)
    with install(pipeline) as nag, nag.guide(negative, **HIDREAM.strengths()):
        guided = render(pipeline, HIDREAM, 2, **size)
    assert guided.shape[2:] == (4, 16)
    assert_agrees(guided, by_hand)
    assert_differs(guided, plain)


def _of_seeds(pipeline: Any) -> Any:
    """Give a pipeline, in the places of its encoders, what a seed makes of a text."""

    def t5(prompt: Any, length: int, *_: Any) -> torch.Tensor:
        return text(len(prompt), 2, length)

    def llama(prompt: Any, length: int, *_: Any) -> torch.Tensor:
        return layers(len(prompt), 2, length)

    def clip(_tokenizer: Any, _encoder: Any, prompt: Any, *_: Any) -> torch.Tensor:
        return pooled(len(prompt), 2)[:, : tiny_dits.POOLED_DIM // 2]

    pipeline._get_t5_prompt_embeds = t5
    pipeline._get_llama3_prompt_embeds = llama
    pipeline._get_clip_prompt_embeds = clip
    return pipeline


def test_a_text_is_encoded_by_all_encoders_as_the_prompt_is() -> None:
    encoding = _of_seeds(tiny_dits.hidream_pipeline())
    negative = encode_negative_prompt(encoding, ["red", "blue"], max_sequence_length=5)
    assert torch.equal(negative.embeds, text(2, 2, 5))
    assert negative.layer_embeds is not None
    assert torch.equal(negative.layer_embeds, layers(2, 2, 5))
    assert negative.pooled is not None
    assert negative.pooled.shape == (2, tiny_dits.POOLED_DIM)
    assert encode_negative_prompt(encoding, "red").embeds.shape == (1, 128, 16)
