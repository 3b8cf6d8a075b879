"""Trains the Shapes model from nothing and saves it as an ordinary diffusers folder.

`python -m pipelines.shapes.train --output FOLDER`. A stage whose folder is there already is not trained again, so an
interrupted training goes on where the last finished stage left it.
"""

import argparse
import os
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, T5TokenizerFast, UMT5EncoderModel

from pipelines.shapes.autoencoder import AutoencoderTraining, train_autoencoder
from pipelines.shapes.denoiser import (
    NUM_TRAIN_TIMESTEPS,
    DenoiserTraining,
    normalised_latents,
    sample_training_clips,
    train_transformer,
)
from pipelines.shapes.text import TextTraining, train_text_encoder, train_tokenizer
from pipelines.shapes.training_log import TrainingLog, plot_losses

SAMPLING_FLOW_SHIFT = 3.0


def autoencoder_stage(folder: Path, log: TrainingLog) -> AutoencoderKLWan:
    if not folder.exists():
        train_autoencoder(AutoencoderTraining(), log.log_step).save_pretrained(folder)
    return AutoencoderKLWan.from_pretrained(folder, use_safetensors=True).eval()


def tokenizer_stage(folder: Path) -> T5TokenizerFast:
    if not folder.exists():
        train_tokenizer(TextTraining()).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def text_encoder_stage(folder: Path, tokenizer: T5TokenizerFast, log: TrainingLog) -> UMT5EncoderModel:
    if not folder.exists():
        train_text_encoder(TextTraining(), tokenizer, log.log_step).save_pretrained(folder)
    return UMT5EncoderModel.from_pretrained(folder, use_safetensors=True).eval()


def latents_stage(path: Path, autoencoder: AutoencoderKLWan) -> torch.Tensor:
    if not path.exists():
        clips = sample_training_clips(DenoiserTraining())
        chunks: list[torch.Tensor] = []
        for chunk in normalised_latents(autoencoder, clips):
            chunks.append(chunk.half())
            print(f"latents      clip {sum(map(len, chunks)):>6} of {len(clips)}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"latents": torch.cat(chunks)}, path)
    return load_file(path)["latents"]


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
    if not (output / "transformer").exists():
        training = DenoiserTraining()
        latents_NCFHW = latents_stage(cache / "latents.safetensors", vae)
        clips = sample_training_clips(training)
        transformer = train_transformer(training, tokenizer, text_encoder, clips, latents_NCFHW, log.log_step)
        transformer.save_pretrained(output / "transformer")
    scheduler = UniPCMultistepScheduler(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=SAMPLING_FLOW_SHIFT,
    )
    WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        scheduler=scheduler,
        transformer=WanTransformer3DModel.from_pretrained(output / "transformer", use_safetensors=True),
    ).save_pretrained(output)
    plot_losses(log.path, output / "loss.png")
    print(f"saved {output}")


if __name__ == "__main__":
    main()
