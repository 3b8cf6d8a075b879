"""The runs of an output as its gallery lists them: begin, manifest, status and summary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.costs.run_cost import added_up
from jobs.errors import ObjectMissingError, RecordError
from jobs.overview.run_costs import costs_of
from jobs.records.keys import (
    PREFIXES,
    RUN_FILE,
    STATUS_FILE,
    SUMMARY_FILE,
    parse_key,
    run_key,
)
from jobs.records.reading import ObjectReader, UnreadableError
from jobs.records.run_status import RunStatus, RunSummary
from jobs.records.strict_json import from_dataclass, load, to_dataclass
from jobs.store.store import Store

MAX_RUNS = 100
MAX_RUN_BYTES = 2_000_000  # the most of one document; a status lists every clip in flight


@dataclass
class RunList:
    """Reads the runs of one output; what has not changed since the last time is not read again."""

    store: Store
    _read: dict[str, tuple[float, dict[str, Any]]] = field(
        default_factory=dict[str, tuple[float, dict[str, Any]]], init=False
    )

    def __post_init__(self) -> None:
        self._reader = ObjectReader(self.store)

    def runs(self) -> tuple[list[dict[str, Any]], int]:
        """Return the newest runs, oldest first, and the number of all."""
        began: dict[str, float] = {}
        files: dict[str, dict[str, float]] = {}
        for stored in self.store.entries(PREFIXES["run file"]):
            if (parsed := parse_key(stored.key)) is None or stored.num_bytes > MAX_RUN_BYTES:
                continue
            files.setdefault(parsed.run_id, {})[parsed.filename] = stored.modified_at
            if parsed.filename == RUN_FILE:
                began[parsed.run_id] = stored.modified_at
        newest = sorted(began, key=lambda run_id: (began[run_id], run_id))[-MAX_RUNS:]
        found = [self._run(run_id, files[run_id]) for run_id in newest]
        for run in found[:-1]:
            if run["status"] is not None:  # it says something for the newest run alone
                run["status"] = {**run["status"], "in_flight": [], "loading": []}
        return found, len(began)

    def _run(self, run_id: str, written: Mapping[str, float]) -> dict[str, Any]:
        run = self._document(run_id, RUN_FILE, written)
        manifest = run.get("manifest") if run is not None else None
        name = manifest.get("name") if isinstance(manifest, dict) else None
        started_at = run.get("started_at") if run is not None else None
        return {
            "run_id": run_id,
            "started_at": started_at if isinstance(started_at, str) else None,
            "manifest": name if isinstance(name, str) else None,
            "status": self._document(run_id, STATUS_FILE, written, RunStatus),
            "summary": self._document(run_id, SUMMARY_FILE, written, RunSummary),
        }

    def _document(
        self,
        run_id: str,
        filename: str,
        written: Mapping[str, float],
        form: type[RunStatus | RunSummary] | None = None,
    ) -> dict[str, Any] | None:
        """Return a document of a run; None if it is not there, or not one of its form."""
        if filename not in written:
            return None
        key = run_key(run_id, filename)
        written_at, document = self._read.get(key, (-1.0, {}))
        if written_at != written[filename] or filename == STATUS_FILE:
            try:
                document = self._reader.read_as(key, load)
                if form is not None:  # the page counts on its numbers
                    document = from_dataclass(to_dataclass(form, document))
            except (ObjectMissingError, RecordError, UnreadableError):
                return None
            self._read[key] = written[filename], document
        return document


def total_cost(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the cost of several runs together; None if no run has noted its cost."""
    costs = list(costs_of(run["summary"] or run["status"] or {} for run in runs))
    return from_dataclass(added_up(costs)) if costs else None
