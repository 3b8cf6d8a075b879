"""The options of a training on the command line."""

import argparse
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
        "--minutes", type=float, help="time for all stages that are left (default: all steps)"
    )
