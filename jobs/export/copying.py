"""Copy the committed clips of an output to a folder, each under each of its names.

Clips are found through their records and copied on several threads. The bytes of each are compared
with the digest of its record on their way. Memory holds a page of each listing, a few records and a
few pieces of MP4s; besides, 21 to 43 bytes a name, to see that two clips have the same.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from jobs.errors import ObjectMissingError, RecordError
from jobs.export.file_names import FileNamer, FileNames
from jobs.export.name_template import NameTemplate
from jobs.export.target_folder import TargetFolder
from jobs.overview.clip_filter import ClipFilter
from jobs.overview.clips import OutputClip
from jobs.records.keys import parse_key, record_key
from jobs.records.listing import ClipObjects, list_clips
from jobs.records.reading import ObjectReader, UnreadableError
from jobs.records.schema import ClipRecord
from jobs.store.parts import in_parallel
from jobs.store.store import Store

# Together the ten connections that boto3 keeps open.
NUM_READERS, NUM_COPIERS = 2, 8
Outcome = Literal["copied", "there", "failed"]


@dataclass(frozen=True)
class ExportParams:
    """The settings of an export.

    Args:
        has_records: write each record beside its MP4, with the suffix .json.
        checks: compare the bytes of files that are there already, and not only size and time.
        chosen: the clips to copy, among those that are committed.
        template: pattern of the files' names.
    """

    has_records: bool = False
    checks: bool = False
    chosen: ClipFilter = field(default_factory=ClipFilter)
    template: NameTemplate = field(default_factory=NameTemplate)


@dataclass(frozen=True)
class Exported:
    """The result for one name of one clip.

    Args:
        file: name of the MP4 in the folder; empty if it failed.
        num_bytes: bytes that were copied.
        message: why it failed, or why the file has another name than the clip; else empty.
    """

    clip_id: str
    name: str
    outcome: Outcome
    file: str = ""
    num_bytes: int = 0
    message: str = ""


@dataclass(frozen=True)
class _Task:
    record: ClipRecord
    name: str
    wanted: str  # name of the file, before it is made safe and unique
    names: FileNames
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class _Read:
    clip: ClipObjects
    record: ClipRecord | None
    content: bytes = b""
    message: str = ""


def export_clips(store: Store, folder: TargetFolder, params: ExportParams) -> Iterator[Exported]:
    """Copy every committed clip, in the order of clip ids; yield what became of each name.

    A file that is there stays. If it has the bytes of the clip, the clip is not copied again; if
    not, the clip gets a file whose name ends in the clip's id.

    Raises:
        StoreError: the store does not answer, or refuses to list or read.
        OSError: the folder cannot be written to.
    """
    exporter = _Exporter(store, folder, params)
    yield from in_parallel(exporter.copy, exporter.tasks(), NUM_COPIERS)


class _Exporter:
    """Copies one clip at a time; several threads share it."""

    def __init__(self, store: Store, folder: TargetFolder, params: ExportParams) -> None:
        self._store = store
        self._reader = ObjectReader(store)
        self._folder = folder
        self._params = params

    def tasks(self) -> Iterator[_Task | Exported]:
        """Yield each name of each clip, or why a clip cannot be copied."""
        namer = FileNamer()
        committed = (clip for clip in list_clips(self._store) if clip.of_kind("record"))
        for read in in_parallel(self._read, committed, NUM_READERS):
            clip_id = read.clip.clip_id
            if read.record is None:
                yield Exported(clip_id, "", "failed", message=read.message)
                continue
            others = (parse_key(stored.key) for stored in read.clip.of_kind("name"))
            further = [parsed.name for parsed in others if parsed is not None]
            all_names = tuple(dict.fromkeys((read.record.name, *further)))
            if not self._is_chosen(read, read.record, all_names):
                continue
            template = self._params.template
            wanted = {template.fill(name, read.record): name for name in reversed(all_names)}
            for stem, name in reversed(wanted.items()):
                names = namer.names(stem, clip_id)
                yield _Task(read.record, name, stem, names, read.content)

    def _is_chosen(self, read: _Read, record: ClipRecord, names: tuple[str, ...]) -> bool:
        clip_id = read.clip.clip_id
        clip = OutputClip(clip_id, "committed", record, None, (), names, read.clip)
        return self._params.chosen.matches(clip)

    def _read(self, clip: ClipObjects) -> _Read:
        key = record_key(clip.clip_id)
        try:
            content, record = self._reader.read_as(
                key, lambda content: (content, ClipRecord.from_json(content))
            )
        except (ObjectMissingError, RecordError, UnreadableError) as error:
            return _Read(clip, None, message=f"{key}: {error}")
        if record.clip_id != clip.clip_id:
            return _Read(clip, None, message=f"{key} describes another clip, {record.clip_id}")
        return _Read(clip, record, content if self._params.has_records else b"")

    def copy(self, task: _Task | Exported) -> Exported:
        if isinstance(task, Exported):
            return task
        for stem in (task.names.own, task.names.with_id):
            if self._is_there(task, stem):
                return self._with_record(task, stem, "there", 0)
        return self._fetch(task, task.record)

    def _fetch(self, task: _Task, record: ClipRecord) -> Exported:
        with self._folder.partial_file() as (partial, file):
            try:
                size, sha256 = self._reader.digest_into(record.key, record.num_bytes, file)
            except (ObjectMissingError, UnreadableError) as error:
                return self._failed(task, f"{record.key}: {error}")
            if (size, sha256) != (record.num_bytes, record.sha256):
                return self._failed(task, f"{record.key} has other bytes than its record says")
            for stem in task.names.to_take:
                if self._folder.publish(partial, file, f"{stem}.mp4", _time_ns(record)):
                    return self._with_record(task, stem, "copied", size)
                if self._is_there(task, stem):  # another export was faster
                    return self._with_record(task, stem, "there", size)
        return self._failed(task, f"{task.names.with_id}.mp4 is another file")

    def _is_there(self, task: _Task, stem: str) -> bool:
        record, checks = task.record, self._params.checks
        time_ns = _time_ns(record)
        found = self._folder.find(
            f"{stem}.mp4", record.num_bytes, record.sha256, time_ns, checks=checks
        )
        return found == "same"

    def _with_record(self, task: _Task, stem: str, outcome: Outcome, num_bytes: int) -> Exported:
        remarks = [] if stem == task.wanted else [f"{task.wanted} is {stem}.mp4"]
        if self._params.has_records:
            with self._folder.partial_file() as (partial, file):
                file.write(task.content)
                name = f"{stem}.json"
                if not self._folder.publish(partial, file, name, _time_ns(task.record)):
                    remarks += self._other_record(task, name)
        message = "; ".join(remarks)
        return Exported(task.record.clip_id, task.name, outcome, f"{stem}.mp4", num_bytes, message)

    def _other_record(self, task: _Task, name: str) -> list[str]:
        """Return a remark if the file in the record's place is not the record."""
        content = task.content
        sha256 = hashlib.sha256(content).hexdigest()
        found = self._folder.find(name, len(content), sha256, 0, checks=True)
        return [] if found == "same" else [f"{name} is another file, and stays"]

    def _failed(self, task: _Task, message: str) -> Exported:
        return Exported(task.record.clip_id, task.name, "failed", message=message)


def _time_ns(record: ClipRecord) -> int:
    """Return the time of the commit, whose digits below a millisecond are those of the digest.

    So two clips of one size that were committed at once are not taken for one another.
    """
    time_ms = round(datetime.fromisoformat(record.committed_at).timestamp() * 1000)
    return time_ms * 1_000_000 + int(record.sha256[:12], 16) % 1_000_000
