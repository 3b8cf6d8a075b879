"""The close of a run: its tables, further names, and rows that came too late.

A run that was stopped leaves names and rows to the next one.
"""

from collections.abc import Iterator

from jobs.ending import stopped_by_signals
from jobs.errors import JobError, ManifestError, StoreError
from jobs.records.names import record_names
from jobs.run.documents import OpenedManifest
from jobs.run.progress.long_work import long_work
from jobs.store.store import Store
from jobs.tables.writing import EndedClips, write_run_tables
from jobs.text import counted


def close_run(opened: OpenedManifest) -> Iterator[str]:
    """Record the further names of committed clips; yield what there is to say, line by line.

    It needs no lease: each write is conditional. Names that cannot be written fail no run.
    """
    if opened.plan.num_other_names:
        yield from _record_names(opened)
    if opened.manifest.has_grown():
        yield (
            f"{opened.manifest.path} has more rows than when it was opened; run it again to render "
            "these"
        )


def _record_names(opened: OpenedManifest) -> Iterator[str]:
    try:
        num_names = record_names(opened.store, opened.plan.other_names())
    except (ManifestError, StoreError) as error:
        yield f"not all names could be recorded: {error}; render again to go on"
        return
    if num_names:
        yield f"recorded {counted(num_names, 'further name')} of committed clips"


def write_tables(store: Store, ended: EndedClips) -> Iterator[str]:
    """Write the tables of a run; yield the reason and the remedy if they cannot be written.

    A signal ends the writing, and nothing else: the run has ended before.
    """
    try:
        with stopped_by_signals(), long_work("writing the tables of this run"):
            write_run_tables(store, ended)
    except (JobError, OSError, ImportError) as error:
        yield (
            f"the tables of this run were not written: {error}; nagfarm records {store.uri} "
            f"--run {ended.run_id} writes them to this machine"
        )
