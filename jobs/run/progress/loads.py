"""The loads of workers that are not ready yet: counted by their position, and in words. Pure."""

from collections.abc import Sequence

from jobs.records.run_status import LoadingWorkers
from jobs.text import counted
from pipelines.load_progress import LoadPart, LoadPosition

WORDS: dict[LoadPart, str] = {
    "import": "importing libraries",
    "verify": "verifying weights",
    "shapes": "checking weights",
    "read": "reading weights",
    "install": "installing guidance",
}


def loads_at(positions: Sequence[LoadPosition]) -> tuple[LoadingWorkers, ...]:
    """Return the workers at each position, the largest number first.

    So many workers as there may be take no more room than their few positions.
    """
    verified: dict[tuple[LoadPart, ...], list[float]] = {}
    for position in positions:
        verified.setdefault(position.parts, []).append(position.verified)
    found = [LoadingWorkers(parts, len(of), min(of)) for parts, of in verified.items()]
    return tuple(sorted(found, key=lambda one: (-one.num_workers, one.parts)))


def loading_text(loading: Sequence[LoadingWorkers]) -> str:
    """Return the loads in words: `2 workers (importing libraries; verifying weights, 40 %)`."""
    return ", ".join(f"{counted(one.num_workers, 'worker')} ({_words(one)})" for one in loading)


def _words(workers: LoadingWorkers) -> str:
    words = [
        f"{WORDS[part]}, {workers.verified:.0%}".replace("%", " %")
        if part == "verify"
        else WORDS[part]
        for part in workers.parts
    ]
    return "; ".join(words) or "starting"
