"""A range of steps counts those that the loop takes, after a cut by a strength or by its end."""

from typing import Any

import pytest
import torch

from nag import install
from nag.loop_frame import length_of
from tests.nag import unet_variants
from tests.nag.unet_variants import LENGTH
from tests.nag.variants import Variant

pytestmark = [
    # numpy's, of torch in diffusers' schedulers
    pytest.mark.filterwarnings("ignore:__array(_wrap)?__ (implementation|must)"),
]
VARIANTS = {one.name: one for one in unet_variants.ROWS}
HALF: dict[str, dict[str, float]] = {
    # These tell nothing of their steps.
    "IFImg2ImgPipeline": {"strength": 0.5},
    "IFInpaintingPipeline": {"strength": 0.5},
    "IFImg2ImgSuperResolutionPipeline": {"strength": 0.5},
    "IFInpaintingSuperResolutionPipeline": {"strength": 0.5},
    "StableDiffusionXLAdapterPipeline": {"denoising_end": 0.5},
    # These count before the cut.
    "StableDiffusionXLControlNetPAGPipeline": {"denoising_end": 0.5},
    "StableDiffusionXLControlNetUnionPipeline": {"denoising_end": 0.5},
    "StableDiffusionXLControlNetInpaintPipeline": {"denoising_end": 0.5},
    # These count right.
    "StableDiffusionXLImg2ImgPipeline": {"strength": 1.0, "denoising_start": 0.5},
    "StableDiffusionImg2ImgPipeline": {"strength": 0.5},
}


def guided_steps(variant: Variant, **arguments: Any) -> list[bool]:
    """Return for each call of the model whether its text holds the negative prompt."""
    pipeline, seen = variant.build(), list[bool]()

    def watch(_model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        text = kwargs[variant.text] if variant.text in kwargs else args[2]
        seen.append(text.shape[1] > LENGTH)

    with install(pipeline) as nag:
        handle = pipeline.unet.register_forward_pre_hook(watch, with_kwargs=True)
        with nag.guide(variant.negative(2), nag_start=0.25, nag_end=0.75):
            pipeline(**{**variant.call(pipeline), "guidance_scale": 1.0, **arguments})
        handle.remove()
    return seen


@pytest.mark.parametrize("name", HALF)
def test_the_range_is_that_of_the_steps_behind_a_cut(name: str) -> None:
    seen = guided_steps(VARIANTS[name], num_inference_steps=8, **HALF[name])
    assert seen == [False, True, True, False]


def test_a_schedule_has_a_length_if_it_is_a_list_or_a_tensor() -> None:
    schedules = [3, 2, 1], torch.arange(4), torch.tensor(5), 6, None, iter([7])
    assert [length_of(one) for one in schedules] == [3, 4, None, None, None, None]
