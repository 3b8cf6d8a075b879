"""Train the Shapes image models and save them as ordinary diffusers folders, with their LoRAs.

`python -m pipelines.shapes.training.images.train --output FOLDER`

The models share their text encoders and their autoencoder. A stage whose folder in the cache exists
is not trained again. Autoencoder and denoisers have checkpoints besides, so an interrupted training
goes on where it was.
"""

import argparse
import os
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from transformers import (
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5EncoderModel,
    T5Tokenizer,
)

from pipelines.shapes.images import IMAGE_ATTRIBUTES, all_images
from pipelines.shapes.training.images.autoencoder import train_autoencoder
from pipelines.shapes.training.images.denoiser import (
    Captions,
    ImageTraining,
    draw_captions,
    train_denoiser,
)
from pipelines.shapes.training.images.distill import ImageDistillation, distil, save_lora
from pipelines.shapes.training.images.latents import taught_latents
from pipelines.shapes.training.images.models import MODELS, ImageModel
from pipelines.shapes.training.images.text import (
    ImageTextTraining,
    TextParts,
    train_text_parts,
)
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.training.running.training_log import TrainingLog, plot_losses
from pipelines.shapes.training.saved_folder import forget_paths

NUM_CAPTIONS, CAPTIONS_SEED = 8_000, 7  # the pool that captions are drawn from
SEED = 0  # untrained weights
LORA_FILE = "pytorch_lora_weights.safetensors"
_FIRST = ImageTraining(num_steps=1600, seed=1, sigma_power=0.0)
_AGAIN = ImageTraining(
    num_steps=550, seed=2, learning_rate=1.5e-3, muon_learning_rate=6e-3, flow_shift=5.0
)
_LONG = replace(_AGAIN, num_steps=3600, seed=4)
COURSES = {
    "shapes-sdxl": (
        ImageTraining(num_steps=1800, seed=1, batch_size=48),
        replace(_AGAIN, num_steps=700, batch_size=48),
        replace(_LONG, batch_size=48),
    ),
    "shapes-sd3": (_FIRST, _AGAIN, replace(_AGAIN, num_steps=900, seed=3), _LONG),
    "shapes-flux": (_FIRST, replace(_AGAIN, num_steps=1500), _LONG),
}
ROLLOUTS = {"shapes-sdxl": 70, "shapes-sd3": 50, "shapes-flux": 50}


def text_stage(folder: Path) -> TextParts:
    if not (folder / "t5").exists():
        made = train_text_parts(ImageTextTraining(), TrainingLog(folder / "log.csv").log_step)
        for name in ("clip_tokenizer", "clip", "clip_2", "t5_tokenizer", "t5"):
            getattr(made, name).save_pretrained(folder / name)
    read: Any = CLIPTextModelWithProjection
    return TextParts(
        CLIPTokenizer.from_pretrained(folder / "clip_tokenizer"),
        read.from_pretrained(folder / "clip").eval(),
        read.from_pretrained(folder / "clip_2").eval(),
        T5Tokenizer.from_pretrained(folder / "t5_tokenizer"),
        T5EncoderModel.from_pretrained(folder / "t5").eval(),
    )


def autoencoder_stage(folder: Path, posterior: Posterior) -> AutoencoderKL:
    if not folder.exists():
        log = TrainingLog(folder.with_suffix(".csv"))
        running = Running(log.log_step, checkpoints=folder.with_suffix(".checkpoints"))
        train_autoencoder(posterior.members, running).save_pretrained(folder)
    return AutoencoderKL.from_pretrained(folder, use_safetensors=True).eval()


def denoiser_stage(
    model: ImageModel, cache: Path, parts: tuple[TextParts, AutoencoderKL], posterior: Posterior
) -> Any:
    """Return the assembled pipeline with a denoiser that went through its courses."""
    denoiser = model.build_denoiser(SEED)
    for number, course in enumerate(COURSES[model.name]):
        folder = cache / f"{model.name}-course{number}"
        if not folder.exists():
            captions = caption_pool(model, model.assemble(*parts, denoiser))
            log = TrainingLog(cache / f"{model.name}.csv")
            running = Running(log.log_step, checkpoints=folder.with_suffix(".checkpoints"))
            train_denoiser(course, model, denoiser, captions, posterior, running)
            denoiser.save_pretrained(folder)
        denoiser = type(denoiser).from_pretrained(folder, use_safetensors=True)
    return model.assemble(*parts, denoiser)


def caption_pool(model: ImageModel, pipeline: Any) -> Captions:
    return draw_captions(model, pipeline, NUM_CAPTIONS, CAPTIONS_SEED)


def model_stage(
    model: ImageModel,
    output: Path,
    cache: Path,
    parts: tuple[TextParts, AutoencoderKL],
    posterior: Posterior,
) -> None:
    """Save the pipeline in float16, then train its LoRA on the weights as saved."""
    folder = output / model.name
    if not folder.exists():
        # the other models share its parts
        pipeline = deepcopy(denoiser_stage(model, cache, parts, posterior))
        pipeline.to(torch.float16).save_pretrained(folder)
        forget_paths(folder)
        shutil.copy(cache / f"{model.name}.csv", folder / "train_log.csv")
        plot_losses(folder / "train_log.csv", folder / "loss.png")
    folder_of_lora = output / f"{model.name}-4step"
    if not (folder_of_lora / LORA_FILE).exists():
        student = model.pipeline_class.from_pretrained(folder, dtype=torch.float32)
        captions = caption_pool(model, student)
        log = TrainingLog(folder_of_lora / "train_log.csv")
        distillation = ImageDistillation(ROLLOUTS[model.name])
        distil(distillation, model, student, captions, posterior, log.log_step)
        save_lora(model, student, folder_of_lora)
        plot_losses(log.path, folder_of_lora / "loss.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train the Shapes image models (about two hours on a core that others use too)."
    )
    parser.add_argument("models", nargs="*", help=f"default: {', '.join(MODELS)}")
    parser.add_argument("--output", type=Path, required=True, help="the folder of their folders")
    parser.add_argument("--cache", type=Path, help="folder of the stages (default: OUTPUT.cache)")
    arguments = parser.parse_args()
    if unknown := set(arguments.models) - set(MODELS):
        parser.error(f"expected models of {', '.join(MODELS)}, got {', '.join(sorted(unknown))}")
    # the vocabulary must not depend on the number of cores
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    output: Path = arguments.output
    cache: Path = arguments.cache or output.with_suffix(".cache")
    posterior = Posterior(taught_latents(), all_images(), IMAGE_ATTRIBUTES)
    parts = text_stage(cache / "text"), autoencoder_stage(cache / "vae", posterior)
    for name in arguments.models or MODELS:
        model_stage(MODELS[name], output, cache, parts, posterior)
        print(f"saved {output / name}")


if __name__ == "__main__":
    main()
