"""`nagfarm retry`: lift the quarantine of clips, so that the next run tries them again."""

import argparse
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Self

from jobs.cli.pattern.command import EXIT_OK, Command, Context, OutputOptions
from jobs.cli.pattern.wording import first_line
from jobs.errors import (
    LeaseHeldError,
    LeaseUnusableError,
    ObjectMissingError,
    RecordError,
    RefusedError,
)
from jobs.records.commit import lift_quarantine, quarantined_ids, read_quarantine
from jobs.records.keys import CLIP_ID
from jobs.records.lease_record import refuse_if_leased
from jobs.records.schema import QuarantineRecord
from jobs.store.store import Store
from jobs.text import counted, nearest


@dataclass(frozen=True)
class RetryOptions(OutputOptions):
    """The options of `nagfarm retry`. Without names and ids all clips are meant."""

    clips: tuple[str, ...]
    dry_run: bool

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.usage = "%(prog)s [-h] [--profile FILE] [--dry-run] URI [CLIP ...] [key=value ...]"
        super().add_arguments(parser)
        parser.add_argument(
            "--dry-run", action="store_true", help="print what would be lifted; change nothing"
        )

    @classmethod
    def read(cls, namespace: argparse.Namespace) -> Self:
        """Make the options; a word without `=` is a clip's name or id."""
        words: list[str] = namespace.settings
        return cls(
            profile=namespace.profile,
            settings=tuple(word for word in words if "=" in word),
            uri=namespace.uri,
            clips=tuple(word for word in words if "=" not in word),
            dry_run=namespace.dry_run,
        )


def run(options: RetryOptions, context: Context) -> int:
    """Lift the quarantine of all clips, or of those named.

    Raises:
        RefusedError: a named clip is not quarantined, or two have its name; nothing was lifted.
    """
    store = options.store()
    quarantined = quarantined_ids(store)
    chosen = sorted(_chosen(options.clips, quarantined, store) if options.clips else quarantined)
    if not chosen:
        context.say(f"no clip is quarantined in {store.uri}")
        return EXIT_OK
    for clip_id in chosen:
        context.say(f"  {clip_id}  {_reason(_record(store, clip_id))}")
        if not options.dry_run:
            lift_quarantine(store, clip_id)
    clips = counted(len(chosen), "clip")
    if options.dry_run:
        context.say(f"the quarantine of {clips} would be lifted; nothing was changed")
        return EXIT_OK
    context.say(
        f"lifted the quarantine of {clips} of {len(quarantined):,}; "
        "the next render of the manifest tries again"
    )
    try:
        refuse_if_leased(store)
    except LeaseHeldError:
        context.say(
            "a run is under way, and its plan is older than this; render again when it has ended"
        )
    except LeaseUnusableError as error:  # the clips are lifted; the next render will refuse this
        context.say(str(error))
    return EXIT_OK


def _chosen(written: tuple[str, ...], quarantined: AbstractSet[str], store: Store) -> set[str]:
    """Return the ids of the quarantined clips that the command line names, by name or by id."""
    names = {word for word in written if word not in quarantined}
    by_name: dict[str, list[str]] = {}
    for clip_id in sorted(quarantined) if names else ():
        if (record := _record(store, clip_id)) is not None:
            by_name.setdefault(record.name, []).append(clip_id)
    for name in sorted(names):
        ids = by_name.get(name, [])
        if len(ids) > 1:
            raise RefusedError(
                f"{len(ids)} quarantined clips have the name {name!r}; expected one of their ids: "
                f"{', '.join(ids)}; nothing was lifted"
            )
        if not ids:
            other = None if CLIP_ID.fullmatch(name) else nearest(name, by_name)
            hint = f"; did you mean {other!r}?" if other else ""
            raise RefusedError(
                f"no clip with the name or id {name!r} is quarantined in {store.uri}{hint}; "
                "nothing was lifted"
            )
    return (set(written) - names) | {by_name[name][0] for name in names}


def _record(store: Store, clip_id: str) -> QuarantineRecord | None:
    try:
        return read_quarantine(store, clip_id)
    except (RecordError, ObjectMissingError):
        return None


def _reason(record: QuarantineRecord | None) -> str:
    if record is None:
        return "for a reason that cannot be read"
    last = f"{record.error_type}: {first_line(record.message)}"
    return f"{record.name}: {record.reason}; the last was {last}"


COMMAND = Command(
    name="retry",
    summary="lift the quarantine of clips, so that the next run tries them again",
    epilog="""\
examples:
  nagfarm retry s3://renders/spring --dry-run       the quarantined clips and their reasons
  nagfarm retry s3://renders/spring                 lift all
  nagfarm retry s3://renders/spring spring-000007 0123456789abcdef0123456789abcdef

A clip that failed again and again is quarantined, so that no run tries it. This command lifts the
quarantine of all clips, or of those whose name or id is given; the next render of their manifest
tries them. It renders nothing, and the records of the failures stay.
""",
    options=RetryOptions,
    run=run,
)
