"""Distillation: trajectories of the sampler, with NAG on and off, and what a student learns."""

import math
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nag import NagParams
from nag.installation.installation import InstalledGuidance
from pipelines.catalog.files.sources import PACKAGED_WEIGHTS
from pipelines.shapes.captions import phrase
from pipelines.shapes.measuring import rendering
from pipelines.shapes.measuring.rendering import load_pipeline
from pipelines.shapes.training.distillation.distill import learn
from pipelines.shapes.training.distillation.negatives import draw_negatives
from pipelines.shapes.training.distillation.student import Distillation, EveryCall, Student
from pipelines.shapes.training.kept_latents import normalised_latents
from pipelines.shapes.training.models import MODELS
from pipelines.shapes.training.paths.trajectory import trajectory
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.running.compute import ON_CPU
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.training.text import MAX_TOKENS, attribute_targets, encode_captions
from pipelines.shapes.world import (
    ATTRIBUTES,
    FPS,
    NUM_FRAMES,
    SIZE_PX,
    ShapesClip,
    all_clips,
    sample_clip,
)

WORDS = "a red circle moving left"


def test_the_world_has_6120_members_and_every_drawn_clip_is_one() -> None:
    members = set(all_clips())
    assert len(members) == len(all_clips()) == 6120
    generator = torch.Generator().manual_seed(0)
    assert all(sample_clip(generator) in members for _ in range(200))


@pytest.mark.models
@pytest.mark.parametrize("name", list(MODELS))
def test_captions_mean_the_same_in_training_as_in_the_pipeline(name: str) -> None:
    pipeline = load_pipeline(MODELS[name])
    with torch.no_grad():
        ours = encode_captions(pipeline.tokenizer, pipeline.text_encoder, [WORDS, ""], MAX_TOKENS)
        theirs = pipeline.encode_prompt(
            [WORDS, ""], do_classifier_free_guidance=False, max_sequence_length=MAX_TOKENS
        )
    is_read_BL1 = ours.attention_mask.unsqueeze(-1)
    assert (ours.embeds - theirs[0] * is_read_BL1).abs().max() < 1e-5
    if MODELS[name].family == "ltx":
        assert torch.equal(theirs[1].long(), ours.attention_mask)


@pytest.mark.models
@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("negative", [None, "moving left"])
def test_a_trajectory_in_training_ends_where_the_pipeline_ends(
    name: str, negative: str | None
) -> None:
    num_steps, params = 4, NagParams(nag_scale=6, nag_alpha=0.5)
    model = MODELS[name]
    pipeline = load_pipeline(model)
    text = encode_captions(pipeline.tokenizer, pipeline.text_encoder, [WORDS], MAX_TOKENS)
    noise = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(3))
    guided = InstalledGuidance(pipeline, EveryCall())
    guidance = guided.guide([negative], params, MAX_TOKENS) if negative else nullcontext()
    with torch.no_grad(), guided, guidance:
        states, end = trajectory(
            pipeline.scheduler,
            lambda states, sigmas: model.velocity(pipeline.transformer, states, sigmas, text),
            noise,
            num_steps,
        )
    with torch.no_grad(), rendering.guided(pipeline, (negative, params) if negative else None):
        is_packed = model.family == "ltx"
        latents = noise.flatten(2).transpose(1, 2) if is_packed else noise
        frame_rate = {"frame_rate": FPS} if is_packed else {}
        expected = pipeline(
            WORDS,
            height=SIZE_PX,
            width=SIZE_PX,
            num_frames=NUM_FRAMES,
            num_inference_steps=num_steps,
            guidance_scale=1,
            latents=latents,
            output_type="latent",
            max_sequence_length=MAX_TOKENS,
            **frame_rate,
        ).frames
    if is_packed:
        expected = expected.transpose(1, 2).unflatten(2, end.shape[2:])
    assert len(states) == num_steps
    assert torch.equal(states[0][0], noise)
    assert (end - expected).abs().max() < 1e-4


def test_a_clip_of_the_world_keeps_its_place_in_the_order_of_latents() -> None:
    assert all_clips()[0] == ShapesClip(
        "red", "circle", "left", "black", 9.0, all_clips()[0].start_xy_px, 1.0
    )
    assert (PACKAGED_WEIGHTS / "shapes-wan").is_dir()


def test_a_negative_prompt_forbids_its_value_and_never_what_the_caption_asks_for() -> None:
    clips = all_clips()[::200]
    captions = [
        "" if row % 2 else f"a {clip.colour} {clip.shape}" for row, clip in enumerate(clips)
    ]
    latents = torch.randn(len(all_clips()), 4, generator=torch.Generator().manual_seed(0))
    posterior = Posterior(latents, all_clips())
    named = attribute_targets(clips, captions)
    generator = torch.Generator().manual_seed(1)
    negatives, left_BN = draw_negatives(posterior, named, clips, generator)
    for clip, caption, negative, left_N in zip(clips, captions, negatives, left_BN, strict=True):
        value = re.sub("standing |moving | background", "", negative)
        for member, is_left in list(zip(all_clips(), left_N.tolist(), strict=True))[::37]:
            shown = {member.colour, member.shape, member.motion, member.background}
            assert is_left == (value not in shown)
        assert not caption or value not in (clip.colour, clip.shape)
    assert len(set(negatives)) > 8
    shown = [
        phrase(name, getattr(clip, name)) == negative
        for clip, caption, negative in zip(clips, captions, negatives, strict=True)
        for name in ATTRIBUTES
        if not caption
    ]
    assert sum(shown) > 0.5 * captions.count("")  # mostly what the clip would show


@pytest.mark.models
@pytest.mark.parametrize("name", list(MODELS))
def test_four_steps_of_the_exact_answer_end_on_a_member(name: str) -> None:
    model = MODELS[name]
    pipeline, clips = load_pipeline(model), all_clips()[::20]
    members = torch.cat(list(normalised_latents(model, pipeline.vae, clips)))
    posterior = Posterior(members, clips)
    allowed = torch.ones(16, len(clips), dtype=torch.bool)
    noise = torch.randn(16, *model.latent_shape, generator=torch.Generator().manual_seed(8))

    def flow(states: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        ends = posterior(states, sigmas, allowed).mean
        return (states - ends) / sigmas.view(-1, 1, 1, 1, 1)

    _, ends = trajectory(pipeline.scheduler, flow, noise, 4)
    reached = posterior(ends, torch.zeros(len(ends)), allowed).likeliest
    assert (ends - members[reached]).square().mean() < 1e-3 * members.var()
    assert len(reached.unique()) >= 12  # the seeds differ


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.models
@pytest.mark.parametrize("name", list(MODELS))
def test_a_student_learns_with_nag_off_and_on_and_saves_a_lora(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda module: module)
    model = MODELS[name]
    pipeline = load_pipeline(model)
    # one member for each combination of attributes
    clips = list({(c.colour, c.shape, c.motion, c.background): c for c in all_clips()}.values())
    shape = (len(clips), *model.latent_shape)
    posterior = Posterior(torch.randn(shape, generator=torch.Generator().manual_seed(0)), clips)
    distillation = Distillation("distillation", num_steps=4, batch_size=2, rollout_steps=(2,))
    student = Student(model, pipeline, ON_CPU)
    student.begin(distillation)
    before = [parameter.detach().clone() for parameter in student.parameters]
    losses: list[float] = []
    learn(student, posterior, clips, Running(lambda _stage, _step, loss: losses.append(loss)))
    assert len(losses) == 4
    assert all(map(math.isfinite, losses))
    assert all(
        not torch.equal(old, new) for old, new in zip(before, student.parameters, strict=True)
    )
    student.save(tmp_path)
    weights = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    assert len(weights) == len(before)
    other = load_pipeline(model)
    other.load_lora_weights(tmp_path)
    resumed = Student(model, load_pipeline(model), ON_CPU)
    resumed.load(tmp_path)
    for old, new in zip(student.parameters, resumed.parameters, strict=True):
        assert torch.equal(old.to(torch.bfloat16), new.to(torch.bfloat16))
