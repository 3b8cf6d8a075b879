import dataclasses
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import ObjectMissingError, RecordError, StoreUnavailableError
from jobs.records.commit import (
    commit_record,
    committed_ids,
    lift_quarantine,
    quarantined_ids,
    read_failures,
    read_quarantine,
    read_record,
    upload_clip,
    write_failure,
    write_quarantine,
    write_run,
)
from jobs.records.keys import (
    clip_key,
    failure_key,
    latents_key,
    parse_key,
    poster_key,
    record_key,
    refused_clip_key,
    run_key,
    thumbnail_key,
)
from jobs.records.names import NameRecord
from jobs.records.schema import (
    SCHEMA_VERSION,
    ClipRecord,
    FailureRecord,
    NagCoverage,
    QuarantineRecord,
    WorkerIdentity,
    utc_iso,
)
from jobs.records.scores.score_record import ScoreRecord
from jobs.settings.run_config import EncodingConfig, StoreConfig
from jobs.store.store import Store, open_store
from jobs.store.uri import StoredObject, is_listed
from jobs.types import AudioFacts, ClipFailed, LoraIdentity, ModelIdentity, StageTiming
from nag.params import NagParams, NasaParams, VsfParams
from pipelines.catalog.keys.ltx2_guidance import Ltx2Guidance
from pipelines.catalog.keys.second_stage import SecondStage
from pipelines.device_marks import DeviceTime
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from tests.builders import records as builders
from tests.fakes.store import MemoryStore

CLIP_ID = "0123456789abcdef" * 2
CONFIG = StoreConfig(max_attempts=2)
MODEL = ModelIdentity("shapes-wan", "package:shapes-wan", "abc", "float32", "saved")
REQUEST = GenerationRequest(
    prompt="ein Kreis läuft\n円 🎈",
    negative_prompt='"red"\\',
    shape=VideoShape(17, 64, 64),
    fps=8.0,
    sampling=SamplingParams(
        num_inference_steps=8, guidance_scale=1.0, flow_shift=None, seed=2**63 - 1
    ),
    nag=NagParams(),
)
TIMINGS = (
    StageTiming("load", 0.5, 4.0),
    StageTiming("denoise", 100.0, 0.1, 0),
    StageTiming("denoise", 100.1, 0.2, 1),
    StageTiming("encode", 100.3, 0.05),
)
FAILED = ClipFailed(
    clip_id=CLIP_ID,
    name="spring-1",
    model=MODEL.name,
    request=REQUEST,
    attempt=2,
    failure_class="memory",
    may_pass_on_retry=True,
    error_type="OutOfMemoryError",
    message="out of memory: \udc80",
    traceback="Traceback ...\n\0",
    worker="node-a/0",
    timings=TIMINGS[:1],
)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store((tmp_path / "store").as_uri(), CONFIG)
    request.getfixturevalue("s3_environment")
    return open_store(f"s3://renders/{uuid.uuid4().hex}", CONFIG)


def record_of(store: Store, body: bytes, pid: int = 7) -> ClipRecord:
    return dataclasses.replace(
        builders.record_of(store, body, CLIP_ID),
        request=REQUEST,
        committed_at=utc_iso(1_769_860_800.25),
        timings=TIMINGS,
        worker=WorkerIdentity("host-a", "node-a", "cpu", pid),
        host_memory_bytes=2_000_000,
        versions={"torch": "2.13.0", "diffusers": "0.42.1"},
    )


@pytest.fixture
def record(tmp_path: Path) -> ClipRecord:
    return record_of(open_store(tmp_path.as_uri(), CONFIG), b"video")


# the schema


def test_a_record_comes_back_as_it_was(record: ClipRecord) -> None:
    assert ClipRecord.from_json(record.to_json()) == record


def test_the_same_record_gives_the_same_bytes(record: ClipRecord) -> None:
    other = dataclasses.replace(record, versions={"diffusers": "0.42.1", "torch": "2.13.0"})
    assert other.to_json() == record.to_json()
    assert "läuft" in record.to_json().decode()


def test_totals_add_up_the_steps(record: ClipRecord) -> None:
    written = json.loads(record.to_json())
    assert written["stage_totals_s"] == {"load": 4.0, "denoise": pytest.approx(0.3), "encode": 0.05}
    assert written["nag_coverage"] == {"guided": 4, "total": 4}
    assert str(record.nag_coverage) == "4 of 4"


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(document: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            document = document[parent]
        if value is dataclasses.MISSING:
            del document[last]
        else:
            document[last] = value

    return apply


TIMING = {"stage": "denoise", "started_at": 0.0, "duration_s": 1.0, "step": 0}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("clip_id", "ABC"), "clip_id must be 32 lower-case hex digits"),
        (change("clip_id", "f" * 32), "key must be clips/ffff"),
        (change("sha256", "0"), "sha256 must be 64"),
        (change("uri", "s3://elsewhere/x.mp4"), "uri must end in the key"),
        (change("run_id", "../x"), "run_id must be"),
        (change("attempt", 0), "attempt must be at least 1"),
        (change("attempt", True), "attempt must be int, not True"),
        (change("attempt", 1.0), r"attempt must be int, not 1\.0"),
        (change("num_bytes", "5"), "num_bytes must be int, not '5'"),
        (change("fps", None), "fps must be float, not None"),
        (change("fps", 0), "fps must be above 0"),
        (change("committed_at", "yesterday"), "committed_at must be a time"),
        (change("committed_at", "2026-01-31T12:00:00+01:00"), "committed_at must be in UTC"),
        (
            change("peak_memory_kind", "disk"),
            "peak_memory_kind must be 'device' or 'host', not 'disk'",
        ),
        (change("nag_coverage.guided", 5), "guided must be 0 to total, not 5 of 4"),
        (change("request.prompt", ""), "request: prompt is empty"),
        (change("request.nag.nag_tau", -1), r"request\.nag: nag_tau"),
        (change("request.shape.width", 63), r"request\.shape: width must be even"),
        (change("request.image", None), "request has unknown fields: 'image'"),
        (change("request.sampling.seed", dataclasses.MISSING), r"request\.sampling lacks seed"),
        (change("model", "wan"), "model must be an object"),
        (change("versions.torch", 2), r"versions\.torch must be str"),
        (change("timings", [{}]), r"timings\[0\] lacks stage"),
        (change("timings", {}), "timings must be"),
        (change("worker.pid", dataclasses.MISSING), "worker lacks pid"),
        (change("extra", 1), "unknown fields: 'extra'"),
        (change("name", dataclasses.MISSING), "the record lacks name"),
        (change("stage_totals_s", {}), "sums of timings"),
        (change("stage_totals_s", dataclasses.MISSING), "sums of timings"),
        (
            change("request.method", "cfgnag"),
            r"request\.method must be 'none' or 'cfg' or .*, not 'cfgnag'",
        ),
        (
            change("request.method", "cfg"),
            "request: guidance_scale must be above 1 for the method cfg",
        ),
        (
            change("request.nag.nag_norm", "l3"),
            r"request\.nag\.nag_norm must be 'l1' or 'l2', not 'l3'",
        ),
        (change("request.vsf.vsf_scale", -1), r"request\.vsf: vsf_scale"),
        (change("parallel.ulysses", 0), r"parallel: parallel\.ulysses must be at least 1, not 0"),
        (change("request.fps", 10**400), r"request\.fps must be float, not 1000"),
        (change("num_bytes", 10**400), "num_bytes must be at most 9223372036854775807 in size"),
        (change("num_bytes", -(2**63)), "num_bytes must be at most 9223372036854775807 in size"),
        (change("worker.pid", 2**63), r"worker\.pid must be at most 9223372036854775807"),
        (
            change(
                "audio", {"codec": "aac", "sample_rate": 10**400, "channels": 2, "duration_s": 1}
            ),
            r"audio\.sample_rate must be at most",
        ),
        (change("device_time.idle_s", 1.7e308), r"device_time\.idle_s must be at most 25340.*sec"),
        (
            change("timings", [TIMING | {"duration_s": -1.2e308}]),
            r"timings\[0\]\.duration_s must be",
        ),
        (change("timings", [TIMING | {"started_at": 10**13}]), r"timings\[0\]\.started_at must be"),
        (change("timings", [TIMING | {"step": 10**30}]), r"timings\[0\]\.step must be at most"),
        (change("parallel.ring", "2"), r"parallel\.ring must be int, not '2'"),
        (change("parallel.across_hosts", 1), r"parallel\.across_hosts must be bool, not 1"),
        (change("parallel", None), "parallel must be an object"),
        (
            change("schema_version", 2),
            "schema_version must be 1, not 2: another version of nagfarm",
        ),
        (change("schema_version", 0), "schema_version must be 1, not 0"),
        (change("schema_version", "1"), "schema_version must be 1, not '1'"),
        (change("schema_version", True), "schema_version must be 1, not True"),
        (change("schema_version", dataclasses.MISSING), "schema_version must be 1, not None"),
    ],
)
def test_a_record_that_is_not_as_documented_is_refused(
    record: ClipRecord, edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    document = json.loads(record.to_json())
    edit(document)
    with pytest.raises(RecordError, match=message):
        ClipRecord.from_json(json.dumps(document).encode())


def test_a_record_whose_times_add_up_to_infinity_is_refused(record: ClipRecord) -> None:
    document = json.loads(record.to_json())
    document["timings"] = [TIMING | {"duration_s": 1.2e308}] * 2
    with pytest.raises(
        RecordError, match=r"timings\[0\]\.duration_s must be at most 253402300799 s"
    ):
        ClipRecord.from_json(json.dumps(document).encode())


def test_a_record_may_have_the_largest_seed_and_size(record: ClipRecord) -> None:
    sampling = dataclasses.replace(record.request.sampling, seed=2**63 - 1)
    request = dataclasses.replace(record.request, sampling=sampling)
    largest = dataclasses.replace(record, request=request, num_bytes=2**63 - 1)
    assert ClipRecord.from_json(largest.to_json()) == largest


def test_the_record_of_a_group_comes_back_as_it_was(record: ClipRecord) -> None:
    grouped = dataclasses.replace(record, parallel=ParallelConfig(2, 3, across_hosts=True))
    assert ClipRecord.from_json(grouped.to_json()) == grouped


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_a_failure_and_a_quarantine_of_another_version_are_refused(version: object) -> None:
    failure = FailureRecord.of(FAILED, "run-1", utc_iso(0))
    quarantine = QuarantineRecord.of(FAILED, "run-1", "failed on 2 workers", utc_iso(0))
    for record in (failure, quarantine):
        document = json.loads(record.to_json()) | {"schema_version": version}
        with pytest.raises(RecordError, match="schema_version must be 1, not .*that version"):
            type(record).from_json(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[1]", "expected a JSON object, got a list"),
        (b'{"a": 1, "a": 2}', "occurs twice"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": -' + b"9" * 5000 + b"}", "a whole number has 5,001 digits; at most 640 are read"),
    ],
)
def test_content_that_is_not_a_json_object_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        ClipRecord.from_json(content)


def test_a_record_of_a_model_with_loras_comes_back_as_it_was(record: ClipRecord) -> None:
    loras = (
        LoraIdentity("Org/Style", "c0ffee/sha256:00", 1.0, "all"),
        LoraIdentity("folder:a", "b", -0.5, "transformer"),
    )
    with_loras = dataclasses.replace(
        record, model=dataclasses.replace(MODEL, loras=loras, fuse_loras=True)
    )
    assert ClipRecord.from_json(with_loras.to_json()) == with_loras


def test_a_record_of_an_accelerated_model_comes_back_as_it_was(record: ClipRecord) -> None:
    model = dataclasses.replace(MODEL, first_block_cache=0.08, compile=True, vae_tiling=True)
    model = dataclasses.replace(model, vae_memory_format="channels_last_3d", vae_compile=True)
    model = dataclasses.replace(model, quantization="int8_weight_only", gguf=("transformer/a",))
    accelerated = dataclasses.replace(record, model=model)
    assert ClipRecord.from_json(accelerated.to_json()) == accelerated


def test_a_number_that_is_not_finite_is_never_written(record: ClipRecord) -> None:
    with pytest.raises(RecordError, match="cannot be written as JSON"):
        dataclasses.replace(record, timings=(StageTiming("text", 0.0, float("nan")),)).to_json()


def test_a_failure_comes_back_as_it_was_whatever_its_text_holds() -> None:
    failure = FailureRecord.of(FAILED, "run-1", utc_iso(0))
    assert FailureRecord.from_json(failure.to_json()) == failure
    assert (failure.message, failure.traceback) == (FAILED.message, FAILED.traceback)


def test_every_field_is_documented() -> None:
    text = (
        Path(__file__)
        .parents[3]
        .joinpath("docs", "reference", "records.md")
        .read_text(encoding="utf-8")
    )
    sections = dict(
        re.findall(r"^##+ .*?`?([A-Z]\w+)`?\)?\n(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE)
    )
    documented = (
        *(
            ClipRecord,
            NameRecord,
            ScoreRecord,
            FailureRecord,
            QuarantineRecord,
            ModelIdentity,
            GenerationRequest,
            VideoShape,
            SamplingParams,
        ),
        *(
            LoraIdentity,
            Ltx2Guidance,
            NagParams,
            SecondStage,
            VsfParams,
            NasaParams,
            StageTiming,
            DeviceTime,
            EncodingConfig,
            WorkerIdentity,
            NagCoverage,
        ),
        AudioFacts,
        ParallelConfig,
    )
    for cls in documented:
        rows = re.findall(r"^\| `(\w+)` \|", sections[cls.__name__], re.MULTILINE)
        extra = {"stage_totals_s"} if cls is ClipRecord else set[str]()
        assert set(rows) == {field.name for field in dataclasses.fields(cls)} | extra, cls.__name__
        assert len(rows) == len(set(rows))


def test_the_schema_version_is_documented_wherever_it_stands() -> None:
    text = (
        Path(__file__)
        .parents[3]
        .joinpath("docs", "reference", "records.md")
        .read_text(encoding="utf-8")
    )
    assert (
        re.findall(r"`schema_version` (?:is|\| integer \|) (\d+)", text)
        == [str(SCHEMA_VERSION)] * 6
    )


# keys


def test_keys_are_as_documented() -> None:
    assert clip_key(CLIP_ID, "ab" * 32) == f"clips/{CLIP_ID}/abababababababab.mp4"
    assert record_key(CLIP_ID) == f"records/{CLIP_ID}.json"
    assert failure_key(CLIP_ID, "run-1", 3) == f"failures/{CLIP_ID}/run-1-3.json"
    assert run_key("run-1", "report/index.html") == "runs/run-1/report/index.html"
    assert poster_key(CLIP_ID, "ab" * 32) == f"posters/{CLIP_ID}/abababababababab.jpg"
    assert thumbnail_key(CLIP_ID, "ab" * 32) == f"posters/{CLIP_ID}/abababababababab-thumbnail.jpg"
    assert refused_clip_key(CLIP_ID, "run-1", 3) == f"failures/{CLIP_ID}/run-1-3.mp4"


def test_a_key_is_parsed_back_to_its_parts() -> None:
    for make in (clip_key, poster_key, thumbnail_key):
        parsed = parse_key(make(CLIP_ID, "ab" * 32))
        assert parsed is not None
        assert (parsed.clip_id, parsed.digest) == (CLIP_ID, "ab" * 8)
        assert parsed.kind == ("clip" if make is clip_key else "poster")
    for make, kind in (
        (failure_key, "failure"), (latents_key, "latents"), (refused_clip_key, "refused clip"),
    ):  # fmt: skip
        parsed = parse_key(make(CLIP_ID, "run-1", 3))
        assert parsed is not None
        assert (parsed.kind, parsed.run_id, parsed.attempt) == (kind, "run-1", 3)
    for foreign in (f"posters/{CLIP_ID}/{'ab' * 8}-small.jpg", f"posters/{CLIP_ID}/x.jpg"):
        assert parse_key(foreign) is None


@pytest.mark.parametrize(
    "clip_id", ["", "x", "A" * 32, "0" * 31, "0" * 33, "../" + "0" * 29, "0" * 32 + "\n"]
)
def test_a_key_is_made_of_a_clip_id_alone(clip_id: str) -> None:
    with pytest.raises(RecordError, match="clip_id"):
        record_key(clip_id)


@pytest.mark.parametrize("filename", ["", "../x", "/x", ".x"])
def test_a_file_of_a_run_stays_in_its_run(filename: str) -> None:
    with pytest.raises(RecordError, match="cannot be a file of a run"):
        run_key("run-1", filename)


# the commit


def commit_clip(store: Store, body: bytes, record: ClipRecord) -> bool:
    """Both halves, as a worker does them."""
    return commit_record(store, upload_clip(store, record.clip_id, body), record)


def test_a_committed_clip_is_read_back(store: Store) -> None:
    record = record_of(store, b"video")
    assert commit_clip(store, b"video", record)
    assert read_record(store, CLIP_ID) == record
    assert store.get(record.key) == b"video"
    assert committed_ids(store) == {CLIP_ID}


def test_a_second_commit_changes_nothing(store: Store) -> None:
    first = record_of(store, b"one")
    assert commit_clip(store, b"one", first)
    assert not commit_clip(store, b"two", record_of(store, b"two"))
    assert read_record(store, CLIP_ID) == first
    assert store.get(first.key) == b"one"


def test_a_commit_whose_answer_was_lost_is_recognized_as_its_own(store: Store) -> None:
    record = record_of(store, b"video")
    assert commit_clip(store, b"video", record)
    assert commit_clip(store, b"video", record)


@pytest.mark.parametrize("content", [b"vide", b"other", b""])
def test_a_record_that_does_not_describe_the_uploaded_file_is_not_committed(
    store: Store, content: bytes
) -> None:
    with pytest.raises(RecordError, match="does not describe the MP4"):
        commit_clip(store, content, record_of(store, b"video"))
    assert not committed_ids(store)


def test_a_record_of_another_store_is_not_committed(store: Store) -> None:
    elsewhere = record_of(open_store("file:///elsewhere", CONFIG), b"video")
    with pytest.raises(RecordError, match="does not describe the MP4"):
        commit_clip(store, b"video", elsewhere)


def test_foreign_objects_are_not_taken_for_records(store: Store) -> None:
    for key in (f"records/{CLIP_ID}.txt", "records/notes.json", f"records/old/{CLIP_ID}.json"):
        store.put(key, b"{}", "application/json")
    assert committed_ids(store) == set()


def test_a_damaged_record_is_named(store: Store) -> None:
    store.put(record_key(CLIP_ID), b"{}", "application/json")
    with pytest.raises(RecordError, match=rf"records/{CLIP_ID}\.json: schema_version"):
        read_record(store, CLIP_ID)
    with pytest.raises(ObjectMissingError):
        read_record(store, "f" * 32)


def test_failures_and_quarantine_are_kept_and_lifted(store: Store) -> None:
    for attempt in (2, 1):
        failed = dataclasses.replace(FAILED, attempt=attempt)
        write_failure(store, FailureRecord.of(failed, "run-1", utc_iso(attempt)))
    write_quarantine(store, QuarantineRecord.of(FAILED, "run-1", "failed on 2 workers", utc_iso(3)))
    assert [failure.attempt for failure in read_failures(store, CLIP_ID)] == [1, 2]
    assert quarantined_ids(store) == {CLIP_ID}
    assert read_quarantine(store, CLIP_ID).num_attempts == 2
    lift_quarantine(store, CLIP_ID)
    assert quarantined_ids(store) == set()


def test_a_file_of_a_run_is_json(store: Store) -> None:
    write_run(store, "run-1", "run.json", {"clips": 3, "name": "ü"})
    assert json.loads(store.get("runs/run-1/run.json")) == {"clips": 3, "name": "ü"}


# the commit, with writers that crash


class CrashError(BaseException):
    """The process is gone: nothing may catch it."""


@dataclasses.dataclass
class CrashingStore:
    """A real store that crashes before or after some writes, refuses them, or writes twice."""

    inner: Store
    fates: Iterator[str]

    @property
    def uri(self) -> str:
        return self.inner.uri

    def uri_of(self, key: str) -> str:
        return self.inner.uri_of(key)

    def put(
        self, key: str, body: bytes | Path, content_type: str, sha256: bytes | None = None
    ) -> None:
        self._suffer(lambda: self.inner.put(key, body, content_type))

    def put_if_absent(self, key: str, body: bytes, content_type: str) -> None:
        self._suffer(lambda: self.inner.put_if_absent(key, body, content_type))

    def get(self, key: str) -> bytes:
        return self.inner.get(key)

    def chunks(self, key: str) -> Iterator[bytes]:
        return self.inner.chunks(key)

    def exists(self, key: str) -> bool:
        return self.inner.exists(key)

    def holds(self, key: str, num_bytes: int) -> bool:
        return is_listed(self.entries(key), key, num_bytes)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        return self.inner.entries(prefix)

    def keys(self, prefix: str) -> Iterator[str]:
        return self.inner.keys(prefix)

    def now(self) -> float:
        return self.inner.now()

    def check_access(self) -> None:
        self.inner.check_access()

    def _suffer(self, write: Callable[[], None]) -> None:
        fate = next(self.fates, "well")
        if fate == "crash before":
            raise CrashError
        if fate == "refused":
            raise StoreUnavailableError("the store is busy")
        write()
        if fate == "written, written again":  # the client's own retry after a lost answer
            write()
        if fate == "crash after":
            raise CrashError


FATES = st.sampled_from(
    ["well", "well", "crash before", "crash after", "refused", "written, written again"]
)


@settings(max_examples=60, deadline=None)
@given(
    attempts=st.lists(
        st.tuples(st.sampled_from("ABC"), st.lists(FATES, max_size=2)), min_size=1, max_size=8
    )
)
def test_a_record_never_names_bytes_that_are_not_there(
    tmp_path_factory: pytest.TempPathFactory, attempts: list[tuple[str, list[str]]]
) -> None:
    folder = tmp_path_factory.mktemp("crashes")
    inner = open_store((folder / "store").as_uri(), CONFIG)
    committed: bytes | None = None
    for number, (writer, fates) in enumerate(attempts):
        record = record_of(inner, writer.encode(), pid=number)
        try:
            outcome = commit_clip(CrashingStore(inner, iter(fates)), writer.encode(), record)
        except (CrashError, StoreUnavailableError):
            outcome = None
        committed = assert_consistent(inner, committed)
        if outcome is not None:
            assert outcome == (committed == record.to_json())


@settings(max_examples=40, deadline=None)
@given(
    order=st.lists(st.sampled_from([0, 1]), max_size=12),
    stops=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_two_writers_step_by_step_commit_one_clip(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], stops: tuple[int, int]
) -> None:
    """Every interleaving of two writers' steps, each of which may die after `stops` of them."""
    store = open_store(tmp_path_factory.mktemp("steps").as_uri(), CONFIG)
    records = [record_of(store, body, pid=number) for number, body in enumerate((b"one", b"two"))]
    won: list[int] = []

    def steps(number: int) -> Iterator[None]:
        """A worker's commit, which may stop between its halves."""
        clip = upload_clip(store, CLIP_ID, (b"one", b"two")[number])
        yield
        if commit_record(store, clip, records[number]):
            won.append(number)
        yield

    writers, taken, committed = [steps(0), steps(1)], [0, 0], None
    for number in [*order, 0, 1, 0, 1]:
        if taken[number] < stops[number]:
            taken[number] += 1
            next(writers[number], None)
            committed = assert_consistent(store, committed)
    assert len(won) == (1 if max(stops) >= 2 else 0)
    assert (committed is not None) == bool(won)


def assert_consistent(store: Store, before: bytes | None) -> bytes | None:
    """Check that an existing record is unchanged and that it names bytes that exist and match."""
    if not store.exists(record_key(CLIP_ID)):
        assert before is None
        return None
    content = store.get(record_key(CLIP_ID))
    assert before in (None, content)
    record = ClipRecord.from_json(content)
    assert hashlib.sha256(store.get(record.key)).hexdigest() == record.sha256
    return content


class EndlessStore(MemoryStore):
    """A store whose objects have no end."""

    def chunks(self, key: str) -> Iterator[bytes]:
        del key
        while True:
            yield bytes(10_000_000)


def test_an_object_without_an_end_is_refused() -> None:
    with pytest.raises(RecordError, match="expected at most 50,000,000 bytes, got more"):
        read_record(EndlessStore(), "0" * 32)
