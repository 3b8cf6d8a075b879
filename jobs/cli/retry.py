"""`nagfarm retry`: lift the quarantine of clips, so that the next run tries them again."""

import argparse
from dataclasses import dataclass
from typing import Self

from jobs.cli.command import EXIT_OK, Command, Context, OutputOptions
from jobs.cli.wording import first_line
from jobs.errors import LeaseHeldError, ObjectMissingError, RecordError, RefusedError
from jobs.records.commit import lift_quarantine, quarantined_ids, read_quarantine
from jobs.records.keys import CLIP_ID
from jobs.records.lease_record import refuse_if_leased
from jobs.store.store import Store
from jobs.text import counted


@dataclass(frozen=True)
class RetryOptions(OutputOptions):
    """The options of `nagfarm retry`. Without ids all clips are meant."""

    clip_ids: tuple[str, ...]
    dry_run: bool

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.usage = (
            "%(prog)s [-h] [--profile FILE] [--dry-run] URI [CLIP_ID ...] [key=value ...]"
        )
        super().add_arguments(parser)
        parser.add_argument(
            "--dry-run", action="store_true", help="print what would be lifted; change nothing"
        )

    @classmethod
    def read(cls, namespace: argparse.Namespace) -> Self:
        """Make the options; a word without `=` is a clip's id."""
        words: list[str] = namespace.settings
        return cls(
            profile=namespace.profile,
            settings=tuple(word for word in words if "=" in word),
            uri=namespace.uri,
            clip_ids=tuple(word for word in words if "=" not in word),
            dry_run=namespace.dry_run,
        )


def run(options: RetryOptions, context: Context) -> int:
    """Lift the quarantine of all clips, or of those named.

    Raises:
        RefusedError: a named clip is not quarantined; nothing was lifted.
    """
    store = options.store()
    quarantined = quarantined_ids(store)
    for clip_id in options.clip_ids:
        _refuse_unless_quarantined(clip_id, quarantined, store)
    chosen = sorted(set(options.clip_ids) or quarantined)
    if not chosen:
        context.say(f"no clip is quarantined in {store.uri}")
        return EXIT_OK
    for clip_id in chosen:
        context.say(f"  {clip_id}  {_reason(store, clip_id)}")
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
    return EXIT_OK


def _refuse_unless_quarantined(clip_id: str, quarantined: set[str], store: Store) -> None:
    if not CLIP_ID.fullmatch(clip_id):
        raise RefusedError(
            f"expected a clip's id of 32 lower-case hex digits, as status shows it, got {clip_id!r}"
        )
    if clip_id not in quarantined:
        raise RefusedError(f"{clip_id} is not quarantined in {store.uri}; nothing was lifted")


def _reason(store: Store, clip_id: str) -> str:
    try:
        record = read_quarantine(store, clip_id)
    except (RecordError, ObjectMissingError):
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
  nagfarm retry s3://renders/spring 0123456789abcdef0123456789abcdef

A clip that failed again and again is quarantined, so that no run tries it. This command lifts the
quarantine of all clips, or of those whose CLIP_ID is given; the next render of their manifest tries
them. It renders nothing, and the records of the failures stay.
""",
    options=RetryOptions,
    run=run,
)
