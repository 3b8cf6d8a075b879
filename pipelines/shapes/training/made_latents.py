"""The last course of the decoder of shapes-ltx: the latents that its own transformer makes.

Small errors of a transformer are not random. A decoder that had seen true latents alone drew many
of its circles as squares, where the decoder of shapes-wan drew circles. Here it learns to draw the
member of the world that is nearest to what the transformer made, beside true latents. Circles and
squares, which differ least, are drawn more often.

Shape suffixes: N clips, C latent channels, F latent frames, H and W latent cells.
"""

from typing import Any

import torch

from pipelines.shapes.captions import caption
from pipelines.shapes.training import ltx
from pipelines.shapes.training.autoencoder import AutoencoderTraining, fit, picture_loss
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.training.text import MAX_TOKENS, attribute_targets
from pipelines.shapes.world import FPS, NUM_FRAMES, SIZE_PX, ShapesClip, render_uint8, sample_clip

TRAINING = AutoencoderTraining(
    stage="decoder, made latents",
    num_steps=2000,
    full_share=0.1,
    learning_rate=5e-4,
    batch_size=12,
    fan_in=1728,
    max_learning_rate=1.2e-3,
    seed=2,
)
NUM_BATCHES, BATCH_SIZE = 24, 20
NUM_STEPS = (4, 8, 8, 25)
MAX_MISS = 0.25  # mean square distance to a member; a clip farther off has no right picture
WEIGHTS = {"circle": 4.0, "square": 2.0, "triangle": 1.0, "cross": 1.0}


@torch.no_grad()
def make(
    pipeline: Any, posterior: Posterior, clips: list[ShapesClip], generator: torch.Generator
) -> tuple[torch.Tensor, list[ShapesClip]]:
    """Return latents that the transformer makes, (N, C, F, H, W), and the clips they stand for."""
    found = [torch.empty(0, *ltx.LATENT_SHAPE)]
    meant: list[ShapesClip] = []
    for batch in range(NUM_BATCHES):
        asked = [sample_clip(generator) for _ in range(BATCH_SIZE)]
        captions = [caption(clip, generator) for clip in asked]
        packed: torch.Tensor = pipeline(
            captions,
            height=SIZE_PX,
            width=SIZE_PX,
            num_frames=NUM_FRAMES,
            frame_rate=FPS,
            num_inference_steps=NUM_STEPS[batch % len(NUM_STEPS)],
            guidance_scale=1,
            generator=generator,
            output_type="latent",
            max_sequence_length=MAX_TOKENS,
        ).frames
        made = packed.transpose(1, 2).unflatten(2, ltx.LATENT_SHAPE[1:]).float().cpu()
        allowed = posterior.allowed(attribute_targets(asked, captions))
        answer = posterior(made, torch.zeros(BATCH_SIZE), allowed)
        misses = (made - answer.mean).square().flatten(1).mean(dim=1)
        is_near = misses < MAX_MISS
        found.append(made[is_near])
        meant += [clips[index] for index in answer.likeliest[is_near].tolist()]
    return torch.cat(found), meant


def train_on_made_latents(
    pipeline: Any, members_NCFHW: torch.Tensor, clips: list[ShapesClip], running: Running
) -> None:
    """Train the decoder of the pipeline in place.

    Args:
        members_NCFHW: true latents of the clips, normalised.
        clips: the members of the world.
    """
    generator = torch.Generator().manual_seed(TRAINING.seed)
    device, autoencoder = running.compute.device, pipeline.vae
    pipeline.to(device)
    made, meant = make(pipeline, Posterior(members_NCFHW, clips), clips, generator)
    rows = torch.randperm(len(clips), generator=generator)[: ltx.NUM_AUTOENCODER_CLIPS]
    latents_NCFHW = torch.cat([members_NCFHW[rows].float(), made]).to(device)
    true = [clips[row] for row in rows.tolist()]
    shown = [*true, *meant]
    videos_NCTHW = render_uint8(shown).to(device)
    weights = torch.cat([_weights(true), _weights(meant)])

    def loss(progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        is_full = TRAINING.is_full(progress)
        num_clips = TRAINING.batch_size * running.compute.batch_factor // (3 if is_full else 1)
        chosen = torch.multinomial(weights, num_clips, replacement=True, generator=generator)
        windows = [
            ltx.Window() if is_full else ltx.window_at_shape(shown[row], generator)
            for row in chosen.tolist()
        ]
        pairs = list(zip(chosen.tolist(), windows, strict=True))
        latents = torch.stack([window.of(latents_NCFHW[row]) for row, window in pairs])
        videos = torch.stack(
            [window.of(videos_NCTHW[row], ltx.PIXELS_PER_CELL) for row, window in pairs]
        )
        decoded: Any = autoencoder.decode(ltx.with_noise(latents, generator))
        found = picture_loss(decoded.sample, videos.float() / 127.5 - 1)
        return found, found

    autoencoder.train()
    fit(TRAINING, autoencoder.decoder, loss, generator, running)
    pipeline.to("cpu")
    autoencoder.eval()


def _weights(clips: list[ShapesClip]) -> torch.Tensor:
    """Return how often each clip is drawn; all together have the weight 1."""
    weights = torch.tensor([WEIGHTS[clip.shape] for clip in clips])
    return weights / weights.sum()
