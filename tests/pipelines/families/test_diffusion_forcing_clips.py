"""Clips of SkyReels V2's diffusion forcing that are rendered in parts, or block by block."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nag
from nag.params import NagParams
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.catalog.model_folder import inspect_model
from pipelines.clip_inputs import NO_INPUTS, ClipInputs
from pipelines.diffusion_forcing import DiffusionForcing
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.registry import load_model
from pipelines.families.skyreels import CONDITION_SEED_MASK
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from tests.builders import tiny_skyreels

FORCED = "SkyReelsV2DiffusionForcingPipeline"
FORCED_IMAGE = "SkyReelsV2DiffusionForcingImageToVideoPipeline"
PARTS = DiffusionForcing(base_num_frames=9, overlap_history=5, addnoise_condition=20)
BLOCKS = DiffusionForcing(ar_step=2, causal_block_size=2)
SHARP = NagParams(9, 2.5, 0.5)


def request_of(num_frames: int, seed: int = 3) -> GenerationRequest:
    sampling = SamplingParams(4, 1.0, None, seed)
    return GenerationRequest(
        "a circle", "red", VideoShape(num_frames, 32, 32), 24.0, sampling, SHARP
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forcing") / "weights"
    tiny_skyreels.diffusion_forcing().save_pretrained(folder)
    return folder


def load(folder: Path, pipeline: str, forcing: DiffusionForcing) -> DiffusersModel:
    config = ModelConfig(
        name="mine", family="wan", pipeline=pipeline, source=str(folder),
        grid=ShapeGrid(4, 16, 16), sampling=SamplingDefaults(4, 1.0, 9, 32, 32, 24.0),
        dtype="float32", device="cpu", max_sequence_length=16, diffusion_forcing=forcing,
    )  # fmt: skip
    return load_model(config, inspect_model(config, folder / "mine.yaml"), 1)


def denoise(
    model: DiffusersModel, request: GenerationRequest, inputs: ClipInputs = NO_INPUTS
) -> tuple[torch.Tensor, list[int]]:
    steps: list[int] = []
    embeddings = replace(model.encode_text(request), inputs=inputs)
    return model.denoise(request, embeddings, steps.append), steps


@pytest.mark.parametrize(
    ("forcing", "num_frames"), [(PARTS, 17), (BLOCKS, 13)], ids=["parts", "blocks"]
)
def test_a_clip_is_the_stock_pipelines_whatever_torch_has_drawn_before(
    folder: Path, forcing: DiffusionForcing, num_frames: int
) -> None:
    model, request = load(folder, FORCED, forcing), request_of(num_frames)
    state = torch.get_rng_state()
    alone, reported = denoise(model, request)
    assert torch.equal(torch.get_rng_state(), state)
    denoise(model, request_of(num_frames, seed=4))
    torch.rand(3)
    assert torch.equal(denoise(model, request)[0], alone)
    assert alone.shape[2] == (num_frames - 1) // 4 + 1
    assert reported == sorted(reported)
    assert (set(reported), reported[-1]) == ({0, 1, 2, 3}, 3)
    stock: Any = tiny_skyreels.diffusion_forcing()
    torch.manual_seed(3 ^ CONDITION_SEED_MASK)
    with nag.guide(stock, "red", SHARP, max_sequence_length=16):
        expected = stock(
            prompt="a circle", height=32, width=32, num_frames=num_frames, num_inference_steps=4,
            guidance_scale=1.0, max_sequence_length=16, output_type="latent",
            generator=torch.Generator().manual_seed(3), **asdict(forcing),
        ).frames  # fmt: skip
    assert (alone - expected).abs().max() < 1e-5


def test_noise_on_the_history_follows_from_the_seed(folder: Path) -> None:
    noisy = load(folder, FORCED, PARTS)
    quiet = load(folder, FORCED, replace(PARTS, addnoise_condition=0))
    request = request_of(17)
    one, other = denoise(noisy, request)[0], denoise(quiet, request)[0]
    assert torch.equal(one[:, :, :3], other[:, :, :3])  # the first part has no history
    assert not torch.equal(one[:, :, 3:], other[:, :, 3:])


def test_a_clip_from_images_has_the_frames_asked_for_and_keeps_them(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    first, last = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=generator)
    short = load(folder, FORCED_IMAGE, DiffusionForcing())
    both, _ = denoise(short, request_of(9), ClipInputs(image=first, last_image=last))
    one, _ = denoise(short, request_of(9), ClipInputs(image=first))
    assert both.shape == one.shape == (1, 8, 3, 4, 4)
    assert (both[:, :, 0] - one[:, :, 0]).abs().max() < 1e-5  # the latent of the image
    assert not torch.equal(both[:, :, 1:], one[:, :, 1:])
    long = load(folder, FORCED_IMAGE, replace(PARTS, addnoise_condition=0))
    found, _ = denoise(long, request_of(13), ClipInputs(image=first))
    assert found.shape[2] == 4
    assert torch.equal(found[:, :, 0], one[:, :, 0])
    frames = long.decode(request_of(13), found).result().frames
    assert frames.shape == (13, 32, 32, 3)
