"""The commands that look after an output without rendering into it: `status`, `retry` and `gc`.

Decides their options and what they print. What an output looks like is for `status`, what is garbage for `garbage`.
"""

import argparse
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.cli.output_status import counted, first_line, output_lines, plain, read_output_status
from jobs.config import RunConfig, load_config
from jobs.errors import (
    LeaseHeldError,
    LeaseLostError,
    ObjectMissingError,
    RecordError,
    RefusedError,
    StoppedError,
    StoreError,
)
from jobs.records.commit import lift_quarantine, quarantined_ids, read_quarantine
from jobs.records.garbage import (
    REASONS,
    Garbage,
    find_garbage,
    remove_folders,
    remove_garbage,
)
from jobs.records.keys import CLIP_ID, KeyKind
from jobs.records.lease import Lease, LeaseKeeper
from jobs.records.lease_record import refuse_if_leased
from jobs.store.store import Store, open_store
from jobs.worker.spool import Spool, old_spools, spool_root

Say = Callable[[str], None]
AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MAX_KEYS = 20  # that a dry run names of each kind
URI_HELP = "where the clips are: s3://bucket/prefix or file:///folder"

STATUS_SUMMARY = "say how far an output is, what is in flight and what failed last"
STATUS_EPILOG = """\
Reads the store alone, so it works from any machine, while a run goes on and after. A run writes its status every
twenty seconds; one that has fallen silent is said to be dead or cut off.

  nagfarm status s3://renders/spring
  nagfarm status s3://renders/spring --json | jq .eta_s
"""
RETRY_SUMMARY = "lift the quarantine of clips that were given up"
RETRY_EPILOG = """\
Quarantine is what keeps a clip that failed again and again from being rendered in each run. It is lifted from all
clips, or from those named; the next render of their manifest takes them up. Nothing is rendered by this command, and
the records of the failures stay.

  nagfarm retry s3://renders/spring --dry-run       which clips were given up, and why
  nagfarm retry s3://renders/spring                 lift all
  nagfarm retry s3://renders/spring 0123456789abcdef0123456789abcdef
"""
GC_SUMMARY = "find what lies in an output and nothing needs, and remove it on request"
GC_EPILOG = """\
Garbage is: MP4s that no record names, which a crash or a worker that came second left; latents that were kept for
inspection, once their clip is committed; quarantine of clips that are committed; what a check of the store left; and
clips in this machine's spool of the output, which wait for a store that nobody writes to any more. A committed
clip's MP4 is never garbage. Nothing is removed without --delete, nor while a driver is at work on the output; while
this command removes, it holds the output's lease, so that none can begin.

  nagfarm gc s3://renders/spring                    say what would go
  nagfarm gc s3://renders/spring --delete
  nagfarm gc s3://renders/spring --older-than 7d --delete
"""


def add_store_commands(commands: Any) -> None:
    """Adds the three commands to the command line's parser.

    Args:
        commands: what argparse's `add_subparsers` returned.
    """

    def add(name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("uri", metavar="URI", help=URI_HELP)
        command.add_argument(
            "--profile",
            type=Path,
            metavar="FILE",
            help="a YAML of run settings, as render takes it",
        )
        return command

    settings_help = "run settings, such as store.endpoint_url=..."
    status = add("status", STATUS_SUMMARY, STATUS_EPILOG)
    status.add_argument(
        "--json",
        action="store_true",
        help="print what the newest run says of itself, as it lies there",
    )
    status.add_argument("settings", nargs="*", metavar="key=value", help=settings_help)
    retry = add("retry", RETRY_SUMMARY, RETRY_EPILOG)
    retry.add_argument("--dry-run", action="store_true", help="lift nothing, say what would be")
    retry.add_argument(
        "settings",
        nargs="*",
        metavar="CLIP_ID",
        help=f"the clips, else all; and key=value: {settings_help}",
    )
    gc = add("gc", GC_SUMMARY, GC_EPILOG)
    gc.add_argument(
        "--delete", action="store_true", help="remove it; without this, only say what would go"
    )
    gc.add_argument(
        "--older-than",
        default="24h",
        metavar="AGE",
        help="spare what is younger: a number and s, m, h or d (24h)",
    )
    gc.add_argument("settings", nargs="*", metavar="key=value", help=settings_help)


def run_store_command(options: argparse.Namespace, say: Say) -> None:
    """Runs one of the three.

    Raises:
        StoppedError: it had begun to remove and could not go on.
    """
    clip_ids = [word for word in options.settings if options.command == "retry" and "=" not in word]
    config = load_config(
        options.profile, [word for word in options.settings if word not in clip_ids]
    )
    store = open_store(options.uri, config.store)
    match options.command:
        case "status":
            show_status(store, say, is_json=options.json)
        case "retry":
            retry(store, clip_ids, say, is_dry=options.dry_run)
        case _:
            collect_garbage(
                store, config, say, age_s(options.older_than), is_dry=not options.delete
            )


def show_status(store: Store, say: Say, *, is_json: bool) -> None:
    found = read_output_status(store)
    if not is_json:
        for line in output_lines(found, time.time()):
            say(line)
    elif found.run is None:
        raise RefusedError(
            f"no run has said yet in {store.uri} how it goes; nagfarm status without --json says the rest"
        )
    else:
        say(found.run.to_json().decode().rstrip())


def retry(store: Store, clip_ids: list[str], say: Say, *, is_dry: bool) -> None:
    """Lifts quarantine, of all clips or of those named.

    Raises:
        RefusedError: one of those named is not in quarantine; nothing was lifted.
    """
    quarantined = quarantined_ids(store)
    for clip_id in clip_ids:
        if not CLIP_ID.fullmatch(clip_id):
            raise RefusedError(
                f"{clip_id!r} is no clip's id; expected 32 lower-case hex digits, as status shows them"
            )
        if clip_id not in quarantined:
            raise RefusedError(f"{clip_id} is not given up in {store.uri}; nothing was lifted")
    chosen = sorted(set(clip_ids) or quarantined)
    if not chosen:
        say(f"no clip is given up in {store.uri}")
        return
    for clip_id in chosen:
        say(plain(f"  {clip_id}  {why_quarantined(store, clip_id)}"))
        if not is_dry:
            lift_quarantine(store, clip_id)
    if is_dry:
        say(f"{counted(len(chosen), 'clip')} would be lifted; nothing was changed")
        return
    say(
        f"lifted {counted(len(chosen), 'clip')} of {len(quarantined):,}; the next render of their manifest takes them up"
    )
    try:
        refuse_if_leased(store, time.time())
    except LeaseHeldError:
        say("a run is under way, which made its plan before; render once more when it has ended")


def why_quarantined(store: Store, clip_id: str) -> str:
    try:
        record = read_quarantine(store, clip_id)
    except (RecordError, ObjectMissingError):
        return "for a reason that cannot be read"
    return f"{record.name}: {record.reason}; the last was {record.error_type}: {first_line(record.message)}"


def collect_garbage(
    store: Store, config: RunConfig, say: Say, older_than_s: float, *, is_dry: bool
) -> None:
    """Finds garbage and, unless it is a dry run, removes it.

    Raises:
        LeaseHeldError: a driver is at work on this output.
        StoppedError: the store or another driver put an end to it.
    """
    now = time.time()
    refuse_if_leased(store, now)
    written_before = now - older_than_s
    garbage = find_garbage(store, written_before)
    root = spool_root(config.workers.spool_folder)
    own = Spool(root, store.uri).folder
    spools = [folder for folder in old_spools(root, older_than_s, now) if folder.parent == own]
    if not garbage and not spools:
        say(f"nothing to remove in {store.uri}")
        return
    for line in garbage_lines(garbage, spools):
        say(line)
    if is_dry:
        say("nothing was removed; --delete removes it")
        return
    with LeaseKeeper(Lease.take(store, new_gc_id(), config.store.lease_s)) as keeper:

        def stop_if_lost() -> None:
            if keeper.lost is not None:
                raise LeaseLostError(keeper.lost)

        try:
            removed = remove_garbage(store, garbage, written_before, stop_if_lost)
        except (LeaseLostError, StoreError) as error:
            raise StoppedError(f"not all was removed: {error}; run it again to go on") from error
        from_disk = remove_folders(spools)
    spared = (
        f"; {removed.num_spared:,} turned out to be in use, or gone" if removed.num_spared else ""
    )
    say(f"removed {counted(removed.num_removed, 'object')}, {megabytes(removed.num_bytes)}{spared}")
    if spools:
        say(
            f"removed {counted(from_disk.num_removed, 'clip')} from the spool, {megabytes(from_disk.num_bytes)}"
        )


def garbage_lines(garbage: list[Garbage], spools: list[Path]) -> list[str]:
    """What would go: of each kind how much, and the first few by name."""
    lines: list[str] = []
    kinds: Counter[KeyKind] = Counter(one.kind for one in garbage)
    for kind, count in kinds.items():
        of_kind = [one for one in garbage if one.kind == kind]
        lines.append(
            f"{REASONS[kind]}: {count:,}, {megabytes(sum(one.stored.num_bytes for one in of_kind))}"
        )
        lines += [f"  {one.stored.key}" for one in of_kind[:MAX_KEYS]]
        lines += [f"  and {count - MAX_KEYS:,} more"] if count > MAX_KEYS else []
    if spools:
        lines.append(f"clips in this machine's spool that no driver has fetched: {len(spools):,}")
        lines += [f"  {folder}" for folder in spools[:MAX_KEYS]]
        lines += [f"  and {len(spools) - MAX_KEYS:,} more"] if len(spools) > MAX_KEYS else []
    return lines


def age_s(text: str) -> float:
    """Raises RefusedError if it is no age such as 24h."""
    found = AGE.fullmatch(text)
    if found is None:
        raise RefusedError(
            f"--older-than {text!r} is no age; expected a number and s, m, h or d, such as 24h"
        )
    return float(found[1]) * UNITS_S[found[2]]


def megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def new_gc_id() -> str:
    return f"gc-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
