"""A clip of diffusion forcing is refused unless diffusers renders it whole."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import SkyReelsV2DiffusionForcingPipeline

from nag.params import NagParams
from pipelines.clip_inputs import NO_FILES, InputFile, InputFiles
from pipelines.diffusion_forcing import DiffusionForcing, check_forcing, check_parts, num_latents
from pipelines.errors import ModelConfigError, ModelFolderError, RequestError
from pipelines.request import GenerationRequest, SamplingParams, VideoShape

LONG = DiffusionForcing(base_num_frames=97, overlap_history=17)
BLOCKS = replace(LONG, ar_step=5, causal_block_size=5)
FILE = InputFile("0" * 64, "a.png")
FIRST, BOTH = InputFiles(image=FILE), InputFiles(image=FILE, last_image=FILE)


def request_of(num_frames: int, inputs: InputFiles = NO_FILES, **nag: Any) -> GenerationRequest:
    sampling = SamplingParams(50, 1.0, None, 0)
    shape = VideoShape(num_frames, 32, 32)
    return GenerationRequest("a", "b", shape, 24.0, sampling, NagParams(**nag), inputs=inputs)


def check(forcing: DiffusionForcing, request: GenerationRequest) -> None:
    check_forcing(forcing, request, "mine", 1, 4)


@pytest.mark.parametrize(
    ("num_frames", "num_parts"),
    [(1, 1), (97, 1), (101, 2), (177, 2), (181, 3), (257, 3), (737, 9)],
)
def test_a_long_clip_has_the_parts_that_diffusers_counts(num_frames: int, num_parts: int) -> None:
    """The README of SkyReels V2 has 257 frames in 3 parts; the others by diffusers' formula."""
    assert LONG.num_parts(num_frames, 4) == num_parts
    if num_parts > 1:
        latents, base, overlap = num_latents(num_frames, 4), 25, 5
        assert 1 + (latents - base - 1) // (base - overlap) + 1 == num_parts


@pytest.mark.parametrize(
    ("forcing", "request_"),
    [
        (DiffusionForcing(), request_of(97)),
        (DiffusionForcing(), request_of(49, nag_end=0.5)),
        (LONG, request_of(101)),
        (BLOCKS, request_of(117)),
        (DiffusionForcing(), request_of(97, FIRST)),
        (DiffusionForcing(), request_of(97, BOTH)),
        (LONG, request_of(177, FIRST)),
    ],
)
def test_a_clip_that_is_rendered_whole_is_accepted(
    forcing: DiffusionForcing, request_: GenerationRequest
) -> None:
    check(forcing, request_)


@pytest.mark.parametrize(
    ("forcing", "request_", "message"),
    [
        (DiffusionForcing(), request_of(101), "renders 97 frames at once, not 101: for longer"),
        (BLOCKS, request_of(121), "must be 20 times a whole number, minus 3 for mine: 117 or 137"),
        (BLOCKS, request_of(5), "for mine: 17, not 5"),
        (BLOCKS, request_of(97, nag_start=0.1), "leave nag_start and nag_end out"),
        (LONG, request_of(1, FIRST), "num_frames must be above 1 for mine"),
        (LONG, request_of(177, BOTH), "ends with a last image in clips of 97 frames at most"),
        (
            LONG,
            request_of(181, FIRST),
            "97 plus a multiple of 80 for mine, .*: 177 or 257, not 181",
        ),
    ],
)
def test_a_clip_that_diffusers_would_not_render_whole_is_refused(
    forcing: DiffusionForcing, request_: GenerationRequest, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        check(forcing, request_)


def test_noise_on_the_first_frames_of_parts_needs_parts() -> None:
    noisy = DiffusionForcing(addnoise_condition=20)
    with pytest.raises(ModelFolderError, match=r"without diffusion_forcing\.overlap_history"):
        check_parts(noisy, 1, 4, has_image=False)
    check_parts(noisy, 1, 4, has_image=True)  # it is put on the image
    check_parts(replace(noisy, overlap_history=17), 1, 4, has_image=False)


@pytest.mark.parametrize("num_latents_", [25, 26])
def test_diffusers_leaves_latents_beyond_the_last_whole_block_as_noise(num_latents_: int) -> None:
    """The rule of the blocks goes when diffusers renders them."""
    schedule: Any = SkyReelsV2DiffusionForcingPipeline.generate_timestep_matrix
    timesteps = torch.tensor([999, 600, 300])
    _, _, is_denoised, _ = schedule(None, num_latents_, timesteps, num_latents_, 5, 0, 5)
    assert is_denoised.any(0).all()
    assert (is_denoised.shape[1] == num_latents_) == (num_latents_ % 5 == 0)


@pytest.mark.parametrize(("forcing", "num_frames"), [(LONG, 97), (BLOCKS, 97), (BLOCKS, 177)])
def test_the_steps_of_a_clip_are_the_rows_of_diffusers_schedules(
    forcing: DiffusionForcing, num_frames: int
) -> None:
    schedule: Any = SkyReelsV2DiffusionForcingPipeline.generate_timestep_matrix
    timesteps, block = torch.arange(999, 399, -20), forcing.causal_block_size or 1
    rows = sum(
        len(schedule(None, 25, timesteps, 25, forcing.ar_step, num_known, block)[0])
        for num_known in [0, 5][: forcing.num_parts(num_frames, 4)]
    )
    assert forcing.num_rows(num_frames, 30, 4) == rows


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("overlap_history", 97, "overlap_history must be between 1 and 96, not 97"),
        ("addnoise_condition", 61, "addnoise_condition must be between 0 and 60, not 61"),
        ("ar_step", -1, "ar_step must be between 0 and 1000"),
        ("causal_block_size", 0, "causal_block_size must be between 1"),
    ],
)
def test_a_value_outside_its_range_is_refused(field: str, value: int, message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        replace(LONG, **{field: value})
