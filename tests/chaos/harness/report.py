"""The table of docs/measurements/chaos.md and the raw numbers of docs/measurements/chaos.json.

The table stands between two markers; the rest of the page is written by people.
"""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.chaos.harness.audit import Audit
from tests.chaos.harness.runner import Outcome

BEGIN, END = "<!-- begin {} -->", "<!-- end {} -->"
HEAD = (
    "fault", "injected", "clips", "committed", "quarantined", "lost", "duplicated", "mismatched",
    "left running", "drivers ended with", "took", "without faults", "overhead",
)  # fmt: skip
TITLE = "# Chaos\n\n"


def table(outcomes: Sequence[Outcome], base_s: Mapping[str, float]) -> str:
    """Return a table with one row for each scenario.

    Args:
        base_s: seconds that the same clips take without faults, by scenario.
    """
    rows = [HEAD, tuple("---" if index in (0, 9) else "---:" for index in range(len(HEAD)))]
    rows += [row(outcome, base_s[outcome.name]) for outcome in outcomes]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def row(outcome: Outcome, base_s: float) -> tuple[str, ...]:
    found = outcome.audit
    counts = (
        outcome.num_injected, found.num_planned, found.num_committed, found.num_quarantined,
        len(found.lost), len(found.duplicated), len(found.mismatched), len(found.orphans),
    )  # fmt: skip
    return (
        outcome.fault if outcome.is_clean else f"**{outcome.fault}: NOT AS EXPECTED**",
        *(f"{count:,}" for count in counts),
        in_words(outcome.exit_codes),
        f"{outcome.wall_s:.0f} s",
        f"{base_s:.0f} s",
        f"{outcome.wall_s - base_s:+.0f} s",
    )


def in_words(exit_codes: Sequence[int]) -> str:
    """Return the exit codes as text, such as `10 x SIGKILL, 0`."""
    parts: list[tuple[int, int]] = []
    for code in exit_codes:
        if parts and parts[-1][0] == code:
            parts[-1] = (code, parts[-1][1] + 1)
        else:
            parts.append((code, 1))
    names = {-9: "SIGKILL"}
    return ", ".join(
        f"{count} x {names.get(code, code)}" if count > 1 else f"{names.get(code, code)}"
        for code, count in parts
    )


def paragraph(text: str) -> str:
    """Wrap a sentence for a page, at 100 characters."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def put_between_markers(path: Path, name: str, text: str) -> None:
    """Replace the text between a page's markers of that name; create both if they are missing."""
    begin, end = BEGIN.format(name), END.format(name)
    page = path.read_text() if path.exists() else TITLE
    if begin not in page:
        page = f"{page.rstrip()}\n\n{begin}\n{end}\n"
    before, rest = page.split(begin, 1)
    _, after = rest.split(end, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def write_numbers(path: Path, name: str, numbers: Any) -> None:
    """Write one part of the raw numbers and keep the others."""
    document = json.loads(path.read_text()) if path.exists() else {}
    document[name] = numbers
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def as_numbers(outcome: Outcome, base_s: float) -> dict[str, Any]:
    return {**asdict(outcome), "base_s": base_s}


def read_outcomes(path: Path) -> dict[str, tuple[Outcome, float]]:
    """Return the outcome of each scenario in the raw numbers, with the seconds without faults."""
    if not path.exists():
        return {}
    found: dict[str, tuple[Outcome, float]] = {}
    for numbers in json.loads(path.read_text())["faults"]["outcomes"]:
        base_s = numbers.pop("base_s")
        audit = Audit(**{name: _frozen(value) for name, value in numbers.pop("audit").items()})
        fields = {name: _frozen(value) for name, value in numbers.items()}
        found[fields["name"]] = Outcome(audit=audit, **fields), base_s
    return found


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
