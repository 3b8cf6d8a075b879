"""LTXImageToVideoPipeline on real classes at tiny size: clips that begin with an image."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LTXImageToVideoPipeline
from PIL import Image

from nag.params import NagParams
from pipelines.catalog.clip_rules import check_request
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.clip_inputs import ClipInputs, InputFile, InputFiles
from pipelines.context_parallel.divisibility import check_parallel
from pipelines.errors import RequestError
from pipelines.families.ltx import LTXImageToVideoModel
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from tests.builders import tiny
from tests.nag.reference import Guidance, cross_attention_by_hand

FRAMES, SIZE, SHARP = 9, 32, NagParams(9, 2.5, 0.5)
REQUEST = GenerationRequest(
    "a circle",
    "red",
    VideoShape(FRAMES, SIZE, SIZE),
    8.0,
    SamplingParams(num_inference_steps=3, guidance_scale=1.0, flow_shift=None, seed=3),
    SHARP,
)
CFG = replace(REQUEST.sampling, guidance_scale=3.0, guidance_rescale=0.7)
GUIDED = replace(REQUEST, method="cfg+nag", sampling=CFG)


def picture(seed: int) -> ClipInputs:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
    return ClipInputs(image=image)


def stock() -> Any:
    parts: Any = tiny.ltx_pipeline().components
    pipeline = LTXImageToVideoPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


CONFIG = ModelConfig(
    name="ltx",
    family="ltx",
    pipeline="LTXImageToVideoPipeline",
    source="package:tiny",
    grid=ShapeGrid(8, 32, 32),
    sampling=SamplingDefaults(3, 1.0, FRAMES, SIZE, SIZE, 8.0),
    dtype="float32",
    device="cpu",
    max_sequence_length=16,
)


@pytest.fixture(scope="module")
def model() -> LTXImageToVideoModel:
    return LTXImageToVideoModel(CONFIG, stock(), torch.device("cpu"))


def denoise(model: LTXImageToVideoModel, request: GenerationRequest, seed: int = 0) -> torch.Tensor:
    embeddings = replace(model.encode_text(request), inputs=picture(seed))
    return model.denoise(request, embeddings, lambda _step: None)


def render_by_hand(request: GenerationRequest, guidance: Any, pipeline: Any, **other: Any) -> Any:
    """Return the latents of a stock pipeline, called as its own users call it."""
    image = picture(0).image
    assert image is not None
    with guidance:
        return pipeline(
            image=Image.fromarray(image.numpy()),
            prompt=request.prompt,
            height=SIZE,
            width=SIZE,
            num_frames=FRAMES,
            frame_rate=8.0,
            num_inference_steps=3,
            guidance_scale=request.sampling.guidance_scale,
            max_sequence_length=16,
            generator=torch.Generator().manual_seed(3),
            output_type="latent",
            **{
                "negative_prompt": "",
                "guidance_rescale": request.sampling.guidance_rescale,
                **other,
            },
        ).frames


def test_an_unguided_clip_is_the_stock_pipelines_bit_for_bit(model: LTXImageToVideoModel) -> None:
    plain = render_by_hand(REQUEST, nullcontext(), stock())
    for request in (replace(REQUEST, method="none"), replace(REQUEST, nag=NagParams(1))):
        assert torch.equal(denoise(model, request), plain)


@pytest.mark.parametrize("request_", [REQUEST, GUIDED], ids=["nag", "cfg+nag"])
def test_a_guided_clip_is_that_of_cross_attention_by_hand(
    model: LTXImageToVideoModel, request_: GenerationRequest
) -> None:
    embeddings = model.encode_text(request_)
    assert embeddings.negative_prompt_embeds is not None
    guidance = Guidance(
        embeddings.negative_prompt_embeds,
        embeddings.negative_prompt_attention_mask,
        scale=SHARP.nag_scale,
        tau=SHARP.nag_tau,
        alpha=SHARP.nag_alpha,
        unconditional=embeddings.unconditional_embeds,
    )
    pipeline = stock()
    expected = render_by_hand(request_, cross_attention_by_hand(pipeline, guidance), pipeline)
    plain = render_by_hand(request_, nullcontext(), pipeline)
    found = denoise(model, request_)
    assert (found - expected).abs().max() < 8e-5
    assert (found - plain).abs().max() > 1e-3
    assert (model.nag_coverage.guided, model.nag_coverage.total) == (2, 2)


def test_the_rescale_of_a_guided_prediction_reaches_the_pipeline(
    model: LTXImageToVideoModel,
) -> None:
    request = replace(GUIDED, method="cfg")
    pipeline = stock()
    found = denoise(model, request)
    with_it, without = (
        render_by_hand(request, nullcontext(), pipeline, negative_prompt="red", **other)
        for other in ({}, {"guidance_rescale": 0.0})
    )
    assert torch.equal(found, with_it)
    assert not torch.equal(found, without)


def test_a_clip_begins_with_its_image_and_is_the_same_alone_and_after_another(
    model: LTXImageToVideoModel,
) -> None:
    alone = denoise(model, REQUEST)
    torch.manual_seed(5)
    other = denoise(model, GUIDED, 1)
    assert torch.equal(denoise(model, REQUEST), alone)
    num_first = alone.shape[1] // 3  # there are three frames of latents
    assert torch.equal(denoise(model, GUIDED)[:, :num_first], alone[:, :num_first])
    assert not torch.equal(other[:, :num_first], alone[:, :num_first])
    frames = model.decode(REQUEST, alone).result().frames
    assert (frames.shape, frames.dtype) == ((FRAMES, SIZE, SIZE, 3), np.uint8)


def test_an_image_is_needed_and_a_group_is_refused() -> None:
    with pytest.raises(RequestError, match="image is missing: ltx begins with one"):
        check_request(CONFIG, REQUEST)
    first = InputFiles(image=InputFile("0" * 64, "a.png"))
    check_request(CONFIG, replace(REQUEST, inputs=first))
    geometry: Any = None  # refused before it is read
    with pytest.raises(RequestError, match="LTXImageToVideoPipeline renders .* on one device"):
        check_parallel(ParallelConfig(ulysses=2), geometry, REQUEST.shape, CONFIG)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling": replace(REQUEST.sampling, guidance_rescale=0.5)}, "no classifier-free"),
        ({"audio": False}, "ltx makes no sound: leave audio out"),
    ],
)
def test_a_value_without_an_effect_is_refused(changes: dict[str, Any], message: str) -> None:
    first = InputFiles(image=InputFile("0" * 64, "a.png"))
    with pytest.raises(RequestError, match=message):
        check_request(CONFIG, replace(REQUEST, inputs=first, **changes))
