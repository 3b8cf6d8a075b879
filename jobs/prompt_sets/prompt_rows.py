"""One prompt of a set, and the rows of a manifest that it becomes.

A row carries the note `unwanted`, the texts that `nagfarm score` asks about, since a clip without
guidance has no negative prompt. Each prompt has a seed of its own, so that two negatives of one
prompt are two clips without guidance, too.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.errors import RefusedError
from jobs.manifest.tables.meta import UNWANTED
from jobs.text import shown
from jobs.whole_files import unwritable, written_whole
from pipelines.errors import RequestError
from pipelines.texts import check_text

FORM = "form"
MAX_TEXT_CHARACTERS = 2000
MAX_PROMPTS = 1_000_000


@dataclass(frozen=True)
class SetPrompt:
    """A prompt of a set.

    Args:
        name: name of its clip, without the run's.
        prompt: the prompt.
        negative: the texts that the clip must not show, between commas; empty for none.
        notes: facts for an evaluation, such as the objects and their number.
    """

    name: str
    prompt: str
    negative: str = ""
    notes: Mapping[str, str] = field(default_factory=dict[str, str])

    def row(self, seed: int) -> dict[str, Any]:
        """Return the row of a manifest."""
        notes = dict(self.notes)
        if self.negative:
            notes[UNWANTED] = self.negative
        row: dict[str, Any] = {"name": self.name, "prompt": self.prompt, "seed": seed}
        if self.negative:
            row["negative_prompt"] = self.negative
        return {**row, "meta": notes}


def clean(text: object) -> str:
    """Return a text of a file as one line, cut at no place.

    Raises:
        ValueError: it is not a text, empty, or longer than a prompt of a set.
    """
    given = text if isinstance(text, str) else ""
    line = " ".join("".join(one if one.isprintable() else " " for one in given).split())
    if not 0 < len(line) <= MAX_TEXT_CHARACTERS:
        raise ValueError(
            f"expected a text of 1 to {MAX_TEXT_CHARACTERS:,} characters, got {shown(text)}"
        )
    return line


def check_option(option: str, text: str) -> None:
    """Refuse a text of an option that a manifest refuses, or that is longer than one of a set.

    Raises:
        RefusedError: it is.
    """
    if len(text) > MAX_TEXT_CHARACTERS:
        raise RefusedError(
            f"{option}: expected at most {MAX_TEXT_CHARACTERS:,} characters, got {len(text):,}"
        )
    try:
        check_text("the text", text)
    except RequestError as error:
        raise RefusedError(f"{option}: {error}") from error


def write_rows(prompts: Iterable[SetPrompt], path: Path, first_seed: int) -> int:
    """Write a manifest in JSONL, whole or not at all, and return the number of its rows.

    Raises:
        RefusedError: the file is there already, or cannot be written.
    """
    num = 0
    try:
        if path.is_dir():
            raise RefusedError(f"--output: expected a file, {str(path)!r} is a folder")
        if path.exists() or path.is_symlink():
            raise FileExistsError
        with (
            written_whole(path, replaces=False) as unfinished,
            unfinished.open("w", encoding="utf-8") as file,
        ):
            for line in _lines(prompts, first_seed):
                file.write(line)
                num += 1
    except FileExistsError as error:
        raise RefusedError(
            f"--output: {path} is there already; remove it, or name another"
        ) from error
    except OSError as error:
        raise unwritable("--output", path, error) from error
    return num


def _lines(prompts: Iterable[SetPrompt], first_seed: int) -> Iterator[str]:
    for at, prompt in enumerate(prompts):
        yield json.dumps(prompt.row(first_seed + at), ensure_ascii=False) + "\n"
