"""The latents of clips as a pipeline denoises them, made once and kept in a file.

Shape suffixes: N clips, C latent channels, F latent frames, H and W latent cells.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pipelines.shapes.training.models import ShapesModel
from pipelines.shapes.training.running.compute import ON_CPU, Compute
from pipelines.shapes.world import ShapesClip


@torch.no_grad()
def normalised_latents(
    model: ShapesModel, autoencoder: Any, clips: list[ShapesClip], compute: Compute = ON_CPU
) -> Iterator[torch.Tensor]:
    """Yield latents as the pipeline denoises them, (N, C, F, H, W) float32, 120 clips at a time."""
    autoencoder.to(compute.device)
    for first in range(0, len(clips), 120):
        # bfloat16 is four times as fast here and moves the latents by 1 % of their spread
        with torch.autocast(compute.device.type, dtype=torch.bfloat16):
            latents_NCFHW = model.training_latents(autoencoder, clips[first : first + 120])
        yield latents_NCFHW.float()


def kept_latents(
    model: ShapesModel,
    path: Path,
    autoencoder: Any,
    clips: list[ShapesClip],
    compute: Compute = ON_CPU,
) -> torch.Tensor:
    """Return the latents of the clips in half precision, from the file if it exists."""
    if not path.exists():
        chunks: list[torch.Tensor] = []
        for chunk in normalised_latents(model, autoencoder, clips, compute):
            chunks.append(chunk.half())
            print(f"latents      clip {sum(map(len, chunks)):>6} of {len(clips)}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"latents": torch.cat(chunks)}, path)
    return load_file(path)["latents"]
