"""The basis of distillation: trajectories of the sampler."""

import pytest
import torch

from pipelines.catalog.files.sources import PACKAGED_WEIGHTS
from pipelines.shapes.measuring.rendering import load_pipeline
from pipelines.shapes.training.distill import trajectory
from pipelines.shapes.training.models import MODELS
from pipelines.shapes.training.text import MAX_TOKENS, encode_captions
from pipelines.shapes.world import FPS, NUM_FRAMES, SIZE_PX, ShapesClip, all_clips, sample_clip

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
@pytest.mark.parametrize("num_steps", [1, 4])
def test_a_trajectory_in_training_ends_where_the_pipeline_ends(name: str, num_steps: int) -> None:
    model = MODELS[name]
    pipeline = load_pipeline(model)
    text = encode_captions(pipeline.tokenizer, pipeline.text_encoder, [WORDS], MAX_TOKENS)
    noise = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        states, end = trajectory(
            pipeline.scheduler,
            lambda states, sigmas: model.velocity(pipeline.transformer, states, sigmas, text),
            noise,
            num_steps,
        )
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
