"""All kinds of clip of a run together, and the time that is left. Pure: callers pass the time.

Decides how much the clips of each kind weigh: by their measured seconds, or by the predicted ones
at the scale of the measured.
"""

import statistics
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping

from jobs.records.run_status import KindStatus
from jobs.run.progress.kind_tally import KindTally, PlannedKind, kind_of
from jobs.run.progress.time_left import WINDOW_S, LastClips, TimeLeft, WorkDone, time_left
from jobs.simulation.conditions import ClipKind
from jobs.types import ClipSpec
from pipelines.device_marks import DeviceTime
from pipelines.parallel_config import ParallelConfig

SAMPLE_EVERY_S = 10.0
SAMPLES_FROM_START = 50  # a short run is looked at more often
MAX_KINDS = 50  # in a status


class RunKinds:
    """The kinds of one run, in its order. Times are seconds of a clock that never goes back."""

    def __init__(self, planned: Iterable[PlannedKind], started: float) -> None:
        self._kinds = {one.kind: KindTally(one) for one in planned}
        self._kind_of: dict[str, ClipKind] = {}  # by id, of clips that have begun and not ended
        # moments, with the clips that each kind has advanced by since the moment before
        self._history: deque[tuple[float, Mapping[ClipKind, float]]] = deque()
        self._started = self._sampled = started
        self._left: TimeLeft | None = None
        self._is_left_known = False

    def clip_started(self, spec: ClipSpec) -> None:
        kind = self._kind_of[spec.clip_id] = kind_of(spec)
        if kind not in self._kinds:  # a clip that no plan has told of
            self._kinds[kind] = KindTally(PlannedKind(kind, 0))

    def clip_committed(self, clip_id: str, device_time: DeviceTime | None) -> None:
        if (kind := self._end(clip_id)) is not None:
            kind.num_committed += 1
            if device_time is not None:
                kind.times_s.append(device_time.busy_s + device_time.idle_s)

    def clip_quarantined(self, clip_id: str) -> None:
        if (kind := self._end(clip_id)) is not None:
            kind.num_quarantined += 1

    def give_up(self, model: str, parallel: ParallelConfig) -> None:
        """Count the clips that a kind of worker left as quarantined."""
        for kind, tally in self._kinds.items():
            if (kind.model, kind.parallel) == (model, parallel):
                tally.num_quarantined += tally.num_waiting

    def _end(self, clip_id: str) -> KindTally | None:
        kind = self._kind_of.pop(clip_id, None)
        return None if kind is None else self._kinds[kind]

    def is_due(self, now: float) -> bool:
        """Return True if it is time for the next sample."""
        since_start_s = now - self._started
        wait_s = min(SAMPLE_EVERY_S, since_start_s / SAMPLES_FROM_START)
        return now - self._sampled >= max(wait_s, 0.1)

    def sample(self, in_flight: Iterable[tuple[ClipSpec, float]], now: float) -> None:
        """Note the progress at one moment.

        Args:
            in_flight: each clip that a worker holds, with the share of its steps that is done.
        """
        shares: defaultdict[ClipKind, dict[str, float]] = defaultdict(dict)
        for spec, share in in_flight:
            shares[kind_of(spec)][spec.clip_id] = share
        since_s, self._sampled = now - self._sampled, now
        advanced: dict[ClipKind, float] = {}
        for kind, tally in self._kinds.items():
            if number := tally.sample(shares.get(kind, {}), now, since_s):
                advanced[kind] = number
        if not any(tally.num_done for tally in self._kinds.values()):
            self._history.clear()  # the pace begins with the first step
        while self._history and self._history[0][0] < now - WINDOW_S:
            self._history.popleft()
        self._history.append((now, advanced))
        self._is_left_known = False

    def time_left(self) -> TimeLeft | None:
        """Estimate the rest of the run at its last sample; None without a pace."""
        if not self._is_left_known:
            self._left, self._is_left_known = self._estimate(), True
        return self._left

    def _estimate(self) -> TimeLeft | None:
        weights, kinds = self._weights(), self._kinds.values()
        done, work_done = list[WorkDone](), 0.0
        for at_s, advanced in self._history:
            if done:  # the window begins at the first moment
                work_done += sum(weights[kind] * number for kind, number in advanced.items())
            done.append(WorkDone(at_s, work_done))
        work = {
            one.kind: max(one.num_clips - one.num_done, 0.0) * weights[one.kind] for one in kinds
        }
        left = sum(work.values())
        unseen = sum(work[one.kind] for one in kinds if not one.num_done)
        return time_left(done, left, self._last_clips(weights), unseen / left if left else 0.0)

    def _last_clips(self, weights: Mapping[ClipKind, float]) -> LastClips:
        """Return the clips with which the run ends; unknown ones as long as none has begun."""
        kinds = [one for one in self._kinds.values() if one.num_waiting or one.shares]
        if not kinds or not self._seconds():
            return LastClips()
        clips_s = {one.kind: weights[one.kind] / one.kind.parallel.degree for one in kinds}
        longest = max(kinds, key=lambda one: one.longest_share * clips_s[one.kind])
        waiting = [one for one in kinds if one.num_waiting]
        return LastClips(
            clip_s=clips_s[longest.kind],
            longest_s=longest.longest_share * clips_s[longest.kind],
            waiting_s=clips_s[waiting[-1].kind] * waiting[-1].spread if waiting else 0.0,
            spread=longest.spread,
        )

    def statuses(self) -> tuple[KindStatus, ...]:
        """Return up to 50 kinds: those in flight, then those to come, then those that ended."""
        kinds = sorted(self._kinds.values(), key=lambda one: (not one.shares, not one.num_waiting))
        return tuple(one.status() for one in kinds[:MAX_KINDS])

    def _seconds(self) -> dict[ClipKind, float]:
        """Return the seconds of a clip of each measured kind; by its steps before the first."""
        kinds = self._kinds.items()
        found = {kind: seconds for kind, one in kinds if (seconds := one.clip_s)}
        return found or {kind: seconds for kind, one in kinds if (seconds := one.pace_s)}

    def _weights(self) -> dict[ClipKind, float]:
        """Return the device seconds of a clip of each kind, right up to a shared factor.

        Measured kinds have theirs; the others are scaled from the kind that is most alike.
        """
        measured = {kind: one * kind.parallel.degree for kind, one in self._seconds().items()}
        usual = statistics.fmean(measured.values()) if measured else 1.0
        scale = _Scale(
            (kind.model, self._kinds[kind].planned.predicted_s, weight)
            for kind, weight in measured.items()
        )
        return {
            kind: measured.get(kind) or scale.of(kind.model, one.planned.predicted_s) or usual
            for kind, one in self._kinds.items()
        }


class _Scale:
    """Measured kinds, from which others are scaled, however many there are.

    Args:
        measured: model, predicted weight and measured weight of each.
    """

    def __init__(self, measured: Iterable[tuple[str, float, float]]) -> None:
        self._by_model: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        for model, predicted, weight in measured:
            if predicted > 0:
                self._by_model[model].append((predicted, weight))
        self._all = sorted(one for of_model in self._by_model.values() for one in of_model)
        for of_model in self._by_model.values():
            of_model.sort()

    def of(self, model: str, predicted: float) -> float:
        """Return a predicted weight, scaled like the most similar one, if possible of the model.

        Returns:
            The predicted weight as it is without any measured kind.
        """
        known = self._by_model.get(model, self._all)
        if not known or predicted <= 0:
            return predicted
        index = bisect_left(known, (predicted, 0.0))
        nearest = min(
            known[max(index - 1, 0) : index + 1],
            key=lambda one: max(one[0] / predicted, predicted / one[0]),
        )
        return predicted * nearest[1] / nearest[0]
