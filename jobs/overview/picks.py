"""Picked clips as rows of a manifest: the same again, with other values, or with more seeds.

Decides which clips a word names, which seeds are new, and the names of the rows. Pure: the caller
reads the output.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

from jobs.digests import digest_of
from jobs.errors import RefusedError
from jobs.manifest.field_values import MAX_NAME_CHARACTERS
from jobs.manifest.fields import PARALLEL
from jobs.manifest.tables.meta import META
from jobs.overview.clips import OutputClip
from jobs.overview.manifest_row import is_name, manifest_row, output_of, request_row, row_line
from jobs.text import nearest, shown
from pipelines.request import CFG_METHODS, MAX_SEED

MAX_COMPARED = 10_000  # names that are compared with a wrong one
MAX_LISTED = 5  # ids in the error of a name that several clips have
# A file that `nagfarm export` names after a clip and its id.
_WITH_ID = re.compile(r".+-(?P<clip_id>[0-9a-f]{32})")


@dataclass(frozen=True)
class Seeds:
    """The seeds of the rows of one clip.

    Args:
        num_new: number of seeds above the clip's own that the output does not have yet.
        given: ranges of seeds, each with its end; without both the clip's own seed stays.
    """

    num_new: int = 0
    given: tuple[tuple[int, int], ...] = ()


def word_of_file(word: str) -> str:
    """Return the name or id of a clip from the name of an exported file, or a word as it is."""
    if not word.endswith(".mp4"):
        return word
    stem = word.removesuffix(".mp4").rpartition("/")[2]
    found = _WITH_ID.fullmatch(stem)
    return found["clip_id"] if found else stem


class Picks:
    """Collects the clips that words name, one clip of the output after another.

    Args:
        words: names and ids; empty for all clips that are offered.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = tuple(dict.fromkeys(words))
        self._found: dict[str, list[OutputClip]] = {word: [] for word in self._words}
        self._all: list[OutputClip] = []
        self._names: list[str] = []

    def offer(self, clip: OutputClip) -> None:
        """Take a clip if a word names it."""
        if not self._words:
            self._all.append(clip)
            return
        for word in {*clip.names, clip.clip_id}:
            if word in self._found:
                self._found[word].append(clip)
        if len(self._names) < MAX_COMPARED:
            self._names += clip.names

    def clips(self) -> list[OutputClip]:
        """Return the picked clips, each once: in the order of the words, or by name without any.

        Raises:
            RefusedError: a word names no clip, or several.
        """
        for word, clips in self._found.items():
            if not clips:
                candidate = nearest(word, self._names)
                remedy = f"; did you mean {candidate!r}?" if candidate else ""
                raise RefusedError(f"no clip has the name or id {shown(word)}{remedy}")
            if len(clips) > 1:
                ids = ", ".join(clip.clip_id for clip in clips[:MAX_LISTED])
                raise RefusedError(
                    f"{len(clips):,} clips have the name {shown(word)}: give an id, or narrow the "
                    f"choice with --run, --method or --seed; {ids}"
                )
        picked = sorted(self._all, key=lambda clip: (clip.name, clip.clip_id))
        picked += [clips[0] for clips in self._found.values()]
        return list({clip.clip_id: clip for clip in picked}.values())


class Retakes:
    """Makes the rows of picked clips.

    Args:
        changes: values that replace those of the clips, by field.
        seeds: the seeds of each clip.
    """

    def __init__(self, changes: Mapping[str, Any], seeds: Seeds) -> None:
        self._changes = changes
        self._seeds = seeds
        self._used: dict[bytes, set[int]] = {}  # seeds by the digest of the rest of a row
        self._names = set[str]()

    def note(self, clip: OutputClip) -> None:
        """Note a clip of the output, whose seed is not new for rows that are like it."""
        if self._seeds.num_new and clip.request is not None:
            output = clip.output if clip.record is None else output_of(clip.record)
            row = request_row(clip.model_name, clip.request, output)
            self._used.setdefault(_rest_of(row), set()).add(row["seed"])

    def rows(self, clips: Iterable[OutputClip]) -> Iterator[dict[str, Any]]:
        """Yield the rows of clips. Call it after every clip of the output was noted.

        Raises:
            RefusedError: the request of a clip is not known.
        """
        made = set[bytes]()
        for clip in clips:
            original = row_of(clip)
            row = _changed(original, self._changes)
            for seed in self._seeds_of(row):
                retake = {**row, "seed": seed}
                rest = {name: value for name, value in retake.items() if name not in ("name", META)}
                if (digest := digest_of(row_line(rest))) in made:  # two picks differ in seed alone
                    continue
                made.add(digest)
                name = original.get("name")
                if name is not None:
                    retake["name"] = self._unique(f"{name}{_suffix(original, retake)}")
                yield retake

    def _seeds_of(self, row: Mapping[str, Any]) -> Iterable[int]:
        if self._seeds.given:
            return (seed for first, last in self._seeds.given for seed in range(first, last + 1))
        if not self._seeds.num_new:
            return (row["seed"],)
        used = self._used.setdefault(_rest_of(row), set())
        free = (seed for seed in count(row["seed"] + 1) if seed not in used)
        seeds = list(islice(free, self._seeds.num_new))
        if seeds[-1] > MAX_SEED:
            raise RefusedError(
                f"--seeds: expected {len(seeds):,} seeds, there are fewer above {row['seed']}"
            )
        used.update(seeds)
        return seeds

    def _unique(self, name: str) -> str:
        """Return a name that no other row has."""
        candidates = (f"-{number}" if number > 1 else "" for number in count(1))
        for ending in candidates:
            candidate = name[: MAX_NAME_CHARACTERS - len(ending)] + ending
            if candidate not in self._names:
                self._names.add(candidate)
                return candidate
        raise AssertionError("numbers do not end")


def row_of(clip: OutputClip) -> dict[str, Any]:
    """Return the row that asks for a clip again, also for one that failed.

    Raises:
        RefusedError: the request of a clip is not known.
    """
    if clip.record is not None:
        return manifest_row(clip.record)
    if clip.request is None:
        raise RefusedError(
            f"{shown(clip.name)} was never tried, since its model {shown(clip.model_name)} was "
            "missing or broken, so that its request is not known; take its row from its manifest"
        )
    row = request_row(clip.model_name, clip.request, clip.output)
    return {"name": clip.name, **row} if is_name(clip.name) else row


def _changed(row: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with other values; another method gets a guidance_scale that suits it."""
    changed = {**row, **changes}
    if "guidance_scale" in changes:
        return changed
    if changed["method"] not in CFG_METHODS:
        changed["guidance_scale"] = 1.0
    elif row["method"] not in CFG_METHODS:
        del changed["guidance_scale"]  # the model's default
    return changed


def _rest_of(row: Mapping[str, Any]) -> bytes:
    """Return a digest of all that decides the pixels of a row, except for its seed."""
    skipped = ("name", "seed", META, PARALLEL)
    return digest_of(row_line({name: row[name] for name in sorted(row) if name not in skipped}))


def _suffix(original: Mapping[str, Any], retake: Mapping[str, Any]) -> str:
    """Return the part of a name that tells a row from the clip that it was made of."""
    parts = [f"s{retake['seed']}"] if retake["seed"] != original["seed"] else []
    steps = retake["num_inference_steps"]
    if steps != original["num_inference_steps"]:
        parts.append(f"{steps}steps")
    others = {
        name
        for name in retake
        if name not in ("seed", "num_inference_steps") and retake[name] != original.get(name)
    }
    if others:
        parts.append("changed")
    return "".join(f"-{part}" for part in parts)
