"""The clips of an output that lack a measure, from listings and the clips' records.

A measure's digest needs the MP4's digest and the texts, so that the record of a clip is read if it
has no score of a measure yet, or if several do; a clip that is scored by all of them costs one
read, and no MP4.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from jobs.manifest.tables.meta import UNWANTED
from jobs.overview.clips import OutputClip, Unreadable, read_clips
from jobs.records.keys import parse_key
from jobs.records.listing import LISTED, list_clips
from jobs.records.schema import ClipRecord
from jobs.scoring.tasks import ClipTask
from jobs.store.store import Store
from pipelines.scoring.measures import MeasureSpec
from pipelines.scoring.scored_clip import negatives_of


@dataclass(frozen=True)
class ClipToScore:
    """A committed clip with the digests under which each measure writes its score.

    Args:
        record: its record.
        digests: digest of each measure, by name.
        missing: the measures that it lacks.
    """

    record: ClipRecord
    digests: Mapping[str, str]
    missing: tuple[str, ...]

    @property
    def task(self) -> ClipTask:
        return ClipTask(self.record.clip_id, self.missing)


def texts_of(record: ClipRecord) -> tuple[str, tuple[str, ...]]:
    """Return the prompt of a clip, and the texts that it must not show.

    The latter are the note `unwanted` of its row, or else its negative prompt, cut at commas: a
    clip without guidance has no negative prompt, and is asked about the same texts.
    """
    unwanted = record.meta.get(UNWANTED, record.request.negative_prompt)
    return record.request.prompt, negatives_of(unwanted)


def digest_of(spec: MeasureSpec, record: ClipRecord) -> str:
    """Return the digest of a measure with all that it sees of a clip."""
    prompt, negatives = texts_of(record)
    return spec.digest(record.sha256, (prompt, *negatives))


def clips_to_score(
    store: Store, specs: Sequence[MeasureSpec], is_chosen: Callable[[OutputClip], bool]
) -> Iterator[ClipToScore | Unreadable]:
    """Yield each chosen clip that is committed, and each record that cannot be read.

    Args:
        specs: the measures, with the revisions of their weights.
        is_chosen: the choice among the clips.

    Raises:
        StoreError: the store does not answer, or refuses to list or read.
    """
    listed = list_clips(store, kinds=(*LISTED, "score"))
    for clip in read_clips(store, with_failures=False, listed=listed):
        if isinstance(clip, Unreadable):
            yield clip
            continue
        record = clip.record
        if record is None or clip.state != "committed" or not is_chosen(clip):
            continue
        parsed = (parse_key(stored.key) for stored in clip.objects.of_kind("score"))
        there = {(one.measure, one.digest) for one in parsed if one is not None}
        digests = {spec.name: digest_of(spec, record) for spec in specs}
        missing = tuple(name for name, digest in digests.items() if (name, digest) not in there)
        yield ClipToScore(record, digests, missing)
