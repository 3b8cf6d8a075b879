"""`nagfarm gc`: find objects in an output that nothing needs, and remove them on request."""

import argparse
import secrets
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from jobs.checks.clock import refuse_wrong_clock
from jobs.cli.pattern.command import EXIT_OK, Command, Context, OutputOptions
from jobs.cli.pattern.manifest import open_written
from jobs.cli.pattern.model_options import add_models_argument
from jobs.cli.pattern.wording import megabytes
from jobs.digests import Sha256Set
from jobs.errors import LeaseLostError, RefusedError, SideThreadError, StoppedError, StoreError
from jobs.manifest.model_catalog import ModelCatalog
from jobs.records.keys import KeyKind
from jobs.records.lease import Lease
from jobs.records.lease_keeper import LeaseKeeper
from jobs.records.lease_record import refuse_if_leased
from jobs.run.progress.hashing_bar import inspect_with_bar
from jobs.run.progress.long_work import long_work
from jobs.store.store import Store
from jobs.text import counted
from jobs.timetable.durations import read_duration
from jobs.types import BrokenClip
from jobs.upkeep.garbage import REASONS, Garbage, find_garbage, remove_garbage
from jobs.upkeep.input_garbage import find_unnamed_inputs, remove_unnamed_inputs
from jobs.worker.spool import Spool

MAX_KEYS = 20  # listed of each kind of garbage


@dataclass(frozen=True)
class GcOptions(OutputOptions):
    """The options of `nagfarm gc`."""

    delete: bool
    older_than: str
    keep: tuple[str, ...]
    model: str | None
    models: Path | None

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--delete", action="store_true", help="remove the garbage; without this, only list it"
        )
        parser.add_argument(
            "--older-than",
            default="24h",
            metavar="AGE",
            help="spare younger objects: a duration such as 90m, 24h or 7d (default 24h)",
        )
        parser.add_argument(
            "--keep",
            action="append",
            default=[],
            metavar="FILE",
            help="spare the uploaded images and videos of this manifest; may be given again",
        )
        parser.add_argument("--model", metavar="NAME", help="the model of rows that name none")
        add_models_argument(parser)


def run(options: GcOptions, context: Context) -> int:
    """List garbage and, with --delete, remove it.

    Raises:
        LeaseHeldError: a driver is at work on this output.
        RefusedError: this machine's clock is wrong, or a manifest of --keep cannot be planned.
        StoppedError: the store or another driver stopped the removal.
    """
    older_than_s = read_duration("--older-than", options.older_than)
    config = options.config()
    store = options.store()
    refuse_if_leased(store)
    refuse_wrong_clock(store)
    kept = _kept_inputs(options)
    with long_work(f"listing {store.uri}"):
        garbage = find_garbage(store, older_than_s)
        inputs = find_unnamed_inputs(store, older_than_s, kept)
    if inputs.unreadable is not None:
        context.say(
            f"uploaded images and videos stay, since a clip may name any: {inputs.unreadable}"
        )
    garbage += inputs.garbage
    spool = Spool(config.workers.spool_folder, store.uri)
    spooled = spool.old_clip_ids(time.time() - older_than_s)
    if not garbage and not spooled:
        context.say(f"nothing to remove in {store.uri}")
        return EXIT_OK
    for line in garbage_lines(garbage, [str(spool.folder / clip_id) for clip_id in spooled]):
        context.say(line)
    if not options.delete:
        context.say("nothing was removed; --delete removes it")
        return EXIT_OK
    with LeaseKeeper(Lease.take(store, new_lease_id("gc"), config.store.lease_s)) as keeper:
        removed = _remove(store, keeper, garbage, older_than_s)
        sizes = [spool.remove(clip_id) for clip_id in spooled]
    context.say(removed)
    if spooled:
        from_disk = [size for size in sizes if size is not None]
        clips = counted(len(from_disk), "clip")
        context.say(f"removed {clips} from the spool, {megabytes(sum(from_disk))}")
        for clip_id in spool.clip_ids() & set(spooled):
            context.say(
                f"{spool.folder / clip_id} holds files that no worker made; remove it by hand"
            )
    return EXIT_OK


def _remove(store: Store, keeper: LeaseKeeper, garbage: list[Garbage], older_than_s: float) -> str:
    """Remove garbage while the lease is held, and return the report."""
    others = [one for one in garbage if one.kind != "input"]
    inputs = [one for one in garbage if one.kind == "input"]
    try:
        removed = remove_garbage(store, others, older_than_s, keeper.check)
        if inputs:
            removed += remove_unnamed_inputs(store, inputs, older_than_s, keeper.check)
    except (LeaseLostError, SideThreadError, StoreError) as error:
        raise StoppedError(f"not all was removed: {error}; run it again to go on") from error
    objects, size = counted(removed.num_removed, "object"), megabytes(removed.num_bytes)
    spared = (
        f"; {removed.num_spared:,} turned out to be in use, or gone" if removed.num_spared else ""
    )
    return f"removed {objects}, {size}{spared}"


def _kept_inputs(options: GcOptions) -> Sha256Set:
    """Return the images and videos of the manifests that are to keep them.

    Raises:
        RefusedError: those of a row are not known, so that they could be removed by mistake.
    """
    kept, catalog = Sha256Set(), ModelCatalog(options.models, inspect_with_bar)
    for written in options.keep:
        manifest = open_written(
            written, catalog, options.config(), output=options.uri, model=options.model
        )
        with long_work(f"planning {written}"):
            for row in manifest.rows():
                if isinstance(row.clip, BrokenClip):
                    raise RefusedError(
                        f"{row.clip.message}; without the model the images and videos of its clips "
                        "are not known, so nothing can be removed; without --keep only those stay "
                        "that records, quarantines and failures name"
                    )
                for file in row.clip.kind.request.inputs.files():
                    kept.add(file.sha256)
        manifest.check_unchanged()
        if manifest.has_grown():
            raise RefusedError(f"{manifest.path} grows: lines were appended to it; run it again")
    return kept


def garbage_lines(garbage: list[Garbage], spooled: list[str]) -> list[str]:
    """Return, for each kind of garbage, its amount and the first few keys."""
    lines: list[str] = []
    kinds: Counter[KeyKind] = Counter(one.kind for one in garbage)
    for kind, count in kinds.items():
        of_kind = [one for one in garbage if one.kind == kind]
        size = megabytes(sum(one.stored.num_bytes for one in of_kind))
        lines.append(f"{REASONS[kind]}: {count:,}, {size}")
        lines += _first([one.stored.key for one in of_kind])
    if spooled:
        lines.append(f"clips in this machine's spool that no driver has fetched: {len(spooled):,}")
        lines += _first(spooled)
    return lines


def _first(names: list[str]) -> list[str]:
    more = [f"  and {len(names) - MAX_KEYS:,} more"] if len(names) > MAX_KEYS else []
    return [*(f"  {name}" for name in names[:MAX_KEYS]), *more]


def new_lease_id(command: str) -> str:
    """Return the id under which a command holds the lease."""
    return f"{command}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


COMMAND = Command(
    name="gc",
    summary="find objects in an output that nothing needs, and remove them on request",
    epilog="""\
examples:
  nagfarm gc s3://renders/spring                    list the garbage
  nagfarm gc s3://renders/spring --delete
  nagfarm gc s3://renders/spring --older-than 7d --delete
  nagfarm gc s3://renders/spring --keep spring.yaml --delete

Garbage is:
  MP4s that no record names, left by a crash or by a worker that committed second, and their
    posters and thumbnails
  latents and small MP4s of refused clips, kept for inspection, once their clip is committed
  the quarantine of committed clips
  data files of the gallery that its index no longer names
  uploaded images and videos that no record, quarantine or failure names, and no manifest of --keep
  leftovers of a check of the store
  clips in this machine's spool of the output that no driver has fetched

The MP4 of a committed clip is never garbage, nor are its poster and thumbnail. Nothing is
removed without --delete, nor while a driver is at work on the output. While this command removes,
it holds the output's lease, so that no driver can start.
""",
    options=GcOptions,
    run=run,
    has_log=True,
)
