"""`nagfarm models`: list the models, download their weights, or describe them without these."""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.model_table import model_lines
from jobs.cli.pattern.command import EXIT_OK, Command, Context, Options
from jobs.cli.pattern.model_options import add_models_argument, add_remote_argument, catalog_for
from jobs.description.files import pack, read_contents, save_description, to_lines
from jobs.description.first_yaml import first_yaml
from jobs.errors import RefusedError
from jobs.manifest.model_catalog import CatalogEntry, ModelCatalog
from jobs.whole_files import written_whole
from pipelines.catalog.description import FILE_NAME, Description, describe
from pipelines.catalog.fetching import fetch_weights
from pipelines.catalog.model_yaml import load_model_config
from pipelines.errors import ModelNotFoundError


@dataclass(frozen=True)
class ModelsOptions(Options):
    """The options of `nagfarm models`."""

    models: Path | None
    fetch: tuple[str, ...] | None
    describe: tuple[str, ...]
    to: Path | None
    packed: bool
    remote: bool
    long: bool
    init: Path | None
    output: Path | None

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
        parser.add_argument(
            "--long",
            action="store_true",
            help="list also inputs, sound, tokens, grid, defaults, licence and download",
        )
        parser.add_argument(
            "--init",
            type=Path,
            metavar="FOLDER",
            help="print the YAML of a folder of weights as diffusers saves it, with a comment "
            "where you must decide",
        )
        parser.add_argument(
            "--output",
            type=Path,
            metavar="FILE",
            help="write what --init makes into this new file, whose name names the model; its "
            "folder is made if it is missing",
        )


def run(options: ModelsOptions, context: Context) -> int:
    if options.init is not None:
        return _init(options.init, options.output, context)
    if options.output is not None:
        raise RefusedError("--output is the file of --init; name its folder with --init FOLDER")
    if options.fetch is not None:
        return _fetch(options.fetch, options.models, context)
    if options.remote and not options.describe:
        raise RefusedError("--remote fetches the models that --describe names; name some")
    catalog = catalog_for(options.models, asks=options.remote)
    if options.describe:
        for name in options.describe:
            _describe(catalog, name, options, context)
        return EXIT_OK
    for line in model_lines(catalog, is_long=options.long):
        context.say(line)
    return EXIT_OK


def _init(folder: Path, output: Path | None, context: Context) -> int:
    """Print the first YAML of a folder, or write it into a new file.

    Raises:
        PipelineError: the folder is not one that nagfarm can load.
        RefusedError: the file exists, is not a YAML, or cannot be written.
    """
    if output is None:
        name = Path(os.path.realpath(folder)).name
        for line in first_yaml(folder, name).splitlines():
            context.say(line)
        return EXIT_OK
    if output.suffix != ".yaml":
        raise RefusedError(f"--output must be a file that ends in .yaml, not {output}")
    text = first_yaml(folder, output.stem)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(output, replaces=False) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    except FileExistsError as error:
        raise RefusedError(f"{output} exists, and is not overwritten: name another file") from error
    except OSError as error:
        raise RefusedError(f"{output} cannot be written: {error.strerror}") from error
    load_model_config(output)
    context.say(f"{output}: read it and decide the lines that say so")
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
  nagfarm models --long                             inputs, sound, sizes, licences
  nagfarm models --models my-models                 also those of a folder of your own
  nagfarm models --init /weights/forest --output my-models/forest.yaml
  nagfarm models --fetch wan2.1-t2v-14b             download its weights, once on a machine
  nagfarm models --describe wan2.1-t2v-14b --to described
  nagfarm plan spring.yaml --models described       on a machine without the weights

Below the table stands, for each model whose weights are missing, the command that downloads them.
--fetch does so for all processes of a machine: one downloads, the others wait for it. Weights that
are here are not asked for again, so it may run before each start of a worker. They lie in the
Hugging Face cache, HF_HUB_CACHE; HF_TOKEN and HF_ENDPOINT are the hub's token and a mirror.

--init reads configs and headers of a folder of weights, without torch. Family, pipeline, grid and
dtypes come from there. Sizes, steps and guidance are those of the family, for you to decide.
The environment's NAGFARM_MODELS names a folder whose models are always there.

A description is a folder NAME.described with a model's configs and tokenizer, and the revision of
its weights: enough to plan with the same clip ids, and small enough to commit. It is found in the
folder of --models, or beside the model's YAML. A worker proves that its weights are those of the
description, and refuses any others.
""",
    options=ModelsOptions,
    run=run,
)
