"""The cost of all runs of an output together, from their documents.

Decides which documents count: of each run its last status, which a run that was killed has, too.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jobs.costs.run_cost import RunCost, added_up
from jobs.errors import ObjectMissingError, RecordError
from jobs.records.keys import PREFIXES, STATUS_FILE, parse_key
from jobs.records.reading import ObjectReader, UnreadableError
from jobs.records.strict_json import load, to_dataclass
from jobs.store.parts import in_parallel
from jobs.store.store import Store

MAX_RUNS = 200
MAX_STATUS_BYTES = 5_000_000  # it lists every clip in flight
NUM_THREADS = 8


@dataclass(frozen=True)
class OutputCost:
    """The cost of an output so far.

    Args:
        num_runs: runs that are in it.
        num_left_out: older runs that were not read.
    """

    cost: RunCost
    num_runs: int
    num_left_out: int


def read_output_cost(store: Store) -> OutputCost:
    """Return the cost of the newest runs of an output; runs that cannot be read are left out.

    Raises:
        StoreError: the store does not answer, or refuses to list or read.
    """
    reader = ObjectReader(store)
    keys = sorted(
        (stored.modified_at, stored.key)
        for stored in store.entries(PREFIXES["run file"])
        if stored.num_bytes <= MAX_STATUS_BYTES
        and (parsed := parse_key(stored.key)) is not None
        and parsed.filename == STATUS_FILE
    )
    newest = [key for _, key in keys[-MAX_RUNS:]]

    def read(key: str) -> dict[str, Any]:
        with suppress(ObjectMissingError, RecordError, UnreadableError):
            return reader.read_as(key, load)
        return {}

    costs = list(costs_of(in_parallel(read, newest, NUM_THREADS)))
    return OutputCost(added_up(costs), len(costs), len(keys) - len(newest))


def costs_of(documents: Iterable[Mapping[str, Any]]) -> Iterator[RunCost]:
    """Yield the cost in each status or summary that has one; pass over what cannot be read."""
    for document in documents:
        with suppress(RecordError):
            cost = to_dataclass(RunCost, document.get("cost"))
            cost.check_limits()
            yield cost
