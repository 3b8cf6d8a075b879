"""The options of a training on the command line."""

import argparse
import math
from pathlib import Path


def add_running_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where, and for how long, a training runs."""
    parser.add_argument(
        "--cache",
        type=Path,
        help="folder for encoded clips and checkpoints (default: OUTPUT.cache)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes a GPU if there is one (default: auto)",
    )
    parser.add_argument(
        "--minutes", type=_minutes, help="time for all stages that are left (default: all steps)"
    )


def _minutes(text: str) -> float:
    """Read a time; without one a model would be saved as it began."""
    minutes = float(text)
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return minutes
