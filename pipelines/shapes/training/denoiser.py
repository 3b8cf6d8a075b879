"""The training of the Shapes transformers from nothing, by flow matching.

Decides how a course is trained. `courses` decides the courses, `lesson` their batches, `models` the
architecture and its inputs.
Shape suffixes: B clips, C latent channels, F latent frames, H and W latent cells.
"""

from dataclasses import replace

import torch
from diffusers.training_utils import EMAModel

from pipelines.shapes.training.courses import DenoiserTraining
from pipelines.shapes.training.lesson import Examples, Lesson
from pipelines.shapes.training.models import ShapesModel, TrainedParts
from pipelines.shapes.training.own_paths import OwnPaths
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.running.checkpoints import Learning
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.training.text import EncodedCaptions, encode_captions
from pipelines.shapes.world import all_clips


def build_optimizers(
    training: DenoiserTraining, transformer: torch.nn.Module
) -> list[torch.optim.Optimizer]:
    """Build AdamW, and Muon for the matrices of the blocks if the course asks for it."""
    matrices = [
        parameter
        for name, parameter in transformer.named_parameters()
        if training.muon_learning_rate
        and parameter.ndim == 2
        and name.startswith(("blocks.", "transformer_blocks."))
    ]
    taken = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in transformer.parameters() if id(parameter) not in taken]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=training.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    ]
    if training.muon_learning_rate:
        muon = torch.optim.Muon(
            matrices,
            lr=training.muon_learning_rate,
            weight_decay=0.01,
            adjust_lr_fn="match_rms_adamw",
        )
        optimizers.append(muon)
    return optimizers


def train_transformer(
    training: DenoiserTraining,
    model: ShapesModel,
    parts: TrainedParts,
    examples: Examples,
    running: Running,
) -> torch.nn.Module:
    """Train `parts.transformer` further; each time a clip is seen, its caption is worded afresh.

    Returns:
        The transformer with the exponential moving average of its weights, on the CPU.
    """
    compute = running.compute
    transformer = parts.transformer.to(compute.device)
    examples = replace(examples, latents=examples.latents.to(compute.device))
    generator = torch.Generator().manual_seed(training.seed)
    transformer.train()
    ema = EMAModel(
        transformer.parameters(), decay=training.ema_decay, use_ema_warmup=True, power=0.75
    )
    optimizers = build_optimizers(training, transformer)
    compiled = torch.compile(transformer)

    @torch.no_grad()
    def encode(captions: list[str]) -> EncodedCaptions:
        text = encode_captions(parts.tokenizer, parts.text_encoder, captions, training.max_tokens)
        return EncodedCaptions(
            text.embeds.to(compute.device), text.attention_mask.to(compute.device)
        )

    def flow(
        states_BCFHW: torch.Tensor, sigmas_B: torch.Tensor, text: EncodedCaptions
    ) -> torch.Tensor:
        with compute.mixed_precision():
            return model.velocity(compiled, states_BCFHW, sigmas_B, text).float()

    batch_size = training.batch_size * compute.batch_factor
    posterior = Posterior(examples.latents, all_clips()) if training.own_share else None
    own_paths = posterior and OwnPaths(model, flow, encode, posterior, batch_size, generator)
    lesson = Lesson(training, examples, generator, posterior, own_paths)
    learning = Learning(transformer, optimizers, generator, ema)
    for step in running.steps(f"transformer, {training.name}", training.num_steps, learning):
        batch = lesson.draw(batch_size)
        inputs_BCFHW = batch.states
        if batch.conditions is not None:
            inputs_BCFHW = torch.cat([inputs_BCFHW, batch.conditions.to(compute.device)], dim=1)
        error_BCFHW = flow(inputs_BCFHW, batch.sigmas, encode(batch.captions)) - batch.flows
        loss = (error_BCFHW.square() * batch.weights).mean()
        transformer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        ema.step(transformer.parameters())
        step.log(loss.item())
    ema.copy_to(transformer.parameters())
    return transformer.cpu().eval()
