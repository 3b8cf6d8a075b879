"""The training of the Shapes models: exact answers, own paths, budgets and interruptions."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pipelines.shapes.measuring.rendering import load_pipeline
from pipelines.shapes.training import made_latents
from pipelines.shapes.training.courses import COURSES
from pipelines.shapes.training.denoiser import train_transformer
from pipelines.shapes.training.lesson import Examples, Lesson
from pipelines.shapes.training.models import MODELS, TrainedParts
from pipelines.shapes.training.own_paths import OwnPaths
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.running.checkpoints import SAVE_EVERY_S, Checkpoint, Learning
from pipelines.shapes.training.running.compute import Compute
from pipelines.shapes.training.running.pace import Budget, Pace, learning_rate_factor
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.training.text import EncodedCaptions, attribute_targets
from pipelines.shapes.world import ATTRIBUTES, COLOURS, all_clips

SHAPE = (8, 1, 2, 2)


def members_of_noise() -> torch.Tensor:
    """Return stand-ins for latents: each member of the world has its own place."""
    return torch.randn(len(all_clips()), *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    return Posterior(members_of_noise(), all_clips())


def index_of(**attributes: str) -> int:
    return next(
        i
        for i, clip in enumerate(all_clips())
        if all(getattr(clip, a) == v for a, v in attributes.items())
    )


def allowed_by(posterior: Posterior, row: int, caption: str) -> torch.Tensor:
    return posterior.allowed(attribute_targets([all_clips()[row]], [caption]))


def test_the_answer_is_the_mean_over_the_members_that_a_caption_allows(
    posterior: Posterior,
) -> None:
    row = index_of(colour="red", shape="circle")
    allowed_1N = allowed_by(posterior, row, "a red circle")
    sigma, members = 0.8, posterior.members.double()
    state = 0.2 * members[row] + sigma * torch.randn(
        SHAPE, generator=torch.Generator().manual_seed(2)
    )
    likelihood_N = -((state - 0.2 * members).flatten(1).square().sum(1)) / (2 * sigma**2)
    weights_N = likelihood_N.masked_fill(~allowed_1N[0], -torch.inf).softmax(0)
    expected = (weights_N[:, None] * members.flatten(1)).sum(0).view(SHAPE)
    answer = posterior(state[None].float(), torch.tensor([sigma]), allowed_1N)
    assert weights_N.max() < 0.9
    assert (answer.mean[0] - expected).abs().max() < 1e-4
    assert answer.likeliest.item() == weights_N.argmax().item()


def test_without_noise_the_answer_is_the_nearest_member(posterior: Posterior) -> None:
    rows = torch.tensor([0, 17, 4000])
    everything = torch.ones(3, len(all_clips()), dtype=torch.bool)
    answer = posterior(posterior.members[rows] + 0.01, torch.zeros(3), everything)
    assert answer.likeliest.tolist() == rows.tolist()
    assert torch.equal(answer.mean, posterior.members[rows])


def test_a_named_attribute_is_never_changed(posterior: Posterior) -> None:
    blue, red = index_of(colour="blue", shape="circle"), index_of(colour="red", shape="circle")
    allowed_1N = allowed_by(posterior, red, "a red circle")
    answer = posterior(posterior.members[[blue]], torch.zeros(1), allowed_1N)
    found = all_clips()[int(answer.likeliest)]
    assert (found.colour, found.shape) == ("red", "circle")


def test_an_empty_caption_allows_all_members_and_a_full_one_only_its_places(
    posterior: Posterior,
) -> None:
    assert allowed_by(posterior, 0, "").all()
    clip = all_clips()[0]
    words = f"a {clip.colour} {clip.shape} moving {clip.motion} on a {clip.background} background"
    same = [all(getattr(c, a) == getattr(clip, a) for a in ATTRIBUTES) for c in all_clips()]
    assert allowed_by(posterior, 0, words)[0].tolist() == same


def own_paths(posterior: Posterior, goal: torch.Tensor) -> OwnPaths:
    """Return paths of a model that knows one clip."""

    def flow(states: torch.Tensor, sigmas: torch.Tensor, _text: EncodedCaptions) -> torch.Tensor:
        return (states - goal) / sigmas.view(-1, 1, 1, 1, 1)

    def encode(captions: list[str]) -> EncodedCaptions:
        return EncodedCaptions(torch.zeros(len(captions), 1, 1), torch.ones(len(captions), 1))

    model = replace(MODELS["shapes-ltx"], latent_shape=SHAPE)
    return OwnPaths(model, flow, encode, posterior, 16, torch.Generator().manual_seed(4))


def test_states_of_own_paths_begin_with_noise_and_end_where_the_flow_leads(
    posterior: Posterior,
) -> None:
    goal = posterior.members[5]
    paths = own_paths(posterior, goal)
    states = [state for _ in range(10) for state in paths.take(16)]
    assert len({state.sigma.item() for state in states}) > 4
    for state in states:
        noise = (state.latents - (1 - state.sigma) * goal) / state.sigma
        assert abs(noise.std().item() - 1) < 0.5  # no step has left the line to the goal
        assert state.allowed.any()


def test_a_lesson_leads_each_state_to_what_its_caption_allows(posterior: Posterior) -> None:
    goal = all_clips()[5]
    course = replace(COURSES["shapes-wan"][-1], own_share=0.5, shape_weight=0.0)
    lesson = Lesson(
        course,
        Examples(all_clips(), posterior.members),
        torch.Generator().manual_seed(7),
        posterior,
        own_paths(posterior, posterior.members[5]),
    )
    num_late_own = 0
    for batch in (lesson.draw(32) for _ in range(8)):
        assert len(batch.captions) == len(batch.states) == 32
        assert_close(batch.weights.flatten(1).mean(1), batch.sigmas.square())
        ends = batch.states - batch.sigmas.view(-1, 1, 1, 1, 1) * batch.flows
        for row in (batch.sigmas < 0.4).nonzero().flatten().tolist():
            distances_N = (posterior.members - ends[row]).flatten(1).norm(dim=1)
            clip = all_clips()[int(distances_N.argmin())]
            words = batch.captions[row].lower().replace(",", "").split()
            assert not set(words) & set(COLOURS) - {clip.colour}
            num_late_own += row >= 16
    assert num_late_own > 10
    assert goal.colour == "red"  # a model that knows red alone is led to the other colours


def test_a_stage_ends_with_its_budget_or_with_its_steps() -> None:
    pace = Pace(num_steps=10**9, seconds=0.05)
    assert len(list(pace)) == pace.step > 0
    assert pace.elapsed >= 0.05
    assert list(Pace(num_steps=3)) == [0, 1, 2]
    assert list(Pace(num_steps=3, first_step=2)) == [2]


def test_the_learning_rate_rises_for_a_twentieth_and_then_falls() -> None:
    factors = [learning_rate_factor(step / 100) for step in range(101)]
    assert factors.index(max(factors)) == 5
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert factors[0] < 0.05
    assert factors[-1] < 0.02


def test_the_stages_that_are_left_share_the_time() -> None:
    budget = Budget(1, {"first": 1.0, "second": 2.0, "third": 1.0})
    assert budget.seconds_for("first") == pytest.approx(15, abs=1)
    assert budget.seconds_for("second") == pytest.approx(40, abs=1)  # the first took no time
    assert budget.seconds_for("third") == pytest.approx(60, abs=1)
    assert Budget(None, {"only": 1.0}).seconds_for("only") is None


class InterruptedTrainingError(Exception):
    """The end of a training in its middle."""


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("name", list(MODELS))
def test_an_interrupted_course_goes_on_and_ends_as_without_the_interruption(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda module: module)
    monkeypatch.setattr(Checkpoint, "save_if_due", Checkpoint.save)
    model = MODELS[name]
    course = replace(COURSES[name][-1], num_steps=4, batch_size=2, own_share=0.0)
    clips = all_clips()[:8]
    latents = torch.randn(8, *model.latent_shape, generator=torch.Generator().manual_seed(6))
    stops = {"at": -1}

    def log_step(_stage: str, step: int, _loss: float) -> None:
        if step == stops["at"]:
            raise InterruptedTrainingError

    def train(folder: Path) -> dict[str, torch.Tensor]:
        nothing: Any = None
        parts = TrainedParts(nothing, nothing, nothing, model.build_transformer(0))
        running = Running(log_step, checkpoints=folder)
        examples = Examples(clips, latents)
        return train_transformer(course, model, parts, examples, running).state_dict()

    def encode(_tokenizer: Any, _encoder: Any, captions: list[str], _max: int) -> EncodedCaptions:
        shape = len(captions), 3
        return EncodedCaptions(torch.ones(*shape, 64), torch.ones(shape, dtype=torch.int64))

    monkeypatch.setattr("pipelines.shapes.training.denoiser.encode_captions", encode)
    whole = train(tmp_path / "whole")
    stops["at"] = 2
    with pytest.raises(InterruptedTrainingError):
        train(tmp_path / "parts")
    assert list((tmp_path / "parts").iterdir())
    stops["at"] = -1
    again = train(tmp_path / "parts")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert not list((tmp_path / "parts").iterdir())


def test_a_checkpoint_is_not_written_more_often_than_it_is_due(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 2)
    learning = Learning(module, [torch.optim.AdamW(module.parameters())], torch.Generator())
    checkpoint = Checkpoint(tmp_path / "stage.safetensors", learning)
    checkpoint.save_if_due(1, 1.0)
    assert SAVE_EVERY_S > 60
    assert not list(tmp_path.iterdir())
    checkpoint.save(1, 1.5)
    assert Checkpoint(tmp_path / "stage.safetensors", learning).restore() == (1, 1.5)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="pass --device cpu"):
        Compute.on("cuda")
    assert Compute.on("auto").device.type == "cpu"


@pytest.mark.models
def test_a_decoder_learns_what_the_transformer_makes_and_nothing_else_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = MODELS["shapes-ltx"]
    pipeline = load_pipeline(model)
    # one member for each combination of attributes
    clips = list({(c.colour, c.shape, c.motion, c.background): c for c in all_clips()}.values())
    members = torch.randn(
        len(clips), *model.latent_shape, generator=torch.Generator().manual_seed(0)
    )
    monkeypatch.setattr(made_latents, "NUM_BATCHES", 1)
    monkeypatch.setattr(made_latents, "BATCH_SIZE", 2)
    monkeypatch.setattr(made_latents, "NUM_STEPS", (1,))
    course = replace(made_latents.TRAINING, num_steps=2, batch_size=3, full_share=0.5)
    monkeypatch.setattr(made_latents, "TRAINING", course)
    before = {name: value.clone() for name, value in pipeline.vae.state_dict().items()}
    for max_miss in (0.0, float("inf")):  # no latents of the transformer, or all of them
        monkeypatch.setattr(made_latents, "MAX_MISS", max_miss)
        losses: list[float] = []
        made_latents.train_on_made_latents(
            pipeline,
            members,
            clips,
            Running(lambda _stage, _step, loss, losses=losses: losses.append(loss)),
        )
        assert len(losses) == 2
        assert all(map(math.isfinite, losses))
    changed = {
        name.partition(".")[0]
        for name, value in pipeline.vae.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"decoder"}
