"""The Shapes image models: their world and exact targets, their weights, prompts and negatives."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import nag
from pipelines.catalog.files.sources import PACKAGED_WEIGHTS
from pipelines.shapes.evaluation.negation import draw_tasks
from pipelines.shapes.images import (
    IMAGE_ATTRIBUTES,
    all_images,
    draw_images,
    image_caption,
    judge_image,
    sample_image,
)
from pipelines.shapes.measuring.images import (
    FEW_STEPS,
    FULL_STEPS,
    Method,
    draw_answers,
    image_tasks,
    load_image_pipeline,
)
from pipelines.shapes.training.images.denoiser import ImageTraining, draw_captions, train_denoiser
from pipelines.shapes.training.images.distill import Student
from pipelines.shapes.training.images.latents import LATENT_SHAPE
from pipelines.shapes.training.images.models import MODELS, ImageModel
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.running.checkpoints import Checkpoint
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.world import SIZE_PX

MAX_MODEL_BYTES = 6_000_000
STRONG = nag.NagParams(nag_scale=11, nag_tau=2.5, nag_alpha=0.5)


def test_the_judge_reads_every_kind_of_image_and_calls_it_clean() -> None:
    images = all_images()
    assert len(set(images)) == 1800
    drawn = images[::25]  # every colour, shape and background in one place
    for image, pixels in zip(drawn, draw_images(drawn).permute(0, 2, 3, 1).numpy(), strict=True):
        verdict = judge_image(pixels)
        assert verdict.is_clean
        assert [getattr(verdict, name) for name in IMAGE_ATTRIBUTES] == [
            getattr(image, name) for name in IMAGE_ATTRIBUTES
        ]


def test_captions_and_tasks_of_images_never_speak_of_motion() -> None:
    generator = torch.Generator().manual_seed(0)
    texts = [image_caption(sample_image(generator), generator) for _ in range(200)]
    texts += [task.prompt for task in image_tasks(20)]
    words = {word for text in texts for word in text.split()}
    assert words.isdisjoint({"moving", "moves", "going", "still", "rest", "move"})
    of_clips = draw_tasks("colour", "open", 20)
    assert of_clips == draw_tasks("colour", "open", 20, unnamed=())
    assert any("motion" in dict(task.named) for task in of_clips)


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    """Return stand-ins for latents: each member of the world has its own place."""
    noise = torch.randn(1800, 8, 2, 2, generator=torch.Generator().manual_seed(1))
    return Posterior(noise, all_images(), IMAGE_ATTRIBUTES)


def test_the_exact_target_is_the_mean_of_all_that_the_caption_allows(posterior: Posterior) -> None:
    red, square = IMAGE_ATTRIBUTES["colour"].index("red"), IMAGE_ATTRIBUTES["shape"].index("square")
    named = {
        "colour": torch.tensor([red, 9]),
        "shape": torch.tensor([9, square]),
        "background": torch.tensor([9, 9]),
    }
    allowed_BN = posterior.allowed(named)
    images = all_images()
    assert allowed_BN[0].tolist() == [image.colour == "red" for image in images]
    assert allowed_BN[1].tolist() == [image.shape == "square" for image in images]

    states = torch.randn(2, 8, 2, 2, generator=torch.Generator().manual_seed(2))
    for level in (1.0, 0.5):
        sigmas_B = torch.tensor([level, level])
        expected: list[torch.Tensor] = []
        for state, allowed_N in zip(states.double(), allowed_BN, strict=True):
            chosen = posterior.members[allowed_N].double()
            distances_N = (state - (1 - level) * chosen).flatten(1).square().sum(dim=1)
            weights_N = (-distances_N / (2 * level**2)).softmax(dim=0)
            expected.append((weights_N.view(-1, 1, 1, 1) * chosen).sum(dim=0))
        found = posterior(states, sigmas_B, allowed_BN).mean
        assert_close(found, torch.stack(expected).float(), rtol=1e-4, atol=1e-4)


def test_the_exact_target_near_the_end_is_one_member(posterior: Posterior) -> None:
    row = 700
    sigmas_B = torch.tensor([0.05])
    noise = torch.randn(1, 8, 2, 2, generator=torch.Generator().manual_seed(3))
    state = 0.95 * posterior.members[[row]] + 0.05 * noise
    found = posterior(state, sigmas_B, torch.ones(1, 1800, dtype=torch.bool)).mean
    assert_close(found, posterior.members[[row]], rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest) -> ImageModel:
    return MODELS[request.param]


@pytest.fixture(scope="module")
def pipeline(model: ImageModel) -> Any:
    """Return the stock pipeline with the LoRA for four steps."""
    return load_image_pipeline(model, FEW_STEPS)


@pytest.mark.models
def test_a_model_is_small_and_names_no_path_of_a_machine(model: ImageModel) -> None:
    folder = PACKAGED_WEIGHTS / model.name
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_MODEL_BYTES
    for path in folder.rglob("*.json"):
        assert "_name_or_path" not in json.loads(path.read_text(encoding="utf-8")), path


@pytest.mark.models
def test_a_trajectory_in_training_passes_the_states_of_the_pipeline(
    model: ImageModel, pipeline: Any
) -> None:
    student = Student(model, getattr(pipeline, model.denoiser), pipeline.scheduler, is_half=False)
    noise = torch.randn(1, *LATENT_SHAPE, generator=torch.Generator().manual_seed(3))
    passed: list[torch.Tensor] = []

    def keep(_pipeline: Any, _step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        passed.append(values["latents"])
        return values

    with torch.no_grad():
        text = model.encode(pipeline, ["a red circle"])
        states = student.trajectory(noise, text, 2)
        latents = noise
        if model.name == "shapes-flux":
            latents = pipeline._pack_latents(noise, 1, *LATENT_SHAPE)
        pipeline(
            "a red circle",
            height=SIZE_PX,
            width=SIZE_PX,
            num_inference_steps=2,
            latents=latents,
            output_type="latent",
            callback_on_step_end=keep,
            **{model.guidance_argument: 1.0},
            **model.call_arguments,
        )
    expected = passed[0]
    if model.name == "shapes-flux":
        expected = pipeline._unpack_latents(expected, SIZE_PX, SIZE_PX, 8)
    assert_close(states[1][0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.models
def test_a_model_draws_the_background_of_its_prompt_and_with_nag_a_negated_one_less_often(
    model: ImageModel, pipeline: Any
) -> None:
    tasks = [task for task in image_tasks(12) if task.case == "open"]
    naming = tuple(task for task in tasks if "background" in dict(task.named))[:8]
    for task, verdict in zip(
        naming, draw_answers(model, pipeline, naming, Method("none"), FEW_STEPS), strict=True
    ):
        assert verdict.background == dict(task.named)["background"]

    against = tuple(task for task in tasks if task.attribute == "background")
    plain, guided = (
        [
            verdict.background == task.value
            for task, verdict in zip(
                against, draw_answers(model, pipeline, against, method, FEW_STEPS), strict=True
            )
        ]
        for method in (Method("none"), Method("nag", params=STRONG))
    )
    assert sum(plain) >= 3
    assert sum(guided) < sum(plain)


@pytest.mark.models
def test_flipped_values_of_stable_diffusion_3_know_the_words_of_a_negative_prompt() -> None:
    model = MODELS["shapes-sd3"]
    pipeline = load_image_pipeline(model, FEW_STEPS)
    texts = ["red", "a red circle"]
    assert model.words is not None
    mask_BL = model.words(pipeline, texts)
    # Start, words and end of CLIP, then words and end of T5.
    assert mask_BL.sum(dim=1).tolist() == [1 + 1 + 1 + 1 + 1, 1 + 3 + 1 + 3 + 1]
    assert mask_BL.shape == model.encode(pipeline, texts).embeds.shape[:2]
    tasks = [task for task in image_tasks(12) if task.case == "open"]
    against = tuple(task for task in tasks if task.attribute == "background")
    plain, flipped = (
        sum(
            verdict.background == task.value
            for task, verdict in zip(
                against, draw_answers(model, pipeline, against, method, FEW_STEPS), strict=True
            )
        )
        for method in (Method("none"), Method("vsf", params=nag.VsfParams()))
    )
    assert flipped < plain


class StoppedTrainingError(Exception):
    """The end of a training in its middle."""


@pytest.mark.models
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_an_interrupted_course_goes_on_and_ends_as_without_the_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "save_if_due", Checkpoint.save)
    model = MODELS["shapes-flux"]
    captions = draw_captions(model, load_image_pipeline(model, FULL_STEPS), 8, seed=0)
    members = torch.randn(1800, *LATENT_SHAPE, generator=torch.Generator().manual_seed(5))
    posterior = Posterior(members, all_images(), IMAGE_ATTRIBUTES)

    def train(folder: Path, stops_at: int = -1) -> dict[str, torch.Tensor]:
        def log_step(_stage: str, step: int, _loss: float) -> None:
            if step == stops_at:
                raise StoppedTrainingError

        running = Running(log_step, checkpoints=folder)
        course = ImageTraining(num_steps=3, seed=1, batch_size=2)
        denoiser = model.build_denoiser(0)
        return train_denoiser(course, model, denoiser, captions, posterior, running).state_dict()

    whole = train(tmp_path / "whole")
    with pytest.raises(StoppedTrainingError):
        train(tmp_path / "parts", stops_at=1)
    again = train(tmp_path / "parts")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
