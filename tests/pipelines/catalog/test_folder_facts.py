"""Clips and folders that a Wan pipeline would not render right are refused before a run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nag.params import NagParams
from pipelines.catalog.clip_rules import check_request
from pipelines.catalog.folder_facts import check_by_facts, check_facts, needs_facts, read_facts
from pipelines.catalog.keys.scheduler_config import SchedulerConfig
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.clip_inputs import InputFile, InputFiles
from pipelines.diffusion_forcing import DiffusionForcing
from pipelines.errors import ModelFolderError, RequestError
from pipelines.request import GenerationRequest, SamplingParams, VideoShape

IMAGES, VIDEO, VACE = "WanImageToVideoPipeline", "WanVideoToVideoPipeline", "WanVACEPipeline"
SKYREELS = "SkyReelsV2ImageToVideoPipeline"
FORCING = "SkyReelsV2DiffusionForcingPipeline"
FORCING_IMAGE = "SkyReelsV2DiffusionForcingImageToVideoPipeline"
BLOCKS = DiffusionForcing(overlap_history=17, causal_block_size=5)
FILE = InputFile("0" * 64, "a.png")
ENCODER = {
    "image_encoder": ["transformers", "CLIPVisionModel"],
    "image_processor": ["transformers", "CLIPImageProcessor"],
}
SECOND = {"transformer_2": ["diffusers", "WanTransformer3DModel"]}
# the configs of a folder: model_index.json, transformer, vae
Parts = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
TEXT: Parts = ({}, {}, {})
WITH_ENCODER: Parts = (ENCODER, {"in_channels": 36, "image_dim": 1280}, {})
PAIRS: Parts = (ENCODER, {**WITH_ENCODER[1], "pos_embed_seq_len": 514}, {})
TWO: Parts = (SECOND, {"in_channels": 36}, {})
FIVE: Parts = (
    {"expand_timesteps": True}, {"in_channels": 48}, {"z_dim": 48, "scale_factor_spatial": 16},
)  # fmt: skip


def save(folder: Path, parts: Parts) -> Path:
    for name, config in zip(("transformer", "vae"), parts[1:], strict=True):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
    (folder / "model_index.json").write_text(json.dumps(parts[0]))
    return folder


def config_of(pipeline: str | None, **changes: Any) -> ModelConfig:
    sampling = SamplingDefaults(2, 1.0, 5, 32, 32, 8.0)
    grid = ShapeGrid(4, 16, 16)
    return ModelConfig("mine", "wan", "./mine", grid, sampling, pipeline=pipeline, **changes)


def request_of(inputs: InputFiles, **sampling: Any) -> GenerationRequest:
    params = replace(SamplingParams(4, 3.0, None, 0), **sampling)
    shape = VideoShape(5, 32, 32)
    method = "cfg" if params.guidance_scale > 1 else "nag"
    return GenerationRequest("a", "", shape, 8.0, params, NagParams(), method, inputs=inputs)


FIRST, BOTH = InputFiles(image=FILE), InputFiles(image=FILE, last_image=FILE)


@pytest.mark.parametrize(
    ("parts", "pipeline"),
    [
        (TEXT, None), (TEXT, VIDEO), (TEXT, VACE), (WITH_ENCODER, IMAGES), (PAIRS, IMAGES),
        (TWO, IMAGES), (FIVE, IMAGES), (FIVE, None), (WITH_ENCODER, SKYREELS), (PAIRS, SKYREELS),
        (TEXT, FORCING), (TEXT, FORCING_IMAGE),
    ],
)  # fmt: skip
def test_the_folders_of_the_published_models_fit(
    tmp_path: Path, parts: Parts, pipeline: str | None
) -> None:
    check_facts(config_of(pipeline), save(tmp_path, parts))


@pytest.mark.parametrize(
    ("parts", "config", "message"),
    [
        (TEXT, config_of(IMAGES), "cannot begin with an image: its transformer reads 16 channels"),
        (
            TEXT,
            config_of(FORCING, diffusion_forcing=replace(BLOCKS, base_num_frames=121)),
            "base_num_frames must be 20 times a whole number, minus 3: 117 or 137, not 121",
        ),
        (
            ({}, {"num_frame_per_block": 2}, {}),
            config_of(FORCING, diffusion_forcing=DiffusionForcing(overlap_history=17)),
            "base_num_frames must be 8 times a whole number, minus 3: 93 or 101, not 97",
        ),
        (
            TEXT,
            config_of(FORCING, diffusion_forcing=DiffusionForcing(overlap_history=16)),
            "overlap_history must be a multiple of 4 plus 1: 13 or 17, not 16",
        ),
        (
            TEXT,
            config_of(FORCING_IMAGE, diffusion_forcing=BLOCKS),
            "causal_block_size must be 1 where a clip begins with an image, not 5",
        ),
        (
            ({}, {"num_frame_per_block": 0}, {}),
            config_of(FORCING),
            "num_frame_per_block must be a whole number above 0, not 0",
        ),
        (TEXT, config_of(SKYREELS), "cannot begin with an image: its transformer reads 16"),
        (
            WITH_ENCODER,
            config_of(SKYREELS, max_sequence_length=226),
            "set max_sequence_length to 512 in the YAML of mine, not 226",
        ),
        (
            ({}, *WITH_ENCODER[1:]),
            config_of(IMAGES),
            "lacks image_encoder or image_processor",
        ),
        (
            WITH_ENCODER,
            config_of(IMAGES, max_sequence_length=256),
            "set max_sequence_length to 512 in the YAML of mine, not 256",
        ),
        (TEXT, config_of(None, boundary_ratio=0.9), "leave boundary_ratio out"),
        (
            (SECOND, {}, {}),
            config_of(VIDEO),
            "two transformers, and WanVideoToVideoPipeline would render with the first alone",
        ),
        (FIVE, config_of(VIDEO), "cannot render with a Wan 2.2 5B"),
        (FIVE, config_of(VACE), "cannot render with a Wan 2.2 5B"),
        (
            ({}, {"in_channels": "many"}, {}),
            config_of(IMAGES),
            "in_channels must be a whole number above 0, not 'many'",
        ),
    ],
)
def test_a_folder_that_the_pipeline_would_not_render_right_is_refused(
    tmp_path: Path, parts: Parts, config: ModelConfig, message: str
) -> None:
    with pytest.raises(ModelFolderError, match=message):
        check_facts(config, save(tmp_path, parts))


@pytest.mark.parametrize(
    ("parts", "request_", "message"),
    [
        (WITH_ENCODER, request_of(FIRST), None),
        (WITH_ENCODER, request_of(BOTH), "begins with a first image alone: leave last_image out"),
        (PAIRS, request_of(BOTH), None),
        (PAIRS, request_of(FIRST), "last_image is missing: mine moves from a first image"),
        (TWO, request_of(BOTH), None),
        (TWO, request_of(FIRST, guidance_scale_2=2.0), None),
        (FIVE, request_of(FIRST), None),
        (FIVE, request_of(BOTH), "begins with a first image alone"),
        (FIVE, request_of(FIRST, guidance_scale_2=2.0), "guidance_scale_2 acts on none"),
    ],
)
def test_a_clip_gets_the_images_that_its_model_reads(
    tmp_path: Path, parts: Parts, request_: GenerationRequest, message: str | None
) -> None:
    config, facts = config_of(IMAGES), read_facts(save(tmp_path, parts))
    assert needs_facts(config, request_)
    if message is None:
        check_by_facts(config, facts, request_)
    else:
        with pytest.raises(RequestError, match=message):
            check_by_facts(config, facts, request_)


SCHEDULER = "FlowMatchEulerDiscreteScheduler"


@pytest.mark.parametrize(
    ("saved", "scheduler", "message"),
    [
        ({}, SchedulerConfig(), None),
        ({"stochastic_sampling": True}, SchedulerConfig(), "stochastic_sampling: false"),
        (
            {"stochastic_sampling": True},
            SchedulerConfig(SCHEDULER, stochastic_sampling=False),
            None,
        ),
        ({"_class_name": "UniPCMultistepScheduler"}, SchedulerConfig(), "needs FlowMatchEuler"),
        ({"_class_name": "UniPCMultistepScheduler"}, SchedulerConfig(SCHEDULER), None),
    ],
)
def test_a_saved_scheduler_that_ltx_conditions_cannot_follow_is_refused(
    tmp_path: Path, saved: dict[str, Any], scheduler: SchedulerConfig, message: str | None
) -> None:
    (tmp_path / "scheduler").mkdir()
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": SCHEDULER, **saved}))
    config = ModelConfig(
        "mine",
        "ltx",
        "./mine",
        ShapeGrid(8, 32, 32),
        SamplingDefaults(2, 1.0, 9, 32, 32, 8.0),
        pipeline="LTXConditionPipeline",
        scheduler=scheduler,
    )
    if message is None:
        check_facts(config, tmp_path)
    else:
        with pytest.raises(ModelFolderError, match=message):
            check_facts(config, tmp_path)


def test_text_to_video_reads_no_facts_without_a_second_scale() -> None:
    config = config_of(None)
    assert not needs_facts(config, request_of(InputFiles()))
    assert needs_facts(config, request_of(InputFiles(), guidance_scale_2=2.0))


@pytest.mark.parametrize(
    ("pipeline", "request_", "message"),
    [
        (VIDEO, request_of(InputFiles(video=FILE)), "strength is missing: mine needs one"),
        (IMAGES, request_of(FIRST, strength=0.5), "mine takes no strength"),
        (VACE, request_of(FIRST), "mine takes no image"),
    ],
)
def test_a_clip_brings_what_its_pipeline_takes(
    pipeline: str, request_: GenerationRequest, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        check_request(config_of(pipeline), request_)


def test_a_strength_counts_the_steps_that_are_taken() -> None:
    assert SamplingParams(50, 1.0, None, 0, strength=0.7).num_steps == 35
    assert SamplingParams(50, 1.0, None, 0).num_steps == 50
    with pytest.raises(RequestError, match="less than one step"):
        SamplingParams(4, 1.0, None, 0, strength=0.2)


def test_a_second_scale_needs_classifier_free_guidance() -> None:
    with pytest.raises(RequestError, match="the method nag runs no classifier-free guidance"):
        request_of(InputFiles(), guidance_scale=1.0, guidance_scale_2=2.0)
