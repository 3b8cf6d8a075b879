"""Every clip of an output as one value: its record, its failures, its quarantine and its names.

Decides the state of a clip, from its objects alone. The content of an output comes from strangers:
an object that cannot be read becomes a value too, and ends nothing. Memory holds one page of each
listing and a few records, however many clips there are.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar, get_args

from jobs.errors import ObjectMissingError, RecordError
from jobs.records.keys import parse_key, quarantine_key, record_key
from jobs.records.listing import LISTED, ClipObjects, list_clips
from jobs.records.reading import ObjectReader, UnreadableError
from jobs.records.schema import ClipRecord, FailureRecord, QuarantineRecord
from jobs.records.scores.score_record import ScoreRecord, score_parser
from jobs.store.parts import in_parallel
from jobs.store.store import Store
from jobs.types import ClipFailure
from pipelines.request import GenerationRequest
from pipelines.scoring.measures import MEASURES

ClipState = Literal["committed", "damaged", "quarantined", "failed"]
STATES: tuple[ClipState, ...] = get_args(ClipState)
NUM_THREADS = 8  # below the ten connections that boto3 keeps open


@dataclass(frozen=True)
class OutputClip:
    """One clip of an output.

    Args:
        state: committed; damaged, which is a record without its MP4; quarantined; or failed, which
            is failures alone.
        record: the record of a committed or damaged clip.
        quarantine: the record of the quarantine, unless the clip is committed.
        failures: failed attempts of all runs, oldest first.
        names: every name of the clip, the one of its record first, each once.
        objects: the objects of the clip, as they were listed.
        output: URI of the output.
        scores: the figures of `nagfarm score`, if they were asked for, oldest first; those of a
            set's measure are left out.
    """

    clip_id: str
    state: ClipState
    record: ClipRecord | None
    quarantine: QuarantineRecord | None
    failures: tuple[FailureRecord, ...]
    names: tuple[str, ...]
    objects: ClipObjects = field(repr=False)
    output: str = ""
    scores: tuple[ScoreRecord, ...] = ()

    @property
    def figures(self) -> dict[str, float]:
        """The newest figures by measure and name, such as `clip.prompt`."""
        newest = {
            f"{score.measure}.{name}": value
            for score in self.scores
            for name, value in score.figures.items()
        }
        return dict(sorted(newest.items()))

    @property
    def name(self) -> str:
        """The first name of the clip; its id if it has none."""
        return self.names[0] if self.names else self.clip_id

    @property
    def model_name(self) -> str:
        """The name of the model, also of a clip that failed; empty if it is not known."""
        return self.record.model.name if self.record is not None else self._last_failure.model

    @property
    def request(self) -> GenerationRequest | None:
        """The request, also of a clip that failed; None if its model was missing or broken."""
        return self.record.request if self.record is not None else self._last_failure.request

    @property
    def _last_failure(self) -> ClipFailure:
        return self.quarantine or self.failures[-1]


@dataclass(frozen=True)
class Unreadable:
    """An object that says something about a clip and cannot be read.

    If it is the clip's record or quarantine, no `OutputClip` tells of the clip.
    """

    clip_id: str
    key: str
    message: str
    objects: ClipObjects = field(repr=False)


def read_clips(
    store: Store,
    *,
    with_failures: bool = True,
    with_scores: bool = False,
    listed: Iterable[ClipObjects] | None = None,
) -> Iterator[OutputClip | Unreadable]:
    """Yield every clip of an output in the order of ids, reading on several threads.

    A clip with MP4s or names alone is left out: it has neither been committed nor failed.

    Args:
        with_failures: read the failures of clips that have a record, too.
        with_scores: read the scores of clips that have a record.
        listed: the clips to read, as `list_clips` yields them; None for all of the output.

    Raises:
        StoreError: the store does not answer, or refuses to list or read.
    """
    reader = ClipReader(store, with_failures=with_failures, with_scores=with_scores)
    kinds = (*LISTED, "score") if with_scores else LISTED
    clips = list_clips(store, kinds=kinds) if listed is None else listed
    for found in in_parallel(reader.read, clips, NUM_THREADS):
        yield from found


class _OfAClip(Protocol):
    """The part that the records of one clip share."""

    @property
    def clip_id(self) -> str: ...


T = TypeVar("T", bound=_OfAClip)


class ClipReader:
    """Reads one clip at a time; several threads may share it.

    Args:
        with_failures, with_scores: as for `read_clips`.
    """

    def __init__(
        self, store: Store, *, with_failures: bool = True, with_scores: bool = False
    ) -> None:
        self._store = store
        self._reader = ObjectReader(store)
        self._with_failures = with_failures
        self._with_scores = with_scores

    def read(self, clip: ClipObjects) -> list[OutputClip | Unreadable]:
        """Return a clip, and each of its objects that cannot be read."""
        record = quarantine = None
        unreadable: list[Unreadable] = []
        if clip.of_kind("record"):
            record = self._read(clip, record_key(clip.clip_id), ClipRecord.from_json)
        if isinstance(record, Unreadable):
            return [record]
        is_whole = record is not None and self._is_whole(clip, record)
        if clip.of_kind("quarantine") and not is_whole:
            key = quarantine_key(clip.clip_id)
            quarantine = self._read(clip, key, QuarantineRecord.from_json)
        if isinstance(quarantine, Unreadable):
            if record is None:
                return [quarantine]
            unreadable.append(quarantine)
            quarantine = None
        failures: list[FailureRecord] = []
        if self._with_failures or record is None:
            failures = self._failures(clip, unreadable)
        last = record or quarantine or (failures[-1] if failures else None)
        if last is None:
            return [*unreadable]
        state: ClipState = "failed" if quarantine is None else "quarantined"
        if record is not None:
            state = "committed" if is_whole else "damaged"
        names = _names(clip, last.name)
        scores = self._scores(clip, unreadable) if self._with_scores and record else ()
        found = OutputClip(
            clip.clip_id,
            state,
            record,
            quarantine,
            tuple(failures),
            names,
            clip,
            self._store.uri,
            scores,
        )
        return [*unreadable, found]

    def _scores(self, clip: ClipObjects, unreadable: list[Unreadable]) -> tuple[ScoreRecord, ...]:
        """Return the scores of a clip, oldest first; add those that cannot be read to a list."""
        scores: list[ScoreRecord] = []
        for stored in clip.of_kind("score"):
            parsed = parse_key(stored.key)
            kind = MEASURES.get(parsed.measure) if parsed is not None else None
            if kind is not None and kind.is_of_a_set:  # large, and without a figure of the clip
                continue
            score = self._read(clip, stored.key, score_parser(stored.key))
            if isinstance(score, Unreadable):
                unreadable.append(score)
            elif score is not None:
                scores.append(score)
        return tuple(sorted(scores, key=lambda one: one.scored_at))

    def _failures(self, clip: ClipObjects, unreadable: list[Unreadable]) -> list[FailureRecord]:
        """Return the failures of a clip, oldest first; add those that cannot be read to a list."""
        failures: list[FailureRecord] = []
        for stored in clip.of_kind("failure"):
            failure = self._read(clip, stored.key, FailureRecord.from_json)
            if isinstance(failure, Unreadable):
                unreadable.append(failure)
            elif failure is not None:
                failures.append(failure)
        return sorted(failures, key=lambda one: (one.failed_at, one.attempt))

    def _is_whole(self, clip: ClipObjects, record: ClipRecord) -> bool:
        """Return True if the MP4 of a record is there; look again if it was listed without it."""
        found = {(stored.key, stored.num_bytes) for stored in clip.of_kind("clip")}
        return (record.key, record.num_bytes) in found or self._store.holds(
            record.key, record.num_bytes
        )

    def _read(
        self, clip: ClipObjects, key: str, parse: Callable[[bytes], T]
    ) -> T | Unreadable | None:
        """Return a record of a clip; None if it was removed since it was listed."""
        try:
            found = self._reader.read_as(key, parse)
        except ObjectMissingError:
            return None
        except (RecordError, UnreadableError) as error:
            return Unreadable(clip.clip_id, key, str(error), clip)
        if found.clip_id != clip.clip_id:
            message = f"it describes another clip, {found.clip_id}"
            return Unreadable(clip.clip_id, key, message, clip)
        return found


def _names(clip: ClipObjects, first: str) -> tuple[str, ...]:
    further = (parse_key(stored.key) for stored in clip.of_kind("name"))
    return tuple(dict.fromkeys((first, *(parsed.name for parsed in further if parsed is not None))))
