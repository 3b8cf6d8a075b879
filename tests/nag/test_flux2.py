"""Flux 2: reference images, kept or not, a pipeline with one pass, refused calls, encoded texts."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import Flux2KleinKVPipeline, Flux2Pipeline
from diffusers.models.transformers.transformer_flux2 import Flux2KVCache
from transformers import UMT5Config, UMT5EncoderModel

from nag import NagTextError, NegativeText, guide, install
from tests.builders import tiny, tiny_sequence
from tests.nag.flux2_by_hand import Flux2AttentionWithReferences
from tests.nag.joint_families import assert_agrees, assert_differs, seeded
from tests.nag.reference import image
from tests.nag.sequence_by_hand import ByHand, sequences_by_hand
from tests.nag.sequence_families import FAMILIES, STRENGTHS, render

FAMILY = FAMILIES["Flux 2"]
# Its pipeline has no unconditional pass.
KEPT = replace(FAMILY, scale="num_images_per_prompt", unguided=1)
NEGATIVES = FAMILY.texts(2, 9)
NEGATIVE = FAMILY.negative(NEGATIVES)


@pytest.mark.parametrize("with_image", [False, True], ids=["text", "image"])
def test_a_pipeline_with_one_pass_is_guided_in_every_call(with_image: bool) -> None:
    pipeline = tiny_sequence.klein_pipeline(Flux2Pipeline, guidance_embeds=True)
    arguments: dict[str, Any] = {"guidance_scale": 4.0}
    if with_image:
        arguments["image"] = image().resize((64, 64))
    with sequences_by_hand(pipeline, FAMILY.rows, ByHand(NEGATIVES)):
        by_hand = render(pipeline, FAMILY, 2, **arguments)
    plain = render(pipeline, FAMILY, 2, **arguments)
    with guide(pipeline, NEGATIVE, **STRENGTHS):
        guided = render(pipeline, FAMILY, 2, **arguments)
    assert_agrees(guided, by_hand)
    assert_differs(guided, plain)


def test_the_image_and_the_prompt_have_one_copy_in_all_blocks() -> None:
    pipeline = tiny_sequence.klein_pipeline()
    shapes: dict[str, tuple[int, ...]] = {}
    transformer, handles = pipeline.transformer, []
    parts = {
        "image": transformer.transformer_blocks[1].ff,
        "text": transformer.transformer_blocks[1].ff_context,
        "single": transformer.single_transformer_blocks[0].attn.to_qkv_mlp_proj,
        "out": transformer.proj_out,
    }
    for name, part in parts.items():

        def note(_part: Any, args: Any, name: str = name) -> None:
            shapes[name] = tuple(args[0].shape[:2])

        handles.append(part.register_forward_pre_hook(note))
    with guide(pipeline, NEGATIVE, **STRENGTHS):
        render(pipeline, FAMILY)
    # 16 image tokens, 5 of the prompt, 9 of the negative prompt.
    assert shapes == {"image": (1, 16), "text": (1, 14), "single": (1, 30), "out": (1, 16)}


@contextmanager
def every_step_by_hand(pipeline: Any) -> Generator[None]:
    """Guide by hand, with the reference images in the sequence of every step: none are kept."""
    rows = replace(KEPT.rows, attention=Flux2AttentionWithReferences)
    with sequences_by_hand(pipeline, rows, ByHand(NEGATIVES)):
        by_hand = pipeline.transformer.forward
        first: dict[str, torch.Tensor] = {}

        def forward(**call: Any) -> tuple[Any, ...]:
            mode = call.pop("kv_cache_mode", None)
            call.pop("kv_cache", None)
            if mode is None:
                return by_hand(**call)
            number = call.pop("num_ref_tokens", 0)
            if mode == "extract":
                first.update(
                    {name: call[name][:, :number] for name in ("hidden_states", "img_ids")}
                )
            else:
                call |= {name: torch.cat([one, call[name]], dim=1) for name, one in first.items()}
            number = first["hidden_states"].shape[1]
            output = by_hand(**call, kv_cache_mode="extract", num_ref_tokens=number)
            return (*output, Flux2KVCache(0, 0)) if mode == "extract" else output

        pipeline.transformer.forward = forward
        yield


@pytest.mark.parametrize("num_images", [0, 2])
def test_reference_images_whose_keys_are_kept_stand_beside_both_prompts(num_images: int) -> None:
    pipeline = tiny_sequence.klein_pipeline(Flux2KleinKVPipeline)
    arguments: dict[str, Any] = {"num_inference_steps": 3}
    rows = 2 if num_images else 1
    if num_images:
        arguments["image"] = [image().resize((96, 64)), image().resize((64, 64))]
    with every_step_by_hand(pipeline):
        by_hand = render(pipeline, KEPT, rows, **arguments)
    plain = render(pipeline, KEPT, rows, **arguments)
    with install(pipeline) as nag:
        with nag.guide(NEGATIVE, **STRENGTHS):
            assert_agrees(render(pipeline, KEPT, rows, **arguments), by_hand)
        with nag.guide(NEGATIVE, nag_start=0.3, **STRENGTHS):  # not in the step that keeps them
            late = render(pipeline, KEPT, rows, **arguments)
        assert_differs(late, plain)
        assert_differs(late, by_hand)
        assert torch.equal(render(pipeline, KEPT, rows, **arguments), plain)


def test_kept_keys_and_values_and_a_text_that_was_cut_are_refused() -> None:
    pipeline = tiny_sequence.klein_pipeline()
    transformer = pipeline.transformer
    call: dict[str, Any] = {
        "hidden_states": seeded(1, 1, 4, 16),
        "encoder_hidden_states": seeded(2, 1, 5, tiny.TEXT_DIM),
        "timestep": torch.ones(1),
        "img_ids": torch.zeros(4, 4),
        "txt_ids": torch.zeros(5, 4),
    }
    with guide(pipeline, NEGATIVE, **STRENGTHS), transformer.cache_context("cond"):
        with pytest.raises(NagTextError, match="kv_cache_mode needs processors that keep"):
            transformer(**call, kv_cache_mode="extract")
        block = transformer.transformer_blocks[0]
        handle = block.register_forward_pre_hook(_cut_text, with_kwargs=True)
        with pytest.raises(NagTextError, match="must stay whole: expected 18 tokens, got 7"):
            transformer(**call)
        handle.remove()


def _cut_text(_block: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    return args, kwargs | {"encoder_hidden_states": kwargs["encoder_hidden_states"][:, :3]}


def test_a_text_is_encoded_as_the_prompt_is() -> None:
    pipeline = tiny_sequence.with_chat(
        tiny_sequence.klein_pipeline(joint_attention_dim=3 * tiny.TEXT_DIM)
    )
    torch.manual_seed(4)
    config = UMT5Config(
        vocab_size=len(tiny.LETTERS) + 4,
        d_model=tiny.TEXT_DIM,
        d_kv=8,
        d_ff=16,
        num_layers=27,  # the pipeline reads the layers 9, 18 and 27
        num_heads=1,
    )
    pipeline.register_modules(text_encoder=UMT5EncoderModel(config).eval())
    call: dict[str, Any] = {
        "prompt": ["a fox", "snow"],
        "prompt_embeds": None,
        "max_sequence_length": 12,
    }
    with install(pipeline) as nag:
        with nag.guide("a tree", max_sequence_length=12, **STRENGTHS):
            guided = render(pipeline, FAMILY, 2, **call)
        with torch.no_grad():
            embeds, _ = pipeline.encode_prompt("a tree", max_sequence_length=12)
        with nag.guide(NegativeText(embeds), **STRENGTHS):
            assert torch.equal(render(pipeline, FAMILY, 2, **call), guided)
        assert_differs(guided, render(pipeline, FAMILY, 2, **call))
