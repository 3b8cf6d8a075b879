"""The layout of an output: every key that nagfarm writes, built and parsed.

Decides where each object lies; docs/reference/records.md lists the keys. No other module holds a
pattern of a key, except for the prefix of access checks, which the stores below this folder use.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jobs.errors import RecordError
from jobs.manifest.field_values import MAX_NAME_CHARACTERS, NAME_PATTERN
from jobs.store.parts import entries_by_id
from jobs.store.store import Store
from jobs.store.uri import ACCESS_CHECK_PREFIX, StoredObject, is_key

KeyKind = Literal[
    "clip", "poster", "record", "name", "failure", "latents", "refused clip", "quarantine",
    "score", "run file", "report", "lease", "salt", "input", "access check",
]  # fmt: skip
SALT_KEY = "random-seeds.json"
PREFIXES: dict[KeyKind, str] = {
    "clip": "clips/",
    "poster": "posters/",
    "record": "records/",
    "name": "names/",
    "failure": "failures/",
    "latents": "failures/",
    "refused clip": "failures/",
    "quarantine": "quarantine/",
    "score": "scores/",
    "run file": "runs/",
    "report": "report/",
    "lease": "lease/",
    "salt": SALT_KEY,
    "input": "inputs/",
    "access check": ACCESS_CHECK_PREFIX,
}
OF_CLIPS: tuple[KeyKind, ...] = (
    "clip", "poster", "record", "name", "failure", "latents", "refused clip", "quarantine",
    "score",
)  # fmt: skip
RUN_FILE = "run.json"  # the first file of a run: its manifest, configuration, models and machines
STATUS_FILE = "status.json"
SUMMARY_FILE = "summary.json"

CLIP_ID = re.compile(r"[0-9a-f]{32}")
SHA256 = re.compile(r"[0-9a-f]{64}")
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
DIGEST_DIGITS = 16  # the part of the MP4's SHA-256 in its key
EPOCH_DIGITS = 10
LAST_EPOCH = 10**EPOCH_DIGITS - 1

_CLIP = rf"(?P<clip_id>{CLIP_ID.pattern})"
_DIGEST = rf"(?P<digest>[0-9a-f]{{{DIGEST_DIGITS}}})"
_RUN = rf"(?P<run_id>{RUN_ID.pattern})"
_ATTEMPT = rf"failures/{_CLIP}/{_RUN}-(?P<attempt>[1-9][0-9]*)"
_PATTERNS: dict[KeyKind, re.Pattern[str]] = {
    "clip": re.compile(rf"clips/{_CLIP}/{_DIGEST}\.mp4"),
    "poster": re.compile(rf"posters/{_CLIP}/{_DIGEST}(-thumbnail)?\.jpg"),
    "record": re.compile(rf"records/{_CLIP}\.json"),
    "name": re.compile(rf"names/{_CLIP}/(?P<name>{NAME_PATTERN})\.json"),
    "failure": re.compile(rf"{_ATTEMPT}\.json"),
    "latents": re.compile(rf"{_ATTEMPT}\.safetensors"),
    "refused clip": re.compile(rf"{_ATTEMPT}\.mp4"),
    "quarantine": re.compile(rf"quarantine/{_CLIP}\.json"),
    "score": re.compile(rf"scores/{_CLIP}/(?P<measure>[a-z]+)-{_DIGEST}\.json"),
    "run file": re.compile(rf"runs/{_RUN}/(?P<filename>.+)"),
    "report": re.compile(r"report/(?P<filename>.+)"),
    "lease": re.compile(rf"lease/(?P<epoch>(?!0{{{EPOCH_DIGITS}}})[0-9]{{{EPOCH_DIGITS}}})\.json"),
    "salt": re.compile(re.escape(SALT_KEY)),
    "input": re.compile(rf"inputs/(?P<sha256>{SHA256.pattern})"),
    "access check": re.compile(rf"{ACCESS_CHECK_PREFIX}[0-9a-f]+"),
}


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A key and its parts. A part that keys of this kind do not have is empty or 0.

    Args:
        digest: the first 16 digits of the SHA-256 of the MP4, also in the key of its poster; of a
            score, those that stand for the measure and all that it saw.
        name: further name of the clip.
        filename: path within the run's folder, such as run.json, or within the gallery's.
        attempt: number of the failed attempt, from 1.
        epoch: number of the lease, from 1.
        sha256: digest of an image or a video that clips begin with.
        measure: name of the measure of a score.
    """

    key: str
    kind: KeyKind
    clip_id: str = ""
    digest: str = ""
    name: str = ""
    run_id: str = ""
    filename: str = ""
    attempt: int = 0
    epoch: int = 0
    sha256: str = ""
    measure: str = ""


def parse_key(key: str) -> ParsedKey | None:
    """Return the parts of a key, or None for a key that nagfarm does not write."""
    for kind, prefix in PREFIXES.items():
        if key.startswith(prefix) and (found := _PATTERNS[kind].fullmatch(key)):
            parts = found.groupdict()
            return ParsedKey(
                key,
                kind,
                clip_id=parts.get("clip_id", ""),
                digest=parts.get("digest", ""),
                name=parts.get("name", ""),
                run_id=parts.get("run_id", ""),
                filename=parts.get("filename", ""),
                attempt=int(parts.get("attempt", 0)),
                epoch=int(parts.get("epoch", 0)),
                sha256=parts.get("sha256", ""),
                measure=parts.get("measure", ""),
            )
    return None


def list_objects(
    store: Store, kind: KeyKind, clip_id: str = ""
) -> Iterator[tuple[ParsedKey, StoredObject]]:
    """Yield the objects of one kind, page by page, in no promised order; skip foreign objects.

    Args:
        clip_id: the clip whose MP4s, posters, names, failures, latents, refused MP4s or scores are
            listed; every clip's if empty.
    """
    if clip_id:
        listing = store.entries(f"{PREFIXES[kind]}{check_clip_id(clip_id)}/")
    else:
        by_id = entries_by_id(store, PREFIXES[kind]) if kind in OF_CLIPS else None
        listing = store.entries(PREFIXES[kind]) if by_id is None else by_id
    for stored in listing:
        parsed = parse_key(stored.key)
        if parsed is not None and parsed.kind == kind:
            yield parsed, stored


def list_keys(store: Store, kind: KeyKind, clip_id: str = "") -> Iterator[ParsedKey]:
    """Yield the keys of `list_objects`."""
    return (parsed for parsed, _ in list_objects(store, kind, clip_id))


def clip_key(clip_id: str, sha256: str) -> str:
    """Return the key of an MP4, which its bytes decide."""
    return f"clips/{_rendition(clip_id, sha256)}.mp4"


def poster_key(clip_id: str, sha256: str) -> str:
    """Return the key of the poster of an MP4: one frame of it, as a JPEG.

    Posters have a prefix of their own, so that a listing of the MP4s, which every plan needs, does
    not grow to three times its length.

    Args:
        sha256: digest of the MP4.
    """
    return f"posters/{_rendition(clip_id, sha256)}.jpg"


def thumbnail_key(clip_id: str, sha256: str) -> str:
    """Return the key of the small poster of an MP4. See `poster_key`."""
    return f"posters/{_rendition(clip_id, sha256)}-thumbnail.jpg"


def input_key(sha256: str) -> str:
    """Return the key of an image or a video that clips begin with, which its bytes decide."""
    return f"inputs/{_check_sha256(sha256)}"


def record_key(clip_id: str) -> str:
    return f"records/{check_clip_id(clip_id)}.json"


def name_key(clip_id: str, name: str) -> str:
    """Return the key of a further name of a clip. Raises RecordError for a name of another form."""
    if not re.fullmatch(NAME_PATTERN, name) or len(name) > MAX_NAME_CHARACTERS:
        raise RecordError(f"{name!r} cannot be the name of a clip")
    return f"names/{check_clip_id(clip_id)}/{name}.json"


def failure_key(clip_id: str, run_id: str, attempt: int) -> str:
    return f"{_attempt_key(clip_id, run_id, attempt)}.json"


def latents_key(clip_id: str, run_id: str, attempt: int) -> str:
    """Return the key of latents kept for inspection, beside the record of their failure."""
    return f"{_attempt_key(clip_id, run_id, attempt)}.safetensors"


def refused_clip_key(clip_id: str, run_id: str, attempt: int) -> str:
    """Return the key of a small MP4 of refused frames, beside the record of their failure."""
    return f"{_attempt_key(clip_id, run_id, attempt)}.mp4"


def quarantine_key(clip_id: str) -> str:
    return f"quarantine/{check_clip_id(clip_id)}.json"


def score_key(clip_id: str, measure: str, digest: str) -> str:
    """Return the key of the figures that one measure gave a clip.

    Args:
        digest: the digits of `MeasureSpec.digest`: other weights or settings have another key.
    """
    key = f"scores/{check_clip_id(clip_id)}/{measure}-{digest}.json"
    if not _PATTERNS["score"].fullmatch(key):
        raise RecordError(f"{measure}-{digest} cannot be the score of a clip")
    return key


def run_key(run_id: str, filename: str) -> str:
    key = f"runs/{check_run_id(run_id)}/{filename}"
    if not is_key(key):
        raise RecordError(f"{filename!r} cannot be a file of a run")
    return key


def report_key(filename: str) -> str:
    """Return the key of a file of the gallery."""
    key = f"report/{filename}"
    if not is_key(key):
        raise RecordError(f"{filename!r} cannot be a file of the gallery")
    return key


def lease_key(epoch: int) -> str:
    """Return the key of a lease.

    Raises:
        RecordError: when its number would not be found again among the leases.
    """
    if not 1 <= epoch <= LAST_EPOCH:
        raise RecordError(f"the number of a lease must be 1 to {LAST_EPOCH}, not {epoch}")
    return f"lease/{epoch:0{EPOCH_DIGITS}}.json"


def check_clip_id(clip_id: str) -> str:
    """Return a clip id unchanged.

    Raises:
        RecordError: when it does not have the form of a clip id.
    """
    if not CLIP_ID.fullmatch(clip_id):
        raise RecordError(f"clip_id must be 32 lower-case hex digits, not {clip_id!r}")
    return clip_id


def check_run_id(run_id: str) -> str:
    """Return a run id unchanged.

    Raises:
        RecordError: when it does not have the form of a run id.
    """
    if not RUN_ID.fullmatch(run_id):
        raise RecordError(f"run_id must be at most 64 letters, digits, '_' and '-', not {run_id!r}")
    return run_id


def _rendition(clip_id: str, sha256: str) -> str:
    return f"{check_clip_id(clip_id)}/{_check_sha256(sha256)[:DIGEST_DIGITS]}"


def _check_sha256(sha256: str) -> str:
    if not SHA256.fullmatch(sha256):
        raise RecordError(f"sha256 must be 64 lower-case hex digits, not {sha256!r}")
    return sha256


def _attempt_key(clip_id: str, run_id: str, attempt: int) -> str:
    if attempt < 1:
        raise RecordError(f"attempt must be at least 1, not {attempt}")
    return f"failures/{check_clip_id(clip_id)}/{check_run_id(run_id)}-{attempt}"
