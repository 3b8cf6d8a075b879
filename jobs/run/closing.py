"""The close of a run: further names, and rows that came too late.

A run that was stopped leaves names and rows to the next one.
"""

from collections.abc import Iterator

from jobs.errors import ManifestError, StoreError
from jobs.records.names import record_names
from jobs.run.documents import OpenedManifest
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
