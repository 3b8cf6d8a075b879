"""The commit on S3 servers of different makers: SeaweedFS, moto, LocalBucket; rclone is refused.

SeaweedFS answers with checksums, the others without. `rclone serve s3` ignores If-None-Match, so
two workers could commit one clip there.
"""

import sys
import sysconfig
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from infra.local.local_process import HOST, LocalProcess, free_ports
from infra.local.s3_server import REGION, LocalS3
from jobs.errors import ObjectExistsError, ObjectMissingError, StoreError, StoreRefusedError
from jobs.records.commit import (
    commit_record,
    committed_ids,
    lift_quarantine,
    quarantined_ids,
    read_record,
    upload_clip,
    write_quarantine,
)
from jobs.records.lease import Lease
from jobs.settings.run_config import StoreConfig
from jobs.store.s3_connection import connect
from jobs.store.store import Store, open_store
from jobs.upkeep.garbage import find_garbage, remove_garbage
from tests.builders.records import quarantine_of, record_of

pytestmark = pytest.mark.s3

FAST = StoreConfig(max_attempts=2, connect_timeout_s=2, read_timeout_s=20)
CLIP_ID = "0123456789abcdef" * 2
TEXT = "text/plain"
START_S = 60.0
END_WAIT_S = 2.0
SCRIPTS = Path(sysconfig.get_path("scripts"))


def moto(folder: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]


def localbucket(folder: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "localbucket", str(folder / "data"), "--port", str(port)]


def rclone(folder: Path, port: int) -> list[str]:
    (folder / "data").mkdir()
    command = [str(SCRIPTS / "rclone"), "serve", "s3", str(folder / "data")]
    return [*command, "--addr", f"{HOST}:{port}", "--auth-key", "AKID0000,geheim00", "--config", ""]


@contextmanager
def serving(
    command: Callable[[Path, int], list[str]], folder: Path, patch: pytest.MonkeyPatch
) -> Generator[None]:
    """Run a server with the bucket `renders`, and set the variables with which boto3 finds it."""
    (port,) = free_ports(1)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKID0000",
        "AWS_SECRET_ACCESS_KEY": "geheim00",
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
        "AWS_DEFAULT_REGION": REGION,
        "NO_PROXY": HOST,
    }.items():
        patch.setenv(name, value)
    process = LocalProcess(command(folder, port), folder / "log")

    def is_ready() -> bool:
        try:
            client = connect(StoreConfig(max_attempts=1, connect_timeout_s=2)).client
            client.create_bucket(Bucket="renders")
            open_store("s3://renders/ready", FAST).exists("a")
        except (StoreError, ClientError, BotoCoreError):  # it starts
            return False
        return True

    try:
        assert process.is_ready_by(time.monotonic() + START_S, is_ready), process.last_log_lines()
        yield
    finally:
        process.end(END_WAIT_S)


@pytest.fixture(params=["seaweedfs", moto, localbucket], ids=["seaweedfs", "moto", "localbucket"])
def store(
    request: pytest.FixtureRequest,
    no_aws_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Store]:
    with ExitStack() as running:
        if request.param == "seaweedfs":
            server: LocalS3 = request.getfixturevalue("s3_server")
            for name, value in server.environment().items():
                monkeypatch.setenv(name, value)
        else:
            running.enter_context(serving(request.param, tmp_path, monkeypatch))
        yield open_store(f"s3://renders/{uuid.uuid4().hex}/a b", FAST)


def race(store: Store, key: str) -> int:
    """Return the number of winners among eight conditional writes at once."""

    def write(number: int) -> bool:
        try:
            store.put_if_absent(key, b"%d" % number, TEXT)
        except ObjectExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(write, range(8)))


def test_a_clip_is_committed_once_read_listed_and_cleaned_up(store: Store) -> None:
    store.check_access()
    assert not list(store.keys(""))
    assert [race(store, f"races/{number}") for number in range(3)] == [1, 1, 1]

    lease = Lease.take(store, "run-1", 60)
    clip, other = (upload_clip(store, CLIP_ID, body) for body in (b"video", b"other"))
    record = record_of(store, b"video", CLIP_ID)
    assert commit_record(store, clip, record)
    assert commit_record(store, clip, record), "the same record, after a lost answer"
    assert not commit_record(store, other, record_of(store, b"other", CLIP_ID))
    assert committed_ids(store) == {CLIP_ID}
    assert read_record(store, CLIP_ID) == record
    with pytest.raises(ObjectMissingError):
        store.get("records/none.json")

    write_quarantine(store, quarantine_of("1" * 32))
    assert quarantined_ids(store) == {"1" * 32}
    lift_quarantine(store, "1" * 32)
    lift_quarantine(store, "1" * 32)
    assert not quarantined_ids(store)

    any_age_s = -3600.0
    garbage = find_garbage(store, any_age_s)
    assert [one.stored.key for one in garbage] == [other.key]
    assert remove_garbage(store, garbage, any_age_s, lease.renew).num_removed == 1
    assert store.get(clip.key) == b"video"
    lease.release()
    a_missing_bucket_is_named()


def a_missing_bucket_is_named() -> None:
    missing = open_store("s3://no-such-bucket/x", FAST)
    for act in (
        lambda: missing.put("a", b"", TEXT),
        lambda: missing.get("a"),
        lambda: list(missing.keys("")),
    ):
        with pytest.raises(StoreRefusedError, match="NoSuchBucket; create the bucket"):
            act()


@pytest.mark.usefixtures("no_aws_environment")
def test_rclone_is_refused_before_anything_is_rendered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serving(rclone, tmp_path, monkeypatch):
        store = open_store("s3://renders/spring", FAST)
        with pytest.raises(StoreRefusedError, match="ignores If-None-Match"):
            store.check_access()
        assert not list(store.keys(""))
        for body in (b"one", b"two"):  # an ObjectExistsError here: rclone has learnt it
            store.put_if_absent("records/a", body, TEXT)
        assert store.get("records/a") == b"two"
