"""LTXConditionPipeline on real classes at tiny size: clips from a first and a last image."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import LTXConditionPipeline
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image

from nag.params import NagParams
from pipelines.catalog.keys.scheduler_config import SchedulerConfig
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.clip_inputs import NO_INPUTS, ClipInputs
from pipelines.context_parallel.divisibility import check_parallel
from pipelines.errors import ModelConfigError, RequestError
from pipelines.families.ltx import LTXConditionModel
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from tests.builders import tiny
from tests.nag.reference import Guidance, cross_attention_by_hand

# FlowMatchEulerDiscreteScheduler makes an array of the pipeline's tensor, for which NumPy 2 warns.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
FRAMES, SIZE, SHARP = 9, 32, NagParams(9, 2.5, 0.5)
REQUEST = GenerationRequest(
    "a circle",
    "red",
    VideoShape(FRAMES, SIZE, SIZE),
    8.0,
    SamplingParams(num_inference_steps=3, guidance_scale=1.0, flow_shift=None, seed=3),
    SHARP,
)
GUIDED = replace(REQUEST, method="cfg+nag", sampling=replace(REQUEST.sampling, guidance_scale=3.0))


def picture(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)


INPUTS = {
    "text": NO_INPUTS,
    "image": ClipInputs(image=picture(0)),
    "last": ClipInputs(last_image=picture(1)),
    "both": ClipInputs(image=picture(0), last_image=picture(1)),
}


def stock() -> Any:
    parts: Any = tiny.ltx_pipeline().components
    pipeline = LTXConditionPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def config_of(**asked: Any) -> ModelConfig:
    return ModelConfig(
        name="ltx",
        family="ltx",
        pipeline="LTXConditionPipeline",
        source="package:tiny",
        grid=ShapeGrid(8, 32, 32),
        sampling=SamplingDefaults(3, 1.0, FRAMES, SIZE, SIZE, 8.0),
        dtype="float32",
        device="cpu",
        max_sequence_length=16,
        **asked,
    )


@pytest.fixture(scope="module")
def model() -> LTXConditionModel:
    return LTXConditionModel(config_of(image_cond_noise_scale=0.2), stock(), torch.device("cpu"))


def denoise(model: LTXConditionModel, request: GenerationRequest, name: str) -> torch.Tensor:
    embeddings = replace(model.encode_text(request), inputs=INPUTS[name])
    return model.denoise(request, embeddings, lambda _step: None)


def render_by_hand(request: GenerationRequest, name: str, guidance: Any, pipeline: Any) -> Any:
    """Return the latents of a stock pipeline, called as its own users call it."""
    inputs = INPUTS[name]
    conditions = [
        LTXVideoCondition(image=Image.fromarray(image.numpy()), frame_index=frame)
        for image, frame in ((inputs.image, 0), (inputs.last_image, FRAMES - 1))
        if image is not None
    ]
    with guidance:
        return pipeline(
            conditions=conditions or None,
            prompt=request.prompt,
            negative_prompt="",
            height=SIZE,
            width=SIZE,
            num_frames=FRAMES,
            frame_rate=8.0,
            num_inference_steps=3,
            guidance_scale=request.sampling.guidance_scale,
            image_cond_noise_scale=0.2,
            max_sequence_length=16,
            generator=torch.Generator().manual_seed(3),
            output_type="latent",
        ).frames


@pytest.mark.parametrize("name", INPUTS)
def test_an_unguided_clip_is_the_stock_pipelines_bit_for_bit(
    model: LTXConditionModel, name: str
) -> None:
    plain = render_by_hand(REQUEST, name, nullcontext(), stock())
    for request in (replace(REQUEST, method="none"), replace(REQUEST, nag=NagParams(1))):
        assert torch.equal(denoise(model, request, name), plain)


@pytest.mark.parametrize("request_", [REQUEST, GUIDED], ids=["nag", "cfg+nag"])
@pytest.mark.parametrize("name", ["image", "both"])
def test_a_guided_clip_is_that_of_cross_attention_by_hand(
    model: LTXConditionModel, name: str, request_: GenerationRequest
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
    hand = cross_attention_by_hand(pipeline, guidance)
    expected = render_by_hand(request_, name, hand, pipeline)
    plain = render_by_hand(request_, name, nullcontext(), pipeline)
    found = denoise(model, request_, name)
    assert (found - expected).abs().max() < 8e-5
    assert (found - plain).abs().max() > 1e-3
    assert (model.nag_coverage.guided, model.nag_coverage.total) == (2, 2)


def test_each_image_changes_a_clip_and_leaves_nothing_for_the_next(
    model: LTXConditionModel,
) -> None:
    alone = {name: denoise(model, REQUEST, name) for name in INPUTS}
    torch.manual_seed(5)
    for name in reversed(INPUTS):
        assert torch.equal(denoise(model, REQUEST, name), alone[name])
    assert len({latents.numpy().tobytes() for latents in alone.values()}) == len(INPUTS)
    assert len({latents.shape for latents in alone.values()}) == 1  # no token of an image is left


def test_a_clip_of_two_images_decodes_to_frames(model: LTXConditionModel) -> None:
    frames = model.decode(REQUEST, denoise(model, REQUEST, "both")).result().frames
    assert frames.shape == (FRAMES, SIZE, SIZE, 3)


def test_listed_timesteps_reach_the_transformer() -> None:
    scheduler = SchedulerConfig(timesteps=(1000, 725, 0.03))
    model = LTXConditionModel(config_of(scheduler=scheduler), stock(), torch.device("cpu"))
    seen: list[float] = []
    model.pipeline.transformer.register_forward_pre_hook(
        lambda _module, _arguments, named: seen.append(named["timestep"].max().item()),
        with_kwargs=True,
    )
    denoise(model, REQUEST, "image")
    assert seen == pytest.approx([1000, 725, 0.03])


def test_schedulers_without_a_noise_level_for_each_token_are_refused() -> None:
    for scheduler in (
        SchedulerConfig("UniPCMultistepScheduler"),
        SchedulerConfig("FlowMatchEulerDiscreteScheduler", stochastic_sampling=True),
    ):
        with pytest.raises(ModelConfigError, match="a noise level for each token"):
            config_of(scheduler=scheduler)


def test_a_group_is_refused() -> None:
    geometry: Any = None  # refused before it is read
    with pytest.raises(RequestError, match="LTXConditionPipeline renders .* on one device"):
        check_parallel(ParallelConfig(ulysses=2), geometry, REQUEST.shape, config_of())
