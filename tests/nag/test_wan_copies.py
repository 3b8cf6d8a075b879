"""Models made from Wan, with diffusers' copies of its attention, against attention by hand."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nag import NagParameterError, NagParams, NegativeText, guide, install
from tests.builders import tiny, tiny_skyreels, tiny_wan_copies
from tests.nag.reference import (
    Guidance,
    cross_attention_by_hand,
    image,
    largest_difference,
    render,
    text,
)

CLOSE, FAR = 8e-5, 2e-2  # float32 against float64; guided against unguided
STRONG = NagParams(nag_scale=9, nag_tau=2.5, nag_alpha=0.5)
PROMPTS, NEGATIVES, UNCONDITIONAL = text(2, 12, 1), text(2, 7, 2), text(1, 12, 3)
CFG: dict[str, Any] = {
    "prompt": None,  # diffusion forcing has no default for it
    "guidance_scale": 4.0,
    "negative_prompt_embeds": UNCONDITIONAL.repeat(2, 1, 1),
}


def by_hand(
    pipeline: Any,
    negative: torch.Tensor = NEGATIVES,
    unconditional: torch.Tensor | None = UNCONDITIONAL,
    steps: tuple[int, ...] | None = None,
) -> Any:
    guidance = Guidance(
        negative, scale=9, tau=2.5, alpha=0.5, unconditional=unconditional, steps=steps
    )
    return cross_attention_by_hand(pipeline, guidance)


@pytest.mark.parametrize(
    "build", [tiny_skyreels.text_to_video, tiny_skyreels.diffusion_forcing], ids=["t2v", "df"]
)
def test_skyreels_guides_both_clips_of_a_batch_and_leaves_the_unconditional_pass(
    build: Any,
) -> None:
    pipeline = build()
    plain = render(pipeline, PROMPTS, **CFG)
    with guide(pipeline, NegativeText(NEGATIVES), STRONG) as installed:
        assert (installed.coverage.guided, installed.coverage.total) == (2, 2)
        ours = render(pipeline, PROMPTS, **CFG)
    with guide(pipeline, NegativeText(NEGATIVES), nag_scale=1):
        assert torch.equal(render(pipeline, PROMPTS, **CFG), plain)
    with by_hand(pipeline):
        assert largest_difference(render(pipeline, PROMPTS, **CFG), ours) < CLOSE
    assert min(largest_difference(ours[row], plain[row]) for row in range(2)) > FAR


# --- diffusion forcing: each frame has a timestep

LONG: dict[str, Any] = {
    "num_frames": 13, "base_num_frames": 9, "overlap_history": 5, "num_inference_steps": 3,
}  # fmt: skip


def forced(pipeline: Any, **arguments: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return render(pipeline, PROMPTS[:1], prompt=None, generator=generator, **arguments)


def test_a_range_of_steps_guides_these_steps_of_each_part_of_a_long_video() -> None:
    pipeline = tiny_skyreels.diffusion_forcing()
    calls: list[int] = []

    def note(_module: Any, _args: Any, arguments: dict[str, Any]) -> None:
        calls.append(arguments["encoder_hidden_states"].shape[1])

    params = NagParams(9, 2.5, 0.5, nag_end=0.5)
    with guide(pipeline, NegativeText(NEGATIVES[:1]), params):
        handle = pipeline.transformer.register_forward_pre_hook(note, with_kwargs=True)
        ours = forced(pipeline, **LONG)
        handle.remove()
    assert calls == [19, 19, 12] * 2  # two parts of three steps; 7 tokens of the negative prompt
    short = {"num_inference_steps": 4, "guidance_scale": 4.0}
    unconditional = {"negative_prompt_embeds": UNCONDITIONAL}
    with by_hand(pipeline, NEGATIVES[:1], steps=(0, 1)):
        truth = forced(pipeline, **short, **unconditional)
    with guide(pipeline, NegativeText(NEGATIVES[:1]), params):
        assert torch.equal(forced(pipeline, **LONG), ours)
        assert largest_difference(forced(pipeline, **short, **unconditional), truth) < CLOSE


def test_an_asynchronous_schedule_is_guided_whole_and_refuses_a_range() -> None:
    pipeline = tiny_skyreels.diffusion_forcing()
    schedule: dict[str, Any] = {"num_frames": 13, "ar_step": 1, "causal_block_size": 2}
    with by_hand(pipeline, NEGATIVES[:1]):
        truth = forced(pipeline, **schedule)
    negative = NegativeText(NEGATIVES[:1])
    with guide(pipeline, negative, STRONG):
        assert largest_difference(forced(pipeline, **schedule), truth) < CLOSE
    with (
        guide(pipeline, negative, nag_end=0.5),
        pytest.raises(NagParameterError, match="leave nag_start and nag_end out"),
    ):
        forced(pipeline, **schedule)


# --- ChronoEdit: two calls a step without names


def test_chronoedit_is_the_reference_with_classifier_free_guidance() -> None:
    pipeline = tiny_wan_copies.chronoedit_pipeline()
    prompt, negative, unconditional = text(1, 512, 1), text(1, 512, 2), text(1, 512, 3)
    call: dict[str, Any] = {
        "image": image(), "guidance_scale": 4.0, "negative_prompt_embeds": unconditional,
    }  # fmt: skip
    plain = render(pipeline, prompt, **call)
    with guide(pipeline, NegativeText(negative), STRONG) as installed:
        assert (installed.coverage.guided, installed.coverage.total) == (2, 2)
        ours = render(pipeline, prompt, **call)
    with by_hand(pipeline, negative, unconditional):
        assert largest_difference(render(pipeline, prompt, **call), ours) < CLOSE
    with guide(pipeline, NegativeText(negative), nag_scale=1):
        assert torch.equal(render(pipeline, prompt, **call), plain)
    assert largest_difference(ours, plain) > FAR


# --- Wan Animate: blocks for the face between the others


def test_wan_animate_is_guided_by_text_and_not_in_the_blocks_of_the_face() -> None:
    transformer = tiny_wan_copies.wan_animate_transformer()
    driver: Any = SimpleNamespace(progress_bar=None, transformer=transformer)

    def call() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)

        def noise(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        with torch.no_grad(), transformer.cache_context("cond"):
            return transformer(
                hidden_states=noise(2, 20, 3, 4, 4),
                timestep=torch.tensor([900.0, 900.0]),
                encoder_hidden_states=text(2, 512, 1),
                encoder_hidden_states_image=noise(2, 257, tiny.IMAGE_DIM),
                pose_hidden_states=noise(2, 8, 2, 4, 4),
                face_pixel_values=noise(2, 3, 5, 16, 16),
                return_dict=False,
            )[0]

    plain = call()
    faces = [block.processor for block in transformer.face_adapter]
    with install(driver) as installed:
        assert (installed.coverage.guided, installed.coverage.total) == (2, 2)
        assert [block.processor for block in transformer.face_adapter] == faces
        with installed.guide(NegativeText(NEGATIVES), STRONG):
            ours = call()
        with installed.guide(NegativeText(NEGATIVES), nag_scale=1):
            assert torch.equal(call(), plain)
    with by_hand(driver, unconditional=None):
        assert largest_difference(ours, call()) < CLOSE
    assert largest_difference(ours, plain) > FAR


# --- Helios: parts after another, in a pyramid with stages of growing size in each part


@pytest.mark.filterwarnings("ignore:__array_wrap__ must")  # numpy's, of torch in the scheduler
@pytest.mark.parametrize(
    ("build", "schedule", "steps"),
    [
        (tiny_wan_copies.helios_pipeline, {"num_inference_steps": 2}, (0,)),
        (
            tiny_wan_copies.helios_pyramid_pipeline,
            {"num_inference_steps": None, "pyramid_num_inference_steps_list": [1, 2]},
            (0, 1),
        ),
    ],
    ids=["helios", "pyramid"],
)
def test_helios_guides_these_steps_of_each_part_and_stage(
    build: Any, schedule: dict[str, Any], steps: tuple[int, ...]
) -> None:
    pipeline = build()
    call: dict[str, Any] = {**CFG, **tiny_wan_copies.HELIOS_CALL, **schedule}
    plain = render(pipeline, PROMPTS, **call)
    with guide(pipeline, NegativeText(NEGATIVES), NagParams(9, 2.5, 0.5, nag_end=0.3)) as installed:
        assert (installed.coverage.guided, installed.coverage.total) == (2, 2)
        ours = render(pipeline, PROMPTS, **call)
    with guide(pipeline, NegativeText(NEGATIVES), nag_scale=1):
        assert torch.equal(render(pipeline, PROMPTS, **call), plain)
    with by_hand(pipeline, steps=steps):
        assert largest_difference(render(pipeline, PROMPTS, **call), ours) < CLOSE
    with by_hand(pipeline):
        assert largest_difference(render(pipeline, PROMPTS, **call), ours) > 5 * CLOSE
    assert min(largest_difference(ours[row], plain[row]) for row in range(2)) > 5 * CLOSE
