"""The figures of a clip by one measure: a record beside the clip's own, written once.

A clip has a record for each measure, its weights and its settings; the key says all of these by a
digest, so that a listing tells which clips are scored. `nagfarm score` writes them, and no run.
"""

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from jobs.errors import ObjectExistsError, RecordError
from jobs.records.commit import JSON
from jobs.records.keys import check_clip_id, score_key
from jobs.records.schema import SCHEMA_VERSION, check_at_least, check_time, load_versioned
from jobs.records.strict_json import dump, from_dataclass, to_dataclass
from jobs.store.store import Store

if TYPE_CHECKING:
    import numpy as np

FLOAT_BYTES = 4
MAX_FIGURES = 100
NAME = re.compile(r"[a-z_]{1,40}")  # also a key of the gallery's data


@dataclass(frozen=True)
class ScoreRecord:
    """The figures that a measure gave a committed clip.

    Args:
        clip_id: id of the clip.
        measure: name of the measure.
        digest: the digits in the record's key: they stand for the measure and all that it saw.
        source: hub id of the weights, or `folder:NAME`; empty for a measure without weights.
        revision: commit on the hub, or digest of the folder's files.
        num_stills: frames that were looked at; 0 for all.
        question: the question of a measure that asks one.
        sha256: digest of the MP4.
        negatives: the texts that the clip must not show, as the measure got them.
        figures: numbers by name; a figure that does not apply to the clip is left out.
        words: texts that the measure read besides numbers.
        num_vectors: points in feature space, of a measure of a set.
        vectors: these points as base64 of 32-bit floats, little-endian, one after another.
        scored_at: time of the record, by the worker's clock.
        duration_s: seconds of the measure alone.
        device: the device that computed.
        versions: versions of the libraries that decide figures.
    """

    clip_id: str
    measure: str
    digest: str
    source: str
    revision: str
    num_stills: int
    question: str
    sha256: str
    negatives: tuple[str, ...]
    figures: Mapping[str, float]
    words: Mapping[str, str]
    num_vectors: int
    vectors: str
    scored_at: str
    duration_s: float
    device: str
    versions: Mapping[str, str]
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_clip_id(self.clip_id)
        check_time("scored_at", self.scored_at)
        check_at_least("num_stills", self.num_stills, 0)
        check_at_least("num_vectors", self.num_vectors, 0)
        if len(self.figures) > MAX_FIGURES:
            raise RecordError(f"figures must be at most {MAX_FIGURES}, not {len(self.figures)}")
        if wrong := next((name for name in self.figures if not NAME.fullmatch(name)), None):
            raise RecordError(f"a figure's name must be of a to z and _, not {wrong!r}")
        if not all(map(math.isfinite, self.figures.values())):
            raise RecordError("figures must be finite")

    @property
    def key(self) -> str:
        return score_key(self.clip_id, self.measure, self.digest)

    def points(self) -> "np.ndarray":
        """Return the points in feature space, (num_vectors, D) float32. Raises as `points_in`."""
        return points_in(self.vectors, self.num_vectors)

    def to_json(self) -> bytes:
        return dump(from_dataclass(self))

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read a record. Raises RecordError when it is damaged or has another version."""
        return to_dataclass(cls, load_versioned(content))


def as_base64(points: "np.ndarray") -> str:
    """Return points in feature space as a record holds them."""
    return base64.b64encode(points.astype("<f4").tobytes()).decode("ascii")


def points_in(vectors: str, num_vectors: int) -> "np.ndarray":
    """Return the points that `as_base64` wrote, (num_vectors, D) float32.

    Raises:
        RecordError: they are not base64, or not as many numbers as they must be.
    """
    import numpy as np

    try:
        content = base64.b64decode(vectors, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RecordError(f"vectors must be base64: {error}") from error
    if not num_vectors or not content or len(content) % (num_vectors * FLOAT_BYTES):
        raise RecordError(
            f"vectors must hold {num_vectors} points of 32-bit floats, got {len(content):,} bytes"
        )
    points = np.frombuffer(content, dtype="<f4").reshape(num_vectors, -1)
    if not np.isfinite(points).all():
        raise RecordError("vectors must be finite")
    return points


def write_score(store: Store, record: ScoreRecord) -> bool:
    """Write a record unless there is one. Return False if another worker was faster.

    Raises:
        StoreError: the store does not answer or refuses; writing again is safe.
    """
    with suppress(ObjectExistsError):
        store.put_if_absent(record.key, record.to_json(), JSON)
        return True
    return False


def score_parser(key: str) -> Callable[[bytes], ScoreRecord]:
    """Return a function that reads the record of a key, and refuses that of another key."""

    def parse(content: bytes) -> ScoreRecord:
        record = ScoreRecord.from_json(content)
        if record.key != key:
            raise RecordError(f"expected the score of {key}, got that of {record.key}")
        return record

    return parse
