"""The notes that the ranks of a group write for the injection of faults: one file for each process.

All processes are on one machine and share its monotonic clock. Loads without torch.
"""

import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LATE_S = 1.0  # files are read one after the other, so a note may be seen after later ones


@dataclass(frozen=True)
class RankNote:
    """One rank at one moment.

    Args:
        moment_s: seconds of the machine's monotonic clock.
        clip: number of the clip that the rank denoises; None if it has just joined a group.
        step: last step that is done; -1 before the first.
    """

    pid: int
    moment_s: float
    rank: int
    clip: int | None = None
    step: int = -1


def write_note(folder: Path, rank: int, clip: int | None = None, step: int = -1) -> None:
    """Add a note of this process.

    One write, so that a reader never sees half a note; the file is closed after each.
    """
    line = f"{time.monotonic():.6f} {rank} {'-' if clip is None else clip} {step}\n"
    file = os.open(folder / str(os.getpid()), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


class RankNotes:
    """All notes of one folder, in the order of their moments.

    Args:
        folder: folder to which the ranks write; only this object reads it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read_bytes: defaultdict[Path, int] = defaultdict(int)
        self._notes: list[RankNote] = []

    def read(self) -> Sequence[RankNote]:
        """Return all notes; those that are new since the last call come last."""
        fresh: list[RankNote] = []
        for path in self._folder.iterdir():
            with path.open("rb") as file:
                file.seek(self._read_bytes[path])
                content = file.read()
            content = content[: content.rfind(b"\n") + 1]
            self._read_bytes[path] += len(content)
            fresh += [parse_note(int(path.name), line) for line in content.decode().splitlines()]
        self._notes += sorted(fresh, key=lambda note: note.moment_s)
        return self._notes

    def since(self, moment_s: float) -> list[RankNote]:
        """Return notes newer than `moment_s`, oldest first."""
        found: list[RankNote] = []
        for note in reversed(self.read()):
            if note.moment_s <= moment_s - LATE_S:
                break
            if note.moment_s > moment_s:
                found.append(note)
        return sorted(found, key=lambda note: note.moment_s)

    def members(self) -> dict[int, int]:
        """Return the process id of each rank, that of the process that joined last."""
        found: dict[int, int] = {}
        for note in self.read():
            if note.clip is None:
                found[note.rank] = note.pid
        return found


def parse_note(pid: int, line: str) -> RankNote:
    moment, rank, clip, step = line.split()
    return RankNote(pid, float(moment), int(rank), None if clip == "-" else int(clip), int(step))
