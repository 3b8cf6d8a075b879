"""Trains the Shapes models from nothing: `python -m pipelines.shapes.train --output FOLDER`."""

import argparse
from pathlib import Path

from pipelines.shapes.autoencoder import AutoencoderTraining, train_autoencoder
from pipelines.shapes.training_log import TrainingLog


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    log = TrainingLog(args.output / "train_log.csv")
    if not (args.output / "vae").exists():
        train_autoencoder(AutoencoderTraining(), log.log_step).save_pretrained(args.output / "vae")


if __name__ == "__main__":
    main()
