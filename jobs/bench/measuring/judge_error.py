"""The judge's own error, on true clips and on deliberately broken ones.

Measures the judge and changes none of its thresholds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jobs.bench.measuring.cache import LineCache
from jobs.bench.measuring.judging import JudgeCall, broken_key, broken_to_judge
from jobs.bench.measuring.statistics import Estimate, share
from jobs.settings.run_config import EncodingConfig
from pipelines.shapes.evaluation.breakages import BREAKAGES, TRUE

KINDS = (TRUE, *BREAKAGES)


@dataclass(frozen=True)
class KindError:
    """The judge's verdicts on one kind of clip.

    Args:
        clean: the share of clips called clean. The right value is 1 for true and for frozen clips,
            0 for all others.
        right: the share of clips whose four attributes are read as they were before the breakage.
    """

    kind: str
    num_clips: int
    clean: Estimate
    right: Estimate


def broken_clips_to_judge(
    num_clips: int, encoding: EncodingConfig
) -> Iterator[tuple[str, JudgeCall]]:
    """Return the keys and calls that judge `num_clips` clips of each kind."""
    return (broken_to_judge(kind, index, encoding) for kind in KINDS for index in range(num_clips))


def judge_errors(cache: LineCache, num_clips: int) -> list[KindError]:
    """Return the errors by kind, from a cache that holds all of `broken_clips_to_judge`."""
    return [_kind_error(cache, kind, num_clips) for kind in KINDS]


def _kind_error(cache: LineCache, kind: str, num_clips: int) -> KindError:
    entries = [cache[broken_key(kind, index)] for index in range(num_clips)]
    clean, right = (
        share(np.array(flags, dtype=np.float64))
        for flags in (
            [entry["verdict"]["is_clean"] for entry in entries],
            [entry["is_right"] for entry in entries],
        )
    )
    return KindError(kind, num_clips, clean, right)
