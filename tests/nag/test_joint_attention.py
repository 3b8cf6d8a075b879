"""Joint attention: what single families have besides, and the pipelines that tell no names."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import FluxFillPipeline, FluxKontextPipeline, QwenImageEditPipeline
from torch._dynamo.utils import counters
from torch.nn import functional

from nag import NagCoverageError, NagTextError, NegativeText, encode_negative_prompt, guide, install
from tests.builders import tiny_joint
from tests.nag.joint_by_hand import joint_attention_by_hand
from tests.nag.joint_families import FAMILIES, assert_agrees, assert_differs, render, seeded, text
from tests.nag.reference import Guidance, image, mask

FLUX, SD3, QWEN = FAMILIES["Flux"], FAMILIES["SD3"], FAMILIES["Qwen-Image"]
HUNYUAN = FAMILIES["HunyuanVideo"]


def flux_call(rows: int) -> dict[str, Any]:
    """Return the arguments of a call of the transformer itself."""
    return {
        "hidden_states": seeded(9, rows, 16, 16),
        "encoder_hidden_states": text(rows, 1),
        "pooled_projections": seeded(1, rows, tiny_joint.POOLED_DIM),
        "timestep": torch.full((rows,), 0.7),
        "guidance": torch.full((rows,), 3.5),
        "img_ids": torch.cartesian_prod(*map(torch.arange, (1, 4, 4))).float(),
        "txt_ids": torch.zeros(7, 3),
        "return_dict": False,
    }


def qwen_call(rows: int, **changes: Any) -> dict[str, Any]:
    call = {
        "hidden_states": seeded(9, rows, 20, 16),
        "encoder_hidden_states": text(rows, 1),
        "encoder_hidden_states_mask": None,
        "timestep": torch.full((rows,), 0.7),
        "img_shapes": [[(1, 4, 4), (1, 2, 2)]] * rows,
        "return_dict": False,
    }
    return call | changes


def predict(pipeline: Any, call: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad(), pipeline.transformer.cache_context("cond"):
        return pipeline.transformer(**call)[0]


def test_perturbation_of_attentions_to_the_text_is_refused_and_does_not_stay() -> None:
    pipeline = tiny_joint.sd3_pag_pipeline()
    negative, *_ = SD3.negative()
    with install(pipeline) as nag, nag.guide(negative):
        expected = render(pipeline, SD3, pag_scale=0.0)
        with pytest.raises(NagCoverageError, match="off with pag_scale=0: only 2 of 3"):
            render(pipeline, SD3, pag_scale=3.0)
        assert torch.equal(render(pipeline, SD3, pag_scale=0.0), expected)


def test_residuals_of_a_controlnet_are_added_in_both_lanes() -> None:
    pipeline = tiny_joint.flux_pipeline()
    call = flux_call(2)
    plain = predict(pipeline, call)
    for kind in ("controlnet_block_samples", "controlnet_single_block_samples"):
        call[kind] = [seeded(seed, 2, 16, 24) for seed in range(2)]
    negative, guidance, whole = FLUX.negative(rows=2)
    with joint_attention_by_hand(pipeline, guidance, whole, FLUX.rotate):
        by_hand = predict(pipeline, call)
    with guide(pipeline, negative, **FLUX.strengths()):
        guided = predict(pipeline, call)
    assert_agrees(guided, by_hand)
    assert_differs(guided, plain)


def test_the_image_has_one_copy_in_two_stream_blocks() -> None:
    pipeline = tiny_joint.flux_pipeline()
    rows: dict[str, int] = {}
    transformer, handles = pipeline.transformer, []
    parts = {
        "image": transformer.transformer_blocks[1].ff,
        "text": transformer.transformer_blocks[1].ff_context,
        "single": transformer.single_transformer_blocks[0].proj_mlp,
        "out": transformer.proj_out,
    }
    for name, part in parts.items():

        def note(_part: Any, args: Any, name: str = name) -> None:
            rows[name] = args[0].shape[0]

        handles.append(part.register_forward_pre_hook(note))
    negative, _, _ = FLUX.negative()
    with guide(pipeline, negative, nag_scale=5):
        render(pipeline, FLUX, 2)
    assert rows == {"image": 2, "text": 4, "single": 4, "out": 2}


def test_an_edited_image_has_its_own_timestep_beside_the_lane() -> None:
    pipeline = tiny_joint.qwen_image_pipeline()
    pipeline.transformer = tiny_joint.qwen_image_transformer(zero_cond_t=True)
    negative, guidance, _ = QWEN.negative(rows=2)
    call = qwen_call(2)
    with joint_attention_by_hand(pipeline, guidance, None, QWEN.rotate):
        by_hand = predict(pipeline, call)
    with guide(pipeline, negative, **QWEN.strengths()):
        guided = predict(pipeline, call)
    assert_agrees(guided, by_hand)


@pytest.mark.parametrize("condition", [None, "token_replace"])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_video_is_guided_with_its_first_frame_and_in_either_form_of_output(
    condition: str | None, rows: int
) -> None:
    pipeline = tiny_joint.hunyuan_video_pipeline(image_condition_type=condition)
    negative, guidance, whole = HUNYUAN.negative(rows=rows)
    call: dict[str, Any] = {
        "hidden_states": seeded(9, rows, 4, 2, 8, 8),
        "timestep": torch.full((rows,), 700.0),
        "encoder_hidden_states": text(rows, 1),
        "encoder_attention_mask": mask(7, *(7 - 2 * row for row in range(rows))),
        "pooled_projections": seeded(1, rows, tiny_joint.POOLED_DIM),
        "guidance": torch.full((rows,), 6000.0),
        "return_dict": False,
    }
    with joint_attention_by_hand(pipeline, guidance, whole, HUNYUAN.rotate):
        by_hand = predict(pipeline, call)
    with guide(pipeline, negative, **HUNYUAN.strengths()):
        guided = predict(pipeline, call)
        again = predict(pipeline, call | {"return_dict": True})
    assert_agrees(guided, by_hand)
    assert torch.equal(again, guided)


@pytest.mark.parametrize("length", [3, 7, 11])
def test_texts_of_two_lengths_are_guided_without_a_mask(length: int) -> None:
    pipeline = tiny_joint.qwen_image_pipeline()
    embeds = text(1, 2, length)
    guidance = Guidance(embeds, scale=5.0, tau=1.5, alpha=0.5)
    masks: list[Any] = []
    pipeline.transformer.transformer_blocks[0].register_forward_pre_hook(
        lambda _block, _args, kwargs: masks.append(kwargs["encoder_hidden_states_mask"]),
        with_kwargs=True,
    )
    call = qwen_call(2)
    with joint_attention_by_hand(pipeline, guidance, None, QWEN.rotate):
        by_hand = predict(pipeline, call)
    masks.clear()
    with guide(pipeline, NegativeText(embeds), **QWEN.strengths()):
        guided = predict(pipeline, call)
    assert_agrees(guided, by_hand)
    assert masks == [None]  # a mask would keep the fast kernels from running


def test_padding_behind_a_negative_prompt_changes_nothing() -> None:
    pipeline = tiny_joint.qwen_image_pipeline()
    embeds = text(1, 2, 4)
    padded = functional.pad(embeds, (0, 0, 0, 6), value=9.0)
    with install(pipeline) as nag:
        with nag.guide(NegativeText(embeds), **QWEN.strengths()):
            short = predict(pipeline, qwen_call(2))
        with nag.guide(NegativeText(padded, mask(10, 4)), **QWEN.strengths()):
            assert_agrees(predict(pipeline, qwen_call(2)), short)


def test_the_call_with_layers_left_out_stays_unguided() -> None:
    pipeline = tiny_joint.sd3_pipeline()
    negative, guidance, whole = SD3.negative()
    unconditional = SD3.texts(1, 5, "negative_")
    call: dict[str, Any] = {
        **unconditional,
        "guidance_scale": 3.0,
        "num_inference_steps": 4,
        "skip_guidance_layers": [1],
        "skip_layer_guidance_start": 0.0,
        "skip_layer_guidance_stop": 0.9,
    }
    guidance = replace(guidance, unconditional=unconditional["negative_prompt_embeds"])
    with joint_attention_by_hand(pipeline, guidance, whole):
        by_hand = render(pipeline, SD3, **call)
    with guide(pipeline, negative, **SD3.strengths()):
        assert_agrees(render(pipeline, SD3, **call), by_hand)


def test_of_calls_without_names_the_first_of_a_step_is_guided() -> None:
    pipeline = tiny_joint.flux_pipeline(FluxKontextPipeline)
    negative, guidance, whole = FLUX.negative()
    unconditional = FLUX.texts(1, 5, "negative_")
    call: dict[str, Any] = {
        **unconditional,
        "true_cfg_scale": 3.0,
        "max_area": 64 * 64,
        "_auto_resize": False,
    }
    guidance = replace(guidance, unconditional=unconditional["negative_prompt_embeds"])
    with joint_attention_by_hand(pipeline, guidance, whole, FLUX.rotate):
        by_hand = render(pipeline, FLUX, **call)
    with guide(pipeline, negative, **FLUX.strengths()):
        assert_agrees(render(pipeline, FLUX, **call), by_hand)


def test_a_pipeline_with_one_pass_is_guided_in_every_call() -> None:
    pipeline = tiny_joint.flux_pipeline(
        FluxFillPipeline, tiny_joint.autoencoder(), in_channels=16 + 16 + 256, out_channels=16
    )
    negative, guidance, whole = FLUX.negative()
    # Filling takes no true_cfg_scale, and takes two pictures.
    call: dict[str, Any] = {
        **FLUX.texts(1, 1),
        "image": image(),
        "mask_image": image(1),
        "height": 64,
        "width": 64,
        "num_inference_steps": 2,
        "output_type": "latent",
        "return_dict": False,
    }
    with joint_attention_by_hand(pipeline, guidance, whole, FLUX.rotate):
        by_hand = pipeline(**call, generator=torch.Generator().manual_seed(0))[0]
    with guide(pipeline, negative, **FLUX.strengths()):
        guided = pipeline(**call, generator=torch.Generator().manual_seed(0))[0]
    assert_agrees(guided, by_hand)


@pytest.mark.parametrize("family", [FLUX, SD3], ids=["Flux", "SD3"])
def test_a_text_is_encoded_with_its_pooled_embedding(family: Any) -> None:
    pipeline = tiny_joint.with_encoders(family.build())
    call: dict[str, Any] = {
        "prompt": ["a red fox", "snow"],
        "prompt_embeds": None,
        "pooled_prompt_embeds": None,
    }
    with install(pipeline) as nag:
        with nag.guide(["blue", "a tree"], max_sequence_length=9, **family.strengths()):
            whole = render(pipeline, family, 2, **call, max_sequence_length=9)
        with nag.guide("a tree", max_sequence_length=9, **family.strengths()):
            second = render(pipeline, family, 2, **call, max_sequence_length=9)
        with (
            pytest.raises(NagTextError, match="give guide.. the max_sequence_length of the call"),
            nag.guide("a tree", **family.strengths()),
        ):
            render(pipeline, family, 2, **call, max_sequence_length=9)
        with nag.guide(["blue", "a tree"], max_sequence_length=9, **family.strengths()):
            generators = [torch.Generator().manual_seed(seed) for seed in (0, 8, 1, 9)]
            four = render(
                pipeline, family, 2, **call, max_sequence_length=9,
                num_images_per_prompt=2, generator=generators,
            )  # fmt: skip
    assert_agrees(four[::2], whole)
    assert_agrees(second[1:], whole[1:])
    assert_differs(second[:1], whole[:1])
    encoded = encode_negative_prompt(pipeline, ["blue", "a tree"], max_sequence_length=9)
    assert encoded.pooled is not None
    assert encoded.pooled.shape == (2, tiny_joint.POOLED_DIM)
    with guide(pipeline, encoded, **family.strengths()):
        again = render(pipeline, family, 2, **call, max_sequence_length=9)
    assert torch.equal(again, whole)


def test_a_text_that_is_encoded_with_an_image_is_refused() -> None:
    empty: Any = None
    stock = tiny_joint.qwen_image_pipeline()
    pipeline = QwenImageEditPipeline(stock.scheduler, *(empty,) * 4, transformer=stock.transformer)
    with (
        pytest.raises(NagTextError, match="QwenImageEditPipeline encodes a text together with an"),
        guide(pipeline, "red"),
    ):
        pass


def test_a_text_that_was_cut_and_a_block_that_is_called_alone_are_refused() -> None:
    pipeline = tiny_joint.flux_pipeline()
    negative, _, _ = FLUX.negative()
    block = pipeline.transformer.transformer_blocks[0]
    hidden, temb = seeded(1, 1, 16, 24), seeded(2, 1, 24)
    with guide(pipeline, negative, **FLUX.strengths()):
        with pytest.raises(NagTextError, match="only a call of the whole transformer is guided"):
            block(hidden_states=hidden, encoder_hidden_states=hidden[:, :7], temb=temb)
        handle = block.register_forward_pre_hook(_cut_text, with_kwargs=True)
        with pytest.raises(NagTextError, match="must stay whole: expected 7 tokens, got 3"):
            render(pipeline, FLUX)
        handle.remove()
    block(hidden_states=hidden, encoder_hidden_states=hidden[:, :7], temb=temb)


def _cut_text(_block: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    return args, kwargs | {"encoder_hidden_states": kwargs["encoder_hidden_states"][:, :3]}


@pytest.mark.slow
def test_compiled_blocks_are_guided_alike_and_serve_every_strength() -> None:
    pipeline = tiny_joint.flux_pipeline()
    negative, _, _ = FLUX.negative()
    counters.clear()
    with install(pipeline) as nag:
        with nag.guide(negative, nag_scale=5):
            eager = render(pipeline, FLUX)
        plain = render(pipeline, FLUX)
        pipeline.transformer.compile_repeated_blocks(fullgraph=True)
        with nag.guide(negative, nag_scale=5):
            assert_agrees(render(pipeline, FLUX), eager)
        num_graphs = counters["stats"]["unique_graphs"]
        with nag.guide(negative, nag_scale=3):
            assert_differs(render(pipeline, FLUX), plain)
        assert counters["stats"]["unique_graphs"] == num_graphs
        assert_agrees(render(pipeline, FLUX), plain)
