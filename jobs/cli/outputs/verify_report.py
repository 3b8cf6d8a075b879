"""The output of `nagfarm verify`: findings as text or JSON, the counts, and the progress bar."""

from dataclasses import asdict, dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from jobs.cli.pattern.command import Context
from jobs.cli.pattern.wording import megabytes
from jobs.escaping import json_text
from jobs.text import counted
from jobs.upkeep.audit import ClipAudit
from jobs.upkeep.findings import Finding

ID_DIGITS_SHOWN = 8  # digits of a clip id; ids are hashes, so that they show the share that is done


@dataclass(frozen=True)
class Totals:
    """The counts of an audit.

    Args:
        num_bytes: bytes of MP4s that were read.
        num_young: objects that nothing names and that are too young to be called orphans.
    """

    num_committed: int = 0
    num_quarantined: int = 0
    num_bytes: int = 0
    num_young: int = 0
    num_findings: int = 0

    def plus(self, clip: ClipAudit) -> "Totals":
        return Totals(
            self.num_committed + clip.is_committed,
            self.num_quarantined + (clip.is_quarantined and not clip.is_committed),
            self.num_bytes + clip.num_bytes,
            self.num_young + clip.num_young,
            self.num_findings + len(clip.findings),
        )


class TextReport:
    """Prints one line for each finding, and a summary.

    Args:
        older_than: the option; younger objects are not called orphans.
        decodes: True if every MP4 is decoded.
    """

    def __init__(self, context: Context, older_than: str, *, decodes: bool) -> None:
        self._context = context
        self._older_than = older_than
        self._decodes = decodes

    def begin(self, uri: str, run_at_work: str | None) -> None:
        if run_at_work is not None:
            self._say(f"a run is under way on {uri}: {run_at_work}")

    def add(self, finding: Finding) -> None:
        self._say(f"{finding.kind}: {finding.message}")

    def end(self, totals: Totals) -> None:
        if totals.num_young:
            self._say(
                f"{counted(totals.num_young, 'object')} without a record, younger than "
                f"{self._older_than}: in flight, not orphans"
            )
        read = "read and decoded" if self._decodes else "read"
        self._say(
            f"{counted(totals.num_committed, 'clip')} committed, "
            f"{totals.num_quarantined:,} quarantined, {megabytes(totals.num_bytes)} {read}: "
            f"{counted(totals.num_findings, 'finding')}"
        )

    def _say(self, text: str) -> None:
        self._context.say(text)


class JsonReport:
    """Prints one JSON document, a finding a line, so that no list of them is held in memory."""

    def __init__(self, context: Context, *, decodes: bool) -> None:
        self._context = context
        self._decodes = decodes
        self._head = ""  # not printed yet; empty once the first finding is printed

    def begin(self, uri: str, run_at_work: str | None) -> None:
        head = json_text({"uri": uri, "run_under_way": run_at_work})
        self._head = f'{head.removesuffix("}")}, "findings": ['

    def add(self, finding: Finding) -> None:
        comma = "" if self._head else ","
        if self._head:
            self._context.say_json(self._head)
            self._head = ""
        self._context.say_json(f"{comma}{json_text(asdict(finding))}")

    def end(self, totals: Totals) -> None:
        counts = json_text({"decoded": self._decodes, **asdict(totals)})
        self._context.say_json(f"{self._head}], {counts.removeprefix('{')}")


def progress_bar(console: Console, *, is_json: bool) -> Progress:
    """Return a bar on the terminal; it is disabled if it would be mixed into the output."""
    stderr = Console(stderr=True)
    if console.is_terminal:
        target, is_shown = console, not is_json
    else:
        target, is_shown = stderr, stderr.is_terminal
    return Progress(
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=target,
        disable=not is_shown,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def advance(bar: Progress, task: TaskID, clip: ClipAudit, totals: Totals) -> None:
    """Move the bar to the clip's place among all ids: they are hashes, evenly spread.

    Inputs, which are read first, move the counts alone.
    """
    bar.update(
        task,
        completed=int(clip.clip_id[:ID_DIGITS_SHOWN], 16) if clip.clip_id else None,
        description=f"{totals.num_committed:,} clips, {megabytes(totals.num_bytes)}, "
        f"{totals.num_findings:,} findings",
    )
