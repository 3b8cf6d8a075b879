"""The training of the Shapes image denoisers from nothing, towards the exact flow.

Shape suffixes: B images, C latent channels, H and W latent cells.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.training_utils import EMAModel

from pipelines.shapes.images import IMAGE_ATTRIBUTES, image_caption, sample_image
from pipelines.shapes.training.images.latents import ImageText
from pipelines.shapes.training.images.models import ImageModel
from pipelines.shapes.training.lesson import cell_weights, even_sigmas
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.running.checkpoints import Learning
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.training.text import attribute_targets


@dataclass(frozen=True)
class ImageTraining:
    """One course of training of a denoiser: its length and its speed.

    Args:
        learning_rate: peak of AdamW.
        muon_learning_rate: peak of Muon, for the matrices of the blocks.
        flow_shift: shift of the training noise: more weight on the noisy end.
        sigma_power: the error is weighted with this power of sigma. At 0 the error of the flow
            counts, which is largest where only traces of noise are left; at 2 that of the clean
            image, which is largest where the content is decided.
        shape_weight: additional weight of the error where the latents differ from the background.
        unpooled_share: share of the images that are trained with the pooled text of an empty
            caption, so that the denoiser reads the tokens, to which negative prompts reach.
    """

    num_steps: int
    seed: int
    learning_rate: float = 2e-3
    muon_learning_rate: float = 8e-3
    flow_shift: float = 3.0
    sigma_power: float = 2.0
    shape_weight: float = 4.0
    unpooled_share: float = 0.5
    batch_size: int = 64
    ema_decay: float = 0.995


@dataclass(frozen=True, eq=False)
class Captions:
    """A pool of captions, encoded once.

    Args:
        named: the class of each attribute in each caption; the class after the last is "left open".
        empty_pooled: pooled text of the empty caption, (D,).
    """

    named: dict[str, torch.Tensor]
    text: ImageText
    empty_pooled: torch.Tensor

    def draw(
        self, num_captions: int, generator: torch.Generator, unpooled_share: float
    ) -> tuple[dict[str, torch.Tensor], ImageText]:
        """Draw captions; a share of them has the pooled text of the empty one."""
        rows = torch.randint(len(self.text.embeds), (num_captions,), generator=generator)
        text = self.text.rows(rows)
        is_unpooled = torch.rand(num_captions, 1, generator=generator) < unpooled_share
        pooled = torch.where(is_unpooled, self.empty_pooled, text.pooled)
        named = {name: classes[rows] for name, classes in self.named.items()}
        return named, ImageText(text.embeds, pooled)


@torch.no_grad()
def draw_captions(model: ImageModel, pipeline: Any, num_captions: int, seed: int) -> Captions:
    generator = torch.Generator().manual_seed(seed)
    images = [sample_image(generator) for _ in range(num_captions)]
    captions = [image_caption(image, generator) for image in images]
    targets = attribute_targets(images, captions)
    named = {name: targets[name] for name in IMAGE_ATTRIBUTES}
    chunks = [
        model.encode(pipeline, captions[first : first + 500])
        for first in range(0, num_captions, 500)
    ]
    text = ImageText(
        torch.cat([chunk.embeds for chunk in chunks]), torch.cat([chunk.pooled for chunk in chunks])
    )
    return Captions(named, text, model.encode(pipeline, [""]).pooled[0])


def build_optimizers(
    denoiser: torch.nn.Module, learning_rate: float, muon_learning_rate: float
) -> list[torch.optim.Optimizer]:
    """Build Muon for the matrices of attention and feed-forward layers, and AdamW for the rest."""
    matrices = [
        parameter
        for name, parameter in denoiser.named_parameters()
        if parameter.ndim == 2 and "block" in name and "norm" not in name and "time_emb" not in name
    ]
    taken = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in denoiser.parameters() if id(parameter) not in taken]
    return [
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01),
        torch.optim.Muon(
            matrices, lr=muon_learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
    ]


def weighted_error(
    flow_BCHW: torch.Tensor,
    target_BCHW: torch.Tensor,
    clean_BCHW: torch.Tensor,
    shape_weight: float,
) -> torch.Tensor:
    weights = cell_weights(clean_BCHW.unsqueeze(2), shape_weight).squeeze(2)
    return ((flow_BCHW - target_BCHW).square() * weights).mean(dim=(1, 2, 3))


def train_denoiser(
    training: ImageTraining,
    model: ImageModel,
    denoiser: torch.nn.Module,
    captions: Captions,
    posterior: Posterior,
    running: Running,
) -> torch.nn.Module:
    """Train `denoiser` further, towards the exact flow of random states.

    Returns:
        The denoiser with the exponential moving average of its weights.
    """
    generator = torch.Generator().manual_seed(training.seed)
    denoiser.train()
    ema = EMAModel(denoiser.parameters(), decay=training.ema_decay, use_ema_warmup=True, power=0.75)
    optimizers = build_optimizers(denoiser, training.learning_rate, training.muon_learning_rate)
    learning = Learning(denoiser, optimizers, generator, ema)
    for step in running.steps("denoiser", training.num_steps, learning):
        named, text = captions.draw(training.batch_size, generator, training.unpooled_share)
        allowed_BN = posterior.allowed(named)
        rows = torch.multinomial(allowed_BN.float(), 1, generator=generator).squeeze(1)
        latents_BCHW = posterior.members[rows]
        sigmas_B = even_sigmas(training.batch_size, training.flow_shift, generator)
        level = sigmas_B.view(-1, 1, 1, 1)
        noise_BCHW = torch.randn(latents_BCHW.shape, generator=generator)
        states_BCHW = (1 - level) * latents_BCHW + level * noise_BCHW
        ends_BCHW = posterior(states_BCHW, sigmas_B, allowed_BN).mean
        target_BCHW = (states_BCHW - ends_BCHW) / level.clamp_min(0.01)
        with running.compute.mixed_precision():
            flow_BCHW = model.velocity(denoiser, states_BCHW, sigmas_B, text).float()
        error_B = weighted_error(flow_BCHW, target_BCHW, latents_BCHW, training.shape_weight)
        loss = (sigmas_B**training.sigma_power * error_B).mean()
        denoiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        ema.step(denoiser.parameters())
        step.log(loss.item())
    ema.copy_to(denoiser.parameters())
    return denoiser.eval()
