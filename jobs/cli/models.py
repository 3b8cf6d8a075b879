"""`nagfarm models`: list the models and whether their weights are on this machine."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.command import EXIT_OK, Command, Context, Options, add_models_argument
from jobs.cli.wording import table_lines
from jobs.manifest.model_catalog import ModelCatalog
from jobs.run.hashing_bar import inspect_with_bar
from pipelines.errors import ModelNotFoundError, PipelineError


@dataclass(frozen=True)
class ModelsOptions(Options):
    """The options of `nagfarm models`."""

    models: Path | None

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        add_models_argument(parser)


def run(options: ModelsOptions, context: Context) -> int:
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


COMMAND = Command(
    name="models",
    summary="list the models and whether their weights are on this machine",
    epilog="""\
examples:
  nagfarm models
  nagfarm models --models my-models                 also those of a folder of your own

Below the table stands, for each model whose weights are missing, the command that downloads them.
""",
    options=ModelsOptions,
    run=run,
)
