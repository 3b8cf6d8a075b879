"""The times of clips and of workers' starts, as the records of an output hold them.

Decides how much of a device's idle time belongs to a clip: all of it if the clip waited for the
device meanwhile, since then the device idles before every such clip. Loads without torch.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from jobs.errors import ObjectMissingError, RecordError
from jobs.records.keys import RUN_FILE, list_keys, run_key
from jobs.records.reading import ObjectReader, UnreadableError
from jobs.records.schema import ClipRecord
from jobs.records.strict_json import load
from jobs.simulation.conditions import ClipKind, ClipTimes
from jobs.store.parts import in_parallel
from jobs.store.store import Store
from jobs.types import Stage

MAX_RECORDS = 5_000  # ids are random, so that the first ones are a fair choice
NUM_THREADS = 8
DEVICE_STAGES: tuple[Stage, ...] = ("text", "denoise", "decode")
HOST_STAGES: tuple[Stage, ...] = ("encode", "check")
MAX_WAIT_S = 120.0  # longer waits were for devices of other jobs, or for clips


@dataclass(frozen=True)
class Measured:
    """The times in the records of an output.

    Args:
        clips: times of the clips of each kind.
        starts_s: seconds from the start of a run until a worker took clips, by model.
        num_records: number of records that were read.
        devices: name of the device that most of the records name, by model; also of other models.
    """

    clips: dict[ClipKind, list[ClipTimes]]
    starts_s: dict[str, list[float]]
    num_records: int
    devices: Mapping[str, str] = field(default_factory=dict[str, str])

    def device_of(self, model: str) -> str | None:
        """Return the device of a model's records, or else that of the records of others."""
        return self.devices.get(model) or next(iter(self.devices.values()), None)


def read_measured(
    store: Store,
    models: Iterable[str],
    read_one: Callable[[], None] = lambda: None,
    max_records: int = MAX_RECORDS,
) -> Measured:
    """Read the records of some models.

    Args:
        read_one: called after each record, for a progress bar.
        max_records: number of records that are read at most.

    Raises:
        StoreError: the store does not answer, or refuses to list or read.
    """
    reader, wanted = ObjectReader(store), set(models)

    def read(key: str) -> ClipRecord | None:
        try:
            return reader.read_as(key, ClipRecord.from_json)
        except (ObjectMissingError, RecordError, UnreadableError):
            return None

    keys = (parsed.key for parsed in islice(list_keys(store, "record"), max_records))
    records: list[ClipRecord] = []
    devices: defaultdict[str, Counter[str]] = defaultdict(Counter[str])
    for record in in_parallel(read, keys, NUM_THREADS):
        read_one()
        if record is None:
            continue
        devices[record.model.name][record.worker.device] += 1
        if record.model.name in wanted:
            records.append(record)
    run_ids = {record.run_id for record in records}
    began_s = {run_id: began for run_id in run_ids if (began := _began_s(reader, run_id))}
    usual = {model: seen.most_common(1)[0][0] for model, seen in devices.items()}
    return Measured(clip_times(records), start_times(records, began_s), len(records), usual)


def _began_s(reader: ObjectReader, run_id: str) -> float | None:
    """Return the moment at which a run began; None if its run.json does not say so."""
    try:
        document = reader.read_as(run_key(run_id, RUN_FILE), load)
        return datetime.fromisoformat(str(document["started_at"])).timestamp()
    except (ObjectMissingError, RecordError, UnreadableError, KeyError, ValueError, OverflowError):
        return None


def kind_of(record: ClipRecord) -> ClipKind:
    request = record.request
    steps = request.sampling.num_inference_steps
    return ClipKind(record.model.name, request.shape, steps, record.parallel)


def clip_times(records: Iterable[ClipRecord]) -> dict[ClipKind, list[ClipTimes]]:
    """Return the times of the clips of each kind."""
    found: defaultdict[ClipKind, list[ClipRecord]] = defaultdict(list)
    for record in records:
        found[kind_of(record)].append(record)
    return {kind: _times_of(alike) for kind, alike in found.items()}


def _times_of(alike: list[ClipRecord]) -> list[ClipTimes]:
    """Return the times of clips of one kind."""
    waited = [one.device_time.idle_s for one in alike if _has_waited(one)]
    usual_s = statistics.median(waited) if waited else 0.0
    return [
        ClipTimes(
            device_s=one.device_time.busy_s
            + (one.device_time.idle_s if _has_waited(one) else usual_s),
            host_s=_seconds(one, *HOST_STAGES),
            upload_s=_seconds(one, "upload"),
            num_bytes=one.num_bytes,
        )
        for one in alike
    ]


def _has_waited(record: ClipRecord) -> bool:
    """Return True if the clip waited for the device for as long as the device was idle."""
    return _seconds(record, "queue") >= record.device_time.idle_s


def _first_step_s(record: ClipRecord) -> float:
    return min(
        (timing.started_at for timing in record.timings if timing.stage == "denoise"), default=0.0
    )


def _seconds(record: ClipRecord, *stages: Stage) -> float:
    return sum(timing.duration_s for timing in record.timings if timing.stage in stages)


def start_times(records: Sequence[ClipRecord], began_s: dict[str, float]) -> dict[str, list[float]]:
    """Return the seconds from asking for a worker until its device began a clip, by model.

    The time before a worker's load, in which its process starts, is known of the workers that a run
    starts with. Others are taken to need as long.

    Args:
        began_s: moment at which each run began, as far as it is known.
    """
    first_s: dict[str, float] = {}  # first step of each run
    for record in records:
        first_s[record.run_id] = min(
            _first_step_s(record), first_s.get(record.run_id, float("inf"))
        )
    loads = [
        (record, timing)
        for record in records
        for timing in record.timings
        if timing.stage == "load"
    ]
    before_s: defaultdict[str, list[float]] = defaultdict(list)
    for record, load_timing in loads:
        if record.run_id in began_s and load_timing.started_at < first_s[record.run_id]:
            before = load_timing.started_at - began_s[record.run_id]
            before_s[record.run_id].append(_bounded(before))
    found: defaultdict[str, list[float]] = defaultdict(list)
    for record, load_timing in loads:
        usual_s = statistics.median(before_s[record.run_id] or [0.0])
        after_s = _begin_s(record) - load_timing.started_at - load_timing.duration_s
        found[record.model.name].append(usual_s + load_timing.duration_s + _bounded(after_s))
    return dict(found)


def _bounded(wait_s: float) -> float:
    return min(max(wait_s, 0.0), MAX_WAIT_S)


def _begin_s(record: ClipRecord) -> float:
    """Return the moment at which the device began a clip."""
    return min(
        (one.started_at for one in record.timings if one.stage in DEVICE_STAGES), default=0.0
    )
