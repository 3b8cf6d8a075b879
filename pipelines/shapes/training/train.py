"""Train a Shapes model and save it as an ordinary diffusers folder.

`python -m pipelines.shapes.training.train shapes-ltx --output FOLDER`

Shapes-wan and shapes-ltx begin from nothing, shapes-wan-i2v with the packaged shapes-wan.

A stage whose folder exists is not trained again, so an interrupted training continues after its
last finished stage.
"""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    LTXVideoTransformer3DModel,
    WanTransformer3DModel,
)
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, T5EncoderModel, T5Tokenizer, UMT5EncoderModel

from pipelines.catalog.files.sources import PACKAGED_WEIGHTS
from pipelines.shapes.training.conditions import Conditions
from pipelines.shapes.training.courses import COURSES, DenoiserTraining
from pipelines.shapes.training.denoiser import (
    Examples,
    normalised_latents,
    train_transformer,
    training_clips,
)
from pipelines.shapes.training.models import IMAGE_MODELS, MODELS, ShapesModel, TrainedParts
from pipelines.shapes.training.text import (
    TextEncoder,
    TextTraining,
    train_text_encoder,
    train_tokenizer,
)
from pipelines.shapes.training.training_log import TrainingLog, plot_losses
from pipelines.shapes.world import ShapesClip

_AUTOENCODERS = {"wan": AutoencoderKLWan, "ltx": AutoencoderKLLTXVideo}
_TEXT_ENCODERS = {"wan": UMT5EncoderModel, "ltx": T5EncoderModel}
_TRANSFORMERS = {"wan": WanTransformer3DModel, "ltx": LTXVideoTransformer3DModel}
_TRAINABLE = {**MODELS, **IMAGE_MODELS}


def copy_shared_parts(base: str, output: Path) -> None:
    """Copy the parts that a model shares with the packaged one it starts from."""
    for part in ("vae", "tokenizer", "text_encoder"):
        if not (output / part).exists():
            shutil.copytree(PACKAGED_WEIGHTS / base / part, output / part)


def autoencoder_stage(model: ShapesModel, folder: Path, log: TrainingLog) -> Any:
    if not folder.exists():
        model.train_autoencoder(log.log_step).save_pretrained(folder)
    return _AUTOENCODERS[model.family].from_pretrained(folder, use_safetensors=True).eval()


def tokenizer_stage(folder: Path) -> T5Tokenizer:
    if not folder.exists():
        train_tokenizer(TextTraining()).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def text_encoder_stage(
    model: ShapesModel, folder: Path, tokenizer: T5Tokenizer, log: TrainingLog
) -> TextEncoder:
    if not folder.exists():
        train_text_encoder(TextTraining(), tokenizer, model.family, log.log_step).save_pretrained(
            folder
        )
    return _TEXT_ENCODERS[model.family].from_pretrained(folder, use_safetensors=True).eval()


def latents_stage(
    model: ShapesModel, path: Path, autoencoder: Any, clips: list[ShapesClip]
) -> torch.Tensor:
    if not path.exists():
        chunks: list[torch.Tensor] = []
        for chunk in normalised_latents(model, autoencoder, clips):
            chunks.append(chunk.half())
            print(f"latents      clip {sum(map(len, chunks)):>6} of {len(clips)}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"latents": torch.cat(chunks)}, path)
    return load_file(path)["latents"]


def transformer_stage(
    model: ShapesModel,
    folder: Path,
    latents_path: Path,
    training: DenoiserTraining,
    parts: TrainedParts,
    log: TrainingLog,
) -> Any:
    if not folder.exists():
        clips = training_clips(training)
        examples = Examples(
            clips,
            latents_stage(model, latents_path, parts.autoencoder, clips),
            Conditions(parts.autoencoder, clips) if model.takes_image else None,
        )
        trained: Any = train_transformer(training, model, parts, examples, log.log_step)
        trained.save_pretrained(folder)
    return _TRANSFORMERS[model.family].from_pretrained(folder, use_safetensors=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train a Shapes model (about two hours on two idle cores)."
    )
    parser.add_argument("model", choices=list(_TRAINABLE))
    parser.add_argument("--output", type=Path, required=True, help="the diffusers folder to make")
    parser.add_argument(
        "--cache", type=Path, help="folder for encoded clips (default: OUTPUT.cache)"
    )
    arguments = parser.parse_args()
    # the vocabulary must not depend on the number of cores
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    model = _TRAINABLE[arguments.model]
    output: Path = arguments.output
    cache: Path = arguments.cache or output.with_suffix(".cache")
    log = TrainingLog(output / "train_log.csv")

    if model.base:
        copy_shared_parts(model.base, output)
    autoencoder = autoencoder_stage(model, output / "vae", log)
    tokenizer = tokenizer_stage(output / "tokenizer")
    text_encoder = text_encoder_stage(model, output / "text_encoder", tokenizer, log)
    courses = COURSES[model.name]
    transformer = model.build_transformer(courses[0].seed)
    for course in courses:
        folder = (
            output / "transformer"
            if course is courses[-1]
            else cache / f"transformer, {course.name}"
        )
        latents_path = cache / f"latents-{'anywhere' if course.anywhere else 'lattice'}.safetensors"
        parts = TrainedParts(autoencoder, tokenizer, text_encoder, transformer)
        transformer = transformer_stage(model, folder, latents_path, course, parts, log)
    model.assemble(tokenizer, text_encoder, autoencoder, transformer).save_pretrained(output)
    plot_losses(log.path, output / "loss.png")
    print(f"saved {output}")


if __name__ == "__main__":
    main()
