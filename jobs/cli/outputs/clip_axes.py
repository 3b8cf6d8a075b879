"""The values in which clips differ, as texts: the axes of a sheet, the captions of a comparison.

Decides the words of the axes, and their order if none is chosen. Also finds clips and writes files
for the commands that make pictures of an output.
"""

import textwrap
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobs.cli.outputs.export import refuse_inside
from jobs.errors import ObjectMissingError, RefusedError
from jobs.overview.clip_filter import ClipFilter
from jobs.overview.clips import OutputClip, Unreadable, read_clips
from jobs.records.commit import read_record
from jobs.records.keys import CLIP_ID
from jobs.records.schema import ClipRecord
from jobs.report.rows import guidance_text, inputs_text, loras_text
from jobs.run.progress.long_work import long_work
from jobs.store.store import Store
from jobs.text import counted, shown, unknown
from jobs.whole_files import written_for

META = "meta."
MAX_DIGITS = 18  # the rest of a longer number does not count
Axis = Callable[[ClipRecord], str]
AXES: dict[str, Axis] = {
    "prompt": lambda record: record.request.prompt,
    "negative_prompt": lambda record: record.request.negative_prompt,
    "inputs": lambda record: inputs_text(record.request.inputs),
    "method": lambda record: record.request.method,
    "guidance": lambda record: guidance_text(record.request),
    "model": lambda record: record.model.name,
    "loras": loras_text,
    "steps": lambda record: str(record.request.sampling.num_inference_steps),
    "size": lambda record: str(record.request.shape),
    "seed": lambda record: str(record.request.sampling.seed),
    "run": lambda record: record.run_id,
    "name": lambda record: record.name,
}
AXES_HELP = textwrap.fill(f"An axis is {', '.join(AXES)} or {META}KEY, a note of the manifest.", 98)


def axis_of(option: str, word: str) -> Axis:
    """Return the axis of a word. Raises RefusedError if there is none of that name."""
    if word.startswith(META):
        key = word.removeprefix(META)
        return lambda record: record.meta.get(key, "")
    if word not in AXES:
        raise RefusedError(f"{option}: {unknown('axis', word, [*AXES, META + 'KEY'])}")
    return AXES[word]


def value_text(word: str, value: str) -> str:
    """Return a value with the name of its axis, if it does not speak for itself."""
    if word == "negative_prompt":
        return f"negative: {value}" if value else "no negative prompt"
    if word in ("prompt", "inputs", "method", "model", "name", "guidance", "size"):
        return value or f"no {word}"
    return f"{word.removeprefix(META)} {value or '-'}"


def differing(records: Sequence[ClipRecord], words: Sequence[str]) -> list[str]:
    """Return the axes on which clips have more than one value."""
    return [word for word in words if len({AXES[word](record) for record in records}) > 1]


def committed_clips(store: Store, chosen: ClipFilter) -> tuple[list[ClipRecord], list[str]]:
    """Return the records of the chosen clips that are there, in the order of their names.

    Returns:
        the records, and why others are left out: a record cannot be read, or its MP4 is missing.

    Raises:
        StoreError: the store does not answer, or refuses to list or read.
    """
    found: list[ClipRecord] = []
    troubles: list[str] = []
    with long_work(f"reading the records of {store.uri}"):
        for clip in read_clips(store, with_failures=False):
            if isinstance(clip, Unreadable):
                troubles.append(f"{clip.key}: {clip.message}")
            elif clip.record is None or not chosen.matches(clip):
                continue
            elif clip.state == "damaged":
                troubles.append(f"{clip.name}: {clip.record.key} is missing")
            else:
                found.append(clip.record)
    return sorted(found, key=lambda record: _natural(record.name)), troubles


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key by which clip-2 comes before clip-10."""
    parts: list[tuple[int, str]] = []
    digits = ""
    for character in f"{name}\n":
        if character.isascii() and character.isdigit():
            digits += character
            continue
        if digits:
            parts.append((int(digits[:MAX_DIGITS]), ""))
            digits = ""
        parts.append((ord(character), character))
    return parts


def clips_named(store: Store, words: Sequence[str]) -> list[ClipRecord]:
    """Return the committed clips with these names or ids, in their order.

    Raises:
        RefusedError: no committed clip has this name or id, or several have this name.
        StoreError: as `committed_clips`.
    """
    found = {word: _with_id(store, word) for word in words}
    names = {word for word, records in found.items() if not records}
    if names:
        with long_work(f"reading the records of {store.uri}"):
            for clip in read_clips(store, with_failures=False):
                if isinstance(clip, OutputClip) and clip.record and clip.state == "committed":
                    for name in names.intersection(clip.names):
                        found[name].append(clip.record)
    for word, records in found.items():
        if not records:
            raise RefusedError(
                f"{store.uri}: expected the name or the id of a committed clip, got {shown(word)}; "
                "nagfarm list names the clips"
            )
        if len(records) > 1:
            ids = ", ".join(record.clip_id for record in records[:9])
            raise RefusedError(
                f"{shown(word)} is the name of {counted(len(records), 'clip')}; give the id of "
                f"one: {ids}"
            )
    return [found[word][0] for word in words]


def _with_id(store: Store, word: str) -> list[ClipRecord]:
    if not CLIP_ID.fullmatch(word):
        return []
    try:
        return [read_record(store, word)]
    except ObjectMissingError:
        return []


@contextmanager
def written_picture(
    store: Store, option: str, path: Path, suffixes: Sequence[str]
) -> Generator[Path]:
    """Yield the path of an unfinished file, which becomes `path` at the end of the block.

    Raises:
        RefusedError: the path has none of the suffixes, is inside of the output, or its folder
            cannot be written to.
    """
    refuse_inside(store, path)
    if path.suffix.lower() not in suffixes:
        raise RefusedError(f"{option}: expected a file that ends in {', '.join(suffixes)}: {path}")
    with written_for(option, path) as unfinished:
        yield unfinished
