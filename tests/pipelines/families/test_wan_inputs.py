"""Wan's pipelines whose clips begin with images or videos, and SkyReels', on tiny real classes."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nag
from nag.params import NagParams
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.catalog.model_folder import inspect_model
from pipelines.clip_inputs import NO_INPUTS, ClipInputs
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.registry import driver_of, load_denoiser, load_model
from pipelines.families.wan_inputs import to_picture, to_pictures
from pipelines.request import GenerationRequest, SamplingParams, TextEmbeddings, VideoShape
from tests.builders import tiny, tiny_skyreels, tiny_wan
from tests.nag.reference import Guidance, cross_attention_by_hand

FRAMES, SIZE, SHARP = 5, 32, NagParams(9, 2.5, 0.5)


def picture(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)


@dataclass(frozen=True)
class Kind:
    """One model: its folder, its pipeline, and the inputs of its clips.

    Args:
        stock: builds the pipeline.
        saved: builds the pipeline that saves the folder; None for `stock`.
        others: other values of each input.
        num_attentions: text attentions of all transformers.
    """

    pipeline: str
    stock: Callable[[], Any]
    inputs: ClipInputs = NO_INPUTS
    others: tuple[ClipInputs, ...] = ()
    arguments: Callable[[ClipInputs], dict[str, Any]] = lambda _inputs: {}
    saved: Callable[[], Any] | None = None
    num_attentions: int = 2
    num_tokens: int = 16


def movie(seed: int) -> torch.Tensor:
    return torch.stack([picture(10 * seed + frame) for frame in range(FRAMES)])


def checkered(length: int) -> torch.Tensor:
    """Return a mask of squares, (T, H, W)."""
    index = torch.arange(SIZE) // length
    squares = (index[:, None] + index[None]) % 2
    return (255 * squares).to(torch.uint8).expand(FRAMES, SIZE, SIZE).contiguous()


def video_arguments(inputs: ClipInputs) -> dict[str, Any]:
    assert inputs.video is not None
    return {"video": to_pictures(inputs.video), "strength": 0.7, "num_inference_steps": 4}


def vace_arguments(inputs: ClipInputs) -> dict[str, Any]:
    assert inputs.video is not None
    assert inputs.mask is not None
    return {
        "video": to_pictures(inputs.video),
        "mask": to_pictures(inputs.mask),
        "reference_images": [to_picture(image) for image in inputs.reference_images],
        "conditioning_scale": 0.8,
    }


def image_arguments(inputs: ClipInputs) -> dict[str, Any]:
    assert inputs.image is not None
    last = {} if inputs.last_image is None else {"last_image": to_picture(inputs.last_image)}
    return {"image": to_picture(inputs.image), **last}


IMAGE, OTHER = ClipInputs(image=picture(0)), ClipInputs(image=picture(1))
PAIR = ClipInputs(image=picture(0), last_image=picture(2))
MOVIE = ClipInputs(video=movie(1))
VACE = ClipInputs(
    reference_images=(picture(5)[:, :24], picture(6)[:16]), video=movie(1), mask=checkered(8)
)
IMAGE_TO_VIDEO: dict[str, Any] = {
    "pipeline": "WanImageToVideoPipeline",
    "arguments": image_arguments,
}
PAIRS = (replace(PAIR, image=picture(1)), replace(PAIR, last_image=picture(1)))
KINDS = {
    "wan2.1-i2v": Kind(
        stock=tiny_wan.STOCK["wan2.1-i2v"], inputs=IMAGE, others=(OTHER,), num_tokens=512,
        **IMAGE_TO_VIDEO,
    ),
    "wan2.1-flf2v": Kind(
        stock=tiny_wan.STOCK["wan2.1-flf2v"], inputs=PAIR, others=PAIRS, num_tokens=512,
        **IMAGE_TO_VIDEO,
    ),
    "wan2.2-i2v": Kind(
        stock=tiny_wan.STOCK["wan2.2-i2v"], inputs=IMAGE, others=(OTHER, PAIR), num_attentions=4,
        **IMAGE_TO_VIDEO,
    ),
    "wan2.2-5b": Kind("WanPipeline", tiny_wan.STOCK["wan2.2-5b"]),
    "wan2.2-5b-i2v": Kind(
        stock=tiny_wan.STOCK["wan2.2-5b-i2v"], saved=tiny_wan.STOCK["wan2.2-5b"], inputs=IMAGE,
        others=(OTHER,), **IMAGE_TO_VIDEO,
    ),
    "wan2.1-v2v": Kind(
        "WanVideoToVideoPipeline", tiny_wan.STOCK["wan2.1-v2v"], MOVIE,
        (ClipInputs(video=movie(2)),), video_arguments, saved=tiny.wan_pipeline,
    ),
    "wan2.1-vace": Kind(
        "WanVACEPipeline", tiny_wan.STOCK["wan2.1-vace"], VACE,
        (
            replace(VACE, video=movie(2)),
            replace(VACE, mask=checkered(16)),
            replace(VACE, mask=None),
            replace(VACE, reference_images=VACE.reference_images[:1]),
            replace(VACE, reference_images=()),
            NO_INPUTS,
        ),
        vace_arguments, num_attentions=3,
    ),
    "skyreels-t2v": Kind("SkyReelsV2Pipeline", tiny_skyreels.STOCK["skyreels-t2v"]),
    "skyreels-i2v": Kind(
        "SkyReelsV2ImageToVideoPipeline", tiny_skyreels.STOCK["skyreels-i2v"], IMAGE, (OTHER,),
        image_arguments, num_tokens=512,
    ),
    "skyreels-df": Kind(
        "SkyReelsV2DiffusionForcingPipeline", tiny_skyreels.STOCK["skyreels-df"],
        arguments=lambda _inputs: {"fps": 8.0},
    ),
    "skyreels-df-i2v": Kind(
        "SkyReelsV2DiffusionForcingImageToVideoPipeline", tiny_skyreels.STOCK["skyreels-df-i2v"],
        IMAGE, (OTHER, PAIR), image_arguments, saved=tiny_skyreels.diffusion_forcing,
    ),
}  # fmt: skip
REQUEST = GenerationRequest(
    "a circle",
    "red",
    VideoShape(FRAMES, SIZE, SIZE),
    8.0,
    SamplingParams(num_inference_steps=3, guidance_scale=1.0, flow_shift=None, seed=3),
    SHARP,
)
GUIDED = replace(REQUEST, method="cfg+nag", sampling=replace(REQUEST.sampling, guidance_scale=3.0))


@cache
def stock_of(name: str) -> Any:
    return KINDS[name].stock()


@pytest.fixture(scope="module", params=list(KINDS))
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> DiffusersModel:
    name = request.param
    folder = tmp_path_factory.mktemp("model") / "weights"
    (KINDS[name].saved or KINDS[name].stock)().save_pretrained(folder)
    return load(name, folder)


def load(name: str, folder: Path, load: Any = load_model) -> DiffusersModel:
    config = ModelConfig(
        name=name,
        family="wan",
        pipeline=KINDS[name].pipeline,
        source=str(folder),
        grid=ShapeGrid(4, 32, 32),
        sampling=SamplingDefaults(3, 1.0, FRAMES, SIZE, SIZE, 8.0),
        dtype="float32",
        device="cpu",
        max_sequence_length=KINDS[name].num_tokens,
        conditioning_scale=0.8 if KINDS[name].pipeline == "WanVACEPipeline" else 1.0,
    )
    return load(config, inspect_model(config, folder / "mine.yaml"), 1)


def embeddings_of(
    model: DiffusersModel, request: GenerationRequest, inputs: ClipInputs | None = None
) -> TextEmbeddings:
    kind = KINDS[model.config.name]
    return replace(model.encode_text(request), inputs=kind.inputs if inputs is None else inputs)


def denoise(
    model: DiffusersModel,
    request: GenerationRequest,
    inputs: ClipInputs | None = None,
    rank: DiffusersModel | None = None,
) -> torch.Tensor:
    if model.config.pipeline_class.takes_strength:
        sampling = replace(request.sampling, strength=0.7, num_inference_steps=4)
        request = replace(request, sampling=sampling)
    embeddings = embeddings_of(model, request, inputs)
    return (rank or model).denoise(request, embeddings, lambda _step: None)


def render_by_hand(
    model: DiffusersModel, request: GenerationRequest, guidance: Any, output_type: str
) -> Any:
    """Return the clip of a stock pipeline, called as its own users call it."""
    kind = KINDS[model.config.name]
    frames = {} if model.config.pipeline_class.takes_strength else {"num_frames": FRAMES}
    arguments = {"num_inference_steps": 3, **frames, **kind.arguments(kind.inputs)}
    with guidance:
        found = stock_of(model.config.name)(
            prompt=request.prompt,
            negative_prompt="",
            height=SIZE,
            width=SIZE,
            guidance_scale=request.sampling.guidance_scale,
            max_sequence_length=kind.num_tokens,
            generator=torch.Generator().manual_seed(3),
            output_type=output_type,
            **arguments,
        ).frames
    num_references = len(kind.inputs.reference_images)
    return found[:, :, num_references:] if output_type == "latent" else found


@pytest.mark.parametrize("request_", [REQUEST, GUIDED], ids=["nag", "cfg+nag"])
def test_a_clip_is_that_of_the_stock_pipeline_guided_by_hand(
    model: DiffusersModel, request_: GenerationRequest
) -> None:
    """Cross-attention by hand in float64, and noise that the stock pipeline draws itself."""
    embeddings = embeddings_of(model, request_)
    assert embeddings.negative_prompt_embeds is not None
    guidance = Guidance(
        embeddings.negative_prompt_embeds,
        scale=SHARP.nag_scale,
        tau=SHARP.nag_tau,
        alpha=SHARP.nag_alpha,
        unconditional=embeddings.unconditional_embeds,
    )
    hand = cross_attention_by_hand(stock_of(model.config.name), guidance)
    expected = render_by_hand(model, request_, hand, output_type="latent")
    plain = render_by_hand(model, request_, nullcontext(), output_type="latent")
    found = denoise(model, request_)
    assert (found - expected).abs().max() < 8e-5
    assert (found - plain).abs().max() > 1e-2


def test_frames_are_those_of_the_stock_pipeline(model: DiffusersModel) -> None:
    guidance = nag.guide(
        stock_of(model.config.name), "red", SHARP,
        max_sequence_length=KINDS[model.config.name].num_tokens,
    )  # fmt: skip
    expected = render_by_hand(model, REQUEST, guidance, output_type="np")[0] * 255
    found = model.decode(REQUEST, denoise(model, REQUEST)).result().frames
    assert (found.shape, found.dtype) == ((FRAMES, SIZE, SIZE, 3), np.uint8)
    assert np.abs(found - expected).max() <= 0.51  # rounded to bytes


def test_a_scale_of_1_is_the_stock_pipeline_bit_for_bit(model: DiffusersModel) -> None:
    """The driver takes over the very weights, since loaded ones lie elsewhere and round so."""
    plain = render_by_hand(model, REQUEST, nullcontext(), output_type="latent")
    config = model.config
    driver = driver_of(config.pipeline_class)
    own = driver(config, stock_of(config.name), torch.device("cpu"))
    try:
        for request in (
            replace(REQUEST, nag=NagParams(1)),
            replace(REQUEST, negative_prompt=""),
            replace(REQUEST, method="none"),
        ):
            assert torch.equal(denoise(own, request), plain)
    finally:
        own.close()


def test_a_clip_is_the_same_alone_and_after_others_with_other_inputs(
    model: DiffusersModel,
) -> None:
    alone = denoise(model, REQUEST)
    for inputs in KINDS[model.config.name].others:
        assert not torch.equal(denoise(model, REQUEST, inputs), alone)
    denoise(model, GUIDED)
    assert torch.equal(denoise(model, REQUEST), alone)


def test_all_text_attention_is_guided(model: DiffusersModel) -> None:
    expected = KINDS[model.config.name].num_attentions
    assert (model.nag_coverage.guided, model.nag_coverage.total) == (expected, expected)


def test_a_rank_without_a_text_encoder_denoises_the_same(model: DiffusersModel) -> None:
    rank = load(model.config.name, Path(model.config.source), load_denoiser)
    assert rank.pipeline.text_encoder is None
    assert torch.equal(denoise(model, REQUEST, rank=rank), denoise(model, REQUEST))


def test_the_boundary_and_the_second_scale_are_those_of_the_stock_pipeline() -> None:
    """Three steps begin at 999, 857 and 600 of 1000: the boundary decides which are low noise."""
    name, kind = "wan2.2-i2v", KINDS["wan2.2-i2v"]
    config = ModelConfig(
        name, "wan", "./weights", ShapeGrid(4, 32, 32),
        SamplingDefaults(3, 1.0, FRAMES, SIZE, SIZE, 8.0), pipeline=kind.pipeline,
        dtype="float32", device="cpu", max_sequence_length=kind.num_tokens,
    )  # fmt: skip
    stock, clips = kind.stock(), list[torch.Tensor]()
    for boundary, second in ((None, None), (0.9, None), (0.9, 1.5), (0.7, 1.5), (0.5, 1.5)):
        config = replace(config, boundary_ratio=boundary)
        driver = driver_of(config.pipeline_class)(config, kind.stock(), torch.device("cpu"))
        sampling = replace(GUIDED.sampling, guidance_scale_2=second)
        request = replace(GUIDED, method="cfg", sampling=sampling)
        clips.append(denoise(driver, request))
        driver.close()
        stock.register_to_config(boundary_ratio=0.7 if boundary is None else boundary)
        expected = stock(
            prompt=request.prompt,
            negative_prompt="red",
            height=SIZE,
            width=SIZE,
            num_frames=FRAMES,
            num_inference_steps=3,
            guidance_scale=3.0,
            guidance_scale_2=second,
            max_sequence_length=kind.num_tokens,
            generator=torch.Generator().manual_seed(3),
            output_type="latent",
            **kind.arguments(kind.inputs),
        ).frames
        assert (clips[-1] - expected).abs().max() < 1e-5, (boundary, second)
    distances = [
        (one - other).abs().max().item()
        for index, one in enumerate(clips)
        for other in clips[:index]
    ]
    assert min(distances) > 1e-3, "each value has its own clip"
