"""Prompts with what the clip must not show, in the form of NegGenBench and DCS-Bench.

The file is the user's: JSON with a list of objects, JSONL, or CSV with a head. Each entry has a
prompt and a negative, under one of the names that such files use.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from jobs.errors import RefusedError
from jobs.prompt_sets.prompt_rows import FORM, MAX_PROMPTS, SetPrompt, clean
from jobs.text import shown
from pipelines.regular_files import read_bounded

MAX_PAIRS_BYTES = 64_000_000
PROMPT_NAMES = ("prompt", "positive", "positive_prompt", "caption")
NEGATIVE_NAMES = ("negative_prompt", "negative", "unwanted", "missing")
SUFFIXES = (".json", ".jsonl", ".csv")


def pair_prompts(path: Path, limit: int | None) -> Iterator[SetPrompt]:
    """Yield the pairs of a file, in its order.

    Args:
        limit: pairs that are taken; None for all.

    Raises:
        RefusedError: the file cannot be read, has another form, or an entry lacks a text.
    """
    at = -1
    for at, entry in enumerate(_entries(path)):
        if at in (limit, MAX_PROMPTS):
            return
        try:
            prompt, negative = _text(entry, PROMPT_NAMES), _text(entry, NEGATIVE_NAMES)
        except ValueError as error:
            raise RefusedError(f"{path}: entry {at + 1}: {error}") from error
        yield SetPrompt(f"pair-{at:05}", prompt, negative, {FORM: "pairs"})
    if at < 0:
        raise RefusedError(f"{path}: expected a pair or more, got none")


def _text(entry: Mapping[str, Any], names: tuple[str, ...]) -> str:
    name = next((name for name in names if name in entry), None)
    if name is None:
        raise ValueError(f"expected {' or '.join(names)}, got {shown(', '.join(entry))}")
    value = entry[name]
    if isinstance(value, list):  # several things that the picture must not show
        value = ", ".join(clean(one) for one in cast("list[object]", value))
    try:
        return clean(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _entries(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix not in SUFFIXES:
        raise RefusedError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    try:
        text = read_bounded(path, MAX_PAIRS_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RefusedError(f"{path} is not UTF-8: {error}") from error
    try:
        if path.suffix == ".csv":
            yield from csv.DictReader(io.StringIO(text), strict=True)
            return
        entries: object = (
            json.loads(text)
            if path.suffix == ".json"
            else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
    except (ValueError, RecursionError, csv.Error) as error:
        raise RefusedError(f"{path} is not {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(entries, list):
        raise RefusedError(f"{path}: expected a list of objects, got {type(entries).__name__}")
    for at, entry in enumerate(cast("list[object]", entries)):
        if not isinstance(entry, dict):
            raise RefusedError(f"{path}: entry {at + 1}: expected an object, got {shown(entry)}")
        yield cast("dict[str, Any]", entry)
