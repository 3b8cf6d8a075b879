"""The time that is left of a run, with a range: from the progress of its last half hour. Pure.

Decides what the range means: if the farm goes on as in that time, about eight of ten runs end
within it. tests/jobs/run/progress/test_time_left.py holds it against simulated runs.
"""

import itertools
import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

WINDOW_S = 1800.0  # long enough for several clips, short enough to follow a cluster that changes
NUM_BLOCKS = 8  # parts of the window, whose rates show how steady the farm is
MIN_BLOCKS = 3
SPREAD = 1.4  # Student's t for eight of ten, with the freedom of seven to eight blocks
UNSEEN_SPREAD = 0.2  # standard error of a predicted ratio between two kinds of clip
MAX_LOG_SPREAD = math.log(8.0)  # a wider range would say nothing


class WorkDone(NamedTuple):
    """The work that was done by a moment, in any unit."""

    at_s: float
    work: float


class LastClips(NamedTuple):
    """The clips with which a run ends, while devices have no further clip.

    Args:
        clip_s: usual seconds of a clip.
        longest_s: seconds that the longest clip still takes, however many devices there are.
        waiting_s: seconds of a clip that no worker has yet; 0 if none is left.
        spread: factor between a usual clip and a long one, at least 1.
    """

    clip_s: float = 0.0
    longest_s: float = 0.0
    waiting_s: float = 0.0
    spread: float = 1.0


UNKNOWN = LastClips()


class TimeLeft(NamedTuple):
    """Seconds until a run ends: the likely ones, and the range that holds for eight of ten runs."""

    low_s: float
    likely_s: float
    high_s: float


def time_left(
    done: Sequence[WorkDone], left: float, last: LastClips = UNKNOWN, unseen: float = 0.0
) -> TimeLeft | None:
    """Estimate the time in which the work that is left will be done.

    The likely time is the work that is left over the rate of the window, and half of a last clip,
    while which more and more devices have none. The range comes from the rates of the parts of the
    window: the more they differ, and the less is done or left, the wider it is.

    Args:
        done: work done by some moments, oldest first, in the window.
        left: work that is left, in the same unit.
        unseen: share of that work in clips of a kind that was not measured yet, 0 to 1.

    Returns:
        None as long as there is too little to estimate from, or nothing goes on.
    """
    if left <= 0:
        return TimeLeft(0.0, 0.0, 0.0)
    rates = block_rates(done)
    if len(rates) < MIN_BLOCKS:
        return None
    span_s = done[-1].at_s - done[0].at_s
    rate = (done[-1].work - done[0].work) / span_s
    if rate <= 0:
        return None
    busy_s, block_s = left / rate, span_s / len(rates)
    # a clip that takes longer than a part of the window makes neighbouring parts alike
    alike = max(last.clip_s / block_s, 1.0)
    variance = (statistics.stdev(rates) / rate) ** 2 * alike
    # the error of the rate so far, and the chance in the time to come
    error = variance * (1 / len(rates) + block_s / busy_s) + (UNSEEN_SPREAD * unseen) ** 2
    factor = math.exp(min(SPREAD * math.sqrt(error), MAX_LOG_SPREAD))
    likely_s = max(busy_s + last.waiting_s / 2, last.longest_s)
    return TimeLeft(
        min(max(busy_s / factor, last.longest_s / last.spread), likely_s),
        likely_s,
        max(busy_s * factor + last.waiting_s, last.longest_s * last.spread),
    )


def block_rates(done: Sequence[WorkDone]) -> list[float]:
    """Return the rate in each of up to eight parts of a window, about equally long."""
    if len(done) < 2:
        return []
    first_s, last_s = done[0].at_s, done[-1].at_s
    moments = [first_s + (last_s - first_s) * part / NUM_BLOCKS for part in range(NUM_BLOCKS + 1)]
    times = [one.at_s for one in done]
    ends = sorted({min(bisect_left(times, moment), len(done) - 1) for moment in moments})
    return [
        (done[end].work - done[begin].work) / (done[end].at_s - done[begin].at_s)
        for begin, end in itertools.pairwise(ends)
        if done[end].at_s > done[begin].at_s
    ]
