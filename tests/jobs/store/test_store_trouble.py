"""A store that is full, lies, does not answer, or no longer accepts these credentials."""

import base64
import errno
import hashlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, ConnectionClosedError, CredentialRetrievalError
from botocore.httpsession import URLLib3Session

from infra.local.faulty_proxy import FaultyProxy
from infra.local.proxy_faults import Faults
from infra.local.s3_server import LocalS3
from jobs.errors import (
    CredentialsExpiredError,
    ObjectExistsError,
    StoreRefusedError,
    StoreUnavailableError,
)
from jobs.records.commit import upload_clip
from jobs.settings.run_config import StoreConfig
from jobs.store.s3_connection import Connection
from jobs.store.s3_credentials import RotatingConnection
from jobs.store.s3_errors import EXPIRED_CODES, s3_errors
from jobs.store.s3_store import S3Store
from jobs.store.store import Store, open_store

FAST = StoreConfig(max_attempts=2, connect_timeout_s=2, read_timeout_s=20)
TEXT = "text/plain"
CLIP_ID = "0123456789abcdef" * 2
STALE_KEY = "AKIASTALESTALESTALE0"


class RawAnswer(BytesIO):
    """A body in the form in which urllib3 gives it to botocore."""

    def stream(self) -> Iterator[bytes]:
        yield self.read()


def answer(status: int, code: str = "") -> Callable[..., AWSResponse]:
    """Return a hook for botocore's `before-send` that answers a request without sending it."""
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode() if code else b""

    def hook(request: Any, **_: object) -> AWSResponse:
        return AWSResponse(
            request.url, status, {"content-type": "application/xml"}, RawAnswer(body)
        )

    return hook


@contextmanager
def hooked(store: S3Store, event: str, hook: Callable[..., Any]) -> Generator[None]:
    events = store._connection.client.meta.events
    events.register(event, hook)
    yield
    events.unregister(event, hook)


@contextmanager
def counted(store: S3Store) -> Generator[list[str]]:
    """Yield the methods of the requests that are really sent."""
    sent: list[str] = []

    def note(request: Any, **_: object) -> None:
        sent.append(request.method)

    with hooked(store, "before-send.s3", note):
        yield sent


@pytest.fixture
def s3(s3_environment: LocalS3) -> S3Store:
    opened = open_store(f"s3://renders/{uuid.uuid4().hex}", FAST)
    assert isinstance(opened, S3Store)
    return opened


@pytest.fixture
def credentials_file(
    s3_environment: LocalS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Path:
    """Write a shared credentials file with stale keys, the only one that boto3 finds."""
    path = tmp_path / "credentials"
    write_credentials(path, STALE_KEY, "stale")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    return path


def write_credentials(path: Path, access_key: str, secret_key: str) -> None:
    path.write_text(
        f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n"
    )


def opened_with_stale_keys() -> S3Store:
    store = open_store(f"s3://renders/{uuid.uuid4().hex}", FAST)
    assert isinstance(store, S3Store)
    with pytest.raises(StoreRefusedError, match="InvalidAccessKeyId"):
        store.get("a")
    return store


@pytest.fixture
def rotated(s3_environment: LocalS3, credentials_file: Path) -> S3Store:
    """Return a store that still has the stale keys while the file has the server's own."""
    store = opened_with_stale_keys()
    write_credentials(credentials_file, s3_environment.access_key, s3_environment.secret_key)
    return store


# credentials that change


def put_a_file(store: S3Store) -> None:
    path = Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).with_name("clip.mp4")
    path.write_bytes(b"video" * 100_000)
    store.put("file", path, TEXT)
    assert store.get("file") == b"video" * 100_000


def put_conditionally(store: S3Store) -> None:
    store.put_if_absent("a", b"x", TEXT)
    assert store.get("a") == b"x"


def delete(store: S3Store) -> None:
    store.delete("a")


def list_all(store: S3Store) -> None:
    assert list(store.keys("")) == []


def look_for(store: S3Store) -> None:
    assert not store.exists("a")


@pytest.mark.s3
@pytest.mark.parametrize("act", [put_a_file, put_conditionally, delete, list_all, look_for])
def test_rotated_credentials_are_picked_up_by_any_request(
    rotated: S3Store, act: Callable[[S3Store], None]
) -> None:
    act(rotated)


@pytest.mark.s3
def test_a_secret_that_was_wrong_is_looked_up_again(
    s3_environment: LocalS3, credentials_file: Path
) -> None:
    write_credentials(credentials_file, s3_environment.access_key, "wrong")
    store = open_store(f"s3://renders/{uuid.uuid4().hex}", FAST)
    with pytest.raises(StoreRefusedError, match="SignatureDoesNotMatch"):
        store.put("a", b"x", TEXT)
    write_credentials(credentials_file, s3_environment.access_key, s3_environment.secret_key)
    store.put("a", b"x", TEXT)


@pytest.mark.s3
def test_a_listing_goes_on_where_credentials_change_between_its_pages(
    rotated: S3Store,
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: rotated.put(f"{number:04}", b"", TEXT), range(1001)))
    listing = rotated.keys("")
    found = [next(listing)]
    stale = Connection(rotated._connection.client, Credentials(STALE_KEY, "stale"))
    rotated._connection._current = stale
    with hooked(rotated, "before-send.s3", answer(400, "ExpiredToken")):
        found.extend(listing)
        assert rotated._connection._current is not stale
    assert sorted(found) == [f"{number:04}" for number in range(1001)]


@pytest.mark.s3
def test_the_same_credentials_are_not_sent_twice(credentials_file: Path) -> None:
    store = opened_with_stale_keys()
    with counted(store) as sent, pytest.raises(StoreRefusedError):
        store.put("a", b"x", TEXT)
    assert sent == ["PUT"]


@pytest.mark.s3
@pytest.mark.parametrize("half", ["[default", "[default]\naws_access_key_id = AKIA\n", ""])
def test_a_credentials_file_that_is_being_rewritten_is_waited_for(
    s3_environment: LocalS3, credentials_file: Path, half: str
) -> None:
    store = opened_with_stale_keys()
    credentials_file.write_text(half)
    with (
        hooked(store, "before-send.s3", answer(400, "ExpiredToken")),
        pytest.raises(CredentialsExpiredError),
    ):
        store.put("a", b"x", TEXT)
    write_credentials(credentials_file, s3_environment.access_key, s3_environment.secret_key)
    store.put("a", b"x", TEXT)


@pytest.mark.s3
def test_many_threads_that_share_a_store_all_get_over_a_rotation(rotated: S3Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: rotated.put_if_absent(f"{number}", b"x", TEXT), range(32)))
    assert len(list(rotated.keys(""))) == 32


def test_only_one_of_many_refused_threads_looks_for_new_credentials() -> None:
    made: list[Connection] = []

    def connect() -> Connection:
        made.append(Connection(f"client {len(made)}", Credentials(f"key {len(made)}", "geheim")))
        return made[-1]

    all_are_refused = threading.Barrier(8)

    def request(client: str) -> str:
        if client == "client 0":
            all_are_refused.wait()
            raise ClientError({"Error": {"Code": "ExpiredToken"}}, "PutObject")
        return client

    connection = RotatingConnection(connect)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: connection.send(request), range(8))) == {"client 1"}
    assert len(made) == 2


@pytest.mark.s3
@pytest.mark.parametrize("code", sorted(EXPIRED_CODES))
def test_credentials_that_expire_in_the_middle_of_a_run_may_be_renewed(
    s3: S3Store, code: str
) -> None:
    with hooked(s3, "before-send.s3", answer(400, code)):
        for act in (
            lambda: s3.put("a", b"x", TEXT),
            lambda: s3.get("a"),
            lambda: list(s3.keys("")),
        ):
            with pytest.raises(
                StoreUnavailableError, match=rf"{code}; renew the session's credentials"
            ) as caught:
                act()
            assert caught.value.may_pass_on_retry


@pytest.mark.s3
def test_credentials_that_are_over_before_a_run_are_refused(s3: S3Store) -> None:
    with (
        hooked(s3, "before-send.s3", answer(400, "ExpiredToken")),
        pytest.raises(
            StoreRefusedError, match="ExpiredToken; renew the session's credentials"
        ) as caught,
    ):
        s3.check_access()
    assert not caught.value.may_pass_on_retry


def test_a_role_that_gives_no_credentials_just_now_may_be_tried_again() -> None:
    with (
        pytest.raises(CredentialsExpiredError, match="no credentials are handed out") as caught,
        s3_errors("write", "x"),
    ):
        raise CredentialRetrievalError(provider="role", error_msg="geheim")
    assert "geheim" not in str(caught.value)


def test_a_role_that_gives_no_credentials_before_a_run_is_refused(
    no_aws_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[default]\ncredential_process = /bin/false\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreRefusedError, match="no credentials are handed out"):
        open_store("s3://renders/x", FAST)


# a store that lies


def lying(parsed: dict[str, Any], **_: object) -> None:
    parsed["ChecksumSHA256"] = "d3Jvbmc="


def without_checksum(parsed: dict[str, Any], **_: object) -> None:
    parsed.pop("ChecksumSHA256", None)


@pytest.mark.s3
@pytest.mark.parametrize("conditional", [False, True])
def test_a_checksum_of_other_bytes_is_damage_on_the_way(s3: S3Store, conditional: bool) -> None:
    write = s3.put_if_absent if conditional else s3.put
    with (
        hooked(s3, "after-call.s3.PutObject", lying),
        pytest.raises(StoreUnavailableError, match="damaged on the way") as caught,
    ):
        write("a", b"x", TEXT)
    assert caught.value.may_pass_on_retry


@pytest.mark.s3
def test_a_conditional_write_whose_answer_was_damaged_finds_its_own_object(s3: S3Store) -> None:
    with hooked(s3, "after-call.s3.PutObject", lying), pytest.raises(StoreUnavailableError):
        s3.put_if_absent("a", b"x", TEXT)
    with pytest.raises(ObjectExistsError):
        s3.put_if_absent("a", b"x", TEXT)
    assert s3.get("a") == b"x"


@pytest.mark.s3
def test_a_conditional_write_whose_answer_got_lost_is_sent_again_and_finds_its_own_object(
    s3: S3Store,
) -> None:
    lost: list[int] = []

    def lose_the_first_answer(request: Any, **_: object) -> None:
        if not lost:
            session = URLLib3Session()
            lost.append(session.send(request).status_code)
            session.close()
            raise ConnectionClosedError(endpoint_url=request.url)

    with (
        hooked(s3, "before-send.s3.PutObject", lose_the_first_answer),
        counted(s3) as sent,
        pytest.raises(ObjectExistsError),
    ):
        s3.put_if_absent("a", b"x", TEXT)
    assert lost == [200]
    assert sent == ["PUT"]
    assert s3.get("a") == b"x"


@pytest.mark.s3
def test_the_proof_that_a_clip_arrived_costs_no_request_where_the_answer_has_its_checksum(
    s3: S3Store,
) -> None:
    with counted(s3) as sent:
        upload_clip(s3, CLIP_ID, b"video")
    assert sent == ["PUT"]


@pytest.mark.s3
def test_an_answer_without_checksum_is_proven_by_reading_back(s3: S3Store) -> None:
    with hooked(s3, "after-call.s3.PutObject", without_checksum), counted(s3) as sent:
        clip = upload_clip(s3, CLIP_ID, b"video")
    assert sent == ["PUT", "GET"]
    assert s3.get(clip.key) == b"video"


@pytest.mark.s3
def test_a_write_that_was_confirmed_and_not_done_is_found_out(s3: S3Store) -> None:
    with (
        hooked(s3, "before-send.s3.PutObject", answer(200)),
        pytest.raises(StoreUnavailableError, match="does not exist"),
    ):
        upload_clip(s3, CLIP_ID, b"video")


@pytest.mark.s3
def test_a_write_that_was_confirmed_and_left_the_old_bytes_is_found_out(s3: S3Store) -> None:
    s3.put("a", b"old", TEXT)
    with (
        hooked(s3, "before-send.s3.PutObject", answer(200)),
        pytest.raises(StoreUnavailableError, match="damaged on the way"),
    ):
        s3.put("a", b"new", TEXT)


@pytest.mark.s3
@pytest.mark.parametrize(
    "faults",
    [
        Faults(lie_on_put_every_nth=2),
        Faults(lose_answer_every_nth=2),
        Faults(reset_mid_body_every_nth=2),
    ],
)
def test_retries_overcome_a_store_that_lies_or_loses_answers(
    s3_environment: LocalS3, monkeypatch: pytest.MonkeyPatch, faults: Faults
) -> None:
    with FaultyProxy(s3_environment.endpoint_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint_url)
        store = open_store(f"s3://renders/{uuid.uuid4().hex}", FAST)
        proxy.faults = faults
        for number in range(6):
            put_until_it_is_there(store, f"{number}", b"%d" % number)
        proxy.faults = Faults()
        assert [store.get(f"{number}") for number in range(6)] == [
            b"%d" % number for number in range(6)
        ]
        assert sum(proxy.counts.get(fault, 0) for fault in ("lie", "lost_answer", "reset")) > 1


def put_until_it_is_there(store: Store, key: str, body: bytes) -> None:
    """Write as a commit does: repeat after any doubt; an equal object is the caller's own."""
    for _ in range(4):
        try:
            store.put_if_absent(key, body, TEXT)
        except StoreUnavailableError:
            continue
        except ObjectExistsError:
            assert store.get(key) == body
        return
    pytest.fail("never there")


# a store that is full, or silent


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_may_pass_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    store = open_store(tmp_path.as_uri(), FAST)
    with monkeypatch.context() as patch:
        patch.setattr("jobs.store.folder_files.os.fsync", fail)
        for write in (store.put, store.put_if_absent):
            with pytest.raises(StoreUnavailableError, match="free space there") as caught:
                write("clips/a", b"x", TEXT)
            assert caught.value.may_pass_on_retry
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    store.put("clips/a", b"x", TEXT)
    assert store.get("clips/a") == b"x"


@pytest.mark.usefixtures("no_aws_environment")
def test_a_server_that_never_answers_is_unavailable_after_its_attempts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        config = StoreConfig(
            endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}",
            region="us-east-1",
            connect_timeout_s=1,
            read_timeout_s=0.5,
            max_attempts=3,
        )
        store = open_store("s3://renders/x", config)
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="ReadTimeoutError"):
            store.put("a", b"x", TEXT)
        assert (
            1.4 < time.monotonic() - started < 12
        )  # botocore waits another second for "100 Continue", each time


# the look at an MP4 after its commit


def test_an_object_in_its_size_is_found_by_one_head(s3: S3Store) -> None:
    s3.put("clips/a", b"video", TEXT)
    with counted(s3) as sent:
        assert s3.holds("clips/a", 5)
    assert sent == ["HEAD"]


def test_a_listing_decides_where_head_finds_no_object_in_that_size(s3: S3Store) -> None:
    s3.put("clips/a", b"video", TEXT)
    with counted(s3) as sent:
        assert not s3.holds("clips/a", 4)
        assert not s3.holds("clips/b", 5)
    assert sent == ["HEAD", "GET"] * 2


@pytest.mark.parametrize("status", [403, 404, 501])
def test_a_gateway_that_refuses_head_hides_no_object(s3: S3Store, status: int) -> None:
    s3.put("clips/a", b"video", TEXT)
    with hooked(s3, "before-send.s3.HeadObject", answer(status)):
        assert s3.holds("clips/a", 5)
        assert not s3.holds("clips/b", 5)


def unreadable(request: Any, **_: object) -> AWSResponse:
    headers = {"content-length": "5", "last-modified": "soon"}
    return AWSResponse(request.url, 200, headers, RawAnswer(b""))


def dropped(request: Any, **_: object) -> AWSResponse:
    raise ConnectionClosedError(endpoint_url=request.url)


@pytest.mark.parametrize("hook", [unreadable, dropped])
def test_a_gateway_that_cannot_answer_head_stops_no_commit(
    s3: S3Store, hook: Callable[..., Any]
) -> None:
    s3.put("clips/a", b"video", TEXT)
    with hooked(s3, "before-send.s3.HeadObject", hook):
        assert s3.holds("clips/a", 5)
        assert not s3.holds("clips/b", 5)


def test_a_bucket_that_is_gone_is_named_and_no_object_counts_as_missing(
    s3_environment: LocalS3,
) -> None:
    with pytest.raises(StoreRefusedError, match="NoSuchBucket"):
        open_store("s3://gone-bucket/x", FAST).holds("clips/a", 5)


# the digest of a body


def test_a_digest_that_the_caller_gives_is_the_one_that_the_server_checks(s3: S3Store) -> None:
    with pytest.raises(StoreUnavailableError, match="damaged on its way"):
        s3.put("clips/a", b"video", TEXT, hashlib.sha256(b"other").digest())
    assert not s3.exists("clips/a")
    s3.put("clips/a", b"video", TEXT, hashlib.sha256(b"video").digest())
    assert s3.get("clips/a") == b"video"


def test_over_plain_http_the_signature_covers_the_digest_and_no_second_one_is_computed(
    s3: S3Store,
) -> None:
    found: list[dict[str, str]] = []

    def note(request: Any, **_: object) -> None:
        found.append({name.lower(): str(value) for name, value in request.headers.items()})

    with hooked(s3, "before-send.s3.PutObject", note):
        s3.put("clips/a", b"video", TEXT)
    (headers,) = found
    digest = base64.b64encode(hashlib.sha256(b"video").digest()).decode()
    assert digest in headers["x-amz-checksum-sha256"]
    assert "x-amz-checksum-sha256" in headers["authorization"]
    assert "UNSIGNED-PAYLOAD" in headers["x-amz-content-sha256"]
