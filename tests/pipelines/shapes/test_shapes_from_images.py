"""The Shapes model that begins with an image: its training inputs, its weights and its clips."""

import json
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch.testing import assert_close

import nag
from pipelines.catalog.files.sources import PACKAGED_WEIGHTS, model_paths
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.clip_inputs import ClipInputs
from pipelines.families.registry import load_model
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from pipelines.shapes.captions import NAMED_SHARES_WITH_IMAGE, caption, phrase
from pipelines.shapes.first_image import as_picture, draw_image, first_image
from pipelines.shapes.judge import judge
from pipelines.shapes.measuring.from_images import (
    FROM_IMAGE,
    MAX_SAME_DIFFERENCE,
    make_image_tasks,
    render_from_images,
)
from pipelines.shapes.measuring.rendering import Sampling, load_pipeline
from pipelines.shapes.training.conditions import encode_images, with_mask
from pipelines.shapes.training.models import IMAGE_MODELS
from pipelines.shapes.training.wan_i2v import CONDITION_CHANNELS, build_transformer
from pipelines.shapes.world import (
    COLOURS,
    FPS,
    NUM_FRAMES,
    SHAPES,
    SIZE_PX,
    render_uint8,
    sample_clip,
)

pytestmark = pytest.mark.models

NAME = "shapes-wan-i2v"
SAMPLING = Sampling(num_steps=8, guidance_scale=1.0)  # as in its YAML


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return load_pipeline(IMAGE_MODELS[NAME])


def test_an_image_is_the_first_frame_and_a_cut_out_differs_in_the_background_alone() -> None:
    one = sample_clip(
        torch.Generator().manual_seed(0), colour="red", shape="cross", background="white"
    )
    drawn = draw_image(first_image(one))
    assert torch.equal(drawn, render_uint8([one])[0, :, 0].permute(1, 2, 0))
    cut_out = draw_image(first_image(one, cut_out=True))
    is_shape = (drawn == torch.tensor(COLOURS["red"], dtype=torch.uint8)).all(dim=-1)
    assert is_shape.sum() > 150
    assert torch.equal(cut_out[is_shape], drawn[is_shape])
    assert cut_out[0, 0].tolist() != drawn[0, 0].tolist()


def test_captions_beside_an_image_mostly_leave_shape_and_colour_to_it() -> None:
    generator = torch.Generator().manual_seed(1)
    texts = [
        caption(sample_clip(generator), generator, NAMED_SHARES_WITH_IMAGE).lower()
        for _ in range(400)
    ]
    naming = [
        sum(any(word in text for word in words) for text in texts)
        for words in (SHAPES, ("left", "right", "up", "down", "still", "rest", "not move"))
    ]
    assert naming[0] < 130 < 230 < naming[1]


def test_training_sees_images_as_the_pipeline_encodes_them(pipeline: Any) -> None:
    model = IMAGE_MODELS[NAME]
    image = first_image(sample_clip(torch.Generator().manual_seed(3)), cut_out=True)
    picture = pipeline.video_processor.preprocess(as_picture(image), height=64, width=64)
    _, condition = pipeline.prepare_latents(
        picture, 1, 16, 64, 64, 17, torch.float32, "cpu", torch.Generator().manual_seed(0)
    )
    ours = with_mask(encode_images(pipeline.vae, [image]))
    assert ours.shape == (1, CONDITION_CHANNELS, *model.latent_shape[1:])
    assert torch.equal(ours[:, :4], condition[:, :4])
    assert_close(ours, condition.detach(), atol=0.15, rtol=0.05)  # encoded in bfloat16


@torch.no_grad()
def test_the_training_begins_with_the_text_to_video_model() -> None:
    generator = torch.Generator().manual_seed(4)
    narrow: Any = WanTransformer3DModel.from_pretrained(
        PACKAGED_WEIGHTS / "shapes-wan", subfolder="transformer", use_safetensors=True
    )
    wide: Any = build_transformer(0)
    noisy = torch.randn(1, 16, 5, 8, 8, generator=generator)
    condition = torch.randn(1, CONDITION_CHANNELS, 5, 8, 8, generator=generator)
    text, time = torch.randn(1, 48, 64, generator=generator), torch.tensor([500.0])
    assert_close(
        wide(torch.cat([noisy, condition], 1), time, text)[0], narrow(noisy, time, text)[0]
    )


def test_the_package_holds_the_model_and_it_is_small() -> None:
    path = model_paths()[NAME]
    folder = inspect_model(load_model_config(path), path).folder
    assert folder == PACKAGED_WEIGHTS / NAME
    assert sum(file.stat().st_size for file in folder.rglob("*")) <= 9_000_000
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == (
        "WanImageToVideoPipeline"
    )
    for part in ("vae", "text_encoder", "tokenizer"):
        ours, base = (
            {file.name: file.read_bytes() for file in (PACKAGED_WEIGHTS / name / part).iterdir()}
            for name in (NAME, "shapes-wan")
        )
        assert ours == base


@pytest.mark.parametrize("is_cut_out", [False, True])
def test_clips_begin_with_their_image_and_move_as_prompted(pipeline: Any, is_cut_out: bool) -> None:
    """Over more clips docs/measurements/image_to_video.md measures the shape, which may change."""
    tasks = make_image_tasks(
        24, seed=7, is_cut_out=is_cut_out, always=("motion", "background"), never=FROM_IMAGE
    )[::4]
    clips = list(render_from_images(pipeline, tasks, SAMPLING))
    pairs = list(zip(tasks, clips, strict=True))
    assert sum(one.verdict.colour == task.clip.colour for task, one in pairs) >= 5
    assert sum(one.follows(task) for task, one in pairs) >= 5
    assert sum(one.keeps(task) for task, one in pairs) >= 5
    is_the_image = [one.first_frame_difference < MAX_SAME_DIFFERENCE for one in clips]
    assert all(is_the_image) or is_cut_out


def test_a_negative_prompt_changes_the_motion(pipeline: Any) -> None:
    task = make_image_tasks(1, seed=8, is_cut_out=False, never=("motion",))
    (plain,) = render_from_images(pipeline, task, SAMPLING)
    assert plain.verdict.motion is not None
    negative = phrase("motion", plain.verdict.motion), load_model_config(model_paths()[NAME]).nag
    (guided,) = render_from_images(pipeline, task, SAMPLING, negative)
    assert guided.verdict.motion != plain.verdict.motion
    assert guided.verdict.colour == task[0].clip.colour


def test_scale_1_is_the_plain_model_bit_for_bit(pipeline: Any) -> None:
    def latents(scale: float | None) -> torch.Tensor:
        params = nag.NagParams(nag_scale=scale or 1)
        guided = nag.guide(pipeline, "moving left", params, max_sequence_length=48)
        with guided if scale else nullcontext():
            return pipeline(
                as_picture(first_image(sample_clip(torch.Generator().manual_seed(1)))),
                "a thing",
                height=SIZE_PX,
                width=SIZE_PX,
                num_frames=NUM_FRAMES,
                num_inference_steps=2,
                guidance_scale=1.0,
                generator=torch.Generator().manual_seed(2),
                output_type="latent",
                max_sequence_length=48,
            ).frames

    assert torch.equal(latents(1), latents(None))
    assert not torch.equal(latents(3), latents(None))


def test_the_farms_driver_renders_what_the_stock_pipeline_renders(pipeline: Any) -> None:
    (task,) = make_image_tasks(1, seed=9, is_cut_out=False, always=("motion",))
    (stock,) = render_from_images(pipeline, [task], SAMPLING)
    path = model_paths()[NAME]
    config = load_model_config(path)
    request = GenerationRequest(
        task.prompt,
        "",
        VideoShape(NUM_FRAMES, SIZE_PX, SIZE_PX),
        FPS,
        SamplingParams(
            SAMPLING.num_steps, SAMPLING.guidance_scale, config.scheduler.flow_shift, task.seed
        ),
        config.nag,
    )
    model = load_model(config, inspect_model(config, path), num_threads=1)
    inputs = ClipInputs(image=draw_image(first_image(task.clip)))
    embeddings = replace(model.encode_text(request), inputs=inputs)
    latents = model.denoise(request, embeddings, lambda _step: None)
    found = judge(model.decode(request, latents).result().frames)
    model.close()
    assert replace(found, error=0, moved_px=None) == replace(stock.verdict, error=0, moved_px=None)
