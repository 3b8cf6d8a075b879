"""The image autoencoder that all Shapes image models share: AutoencoderKL, 8 x 8 pixels a cell.

It is taught the latents of `latents`, which have mean 0 and spread 1: first the decoder, on windows
of the image around the shape and at last on whole images, then the encoder. So it needs no scaling.

Shape suffixes: N images, C channels, H and W pixels or cells.
"""

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from pipelines.shapes.images import all_images, draw_images
from pipelines.shapes.training.autoencoder import AutoencoderTraining, fit, picture_loss
from pipelines.shapes.training.images.latents import LATENT_SHAPE
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.world import SIZE_PX

PIXELS_PER_CELL = SIZE_PX // LATENT_SHAPE[1]
WINDOW_CELLS = 4
POSTERIOR_LOGVAR = -4.6  # a spread of 0.1
MAX_LATENT_NOISE = 0.1  # makes the decoder robust to inexact latents
DECODER_TRAINING = AutoencoderTraining(
    stage="decoder",
    num_steps=1200,
    full_share=0.2,
    learning_rate=4e-3,
    batch_size=24,
    fan_in=288,
    max_learning_rate=8e-3,
)
ENCODER_TRAINING = AutoencoderTraining(
    stage="encoder",
    num_steps=300,
    full_share=1.0,
    learning_rate=4e-3,
    batch_size=16,
    fan_in=288,
    max_learning_rate=8e-3,
)


def build_autoencoder() -> AutoencoderKL:
    autoencoder_class: Any = AutoencoderKL  # its annotations allow one block alone
    return autoencoder_class(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 32, 32),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=LATENT_SHAPE[0],
        sample_size=SIZE_PX,
        scaling_factor=1.0,
        shift_factor=0.0,
        force_upcast=False,
        mid_block_add_attention=False,
    )


def window_edges(generator: torch.Generator, centre_xy_px: tuple[float, float]) -> tuple[int, int]:
    """Return the first row and column of a window of cells that holds the middle of the shape."""
    edges: list[int] = []
    for centre_px in reversed(centre_xy_px):
        middle = int(centre_px) // PIXELS_PER_CELL
        first = middle - 1 - int(torch.randint(WINDOW_CELLS - 1, (), generator=generator))
        edges.append(min(max(first, 0), LATENT_SHAPE[1] - WINDOW_CELLS))
    return edges[0], edges[1]


def train_autoencoder(latents_NCHW: torch.Tensor, running: Running) -> AutoencoderKL:
    """Teach decoder and encoder the latents of all images."""
    torch.manual_seed(DECODER_TRAINING.seed)
    generator = torch.Generator().manual_seed(DECODER_TRAINING.seed)
    autoencoder: Any = build_autoencoder().train()
    images = all_images()
    pixels_NCHW = draw_images(images)

    def decoder_loss(progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        training = DECODER_TRAINING
        is_full = training.is_full(progress)
        num_images = training.batch_size // 2 if is_full else training.batch_size
        rows = torch.randint(len(images), (num_images,), generator=generator).tolist()
        latents, pixels = latents_NCHW[rows], pixels_NCHW[rows]
        if not is_full:
            edges = [window_edges(generator, images[row].start_xy_px) for row in rows]
            latents = _windows(latents, edges, 1)
            pixels = _windows(pixels, edges, PIXELS_PER_CELL)
        noise = MAX_LATENT_NOISE * torch.rand((num_images, 1, 1, 1), generator=generator)
        latents = latents + noise * torch.randn(latents.shape, generator=generator)
        decoded: Any = autoencoder.decode(latents)
        loss = picture_loss(decoded.sample, pixels.float() / 127.5 - 1)
        return loss, loss

    def encoder_loss(_progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.randint(len(images), (ENCODER_TRAINING.batch_size,), generator=generator)
        encoded: Any = autoencoder.encode(pixels_NCHW[rows].float() / 127.5 - 1)
        miss = functional.mse_loss(encoded.latent_dist.mean, latents_NCHW[rows])
        return miss + 0.01 * (encoded.latent_dist.logvar - POSTERIOR_LOGVAR).square().mean(), miss

    decoding = torch.nn.ModuleList([autoencoder.decoder, autoencoder.post_quant_conv])
    encoding = torch.nn.ModuleList([autoencoder.encoder, autoencoder.quant_conv])
    fit(DECODER_TRAINING, decoding, decoder_loss, generator, running)
    fit(ENCODER_TRAINING, encoding, encoder_loss, generator, running)
    return autoencoder.eval()


def _windows(images_NCHW: torch.Tensor, edges: list[tuple[int, int]], size: int) -> torch.Tensor:
    """Cut one window of cells from each image; a cell is `size` wide."""
    width = WINDOW_CELLS * size
    return torch.stack(
        [
            image[:, top * size : top * size + width, left * size : left * size + width]
            for image, (top, left) in zip(images_NCHW, edges, strict=True)
        ]
    )
