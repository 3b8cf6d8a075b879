"""Trains the Shapes model from nothing and saves it as an ordinary diffusers folder.

`python -m pipelines.shapes.train --output FOLDER`. A stage whose folder is there already is not trained again, so an
interrupted training goes on where the last finished stage left it.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, T5Tokenizer, UMT5EncoderModel

from pipelines.shapes.autoencoder import AutoencoderTraining, train_autoencoder
from pipelines.shapes.denoiser import (
    COURSES,
    NUM_TRAIN_TIMESTEPS,
    DenoiserTraining,
    build_transformer,
    normalised_latents,
    sample_training_clips,
    train_transformer,
)
from pipelines.shapes.text import TextTraining, train_text_encoder, train_tokenizer
from pipelines.shapes.training_log import TrainingLog, plot_losses
from pipelines.shapes.world import ShapesClip

SAMPLING_FLOW_SHIFT = 3.0


def autoencoder_stage(folder: Path, log: TrainingLog) -> AutoencoderKLWan:
    if not folder.exists():
        train_autoencoder(AutoencoderTraining(), log.log_step).save_pretrained(folder)
    return AutoencoderKLWan.from_pretrained(folder, use_safetensors=True).eval()


def tokenizer_stage(folder: Path) -> T5Tokenizer:
    if not folder.exists():
        train_tokenizer(TextTraining()).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def text_encoder_stage(folder: Path, tokenizer: T5Tokenizer, log: TrainingLog) -> UMT5EncoderModel:
    if not folder.exists():
        train_text_encoder(TextTraining(), tokenizer, log.log_step).save_pretrained(folder)
    return UMT5EncoderModel.from_pretrained(folder, use_safetensors=True).eval()


def latents_stage(path: Path, autoencoder: AutoencoderKLWan, clips: list[ShapesClip]) -> torch.Tensor:
    if not path.exists():
        chunks: list[torch.Tensor] = []
        for chunk in normalised_latents(autoencoder, clips):
            chunks.append(chunk.half())
            print(f"latents      clip {sum(map(len, chunks)):>6} of {len(clips)}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"latents": torch.cat(chunks)}, path)
    return load_file(path)["latents"]


@dataclass(frozen=True)
class Teachers:
    """What the transformer is trained with, trained already."""

    autoencoder: AutoencoderKLWan
    tokenizer: T5Tokenizer
    text_encoder: UMT5EncoderModel


def transformer_stage(
    folder: Path,
    latents_path: Path,
    training: DenoiserTraining,
    start: WanTransformer3DModel,
    teachers: Teachers,
    log: TrainingLog,
) -> WanTransformer3DModel:
    if not folder.exists():
        clips = sample_training_clips(training)
        latents_NCFHW = latents_stage(latents_path, teachers.autoencoder, clips)
        tokenizer, text_encoder = teachers.tokenizer, teachers.text_encoder
        trained = train_transformer(training, start, tokenizer, text_encoder, clips, latents_NCFHW, log.log_step)
        trained.save_pretrained(folder)
    return WanTransformer3DModel.from_pretrained(folder, use_safetensors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the Shapes model (about 1.5 hours on two cores).")
    parser.add_argument("--output", type=Path, required=True, help="the diffusers folder to make")
    parser.add_argument("--cache", type=Path, help="where encoded clips are kept (default: OUTPUT.cache)")
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the vocabulary must not depend on the number of cores
    output: Path = arguments.output
    cache: Path = arguments.cache or output.with_suffix(".cache")
    log = TrainingLog(output / "train_log.csv")

    vae = autoencoder_stage(output / "vae", log)
    tokenizer = tokenizer_stage(output / "tokenizer")
    text_encoder = text_encoder_stage(output / "text_encoder", tokenizer, log)
    teachers = Teachers(vae, tokenizer, text_encoder)
    transformer = build_transformer(COURSES[0].seed)
    for course in COURSES:
        folder = output / "transformer" if course is COURSES[-1] else cache / f"transformer, {course.name}"
        latents_path = cache / f"latents-{'anywhere' if course.anywhere else 'lattice'}.safetensors"
        transformer = transformer_stage(folder, latents_path, course, transformer, teachers, log)
    scheduler = UniPCMultistepScheduler(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=SAMPLING_FLOW_SHIFT,
    )
    pipeline_class: Any = WanPipeline  # its annotations name classes that it does not insist on
    pipeline_class(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        scheduler=scheduler,
        transformer=transformer,
    ).save_pretrained(output)
    plot_losses(log.path, output / "loss.png")
    print(f"saved {output}")


if __name__ == "__main__":
    main()
