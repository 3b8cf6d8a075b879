"""Open a manifest with its settings, models, store and plan, and refuse what cannot run.

`plan`, `render` and `bench` share these options. Loads without torch.
"""

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from jobs.cli.pattern.command import OUTPUT_HELP, ConfigOptions
from jobs.cli.pattern.model_options import add_models_argument, add_remote_argument, catalog_for
from jobs.errors import ManifestError, RefusedError, RowValueError
from jobs.manifest.lines import ManifestFile, S3File
from jobs.manifest.manifest import Manifest, open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.manifest.reference import fields_help
from jobs.manifest.values_file import MAX_VALUES_FILE_BYTES
from jobs.manifest.walk.selection import ALL, Selection
from jobs.media.input_videos import MAX_VIDEO_BYTES
from jobs.plan.plan import Plan, make_plan
from jobs.records.commit import committed_ids, quarantined_ids
from jobs.records.damage import without_mp4
from jobs.records.salt import keep_salt
from jobs.run.documents import OpenedManifest
from jobs.run.progress.long_work import long_work
from jobs.settings.run_config import RunConfig, StoreConfig
from jobs.store.store import ObjectsOfS3, open_store, read_object
from jobs.text import shown
from jobs.timetable.dated_output import Calendar, NamedOutput
from jobs.timetable.options import CalendarOptions, add_calendar_arguments
from pipelines.context_parallel.divisibility import BACKEND_VARIABLE, check_backend, is_text_biased

MANIFEST_HELP = """\
a manifest: .yaml with axes; .jsonl, .ndjson, .csv or .tsv with one clip a row; .txt with one prompt
a line. A file or s3://bucket/key:

  name: spring
  model: shapes-wan
  output: ./spring                            # or s3://bucket/prefix, s3://bucket/{date}
  defaults: {num_inference_steps: 8}
  axes:
    prompt: [a circle moving right, a square moving up]
    negative_prompt: ["", red]
    seed: {range: [0, 4]}
    guidance: [{method: nag, nag_alpha: 0.5}, {method: cfg, guidance_scale: 5}]
  combine: prompt * negative_prompt * seed * guidance

{fields}

{date} and {week} in output are the day and the week at the start of the command, such as 2026-01-31
and 2026-W05: in the zone time_zone, such as Europe/Berlin (UTC), with days that begin at day_starts
(00:00). Both are keys of the manifest.

meta is a mapping of notes for the record, in CSV columns meta.NAME; extra_columns=[NAME] carries a
column of another name.

guidance is a mapping; guidance_scale is for the methods cfg and cfg+nag alone.

parallel: {ulysses: 2, ring: 2} renders a clip on a group of 4 devices of one machine, or of several
with across_hosts: true. It replaces the parallel of the defaults or of the model as a whole;
parallel: {} is one device. The attention heads must be a multiple of ulysses, the video tokens a
multiple of ulysses times ring; an error names the nearest size that fits. Two rows that differ in
parallel alone are one clip.
""".replace("{fields}", fields_help())


@dataclass(frozen=True)
class ManifestOptions(ConfigOptions, CalendarOptions):
    """The options of a command that takes a manifest."""

    manifest: str
    output: str | None
    model: str | None
    models: Path | None
    only: tuple[str, ...]
    limit: int | None
    remote: bool

    @property
    def selection(self) -> Selection:
        return Selection(self.only, self.limit)

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "manifest", metavar="MANIFEST", help="a file or s3://bucket/key; see below"
        )
        parser.add_argument(
            "--output",
            metavar="URI",
            help=f"{OUTPUT_HELP}; {{date}} and {{week}} in it are those of the day; wins over the "
            "manifest",
        )
        add_calendar_arguments(parser)
        parser.add_argument("--model", metavar="NAME", help="the model of rows that name none")
        add_models_argument(parser)
        add_remote_argument(parser)
        parser.add_argument(
            "--only",
            nargs="+",
            action="extend",
            default=[],
            metavar="NAME",
            help="only the clips with these names or ids; give it behind MANIFEST",
        )
        parser.add_argument(
            "--limit",
            type=int,
            metavar="N",
            help="only the first N clips of the manifest, whether they are rendered or not",
        )
        super().add_arguments(parser)

    @classmethod
    def read(cls, namespace: argparse.Namespace) -> Self:
        """Make the options; a word with `=` behind `--only` is a setting."""
        words: list[str] = namespace.only
        namespace.only = [word for word in words if "=" not in word]
        namespace.settings = [*namespace.settings, *(word for word in words if "=" in word)]
        return super().read(namespace)


def open_for_run(options: ManifestOptions, started: float) -> OpenedManifest:
    """Check everything that can be refused before a run, in the order that costs least.

    Args:
        started: moment at which the command began, which decides the day of its output.

    Raises:
        JobError, PipelineError, NagError: a row, setting, model or output is refused.
    """
    config = options.config()
    catalog = catalog_for(options.models, asks=options.remote)
    config.workers.check_models(catalog.names())
    manifest = open_written(
        options.manifest,
        catalog,
        config,
        output=options.output,
        model=options.model,
        selection=options.selection,
    )
    calendar = options.calendar(manifest.calendar)
    output = _named_output(options, manifest, calendar, started)
    store = open_store(output.uri, config.store)
    # hashes the weights of the first model, which has a bar of its own
    next(replace(manifest, selection=ALL).rows(num_ahead=1), None)
    checking = f"checking the rows of {options.manifest}"
    with long_work(checking):
        plan = make_plan(manifest, (), ())  # every row, before the first request to the store
    if plan.num_random:
        manifest = replace(manifest, salt=keep_salt(store))
    with long_work(f"listing the clips of {store.uri}"):
        committed, quarantined = committed_ids(store), quarantined_ids(store)
        damaged = without_mp4(store, committed) if committed else set[str]()
    if committed or quarantined or plan.num_random:
        with long_work(f"{checking} against {store.uri}"):
            plan = make_plan(manifest, committed, quarantined, damaged)
    check_backends(plan, catalog)
    return OpenedManifest(config, catalog, manifest, store, plan, calendar, output.day)


def _named_output(
    options: ManifestOptions, manifest: Manifest, calendar: Calendar, started: float
) -> NamedOutput:
    """Return the output with the day in place of its placeholders."""
    if manifest.output is None:
        raise ManifestError(
            f"{options.manifest}: no output; give --output or, in a YAML manifest, output:"
        )
    try:
        output = calendar.name(manifest.output, started)
    except RowValueError as error:
        line = manifest.output_line
        raise ManifestError(f"{line}: {error}" if line else f"--{error}") from error
    if calendar.given is not None and output.day is None:
        raise RefusedError(
            f"--date {calendar.given}: the output {shown(manifest.output)} holds neither {{date}} "
            "nor {week}"
        )
    return output


def open_written(
    written: str,
    catalog: ModelCatalog,
    config: RunConfig,
    *,
    output: str | None = None,
    model: str | None = None,
    selection: Selection = ALL,
) -> Manifest:
    """Open the manifest that the command line names, as `open_manifest` does.

    Raises:
        RefusedError, StoreError: it cannot be read, or a part that belongs to no row is wrong.
    """
    return open_manifest(
        manifest_file(written, config.store),
        catalog,
        ObjectsOfS3(config.store, MAX_VIDEO_BYTES).read,
        output=output,
        model=model,
        selection=selection,
        extra_columns=config.extra_columns,
    )


def manifest_file(written: str, config: StoreConfig) -> ManifestFile:
    """Return the manifest that the command line names; read it if it lies in S3.

    Raises:
        RefusedError, StoreError: it is neither a path nor an object, or the object cannot be read.
    """
    scheme, separator, _ = written.partition("://")
    if not separator:
        return Path(written)
    if scheme != "s3":
        raise ManifestError(
            f"{shown(written)}: expected a manifest's path or s3://bucket/key; nothing is read "
            f"from {shown(scheme + separator)}, so copy the manifest to this machine"
        )
    return S3File(written, read_object(written, config, MAX_VALUES_FILE_BYTES))


def check_backends(plan: Plan, catalog: ModelCatalog) -> None:
    """Refuse an attention backend of diffusers that some pending clip cannot use on its group."""
    backend = os.environ.get(BACKEND_VARIABLE)
    for spec in plan.pending() if backend is not None else ():
        is_biased = is_text_biased(catalog.get(spec.model.name).config.family, spec.request)
        check_backend(spec.parallel, backend, has_text_bias=is_biased)
