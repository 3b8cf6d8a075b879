"""Train a Shapes model and save it as an ordinary diffusers folder.

`python -m pipelines.shapes.training.train shapes-ltx --output FOLDER`

Shapes-wan and shapes-ltx begin from nothing, shapes-wan-i2v with the packaged shapes-wan.

An interrupted training goes on where it was: a stage whose folder exists is not trained again, and
the stage that ran has a checkpoint that is at most two minutes old.

With `--minutes` the stages that are left share that time, and each trains as long as it may.
"""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    LTXVideoTransformer3DModel,
    WanTransformer3DModel,
)
from transformers import AutoTokenizer, T5EncoderModel, T5Tokenizer, UMT5EncoderModel

from pipelines.catalog.files.sources import PACKAGED_WEIGHTS
from pipelines.shapes.training.conditions import Conditions
from pipelines.shapes.training.courses import COURSES, DenoiserTraining
from pipelines.shapes.training.denoiser import train_transformer
from pipelines.shapes.training.kept_latents import kept_latents
from pipelines.shapes.training.lesson import Examples, training_clips
from pipelines.shapes.training.made_latents import TRAINING as MADE_LATENTS
from pipelines.shapes.training.made_latents import train_on_made_latents
from pipelines.shapes.training.models import IMAGE_MODELS, MODELS, ShapesModel, TrainedParts
from pipelines.shapes.training.running.arguments import add_running_arguments
from pipelines.shapes.training.running.compute import Compute
from pipelines.shapes.training.running.pace import Budget
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.training.running.training_log import TrainingLog, plot_losses
from pipelines.shapes.training.saved_folder import save_folder
from pipelines.shapes.training.text import (
    TextEncoder,
    TextTraining,
    train_text_encoder,
    train_tokenizer,
)
from pipelines.shapes.world import all_clips

_AUTOENCODERS = {"wan": AutoencoderKLWan, "ltx": AutoencoderKLLTXVideo}
_TEXT_ENCODERS = {"wan": UMT5EncoderModel, "ltx": T5EncoderModel}
_TRANSFORMERS = {"wan": WanTransformer3DModel, "ltx": LTXVideoTransformer3DModel}
_TRAINABLE = {**MODELS, **IMAGE_MODELS}
# weights of the stages in a budget of time; the courses of the transformer have the rest
AUTOENCODER_WEIGHT, TEXT_WEIGHT, MADE_LATENTS_WEIGHT = 0.25, 0.05, 0.1


def copy_shared_parts(base: str, output: Path) -> None:
    """Copy the parts that a model shares with the packaged one it starts from."""
    for part in ("vae", "tokenizer", "text_encoder"):
        if not (output / part).exists():
            shutil.copytree(PACKAGED_WEIGHTS / base / part, output / part)


def autoencoder_stage(model: ShapesModel, folder: Path, running: Running) -> Any:
    if not folder.exists():
        model.train_autoencoder(running).save_pretrained(folder)
    return _AUTOENCODERS[model.family].from_pretrained(folder, use_safetensors=True).eval()


def tokenizer_stage(folder: Path) -> T5Tokenizer:
    if not folder.exists():
        train_tokenizer(TextTraining()).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def text_encoder_stage(
    model: ShapesModel, folder: Path, tokenizer: T5Tokenizer, running: Running
) -> TextEncoder:
    if not folder.exists():
        train_text_encoder(TextTraining(), tokenizer, model.family, running).save_pretrained(folder)
    return _TEXT_ENCODERS[model.family].from_pretrained(folder, use_safetensors=True).eval()


def transformer_stage(
    model: ShapesModel,
    folder: Path,
    latents_path: Path,
    training: DenoiserTraining,
    parts: TrainedParts,
    running: Running,
) -> Any:
    if not folder.exists():
        clips = training_clips(training)
        examples = Examples(
            clips,
            kept_latents(model, latents_path, parts.autoencoder, clips, running.compute),
            Conditions(parts.autoencoder, clips) if model.takes_image else None,
        )
        trained: Any = train_transformer(training, model, parts, examples, running)
        trained.save_pretrained(folder)
    return _TRANSFORMERS[model.family].from_pretrained(folder, use_safetensors=True)


def made_latents_stage(
    model: ShapesModel, pipeline: Any, folder: Path, cache: Path, running: Running
) -> None:
    """Put the autoencoder whose decoder has had its last course into the pipeline."""
    if not folder.exists():
        clips, path = all_clips(), cache / "latents-lattice-all.safetensors"
        latents = kept_latents(model, path, pipeline.vae, clips, running.compute)
        train_on_made_latents(pipeline, latents, clips, running)
        pipeline.vae.save_pretrained(folder)
    pipeline.vae = _AUTOENCODERS[model.family].from_pretrained(folder, use_safetensors=True).eval()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a Shapes model (some hours on two idle cores)."
    )
    parser.add_argument("model", choices=list(_TRAINABLE))
    parser.add_argument("--output", type=Path, required=True, help="the diffusers folder to make")
    add_running_arguments(parser)
    return parser.parse_args()


def stage_weights(model: ShapesModel) -> dict[str, float]:
    """Return the weight of each stage in a budget of time; a course counts by its steps."""
    courses = COURSES[model.name]
    all_steps = sum(course.num_steps for course in courses)
    first = {
        "autoencoder": 0.0 if model.base else AUTOENCODER_WEIGHT,
        "text_encoder": 0.0 if model.base else TEXT_WEIGHT,
    }
    if model.learns_made_latents:
        first |= {MADE_LATENTS.stage: MADE_LATENTS_WEIGHT}
    rest = 1 - sum(first.values())
    return first | {course.name: rest * course.num_steps / all_steps for course in courses}


def main() -> None:
    arguments = parse_arguments()
    # the vocabulary must not depend on the number of cores
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    model = _TRAINABLE[arguments.model]
    output: Path = arguments.output
    cache: Path = arguments.cache or output.with_suffix(".cache")
    log = TrainingLog(output / "train_log.csv")
    compute = Compute.on(arguments.device)
    budget = Budget(arguments.minutes, stage_weights(model))

    def running(stage: str) -> Running:
        return Running(log.log_step, compute, budget.seconds_for(stage), cache / "checkpoints")

    if model.base:
        copy_shared_parts(model.base, output)
    taught = cache / "vae, taught" if model.learns_made_latents else output / "vae"
    autoencoder = autoencoder_stage(model, taught, running("autoencoder"))
    tokenizer = tokenizer_stage(output / "tokenizer")
    text_encoder = text_encoder_stage(
        model, output / "text_encoder", tokenizer, running("text_encoder")
    )
    courses = COURSES[model.name]
    transformer = model.build_transformer(courses[0].seed)
    for course in courses:
        folder = (
            output / "transformer"
            if course is courses[-1]
            else cache / f"transformer, {course.name}"
        )
        kind = "anywhere" if course.anywhere else "lattice"
        latents_path = cache / f"latents-{kind}-{course.num_clips or 'all'}.safetensors"
        parts = TrainedParts(autoencoder, tokenizer, text_encoder, transformer)
        transformer = transformer_stage(
            model, folder, latents_path, course, parts, running(course.name)
        )
    pipeline = model.assemble(tokenizer, text_encoder, autoencoder, transformer)
    if model.learns_made_latents:
        made_latents_stage(model, pipeline, output / "vae", cache, running(MADE_LATENTS.stage))
    save_folder(pipeline, output)
    plot_losses(log.path, output / "loss.png")
    print(f"saved {output}")


if __name__ == "__main__":
    main()
