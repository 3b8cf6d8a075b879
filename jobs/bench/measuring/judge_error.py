"""How often the judge itself errs: what it says of true clips and of deliberately spoilt ones. No threshold moves."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jobs.bench.measuring.cache import LineCache
from jobs.bench.measuring.judging import Look, broken_key, broken_look
from jobs.bench.measuring.statistics import Estimate, share
from jobs.config import EncodingConfig
from pipelines.shapes.evaluation.breakages import BREAKAGES, TRUE

KINDS = (TRUE, *BREAKAGES)


@dataclass(frozen=True)
class KindError:
    """What the judge says of one kind of clip.

    Args:
        clean: the share that it calls clean; 1 is right for true clips and for frozen ones, 0 for all others.
        right: the share in which it reads all four attributes as they were before the clip was spoilt.
    """

    kind: str
    num_clips: int
    clean: Estimate
    right: Estimate


def judge_looks(num_clips: int, encoding: EncodingConfig) -> Iterator[tuple[str, Look]]:
    """What has to be looked at, of each kind."""
    return (broken_look(kind, index, encoding) for kind in KINDS for index in range(num_clips))


def judge_errors(cache: LineCache, num_clips: int) -> list[KindError]:
    """Reads the cache, which holds all of `judge_looks`."""
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
