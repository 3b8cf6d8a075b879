"""Models made from Flux: what single pipelines have besides."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import LongCatImageEditPipeline
from diffusers.pipelines.longcat_image import pipeline_longcat_image_edit
from transformers import T5Config, T5EncoderModel

from nag import NagTextError, NegativeText, encode_negative_prompt, guide
from tests.builders import tiny, tiny_flux_copies, tiny_joint
from tests.nag.joint_by_hand import joint_attention_by_hand
from tests.nag.joint_families import FAMILIES, assert_agrees, assert_differs, render
from tests.nag.reference import image

BRIA, LONGCAT = FAMILIES["Bria"], FAMILIES["LongCat-Image"]


def test_a_text_of_bria_is_encoded_as_its_prompt() -> None:
    pipeline = BRIA.build()
    pipeline.register_modules(
        text_encoder=tiny.text_encoder(T5Config, T5EncoderModel), tokenizer=tiny.tokenizer()
    )
    prompt: dict[str, Any] = {"prompt": "a red fox", "prompt_embeds": None}
    with torch.no_grad():
        by_itself = pipeline.encode_prompt("a tree", num_images_per_prompt=1)[0]
    encoded = encode_negative_prompt(pipeline, "a tree")
    assert torch.equal(encoded.embeds, by_itself)
    plain = render(pipeline, BRIA, **prompt)
    with guide(pipeline, "a tree", **BRIA.strengths()):
        guided = render(pipeline, BRIA, **prompt)
    with guide(pipeline, NegativeText(by_itself), **BRIA.strengths()):
        assert torch.equal(render(pipeline, BRIA, **prompt), guided)
    assert_differs(guided, plain)


class EditOfEmbeddings(LongCatImageEditPipeline):
    """Takes embeddings alone, as its signature says; diffusers 0.42 fails without a prompt."""

    def encode_prompt(
        self,
        prompt: Any = None,
        image: Any = None,
        num_images_per_prompt: int | None = 1,
        prompt_embeds: Any = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        text_ids = pipeline_longcat_image_edit.prepare_pos_ids(num_token=prompt_embeds.shape[1])
        return prompt_embeds, text_ids


class TextProcessor:
    """Stands for the processor of text and images, which embeddings leave unused."""

    image_processor = None


def edit_pipeline() -> Any:
    stock = tiny_flux_copies.longcat_image_pipeline()
    parts: dict[str, Any] = {
        **stock.components,
        "vae": tiny_joint.autoencoder(latent_channels=16),
        "text_processor": TextProcessor(),
    }
    return tiny_joint.finished(EditOfEmbeddings(**parts))


def test_an_edit_of_an_image_is_guided_as_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_longcat_image_edit, "calculate_dimensions", _small)
    pipeline = edit_pipeline()
    negative, guidance, _ = LONGCAT.negative()
    unconditional = LONGCAT.texts(1, 5, "negative_")
    guidance = replace(guidance, unconditional=unconditional["negative_prompt_embeds"])
    call: dict[str, Any] = {
        **LONGCAT.texts(1, 1),
        **unconditional,
        "image": image(),
        "guidance_scale": 3.0,
        "num_inference_steps": 2,
        "output_type": "latent",
        "return_dict": False,
    }

    def edited() -> torch.Tensor:
        return pipeline(**call, generator=torch.Generator().manual_seed(0))[0]

    plain = edited()
    with joint_attention_by_hand(pipeline, guidance, None, LONGCAT.rotate):
        by_hand = edited()
    with guide(pipeline, negative, **LONGCAT.strengths()):
        guided = edited()
    assert_agrees(guided, by_hand)
    assert_differs(guided, plain)
    with (
        pytest.raises(NagTextError, match="encodes a text together with an image"),
        guide(pipeline, "red"),
    ):
        pass


def _small(*_: Any) -> tuple[int, int]:
    return 64, 64
