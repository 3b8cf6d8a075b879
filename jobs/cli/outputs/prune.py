"""`nagfarm prune`: list the clips that a manifest does not name, and remove them on request."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.checks.clock import refuse_wrong_clock
from jobs.cli.outputs.gc import new_lease_id
from jobs.cli.outputs.verify_report import ID_DIGITS_SHOWN, progress_bar
from jobs.cli.pattern.clip_options import output_of_a_run
from jobs.cli.pattern.command import EXIT_FINDINGS, EXIT_OK, Command, Context, OutputOptions
from jobs.cli.pattern.manifest import open_written
from jobs.cli.pattern.model_options import add_models_argument
from jobs.cli.pattern.wording import megabytes, table_lines
from jobs.digests import IdSet
from jobs.errors import (
    LeaseHeldError,
    LeaseLostError,
    RefusedError,
    SideThreadError,
    StoppedError,
    StoreError,
)
from jobs.manifest.manifest import Manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.records.lease import Lease
from jobs.records.lease_keeper import LeaseKeeper
from jobs.records.lease_record import refuse_if_leased
from jobs.records.salt import read_salt
from jobs.run.progress.hashing_bar import inspect_with_bar
from jobs.run.progress.long_work import long_work
from jobs.store.store import Store
from jobs.text import counted
from jobs.timetable.durations import read_duration
from jobs.types import BrokenClip
from jobs.upkeep.pruning import Kept, Spared, Unnamed, remove_clips, sort_clips

HEADERS = ("name", "prompt", "seed", "model", "method", "steps", "state", "size", "id")
NUMBERS = ("seed", "steps", "size")
MAX_PROMPT_SHOWN = 40  # characters
MAX_SPARED_SHOWN = 20


@dataclass(frozen=True)
class PruneOptions(OutputOptions):
    """The options of `nagfarm prune`."""

    keep: tuple[str, ...]
    model: str | None
    models: Path | None
    older_than: str
    delete: bool

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--keep",
            action="append",
            required=True,
            metavar="FILE",
            help="the manifest whose clips stay; given again, those of each manifest stay",
        )
        parser.add_argument("--model", metavar="NAME", help="the model of rows that name none")
        add_models_argument(parser)
        parser.add_argument(
            "--older-than",
            default="1h",
            metavar="AGE",
            help="spare clips with younger objects: a duration such as 90m or 7d (default 1h)",
        )
        parser.add_argument(
            "--delete", action="store_true", help="remove the clips; without this, only list them"
        )


@dataclass(frozen=True)
class _Sorted:
    """The clips of an output, by their fate."""

    num_kept: int
    unnamed: list[Unnamed]
    spared: list[Spared]

    @property
    def num_bytes(self) -> int:
        return sum(one.num_bytes for one in self.unnamed)


def run(options: PruneOptions, context: Context) -> int:
    """List the clips that no manifest names and, with --delete, remove them.

    Raises:
        RefusedError: a manifest is wrong or is not one of this output, or an option is wrong.
        LeaseHeldError: a driver is at work on the output, with --delete.
        StoppedError: the store or another driver stopped the removal.
    """
    older_than_s = read_duration("--older-than", options.older_than)
    config = options.config()
    store = output_of_a_run(options.store())
    if options.delete:
        refuse_if_leased(store)
        refuse_wrong_clock(store)
    else:
        _say_if_leased(store, context)
    named = _named(options, store)
    written_before = store.now() - older_than_s
    if not options.delete:
        found = _sorted(options, store, named, written_before, context)
        if found.unnamed:
            context.say("nothing was removed; --delete removes these clips")
        return _exit_code(found)
    with LeaseKeeper(Lease.take(store, new_lease_id("prune"), config.store.lease_s)) as keeper:
        found = _sorted(options, store, named, written_before, context)
        context.say(_remove(store, keeper, found, written_before, context))
    return _exit_code(found)


def _exit_code(found: _Sorted) -> int:
    return EXIT_OK if all(one.is_young for one in found.spared) else EXIT_FINDINGS


def _say_if_leased(store: Store, context: Context) -> None:
    try:
        refuse_if_leased(store)
    except LeaseHeldError as error:
        context.say(f"a run is under way, and this may change: {error}")


def _named(options: PruneOptions, store: Store) -> IdSet:
    """Return the ids of all clips of the manifests."""
    catalog = ModelCatalog(options.models, inspect_with_bar)
    ids = IdSet()
    for written in options.keep:
        manifest = open_written(
            written, catalog, options.config(), output=options.uri, model=options.model
        )
        with long_work(f"planning {written}"):
            for clip_id in _ids(manifest, store):
                ids.add(clip_id)
    return ids


def _ids(manifest: Manifest, store: Store) -> Iterator[str]:
    """Yield the id of each row of a manifest.

    Raises:
        RefusedError: an id is not known here, so that its clip could be removed by mistake.
    """
    salt = read_salt(store)
    for row in replace(manifest, salt=salt or b"").rows():
        if isinstance(row.clip, BrokenClip):
            raise RefusedError(
                f"{row.clip.message}; without the model the ids of its clips are not known, so "
                "nothing can be pruned"
            )
        if row.is_random and salt is None:
            raise RefusedError(
                f"{manifest.path} has random seeds and this output has drawn none, so it is not "
                "its manifest"
            )
        yield row.clip.clip_id
    manifest.check_unchanged()
    if manifest.has_grown():
        raise RefusedError(f"{manifest.path} grows: lines were appended to it; run it again")


def _sorted(
    options: PruneOptions, store: Store, named: IdSet, written_before: float, context: Context
) -> _Sorted:
    """Sort the clips of the output, and print them.

    Raises:
        RefusedError: no clip of the manifests is in the output.
    """
    num_kept = 0
    unnamed: list[Unnamed] = []
    spared: list[Spared] = []
    with progress_bar(context.console, is_json=False) as bar:
        task = bar.add_task("", total=16**ID_DIGITS_SHOWN)
        for one in sort_clips(store, named, written_before):
            match one:
                case Kept():
                    num_kept += 1
                case Spared():
                    spared.append(one)
                case Unnamed():
                    unnamed.append(one)
                    clip_id = one.objects.clip_id
                    description = f"{len(unnamed):,} clips that no manifest names"
                    done = int(clip_id[:ID_DIGITS_SHOWN], 16)
                    bar.update(task, completed=done, description=description)
    found = _Sorted(num_kept, unnamed, spared)
    manifests = ", ".join(options.keep)
    if not num_kept and (unnamed or spared):
        raise RefusedError(
            f"{store.uri} has none of the {len(named):,} clips of {manifests}, so it may be the "
            "manifest of another output, or the models may have changed; nothing was removed"
        )
    for line in sorted_lines(found, manifests, num_named=len(named)):
        context.say(line)
    return found


def sorted_lines(found: _Sorted, manifests: str, num_named: int) -> list[str]:
    """Return what stays, a table of what may be removed, and what is spared."""
    missing = f", {num_named - found.num_kept:,} are not in the output yet"
    lines = [
        f"{counted(found.num_kept, 'clip')} of {manifests} stay"
        + (missing if num_named > found.num_kept else "")
    ]
    if found.unnamed:
        clips = counted(len(found.unnamed), "clip")
        lines.append(f"{clips} that {manifests} does not name, {megabytes(found.num_bytes)}:")
        rows = sorted(map(_row, found.unnamed), key=lambda row: (row[0], row[-1]))
        lines += [f"  {line}" for line in table_lines(HEADERS, rows, NUMBERS)]
    else:
        named = "" if found.spared else f": {manifests} names every clip"
        lines.append(f"nothing to remove{named}")
    young = sum(one.is_young for one in found.spared)
    if young:
        lines.append(f"spared: {counted(young, 'clip')} younger than --older-than")
    unjudged = [one for one in found.spared if not one.is_young]
    lines += [f"spared: {one.clip_id}: {one.reason}" for one in unjudged[:MAX_SPARED_SHOWN]]
    if len(unjudged) > MAX_SPARED_SHOWN:
        lines.append(f"and {len(unjudged) - MAX_SPARED_SHOWN:,} more that cannot be read")
    return lines


def _row(one: Unnamed) -> tuple[str, ...]:
    size, clip_id = megabytes(one.num_bytes), one.objects.clip_id
    if one.clip is None:
        return ("", "", "", "", "", "", "no record", size, clip_id)
    clip, request = one.clip, one.clip.request
    if request is None:
        return (clip.name, "", "", clip.model_name, "", "", clip.state, size, clip_id)
    prompt = " ".join(request.prompt.split())
    prompt = prompt if len(prompt) <= MAX_PROMPT_SHOWN else f"{prompt[:MAX_PROMPT_SHOWN]}..."
    sampling = request.sampling
    steps = str(sampling.num_inference_steps)
    values = (clip.model_name, request.method, steps, clip.state)
    return (clip.name, prompt, str(sampling.seed), *values, size, clip_id)


def _remove(
    store: Store, keeper: LeaseKeeper, found: _Sorted, written_before: float, context: Context
) -> str:
    """Remove clips while the lease is held, and return the report."""
    num_removed = num_bytes = num_again = 0
    with progress_bar(context.console, is_json=False) as bar:
        task = bar.add_task("removing", total=len(found.unnamed))
        try:
            for size in remove_clips(store, found.unnamed, written_before, keeper.check):
                num_removed += size is not None
                num_again += size is None
                num_bytes += size or 0
                bar.advance(task)
        except (LeaseLostError, SideThreadError, StoreError) as error:
            raise StoppedError(
                f"not all was removed: {error}; after {counted(num_removed, 'clip')}; run it again "
                "to go on"
            ) from error
    again = f"; {num_again:,} were committed again meanwhile and stay" if num_again else ""
    return f"removed {counted(num_removed, 'clip')}, {megabytes(num_bytes)}{again}"


COMMAND = Command(
    name="prune",
    summary="list the clips of an output that a manifest does not name; --delete removes them",
    epilog="""\
examples:
  nagfarm prune s3://renders/spring --keep spring.yaml
  nagfarm prune s3://renders/spring --keep spring.yaml --keep again.jsonl --delete
  nagfarm prune s3://renders/spring --keep spring.yaml --older-than 7d --delete

After settings were changed, the clips of the old ones lie beside the new ones, under the same
names. This command plans the manifest as render does and lists every other clip of the output, with
its size. With --delete it removes them: the record, the MP4, posters, names, failures and
quarantine. Nothing else is removed: neither files of runs nor objects that nagfarm did not write.

A clip stays if a record of it cannot be read, or if an object of it is younger than --older-than.
Nothing is removed if the output has no clip of the manifest, while a driver is at work, or if a
model of the manifest is missing here. Meanwhile this command holds the output's lease, so that no
driver can start. If it is ended, run it again: what is left of a clip is garbage and never a record
without its MP4.

exit codes:
  0 done, 3 some clips could not be judged and stay, 2 refused, 4 stopped, 75 a driver is at work
""",
    options=PruneOptions,
    run=run,
    has_log=True,
)
