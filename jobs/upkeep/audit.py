"""The audit of an output: every promise of its records, checked against its objects.

A record promises that its clip lies in the store, whole, and that it is the clip that was
requested. The audit reads every uploaded input, every record, and every MP4 that a record names. It
proves a digest by hashing the bytes that the store returns now, not by the checksum that the store
noted at the upload. Objects that nothing names are orphans, unless they are so young that a commit
may still be under way. The content of an output comes from strangers: a damaged record is a
finding.

Memory holds one page of each listing, a few records and a few pieces of MP4s, not the output. An
uploaded input takes 16 bytes.
"""

import contextlib
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import (
    CheckError,
    EncodeError,
    EncoderKilledError,
    ObjectMissingError,
    RecordError,
    RefusedError,
)
from jobs.media.decode_check import check_mp4, decoder_version
from jobs.media.ffmpeg import find_ffmpeg
from jobs.media.tags import read_metadata
from jobs.records.keys import list_objects, quarantine_key, record_key
from jobs.records.listing import BESIDE, LISTED, ClipObjects, list_clips
from jobs.records.reading import ObjectReader, UnreadableError
from jobs.records.schema import ClipRecord, QuarantineRecord
from jobs.store.parts import in_parallel
from jobs.store.store import Store
from jobs.store.uri import StoredObject
from jobs.types import ClipSpec
from jobs.upkeep.findings import Finding, find_contradictions, find_orphans, orphan
from jobs.upkeep.garbage import REASONS
from jobs.upkeep.input_audit import InputAuditor
from pipelines.clip_inputs import InputFile
from pipelines.request import GenerationRequest

NUM_THREADS = 8  # below the ten connections that boto3 keeps open


@dataclass(frozen=True)
class AuditParams:
    """The settings of an audit.

    Args:
        written_before: seconds since the epoch by the store's clock; younger objects are not called
            orphans.
        decodes: decode every MP4 and read its tags.
    """

    written_before: float
    decodes: bool = False


@dataclass(frozen=True)
class ClipAudit:
    """The result for one clip, or for one object that belongs to no clip.

    Args:
        num_bytes: bytes of the MP4, or of an input, that were read.
        num_young: objects that nothing names and that are too young to be called orphans.
    """

    clip_id: str
    is_planned: bool
    is_committed: bool
    is_quarantined: bool
    num_bytes: int
    num_young: int
    findings: tuple[Finding, ...]


def audit_output(
    store: Store, params: AuditParams, planned: Iterable[ClipSpec] | None = None
) -> Iterator[ClipAudit]:
    """Audit an output clip by clip, in the order of clip ids, on several threads.

    Args:
        planned: the clips of the manifest, each once; None audits the output alone. Their ids,
            names and inputs are held in memory.

    Raises:
        StoreError: the store does not answer or refuses to list or read.
        CheckError, EncodeError: decord or ffmpeg does not load, and `params.decodes` needs them.
    """
    if params.decodes:
        decoder_version()
        find_ffmpeg()
    names: list[tuple[str, str]] = []
    files: dict[str, tuple[InputFile, ...]] = {}
    for spec in planned or ():
        names.append((spec.clip_id, spec.name))
        if given := spec.request.inputs.files():
            files[spec.clip_id] = given
    auditor = _Auditor(store, params, None if planned is None else files)
    yield from auditor.audit_inputs()
    clips = list_clips(store, sorted(names), (*LISTED, *BESIDE))
    yield from in_parallel(auditor.audit, clips, NUM_THREADS)
    for parsed, stored in list_objects(store, "access check"):
        yield auditor.audit_unnamed(stored, REASONS[parsed.kind])
    yield from auditor.audit_other_inputs()


class _Auditor:
    """Audits one clip at a time; several threads share it.

    Args:
        planned: the inputs of each clip of the manifest that has some, by id; None without one.
    """

    def __init__(
        self,
        store: Store,
        params: AuditParams,
        planned: Mapping[str, tuple[InputFile, ...]] | None,
    ) -> None:
        self._reader = ObjectReader(store)
        self._inputs = InputAuditor(store, self._reader)
        self._params = params
        self._has_plan = planned is not None
        self._planned_files = planned or {}

    def audit_inputs(self) -> Iterator[ClipAudit]:
        """Read all inputs. The clips that name them report their faults."""
        for num_bytes in self._inputs.read_all(NUM_THREADS):
            yield ClipAudit("", False, False, False, num_bytes, 0, ())

    def audit_other_inputs(self) -> Iterator[ClipAudit]:
        """Yield the findings about inputs that no clip names, once all clips were audited."""
        for finding in self._inputs.find_others():
            yield ClipAudit("", False, False, False, 0, 0, (finding,))

    def audit(self, clip: ClipObjects) -> ClipAudit:
        if not clip.clip_id:
            (foreign,) = clip.objects
            return self.audit_unnamed(foreign.stored, "nagfarm writes no such key")
        findings: list[Finding] = []
        record, is_committed = None, bool(clip.of_kind("record"))
        key = record_key(clip.clip_id)
        try:
            if is_committed:
                record = self._reader.read_as(key, ClipRecord.from_json)
        except ObjectMissingError:  # removed since it was listed
            is_committed = False
        except (RecordError, UnreadableError) as error:
            findings.append(Finding("unreadable", clip.clip_id, key, f"{key}: {error}"))
        num_bytes, request = 0, record and record.request
        if record is not None:
            contradictions = list(find_contradictions(clip.clip_id, record))
            findings += [Finding("mismatched", clip.clip_id, key, text) for text in contradictions]
            num_bytes, about_body = self._audit_body(clip.clip_id, record)
            findings += about_body
            if contradictions:
                record = None  # it may name an MP4 that is not its clip's
        if clip.of_kind("quarantine") and not is_committed:
            request, about_quarantine = self._audit_quarantine(clip)
            findings += about_quarantine
        files = request.inputs.files() if request else self._planned_files.get(clip.clip_id, ())
        findings += self._inputs.find_faults(clip.clip_id, files, is_committed=is_committed)
        findings += self._audit_plan(clip, is_committed=is_committed)
        orphans = list(find_orphans(clip, record, is_committed=is_committed))
        old = [one for one in orphans if one[0].modified_at <= self._params.written_before]
        findings += [orphan(clip.clip_id, stored, reason) for stored, reason in old]
        return ClipAudit(
            clip.clip_id,
            clip.name is not None,
            is_committed,
            bool(clip.of_kind("quarantine")),
            num_bytes,
            len(orphans) - len(old),
            tuple(findings),
        )

    def audit_unnamed(self, stored: StoredObject, reason: str) -> ClipAudit:
        """Audit an object that belongs to no clip."""
        is_old = stored.modified_at <= self._params.written_before
        findings = (orphan("", stored, reason),) if is_old else ()
        return ClipAudit("", False, False, False, 0, int(not is_old), findings)

    def _audit_plan(self, clip: ClipObjects, *, is_committed: bool) -> Iterator[Finding]:
        is_known = is_committed or bool(clip.of_kind("quarantine"))
        if clip.name is not None and not is_known:
            yield Finding("lost", clip.clip_id, "", f"{clip.name} ({clip.clip_id})")
        if self._has_plan and clip.name is None and is_known:
            message = f"{clip.clip_id} is in the store and not in the plan"
            yield Finding("unplanned", clip.clip_id, record_key(clip.clip_id), message)

    def _audit_quarantine(
        self, clip: ClipObjects
    ) -> tuple[GenerationRequest | None, list[Finding]]:
        """Return the request of a quarantined clip, if it is known, and the findings."""
        key = quarantine_key(clip.clip_id)
        try:
            record = self._reader.read_as(key, QuarantineRecord.from_json)
        except ObjectMissingError:  # lifted since it was listed
            return None, []
        except (RecordError, UnreadableError) as error:
            return None, [Finding("unreadable", clip.clip_id, key, f"{key}: {error}")]
        findings: list[Finding] = []
        if record.clip_id != clip.clip_id:
            message = f"{key} describes another clip, {record.clip_id}"
            findings.append(Finding("mismatched", clip.clip_id, key, message))
        if not (record.reason.strip() and record.message.strip()):
            message = f"{key} gives no reason"
            findings.append(Finding("mismatched", clip.clip_id, key, message))
        return record.request, findings

    def _audit_body(self, clip_id: str, record: ClipRecord) -> tuple[int, list[Finding]]:
        """Read the MP4 that a record names; return its size and the findings about it."""
        key = record.key
        try:
            with _scratch_file() if self._params.decodes else contextlib.nullcontext() as copy:
                size, sha256 = self._reader.digest(key, record.num_bytes, copy)
                if size != record.num_bytes:
                    found = f"{size:,}" if size < record.num_bytes else "more"
                    message = f"{key}: expected {record.num_bytes:,} bytes, got {found}"
                    return size, [Finding("damaged", clip_id, key, message)]
                if sha256 != record.sha256:
                    message = f"{key}: expected SHA-256 {record.sha256}, got {sha256}"
                    return size, [Finding("damaged", clip_id, key, message)]
                return size, list(_audit_video(record, copy)) if copy is not None else []
        except ObjectMissingError:
            message = f"{key} is missing and a record names it; render --repair renders it again"
            return 0, [Finding("missing", clip_id, key, message)]
        except UnreadableError as error:
            return 0, [Finding("unreadable", clip_id, key, f"{key}: {error}")]
        except OSError as error:
            raise RefusedError(
                f"cannot decode a copy of {key} below {tempfile.gettempdir()}: {error.strerror}; "
                "set TMPDIR to a folder with space"
            ) from error


@contextlib.contextmanager
def _scratch_file() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="nagfarm-verify-") as folder:
        yield Path(folder, "clip.mp4")


def _audit_video(record: ClipRecord, path: Path) -> Iterator[Finding]:
    """Decode an MP4 and compare its tag `clip_id`, which the worker wrote into it."""
    try:
        check_mp4(path, record.request.shape, record.request.fps, record.audio)
        tagged = read_metadata(path).get("clip_id", "")
    except EncoderKilledError:
        raise
    except (CheckError, EncodeError) as error:
        message = f"{record.key} is not the requested clip: {error}"
        yield Finding("undecodable", record.clip_id, record.key, message)
        return
    if tagged != record.clip_id:
        message = f"{record.key}: expected the tag clip_id={record.clip_id}, got {tagged[:64]!r}"
        yield Finding("mismatched", record.clip_id, record.key, message)
