"""One scoring run: from the measures to the scores of every chosen clip, and the figures of sets.

Decides the order: first the weights are found, then the clips that lack a score are scored, then
the references, and at last all scores are read for the figures. A run that ends early is resumed by
the next: what is written counts. The command line shows it; the pool does the work.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.errors import ObjectMissingError, RecordError, RefusedError
from jobs.overview.clips import OutputClip, Unreadable
from jobs.records.keys import score_key
from jobs.records.reading import ObjectReader, UnreadableError
from jobs.records.schema import ClipRecord
from jobs.records.scores.score_record import ScoreRecord, points_in, score_parser
from jobs.scoring.figures import FigureSums, Group, GroupFigures
from jobs.scoring.left import ClipToScore, clips_to_score
from jobs.scoring.pool import Pool
from jobs.scoring.reference_cache import ReferenceCache, digest_of
from jobs.scoring.references import References
from jobs.scoring.tasks import ScoringSetup, Task, TaskDone, TaskFailed
from jobs.settings.run_config import RunConfig
from jobs.store.parts import in_parallel
from jobs.store.store import Store
from pipelines.scoring.measures import MeasureSpec
from pipelines.scoring.scorer_weights import find_weights

if TYPE_CHECKING:
    from pipelines.scoring.frechet import Gaussian

Placed = Mapping[str, "Gaussian"] | None  # the references of each measure of a set
NUM_THREADS = 8  # below the ten connections that boto3 keeps open
MAX_TROUBLE = 1000  # lines that are kept; more are counted


@dataclass(frozen=True)
class Measures:
    """The measures of a run.

    Args:
        written: as people wrote them, for workers that look for the weights on their own machine.
        found: with the sources and revisions that records hold.
    """

    written: tuple[MeasureSpec, ...]
    found: tuple[MeasureSpec, ...]

    def setup(self, uri: str, config: RunConfig) -> ScoringSetup:
        """Return the setup of the workers."""
        revisions = {spec.name: spec.revision for spec in self.found}
        num_threads = config.workers.num_cpus
        return ScoringSetup(uri, config.store, self.written, revisions, num_threads)

    @property
    def of_sets(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.found if spec.kind.is_of_a_set)


def find_measures(
    specs: tuple[MeasureSpec, ...], fetch: Callable[[str], None] | None = None
) -> Measures:
    """Find the weights of all measures.

    Args:
        fetch: as for `find_weights`.

    Raises:
        RefusedError: a measure is named twice.
        ScoringError: weights are missing or broken.
    """
    names = [spec.name for spec in specs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RefusedError(f"the measure {twice} is named twice; score with one after the other")
    return Measures(specs, tuple(find_weights(spec, fetch).spec for spec in specs))


@dataclass
class Progress:
    """The counts of a run so far.

    Args:
        num_scored: clips that have every score now, those from before the run among them.
        num_tasks_done: tasks that this run did.
        trouble: clips that cannot be scored, and why.
        num_trouble: their number, also those that `trouble` has no room for.
    """

    num_clips: int = 0
    num_scored: int = 0
    num_written: int = 0
    num_tasks_done: int = 0
    trouble: list[str] = field(default_factory=list[str])
    num_trouble: int = 0

    def add_trouble(self, text: str) -> None:
        self.num_trouble += 1
        if len(self.trouble) < MAX_TROUBLE:
            self.trouble.append(text)


@dataclass(frozen=True, eq=False)
class ScoringRun:
    """A scoring run on one output.

    Args:
        store: the output.
        measures: the measures.
        is_chosen: the choice among its clips.
        on_step: called after each step with the counts so far.
        cache: the distributions of references that this machine knows.
    """

    store: Store
    measures: Measures
    is_chosen: Callable[[OutputClip], bool]
    on_step: Callable[[Progress], None] = lambda _progress: None
    progress: Progress = field(default_factory=Progress)
    cache: ReferenceCache = field(default_factory=ReferenceCache.of_user)

    def score(self, pool: Pool) -> None:
        """Score each chosen clip that lacks a score.

        Raises:
            StoreError: the store does not answer, or refuses to list or read.
            RefusedError, StoppedError: as `Pool.run`.
        """
        progress = self.progress
        for outcome in pool.run(self._clip_tasks()):
            progress.num_tasks_done += 1
            match outcome:
                case TaskFailed(task, message):
                    progress.add_trouble(f"{task.name}: {message}")
                case TaskDone():
                    progress.num_written += outcome.num_written
                    progress.num_scored += not outcome.refusals
                    for one in outcome.refusals:
                        progress.add_trouble(f"{one.name}: {one.measure}: {one.message}")
            self.on_step(progress)

    def _clip_tasks(self) -> Iterator[Task]:
        for clip in clips_to_score(self.store, self.measures.found, self.is_chosen):
            if isinstance(clip, Unreadable):
                self.progress.add_trouble(f"{clip.key}: {clip.message}")
                continue
            self.progress.num_clips += 1
            if clip.missing:
                yield clip.task
            else:
                self.progress.num_scored += 1
                self.on_step(self.progress)

    def place_references(self, references: References, pool: Pool) -> "dict[str, Gaussian]":
        """Return the distribution of the references for each measure of a set.

        Raises:
            RefusedError: fewer than two of them can be used.
        """
        found: dict[str, Gaussian] = {}
        for spec in self.measures.found:
            if not spec.kind.is_of_a_set:
                continue
            digest = digest_of(spec, references)
            if (known := self.cache.read(digest)) is None:
                known, is_whole = self._placed(spec.name, references, pool)
                if is_whole:
                    self.cache.write(digest, known)
            found[spec.name] = known
        return found

    def _placed(self, measure: str, references: References, pool: Pool) -> "tuple[Gaussian, bool]":
        """Return the distribution for one measure, and True if every picture counts in it."""
        from pipelines.scoring.frechet import PointSums

        sums, num_refused = PointSums(), 0
        for outcome in pool.run(references.tasks(measure)):
            if isinstance(outcome, TaskFailed):
                raise RefusedError(f"{outcome.task.name}: {outcome.message}")
            num_refused += len(outcome.refusals)
            for one in outcome.refusals:
                self.progress.add_trouble(f"reference {one.name}: {measure}: {one.message}")
            if outcome.num_vectors:
                sums.add(points_in(outcome.vectors, outcome.num_vectors))
            self.on_step(self.progress)
        gaussian = sums.gaussian()
        if gaussian is None:
            reasons = "; ".join(self.progress.trouble[-2:])
            raise RefusedError(f"{measure}: fewer than two references can be used: {reasons}")
        return gaussian, num_refused == 0

    def figures(
        self,
        groups_of: Callable[[ClipRecord, list[ScoreRecord]], Iterable[Group]],
        references: Placed = None,
    ) -> list[GroupFigures]:
        """Read the scores of all chosen clips, and return the figures of each group.

        Args:
            groups_of: returns the groups of a clip, which it gets with its scores.
            references: the references of each measure of a set.

        Raises:
            StoreError: the store does not answer, or refuses to list or read.
        """
        sums = FigureSums(references or {})
        needed = {*self.measures.of_sets} if references else set[str]()
        for record, scores in read_scores(self.store, self.measures.found, self.is_chosen, needed):
            for group in groups_of(record, scores):
                sums.add(group, scores)
        return sums.groups()


def read_scores(
    store: Store,
    specs: tuple[MeasureSpec, ...],
    is_chosen: Callable[[OutputClip], bool],
    of_sets: set[str],
) -> Iterator[tuple[ClipRecord, list[ScoreRecord]]]:
    """Yield each chosen clip with its scores by these measures; a damaged score is left out.

    Args:
        of_sets: measures of a set whose points are read, too.
    """
    reader = ObjectReader(store)
    wanted = [spec.name for spec in specs if not spec.kind.is_of_a_set or spec.name in of_sets]

    def read(clip: ClipToScore | Unreadable) -> tuple[ClipRecord, list[ScoreRecord]] | None:
        if isinstance(clip, Unreadable):
            return None
        found: list[ScoreRecord] = []
        for name in wanted:
            if name not in clip.missing:
                key = score_key(clip.record.clip_id, name, clip.digests[name])
                try:
                    found.append(reader.read_as(key, score_parser(key)))
                except (ObjectMissingError, RecordError, UnreadableError):
                    continue
        return clip.record, found

    clips = clips_to_score(store, specs, is_chosen)
    yield from filter(None, in_parallel(read, clips, NUM_THREADS))
