"""`nagfarm models`: list the models and whether their weights are here, or download these."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.command import EXIT_OK, Command, Context, Options, add_models_argument
from jobs.cli.wording import table_lines
from jobs.manifest.model_catalog import ModelCatalog
from jobs.run.hashing_bar import inspect_with_bar
from pipelines.catalog.fetching import fetch_weights
from pipelines.errors import ModelNotFoundError, PipelineError


@dataclass(frozen=True)
class ModelsOptions(Options):
    """The options of `nagfarm models`."""

    models: Path | None
    fetch: tuple[str, ...] | None

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        add_models_argument(parser)
        parser.add_argument(
            "--fetch",
            nargs="*",
            metavar="NAME",
            help="list nothing, but download the weights of these models, with their LoRAs, that "
            "are not on this machine",
        )


def run(options: ModelsOptions, context: Context) -> int:
    if options.fetch is not None:
        return _fetch(options.fetch, options.models, context)
    catalog = ModelCatalog(options.models, inspect_with_bar)
    rows: list[tuple[str, str, str]] = []
    missing: list[str] = []
    for name in catalog.names():
        description, state = "", "here"
        try:
            description = catalog.config(name).description
            catalog.get(name)
        except PipelineError as error:
            state = "missing" if isinstance(error, ModelNotFoundError) else "broken"
            missing.append(str(error))
        rows.append((name, state, description))
    for line in [*table_lines(("model", "weights", "description"), rows), *missing]:
        context.say(line)
    return EXIT_OK


def _fetch(names: tuple[str, ...], models_folder: Path | None, context: Context) -> int:
    """Download the weights of these models; of no model, which a service may be set up with, none.

    Raises:
        UnknownModelError: no model has one of the names; nothing was downloaded.
        PipelineError: the weights of a model cannot be had.
    """
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():  # a log would get a line for each step of a bar
        disable_progress_bars()
    catalog = ModelCatalog(models_folder)
    for name, (config, path) in {name: catalog.config_file(name) for name in names}.items():
        weights = fetch_weights(config, path, context.say)
        context.say(f"{name}: here and complete, revision {weights.revision}")
    return EXIT_OK


COMMAND = Command(
    name="models",
    summary="list the models and whether their weights are on this machine, or download them",
    epilog="""\
examples:
  nagfarm models
  nagfarm models --models my-models                 also those of a folder of your own
  nagfarm models --fetch wan2.1-t2v-14b             download its weights, once on a machine

Below the table stands, for each model whose weights are missing, the command that downloads them.
--fetch does so for all processes of a machine: one downloads, the others wait for it. Weights that
are here are not asked for again, so it may run before each start of a worker. They lie in the
Hugging Face cache, HF_HUB_CACHE; HF_TOKEN and HF_ENDPOINT are the hub's token and a mirror.
""",
    options=ModelsOptions,
    run=run,
)
