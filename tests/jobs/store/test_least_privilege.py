"""The real server enforces the policies of docs/explanation/security.md: enough, and no more.

The server reads no policies of identities from a file. It has policies of buckets, with the same
syntax and a `Principal` besides. The tests put the documented statements there, for identities that
have no rights of their own.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from infra.local.s3_server import REGION, LocalS3
from infra.local.weed import Identity
from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_REFUSED
from jobs.digests import Sha256Set
from jobs.errors import ObjectMissingError, StoreRefusedError
from jobs.records.commit import (
    committed_ids,
    lift_quarantine,
    quarantined_ids,
    read_failures,
    read_record,
    write_failure,
    write_quarantine,
    write_run,
)
from jobs.records.keys import (
    PREFIXES,
    RUN_FILE,
    KeyKind,
    input_key,
    latents_key,
    name_key,
    record_key,
    score_key,
    thumbnail_key,
)
from jobs.records.lease import Lease
from jobs.records.schema import FailureRecord, QuarantineRecord
from jobs.settings.run_config import StoreConfig
from jobs.store.s3_connection import new_session
from jobs.store.s3_remedies import REMEDIES_OF_VERB
from jobs.store.store import Store, open_store, read_object
from jobs.types import ClipDone, ClipFailed
from jobs.upkeep.audit import AuditParams, audit_output
from jobs.upkeep.garbage import REASONS, find_garbage, remove_garbage
from jobs.upkeep.input_garbage import find_unnamed_inputs, remove_unnamed_inputs
from jobs.upkeep.pruning import ORDER
from jobs.worker.clip_worker import ClipWorker
from tests.builders.specs import setup_for, spec

pytestmark = pytest.mark.s3

DOCUMENT = Path(__file__).parents[3] / "docs" / "explanation" / "security.md"
OUTPUT = "s3://renders/spring"
FAST = StoreConfig(max_attempts=2, connect_timeout_s=2, read_timeout_s=20)
REFUSED = r"the store answers AccessDenied; these credentials lack s3:"
NOW = "2026-01-01T00:00:00.000Z"
POLICY_DEADLINE_S = 20.0

Statement = dict[str, Any]


def documented(heading: str) -> list[Statement]:
    """Return the statements of the policy under a heading of the document."""
    found = re.search(
        rf"^### {heading}\n.*?```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
    )
    assert found, heading
    return json.loads(found[1])["Statement"]


def listed(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


def grants(statements: list[Statement]) -> set[tuple[str, str]]:
    """Return every pair of an action and a resource."""
    return {
        (action, on)
        for one in statements
        for action in listed(one["Action"])
        for on in listed(one["Resource"])
    }


def without(statements: list[Statement], grant: tuple[str, str]) -> list[Statement]:
    return [
        {**one, "Action": action, "Resource": resource}
        for one in statements
        for action in listed(one["Action"])
        for resource in listed(one["Resource"])
        if (action, resource) != grant
    ]


RENDERING = documented("Rendering")
READING = documented("Reading results")
CLEANING = RENDERING + documented("Cleaning up")
PRUNING = CLEANING + documented("Pruning")
# one identity for each grant of the policy for rendering, which lacks that grant alone
LACKING = {f"lacking-{number}": grant for number, grant in enumerate(sorted(grants(RENDERING)))}
POLICIES = {
    "renderer": RENDERING,
    "reader": READING,
    "cleaner": CLEANING,
    "pruner": PRUNING,
    **{name: without(RENDERING, grant) for name, grant in LACKING.items()},
}


def client(server: LocalS3, identity: Identity) -> Any:
    return new_session(REGION).client(
        "s3",
        aws_access_key_id=identity.access_key,
        aws_secret_access_key=identity.secret_key,
        endpoint_url=server.endpoint_url,
        config=Config(s3={"addressing_style": "path"}, proxies={}),
    )


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    """Run a server with `renders`, under the documented policies, and `others`, under none."""
    with LocalS3("renders", others=[Identity.create(name, []) for name in POLICIES]) as started:
        administrator = client(started, started.administrator)
        administrator.create_bucket(Bucket="others")
        statements = [
            {
                **one,
                "Sid": f"{name}{number}",
                "Principal": {"AWS": f"arn:aws:iam::000000000000:user/{name}"},
            }
            for name, policy in POLICIES.items()
            for number, one in enumerate(policy)
        ]
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        administrator.put_bucket_policy(Bucket="renders", Policy=policy)
        reader = client(started, started.others[list(POLICIES).index("reader")])
        deadline = time.monotonic() + POLICY_DEADLINE_S
        while not may_list(reader):
            assert time.monotonic() < deadline, "the policy is not obeyed"
            time.sleep(0.1)
        yield started


def may_list(one: Any) -> bool:
    try:
        one.list_objects_v2(Bucket="renders", Prefix="spring/")
    except ClientError:
        return False
    return True


@pytest.fixture
def become(
    server: LocalS3, no_aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Put an identity's credentials into the environment; `administrator` may do everything."""

    def put(name: str) -> None:
        others = {one.name: one for one in (server.administrator, *server.others)}
        for variable, value in server.environment(others[name]).items():
            monkeypatch.setenv(variable, value)

    return put


def objects(server: LocalS3, bucket: str = "renders") -> set[str]:
    page = client(server, server.administrator).list_objects_v2(Bucket=bucket)
    return {entry["Key"] for entry in page.get("Contents", [])}


def render(store: Store, folder: Path, seed: int) -> list[ClipDone]:
    """Render one clip twice, as two drivers would; the second finds it committed."""
    store.check_access()
    committed_ids(store)
    write_run(store, "run-1", RUN_FILE, {})
    worker = ClipWorker(replace(setup_for(folder), output=store.uri, store=FAST), "node-1")
    worker.load()
    outcomes = [worker.render(spec("sunrise", seed), attempt) for attempt in (1, 2)]
    worker.close()
    done: list[ClipDone] = []
    for outcome in outcomes:
        if isinstance(outcome, ClipFailed):
            assert outcome.failure_class == "store"
            raise StoreRefusedError(outcome.message)
        assert isinstance(outcome, ClipDone)
        done.append(outcome)
    return done


def failure(prompt: str, seed: int) -> ClipFailed:
    return ClipFailed(
        clip_id=spec(prompt, seed).clip_id,
        name="bad",
        attempt=1,
        failure_class="code",
        may_pass_on_retry=False,
        error_type="FakeError",
        message="no",
        traceback="Traceback",
        worker="w",
        timings=(),
    )


def quarantined(seed: int) -> QuarantineRecord:
    """Return the quarantine of a clip that was committed later."""
    return QuarantineRecord.of(failure("sunrise", seed), "run-1", "no", NOW)


def quarantine_and_lift(store: Store, seed: int) -> None:
    failed = failure("error", seed)
    write_failure(store, FailureRecord.of(failed, "run-1", NOW))
    write_quarantine(store, QuarantineRecord.of(failed, "run-1", "no", NOW))
    assert failed.clip_id in quarantined_ids(store)
    assert len(read_failures(store, failed.clip_id)) == 1
    lift_quarantine(store, failed.clip_id)


def hold_a_lease(store: Store) -> None:
    """Take the lease as two drivers do, one after the other; the second removes old leases."""
    for run_id in ("run-1", "run-2"):
        lease = Lease.take(store, run_id, 60, is_takeover=True)
        lease.renew()
        lease.release()
    assert len(list(store.keys("lease/"))) == 1


def everything(store: Store, folder: Path, seed: int) -> None:
    first, second = render(store, folder, seed)
    assert not first.was_already_committed
    assert second.was_already_committed
    quarantine_and_lift(store, seed)
    hold_a_lease(store)


def test_the_policy_for_rendering_is_enough(
    become: Callable[[str], None], server: LocalS3, tmp_path: Path
) -> None:
    become("renderer")
    store = open_store(OUTPUT, FAST)
    everything(store, tmp_path, 0)
    clip_id = spec("sunrise", 0).clip_id
    assert committed_ids(store) >= {clip_id}
    assert store.get(read_record(store, clip_id).key)
    assert not [key for key in objects(server) if "access-check" in key or "quarantine" in key]


@pytest.mark.parametrize(
    "name", LACKING, ids=[f"{action} on {resource}" for action, resource in LACKING.values()]
)
def test_no_grant_of_the_policy_for_rendering_is_superfluous(
    become: Callable[[str], None], tmp_path: Path, name: str
) -> None:
    become(name)
    with pytest.raises(StoreRefusedError, match=REFUSED):
        everything(open_store(OUTPUT, FAST), tmp_path, 1 + list(LACKING).index(name))


@pytest.mark.parametrize(
    "output", ["s3://renders", "s3://renders/spring2", "s3://renders/summer", "s3://others/spring"]
)
def test_nothing_outside_the_prefix_can_be_touched(
    become: Callable[[str], None], server: LocalS3, output: str
) -> None:
    become("administrator")
    open_store(output, FAST).put("records/x.json", b"theirs", "application/json")
    become("renderer")
    store = open_store(output, FAST)
    for act in (
        store.check_access,
        lambda: store.put("records/x.json", b"ours", "application/json"),
        lambda: store.put_if_absent("records/y.json", b"ours", "application/json"),
        lambda: store.get("records/x.json"),
        lambda: store.exists("records/x.json"),
        lambda: list(store.keys("records/")),
        lambda: store.delete("records/x.json"),
        lambda: read_object(f"{output}/records/x.json", FAST, 100),
    ):
        with pytest.raises(StoreRefusedError, match=REFUSED):
            act()
    become("administrator")
    assert open_store(output, FAST).get("records/x.json") == b"theirs"
    assert not open_store(output, FAST).exists("records/y.json")


@pytest.mark.parametrize("name", ["renderer", "cleaner"])
def test_the_policies_for_rendering_and_cleaning_up_remove_no_record(
    become: Callable[[str], None], name: str
) -> None:
    become(name)
    store = open_store(OUTPUT, FAST)
    store.put(record_key("0" * 32), b"{}", "application/json")
    with pytest.raises(StoreRefusedError, match=REFUSED):
        store.delete(record_key("0" * 32))
    assert store.exists(record_key("0" * 32))


def test_only_the_policy_for_cleaning_up_removes_clips_and_latents(
    become: Callable[[str], None], tmp_path: Path
) -> None:
    clip_id, any_age_s = "1" * 32, -3600.0
    left_over = {
        f"clips/{clip_id}/{'0' * 16}.mp4",
        latents_key(clip_id, "run-1", 1),
        thumbnail_key(clip_id, "0" * 64),
        f"access-check-{'0' * 16}",
        input_key("0" * 64),
        score_key(clip_id, "motion", "0" * 16),
    }
    become("renderer")
    store = open_store(OUTPUT, FAST)
    (done, _) = render(store, tmp_path, 200)
    for key in left_over:
        store.put(key, b"left over", "video/mp4")
    write_quarantine(store, quarantined(200))
    with pytest.raises(StoreRefusedError, match=REFUSED):
        remove_garbage(store, find_garbage(store, any_age_s), any_age_s, lambda: None)
    become("cleaner")
    store = open_store(OUTPUT, FAST)
    lease = Lease.take(store, "gc-1", 60, is_takeover=True)
    remove_garbage(store, find_garbage(store, any_age_s), any_age_s, lease.renew)
    inputs = find_unnamed_inputs(store, any_age_s, Sha256Set()).garbage
    remove_unnamed_inputs(store, inputs, any_age_s, lambda: None)
    lease.release()
    assert not find_garbage(store, any_age_s)
    assert not left_over & set(store.keys(""))
    assert done.clip_id not in quarantined_ids(store)
    assert store.exists(read_record(store, done.clip_id).key)


@pytest.mark.parametrize(
    ("policy", "kinds"), [(CLEANING, REASONS), (PRUNING, ORDER)], ids=["gc", "prune"]
)
def test_a_policy_covers_every_kind_of_object_that_its_command_removes(
    policy: list[Statement], kinds: Iterable[KeyKind]
) -> None:
    removable = [on for action, on in grants(policy) if action == "s3:DeleteObject"]
    for kind in kinds:
        prefix = f"arn:aws:s3:::renders/spring/{PREFIXES[kind]}"
        assert any(resource.startswith(prefix) for resource in removable), kind


def test_only_the_policy_for_pruning_removes_records_and_names(
    become: Callable[[str], None],
) -> None:
    clip_id = "2" * 32
    keys = (record_key(clip_id), name_key(clip_id, "sunrise"))
    become("cleaner")
    store = open_store(OUTPUT, FAST)
    for key in keys:
        store.put(key, b"{}", "application/json")
        with pytest.raises(StoreRefusedError, match=REFUSED):
            store.delete(key)
    become("pruner")
    store = open_store(OUTPUT, FAST)
    for key in keys:
        store.delete(key)
        assert not store.exists(key)


def test_the_policy_for_reading_reads_and_changes_nothing(
    become: Callable[[str], None], server: LocalS3, tmp_path: Path
) -> None:
    become("renderer")
    render(open_store(OUTPUT, FAST), tmp_path, 100)
    before = objects(server)
    become("reader")
    store = open_store(OUTPUT, FAST)
    clip_id = spec("sunrise", 100).clip_id
    assert clip_id in committed_ids(store)
    key = read_record(store, clip_id).key
    assert store.get(key)
    with pytest.raises(ObjectMissingError):
        store.get("records/none.json")
    for act in (
        store.check_access,
        lambda: store.put(key, b"other", "video/mp4"),
        lambda: store.put_if_absent("records/none.json", b"{}", "application/json"),
        lambda: store.delete(key),
    ):
        with pytest.raises(StoreRefusedError, match=REFUSED):
            act()
    audited = audit_output(store, AuditParams(written_before=0))
    assert [clip.findings for clip in audited if clip.clip_id == clip_id] == [()]
    assert objects(server) == before


@pytest.mark.parametrize("right", ["s3:ListBucket", "s3:PutObject", "s3:GetObject"])
def test_a_driver_that_lacks_a_right_is_refused_before_anything_is_rendered(
    become: Callable[[str], None],
    server: LocalS3,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    right: str,
) -> None:
    path = tmp_path / "spring.yaml"
    path.write_text("model: shapes-wan\nclips: [{prompt: a circle moving right}]\n")
    become(next(name for name, (action, _) in LACKING.items() if action == right))
    before = objects(server)
    assert main(["render", str(path), "--output", OUTPUT, "store.max_attempts=2"]) == EXIT_REFUSED
    assert re.search(REFUSED, capsys.readouterr().err)
    assert objects(server) == before


def test_the_remedies_of_a_refusal_name_the_documented_actions() -> None:
    actions = {action for action, _ in grants(CLEANING)}
    remedies = [text for (_, code), text in REMEDIES_OF_VERB.items() if code == "AccessDenied"]
    assert set(re.findall(r"lack (s3:\w+)", " ".join(remedies))) == actions
