"""`nagfarm models`: list the models, download their weights, or describe them without these."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.pattern.command import EXIT_OK, Command, Context, Options
from jobs.cli.pattern.model_options import add_models_argument, add_remote_argument, catalog_for
from jobs.cli.pattern.wording import table_lines
from jobs.description.files import pack, read_contents, save_description, to_lines
from jobs.errors import RefusedError
from jobs.manifest.model_catalog import CatalogEntry, ModelCatalog
from pipelines.catalog.description import FILE_NAME, Description, describe
from pipelines.catalog.fetching import fetch_weights
from pipelines.errors import ModelNotFoundError, PipelineError


@dataclass(frozen=True)
class ModelsOptions(Options):
    """The options of `nagfarm models`."""

    models: Path | None
    fetch: tuple[str, ...] | None
    describe: tuple[str, ...]
    to: Path | None
    packed: bool
    remote: bool

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
        parser.add_argument(
            "--describe",
            nargs="+",
            default=[],
            metavar="NAME",
            help="write the descriptions of models, with which machines without weights plan; see "
            "below",
        )
        parser.add_argument(
            "--to",
            type=Path,
            metavar="FOLDER",
            help="the folder for them, made if it is missing; the one of --models if left out",
        )
        parser.add_argument(
            "--packed",
            action="store_true",
            help="print them instead, packed into lines that --remote reads",
        )
        add_remote_argument(parser)


def run(options: ModelsOptions, context: Context) -> int:
    if options.fetch is not None:
        return _fetch(options.fetch, options.models, context)
    if options.remote and not options.describe:
        raise RefusedError("--remote fetches the models that --describe names; name some")
    catalog = catalog_for(options.models, asks=options.remote)
    if options.describe:
        for name in options.describe:
            _describe(catalog, name, options, context)
        return EXIT_OK
    rows: list[tuple[str, str, str]] = []
    missing: list[str] = []
    for name in catalog.names():
        description, state = "", "here"
        try:
            description = catalog.config(name).description
            if catalog.get(name).weights.described is not None:
                state = "described"
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


def _describe(catalog: ModelCatalog, name: str, options: ModelsOptions, context: Context) -> None:
    place = options.to or options.models
    if place is None and not options.packed:
        raise RefusedError("--describe needs a folder: --to FOLDER")
    entry = catalog.get(name)
    is_copy = (entry.weights.folder / FILE_NAME).is_file()
    if is_copy and not options.remote:  # perhaps an outdated one
        raise ModelNotFoundError(
            f"{name}: its weights are not on this machine, only a description in "
            f"{entry.weights.folder}; describe it where they are, or with --remote"
        )
    description = _description(entry, catalog.config_file(name)[1])
    contents = read_contents(entry.weights.folder, description)
    if options.packed:
        for line in to_lines(pack(description, contents)):
            context.say(line)
    elif place is not None:
        folder = save_description(description, contents, place)
        num_bytes = sum(map(len, contents.values()))
        context.say(
            f"{name}: {len(contents)} files, {num_bytes:,} bytes, in {folder}; its weights: "
            f"{description.num_weight_bytes:,} bytes, revision {description.revision}"
        )


def _description(entry: CatalogEntry, path: Path) -> Description:
    described = entry.weights.described
    return described.description if described else describe(entry.config, path, entry.weights)


COMMAND = Command(
    name="models",
    summary="list the models and whether their weights are here; download or describe them",
    epilog="""\
examples:
  nagfarm models
  nagfarm models --models my-models                 also those of a folder of your own
  nagfarm models --fetch wan2.1-t2v-14b             download its weights, once on a machine
  nagfarm models --describe wan2.1-t2v-14b --to described
  nagfarm plan spring.yaml --models described       on a machine without the weights

Below the table stands, for each model whose weights are missing, the command that downloads them.
--fetch does so for all processes of a machine: one downloads, the others wait for it. Weights that
are here are not asked for again, so it may run before each start of a worker. They lie in the
Hugging Face cache, HF_HUB_CACHE; HF_TOKEN and HF_ENDPOINT are the hub's token and a mirror.

A description is a folder NAME.described with a model's configs and tokenizer, and the revision of
its weights: enough to plan with the same clip ids, and small enough to commit. It is found in the
folder of --models, or beside the model's YAML. A worker proves that its weights are those of the
description, and refuses any others.
""",
    options=ModelsOptions,
    run=run,
)
