"""The options that say which models a command knows, and where their descriptions come from."""

import argparse
from pathlib import Path

from jobs.manifest.model_catalog import ModelCatalog
from jobs.run.progress.hashing_bar import inspect_with_bar


def add_models_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models",
        type=Path,
        metavar="FOLDER",
        help="a folder of model YAMLs, besides those that come with nagfarm and those of the "
        "folder that NAGFARM_MODELS names; it wins over both",
    )


def add_remote_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--remote",
        action="store_true",
        help="for a model whose weights are not on this machine, ask a node of the Ray cluster of "
        "RAY_ADDRESS (HOST:PORT, or http://HEAD:8265) for its description, and keep it here",
    )


def catalog_for(models: Path | None, *, asks: bool) -> ModelCatalog:
    """Return the catalog of a command that may plan without weights.

    Args:
        models: folder of the user's models.
        asks: True to ask a Ray cluster for models without weights on this machine.
    """
    if not asks:
        return ModelCatalog(models, inspect_with_bar)
    from jobs.description.remote import fetch_description

    return ModelCatalog(models, inspect_with_bar, fetch_description)
