"""Z-Image: the residuals of a ControlNet, guidance that ends early, and texts from the encoder."""

from typing import Any

import pytest
import torch
from diffusers import ZImageImg2ImgPipeline
from torch._dynamo.utils import counters

from nag import NagTextError, NegativeText, encode_negative_prompt, guide, install
from tests.builders import tiny_joint, tiny_sequence
from tests.nag.joint_families import assert_agrees, assert_differs, seeded
from tests.nag.reference import image
from tests.nag.sequence_by_hand import ByHand, sequences_by_hand
from tests.nag.sequence_families import FAMILIES, STRENGTHS, negative_text, render, texts

FAMILY = FAMILIES["Z-Image"]
NEGATIVES = texts(2, 40, 7)
IMAGE: dict[str, Any] = {
    "image": image(),
    "num_inference_steps": 4,
    "strength": 0.5,
    "cfg_truncation": 0.5,
    "height": 32,
    "width": 32,
}


def predict(pipeline: Any, rows: int, **changes: Any) -> torch.Tensor:
    """Return the output of the transformer in a denoising loop of one step."""
    call: dict[str, Any] = {
        "x": list(seeded(9, rows, 4, 1, 8, 8)),
        "t": torch.full((rows,), 0.7),
        "cap_feats": texts(1, 5, 40)[:rows],
        "return_dict": False,
    }
    with torch.no_grad(), pipeline.progress_bar(total=1):
        return torch.stack(pipeline.transformer(**{**call, **changes})[0])


def test_residuals_of_a_controlnet_are_added_between_the_blocks() -> None:
    pipeline = tiny_sequence.z_image_pipeline()
    pipeline._guidance_scale = 0
    # The image, with its filler, and the longer prompt, with its own.
    residuals = {0: seeded(5, 2, 32 + 64, 24)}
    without = predict(pipeline, 2)
    with sequences_by_hand(pipeline, FAMILY.rows, ByHand(NEGATIVES)):
        by_hand = predict(pipeline, 2, controlnet_block_samples=residuals)
    with install(pipeline) as nag, nag.guide(negative_text(NEGATIVES), **STRENGTHS):
        guided = predict(pipeline, 2, controlnet_block_samples=residuals)
        assert_differs(guided, predict(pipeline, 2))
    assert_agrees(guided, by_hand)
    assert_differs(guided, without)


@pytest.mark.parametrize("from_image", [False, True], ids=["text", "image"])
def test_steps_without_an_unconditional_half_are_guided_whole(from_image: bool) -> None:
    pipeline = tiny_sequence.z_image_pipeline(
        *((ZImageImg2ImgPipeline, tiny_joint.autoencoder()) if from_image else ())
    )
    unconditional = texts(3, 9)
    arguments: dict[str, Any] = {
        "negative_prompt_embeds": unconditional,
        "guidance_scale": 3.0,
        "cfg_truncation": 0.3,
        **(IMAGE if from_image else {}),
    }
    num_rows: list[int] = []

    def note(_transformer: Any, args: Any) -> None:
        num_rows.append(len(args[0]))

    pipeline.transformer.register_forward_pre_hook(note)
    by_hand = ByHand(NEGATIVES[:1], tuple(unconditional))
    with sequences_by_hand(pipeline, FAMILY.rows, by_hand):
        expected = render(pipeline, FAMILY, **arguments)
    assert num_rows == [2, 1]  # the second step has the prompt alone
    with guide(pipeline, negative_text(NEGATIVES[:1]), **STRENGTHS):
        assert_agrees(render(pipeline, FAMILY, **arguments), expected)


def test_filler_behind_a_negative_prompt_changes_nothing() -> None:
    pipeline = tiny_sequence.z_image_pipeline()
    short, padded = negative_text(NEGATIVES[1:]), negative_text(NEGATIVES)
    assert padded.attention_mask is not None
    mask = padded.attention_mask[1:]
    padded = NegativeText(padded.embeds[1:].masked_fill(~mask[..., None], 9.0), mask)
    with install(pipeline) as nag:
        with nag.guide(short, **STRENGTHS):
            alone = render(pipeline, FAMILY)
        with nag.guide(padded, **STRENGTHS):
            assert torch.equal(render(pipeline, FAMILY), alone)


def test_a_text_is_encoded_as_the_prompt_is() -> None:
    pipeline = tiny_sequence.with_chat(tiny_sequence.z_image_pipeline())
    call: dict[str, Any] = {"prompt": ["a red fox", "snow"], "prompt_embeds": None}
    with install(pipeline) as nag:
        with nag.guide(["blue", "a tree in the wood"], **STRENGTHS):
            whole = render(pipeline, FAMILY, 2, **call)
        with nag.guide("blue", **STRENGTHS):
            first = render(pipeline, FAMILY, 2, **call)
    assert_agrees(first[:1], whole[:1])
    assert_differs(first[1:], whole[1:])
    encoded = encode_negative_prompt(pipeline, ["blue", "a tree in the wood"])
    (of_prompt,), _ = pipeline.encode_prompt("blue", do_classifier_free_guidance=False)
    assert encoded.attention_mask is not None
    assert torch.equal(encoded.embeds[0][encoded.attention_mask[0].bool()], of_prompt)


def test_a_block_that_is_called_alone_and_images_as_conditions_are_refused() -> None:
    pipeline = tiny_sequence.z_image_pipeline()
    pipeline._guidance_scale = 0
    attention = pipeline.transformer.layers[0].attention
    with guide(pipeline, negative_text(NEGATIVES[:1]), **STRENGTHS):
        with pytest.raises(NagTextError, match="only a call of the whole transformer is guided"):
            attention(seeded(1, 1, 8, 24))
        with pytest.raises(NagTextError, match="images of a guided call must have one size"):
            predict(pipeline, 2, x=[seeded(1, 4, 1, 8, 8), seeded(1, 4, 1, 4, 8)])
        with pytest.raises(NagTextError, match="a call with images among the conditions"):
            predict(pipeline, 1, cap_feats=[texts(1, 5)])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
def test_compiled_blocks_are_guided_alike_and_serve_every_text_and_strength() -> None:
    pipeline = tiny_sequence.z_image_pipeline()
    first, second = (negative_text(texts(seed, 37)) for seed in (2, 4))
    counters.clear()
    with install(pipeline) as nag:
        eager: list[torch.Tensor] = []
        for negative in (first, second):
            with nag.guide(negative, **STRENGTHS):
                eager.append(render(pipeline, FAMILY))
        plain = render(pipeline, FAMILY)
        assert_differs(eager[0], eager[1])
        pipeline.transformer.compile_repeated_blocks(fullgraph=True)
        with nag.guide(first, **STRENGTHS):
            assert_agrees(render(pipeline, FAMILY), eager[0])
        num_graphs = counters["stats"]["unique_graphs"]
        with nag.guide(second, **STRENGTHS):
            assert_agrees(render(pipeline, FAMILY), eager[1])
        weaker: dict[str, Any] = {**STRENGTHS, "nag_scale": 3.0}
        with nag.guide(second, **weaker):
            assert_differs(render(pipeline, FAMILY), eager[1])
        assert counters["stats"]["unique_graphs"] == num_graphs
        assert_agrees(render(pipeline, FAMILY), plain)
