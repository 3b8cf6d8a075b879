"""The clips of an output, or of one run, into the two files of their tables."""

import heapq
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.errors import RecordError
from jobs.overview.clips import OutputClip, Unreadable, read_clips
from jobs.records.keys import KeyKind, list_objects, record_key, run_key
from jobs.records.listing import ClipObjects, ListedObject
from jobs.store.store import Store
from jobs.store.uri import StoredObject
from jobs.tables.files import RECORDS, STAGES, ClipTables

PARQUET_TYPE = "application/vnd.apache.parquet"


def add_clips(
    tables: ClipTables,
    clips: Iterable[OutputClip | Unreadable],
    is_chosen: Callable[[OutputClip], bool] = lambda _clip: True,
) -> Iterator[OutputClip | Unreadable]:
    """Add clips to tables; yield each of them, and each object that has no row.

    Args:
        is_chosen: the choice among the clips; those that are not chosen are yielded, too.
    """
    for clip in clips:
        yield clip
        if isinstance(clip, Unreadable) or not is_chosen(clip):
            continue
        try:
            tables.add(clip)
        except RecordError as error:
            key = record_key(clip.clip_id)
            yield Unreadable(clip.clip_id, key, str(error), clip.objects)


@dataclass(frozen=True)
class EndedClips:
    """The clips of a run, as far as it noted them.

    Args:
        committed: ids of the clips that it committed.
        num_failures: failed attempts of the run.
        num_quarantined: clips that the run quarantined.
    """

    run_id: str
    committed: AbstractSet[str]
    num_failures: int
    num_quarantined: int


def write_run_tables(store: Store, ended: EndedClips) -> int:
    """Write the tables of a run beside its other files; return the number of its clips.

    It reads the record of each clip again, in the order of ids, so that memory holds few of them.
    Failures and quarantine are listed if the run had any.

    Raises:
        StoreError: the store does not answer or refuses.
        OSError: the temporary files cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="nagfarm-tables-") as folder:
        paths = [Path(folder, f"{name}.parquet") for name in (RECORDS, STAGES)]
        with ClipTables(paths[0], paths[1], "parquet") as tables:
            for clip in read_clips(store, listed=_listed(store, ended)):
                if not isinstance(clip, Unreadable) and (own := _of_run(clip, ended.run_id)):
                    with suppress(RecordError):
                        tables.add(own)
        for path in paths:
            store.put(run_key(ended.run_id, path.name), path, PARQUET_TYPE)
        return tables.clips.num_rows


def _listed(store: Store, ended: EndedClips) -> Iterator[ClipObjects]:
    """Yield the clips of a run with the objects to read, in the order of ids."""
    found: defaultdict[str, list[ListedObject]] = defaultdict(list)
    kinds: list[KeyKind] = []
    if ended.num_failures:
        kinds.append("failure")
    if ended.num_quarantined:
        kinds.append("quarantine")
    for kind in kinds:
        for parsed, stored in list_objects(store, kind):
            if parsed.run_id in ("", ended.run_id):
                found[parsed.clip_id].append(ListedObject(kind, stored))
    for clip_id in heapq.merge(sorted(ended.committed), sorted(found.keys() - ended.committed)):
        own = StoredObject(record_key(clip_id), 0, 0.0)  # not listed: it is read at once
        record = [ListedObject("record", own)] if clip_id in ended.committed else []
        yield ClipObjects(clip_id, None, (*record, *found.get(clip_id, ())))


def _of_run(clip: OutputClip, run_id: str) -> OutputClip | None:
    """Return a clip as far as a run made it; None if it made nothing of it."""
    record, quarantine = clip.record, clip.quarantine
    record = record if record is not None and record.run_id == run_id else None
    quarantine = quarantine if quarantine is not None and quarantine.run_id == run_id else None
    failures = tuple(one for one in clip.failures if one.run_id == run_id)
    if record is not None:
        return replace(clip, failures=failures, quarantine=quarantine)
    if quarantine is None and not failures:
        return None
    state = "failed" if quarantine is None else "quarantined"
    return replace(clip, state=state, record=None, quarantine=quarantine, failures=failures)
