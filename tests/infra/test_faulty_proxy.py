import base64
import contextlib
import hashlib
import os
import socket
import threading
import time
import tracemalloc
import uuid
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)

from infra.local.faulty_proxy import Faults, FaultyProxy, FaultyProxyError
from infra.local.local_process import HOST, free_ports
from infra.local.proxy_faults import Fate, FaultDraw, FaultsError
from infra.local.s3_server import LocalS3
from jobs.errors import ObjectExistsError, StoreRefusedError, StoreUnavailableError
from jobs.settings.run_config import StoreConfig
from jobs.store.s3_store import S3Store
from jobs.store.store import open_store

PATIENT = StoreConfig(max_attempts=10, connect_timeout_s=2, read_timeout_s=20)
ONCE = StoreConfig(max_attempts=1, connect_timeout_s=2, read_timeout_s=20)
TEXT = "text/plain"
BODY = bytes(range(256)) * 1000


@pytest.fixture
def proxy(s3_environment: LocalS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy before the real server; boto3 finds the proxy where it looks for S3."""
    with FaultyProxy(s3_environment.endpoint_url) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint_url)
        yield running


@pytest.fixture
def client(proxy: FaultyProxy) -> Iterator[Any]:
    """Yield a client that tries everything once."""
    settings = Config(
        retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, read_timeout=20
    )
    with contextlib.closing(boto3.client("s3", config=settings)) as made:
        yield made


@pytest.fixture
def behind(s3_environment: LocalS3, proxy: FaultyProxy) -> S3Store:
    """Return a store on the server itself, past the proxy."""
    return store_at("behind", StoreConfig(endpoint_url=s3_environment.endpoint_url))


def store_at(prefix: str, config: StoreConfig) -> S3Store:
    opened = open_store(f"s3://renders/{prefix}", config)
    assert isinstance(opened, S3Store)
    return opened


@pytest.fixture
def put(client: Any) -> Callable[..., dict[str, Any]]:
    """Write an object as the farm does, with its SHA-256."""

    def put_object(key: str, body: bytes = BODY, **condition: str) -> dict[str, Any]:
        checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
        return client.put_object(
            Bucket="renders", Key=f"behind/{key}", Body=body, ChecksumSHA256=checksum, **condition
        )

    return put_object


def connect_to(proxy: FaultyProxy) -> socket.socket:
    address = urlsplit(proxy.endpoint_url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=10)


def read_until(stream: socket.socket, end: bytes) -> bytes:
    received = b""
    while end not in received and (data := stream.recv(65536)):
        received += data
    return received


@contextlib.contextmanager
def origin(request_end: bytes, answer: bytes) -> Generator[tuple[str, list[bytes]]]:
    """Serve one connection; answer after `request_end`. Yield its URL and the list of its input."""
    read: list[bytes] = []
    with socket.create_server((HOST, 0)) as listening:

        def serve() -> None:
            stream, _ = listening.accept()
            with stream:
                read.append(read_until(stream, request_end))
                stream.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://{HOST}:{listening.getsockname()[1]}", read
        thread.join()


# the choice of requests


def fates(faults: Faults, count: int, *, seed: int = 0, has_body: bool = True) -> list[Fate]:
    draw = FaultDraw(seed)
    draw.change(faults)
    return [draw.fate_of(is_put=True, has_body=has_body) for _ in range(count)]


def test_every_third_is_the_third_the_sixth_and_so_on() -> None:
    dealt = fates(Faults(every_nth_answers_503=3), 7)
    assert [index + 1 for index, fate in enumerate(dealt) if fate is Fate.SLOW_DOWN] == [3, 6]


def test_a_full_server_takes_no_put() -> None:
    assert fates(Faults(every_nth_put_answers_503=1), 2) == [Fate.SLOW_DOWN] * 2


def test_counting_begins_anew_when_the_faults_change() -> None:
    draw = FaultDraw(0)
    draw.change(Faults(lie_on_put_every_nth=2))
    draw.fate_of(is_put=True, has_body=True)
    draw.change(Faults(lie_on_put_every_nth=2))
    assert [draw.fate_of(is_put=True, has_body=True) for _ in range(2)] == [Fate.FORWARD, Fate.LIE]


def test_faults_with_the_same_n_all_happen() -> None:
    faults = Faults(
        every_nth_answers_503=2,
        gateway_every_nth=2,
        lie_on_put_every_nth=2,
        lose_answer_every_nth=2,
        reset_mid_body_every_nth=2,
    )
    assert {*Fate} - {Fate.RESET} == {*fates(faults, 100)}


def test_only_a_put_is_lied_to_or_refused_and_only_its_answer_is_lost() -> None:
    draw = FaultDraw(0)
    draw.change(
        Faults(lie_on_put_every_nth=1, lose_answer_every_nth=1, every_nth_put_answers_503=1)
    )
    assert draw.fate_of(is_put=False, has_body=True) is Fate.FORWARD


def test_a_request_without_a_body_is_not_reset_within_it() -> None:
    assert fates(Faults(reset_mid_body_every_nth=1), 1, has_body=False) == [Fate.FORWARD]


def test_errors_come_in_their_share_and_of_both_kinds() -> None:
    dealt = fates(Faults(error_share=0.2), 5000)
    for fate in (Fate.SLOW_DOWN, Fate.RESET):
        assert dealt.count(fate) / 5000 == pytest.approx(0.1, abs=0.02)


def test_the_same_seed_draws_the_same_errors() -> None:
    faults = Faults(error_share=0.5)
    assert fates(faults, 50, seed=1) == fates(faults, 50, seed=1) != fates(faults, 50, seed=2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"delay_s": -1.0}, "delay_s must be at least 0"),
        ({"error_share": 1.1}, "error_share must be at most 1"),
    ],
)
def test_impossible_faults_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(FaultsError, match=message):
        Faults(**wrong)


# messages pass through unchanged


def test_a_chunked_body_and_its_trailers_arrive_byte_for_byte() -> None:
    request = (
        b"POST /a?b=c HTTP/1.1\r\nHost: a.name:1\r\nX-Odd:  two  blanks \r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
        b"5;sign=x\r\nhello\r\n10000\r\n" + b"\r\n" * 0x8000 + b"\r\n0\r\nx-trailer: y\r\n\r\n"
    )
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    with (
        origin(b"x-trailer: y\r\n\r\n", answer) as (url, read),
        FaultyProxy(url) as proxy,
        connect_to(proxy) as stream,
    ):
        stream.sendall(request)
        assert read_until(stream, b"0\r\n\r\n") == answer
        assert read == [request]


def test_an_answer_that_ends_with_its_connection_is_passed_on_whole() -> None:
    with (
        origin(b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n" + BODY) as (url, _),
        FaultyProxy(url) as proxy,
        connect_to(proxy) as stream,
    ):
        stream.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (
            read_until(stream, b"never") == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY
        )


def test_a_client_whose_body_is_refused_learns_that_the_connection_ends() -> None:
    with (
        origin(b"\r\n\r\n", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno") as (url, _),
        FaultyProxy(url) as proxy,
        connect_to(proxy) as stream,
    ):
        stream.sendall(
            b"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
        assert read_until(stream, b"never").endswith(b"Connection: close\r\n\r\nno")


def test_a_stream_that_is_not_http_is_reset() -> None:
    with FaultyProxy("http://127.0.0.1:9") as proxy, connect_to(proxy) as stream:
        stream.sendall(b"nonsense\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            stream.recv(1)


def test_a_server_that_is_not_there_shows_as_a_reset() -> None:
    with FaultyProxy(f"http://{HOST}:{free_ports(1)[0]}") as proxy, connect_to(proxy) as stream:
        stream.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            stream.recv(1)


@pytest.mark.s3
def test_everything_that_the_commit_needs_passes_without_faults(proxy: FaultyProxy) -> None:
    store_at(uuid.uuid4().hex, ONCE).check_access()
    counts = proxy.counts
    assert counts.pop("requests") == 6  # three writes, a read, a listing, a removal
    assert set(counts.values()) == {0}


@pytest.mark.s3
def test_the_server_verifies_signatures_behind_the_proxy(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreRefusedError, match="SignatureDoesNotMatch"):
        store_at("x", ONCE).put("a", b"", TEXT)


@pytest.mark.s3
def test_many_requests_share_one_connection(
    proxy: FaultyProxy, client: Any, put: Callable[..., object]
) -> None:
    for _ in range(5):
        put("a")
        client.head_object(Bucket="renders", Key="behind/a")
        client.get_object(Bucket="renders", Key="behind/a")["Body"].read()
    assert proxy.counts["requests"] == 15
    assert len(proxy._clients) == 1


@pytest.mark.s3
def test_head_answers_with_a_length_and_no_body(client: Any, put: Callable[..., object]) -> None:
    put("a", b"12345")
    assert client.head_object(Bucket="renders", Key="behind/a")["ContentLength"] == 5


@pytest.mark.s3
@pytest.mark.parametrize("framing", ["Content-Length: 6", "Transfer-Encoding: chunked"])
def test_a_client_that_expects_100_continue_gets_it(
    proxy: FaultyProxy, client: Any, behind: S3Store, framing: str
) -> None:
    url = urlsplit(
        client.generate_presigned_url("put_object", {"Bucket": "renders", "Key": "behind/asked"})
    )
    head = (
        f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        f"Expect: 100-continue\r\n{framing}\r\n\r\n"
    )
    with connect_to(proxy) as stream:
        stream.sendall(head.encode())
        assert read_until(stream, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        stream.sendall(b"abcdef" if "Length" in framing else b"2\r\nab\r\n4\r\ncdef\r\n0\r\n\r\n")
        assert read_until(stream, b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
    assert behind.get("asked") == b"abcdef"


@pytest.mark.s3
def test_large_bodies_are_streamed_in_both_directions(
    proxy: FaultyProxy, client: Any, tmp_path: Path
) -> None:
    size_bytes = 48 << 20
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * (size_bytes >> 20))
    tracemalloc.start()
    with path.open("rb") as file:
        client.put_object(Bucket="renders", Key="behind/large", Body=file)
    digest = hashlib.sha256()
    for piece in client.get_object(Bucket="renders", Key="behind/large")["Body"].iter_chunks(
        1 << 16
    ):
        digest.update(piece)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert digest.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert peak_bytes < size_bytes / 4


# the effect of each fault on a client that tries once


@pytest.mark.s3
def test_each_third_request_is_answered_503_and_does_not_reach_the_server(
    proxy: FaultyProxy, put: Callable[..., object], behind: S3Store
) -> None:
    proxy.faults = Faults(every_nth_answers_503=3)
    prefix = uuid.uuid4().hex
    for number in range(1, 8):
        if number % 3:
            put(f"{prefix}/{number}")
        else:
            with pytest.raises(ClientError, match="SlowDown") as caught:
                put(f"{prefix}/{number}")
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert sorted(behind.keys(prefix)) == [f"{prefix}/{number}" for number in (1, 2, 4, 5, 7)]
    assert proxy.counts["requests"] == 7
    assert proxy.counts["503"] == 2


@pytest.mark.s3
def test_a_503_to_head_has_no_body_and_leaves_the_connection_usable(
    proxy: FaultyProxy, client: Any, put: Callable[..., object]
) -> None:
    put("a")
    proxy.faults = Faults(every_nth_answers_503=2)
    client.head_object(Bucket="renders", Key="behind/a")
    with pytest.raises(ClientError, match="503"):
        client.head_object(Bucket="renders", Key="behind/a")
    client.head_object(Bucket="renders", Key="behind/a")


def test_a_gateway_answers_in_turn_and_leaves_the_connection_usable() -> None:
    with FaultyProxy("http://127.0.0.1:9") as proxy, connect_to(proxy) as stream:
        proxy.faults = Faults(gateway_every_nth=1)
        for end in (b"</html>", b"Length: 0\r\n\r\n", b"Length: 0\r\n\r\n", b"</html>"):
            stream.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 256000\r\n\r\n" + BODY)
            answer = read_until(stream, end)
            assert answer[:12] in (b"HTTP/1.1 404", b"HTTP/1.1 403", b"HTTP/1.1 302")
        assert proxy.counts["gateway"] == 4


def test_a_503_to_a_client_that_sends_its_body_at_once_leaves_the_connection_usable() -> None:
    with FaultyProxy("http://127.0.0.1:9") as proxy, connect_to(proxy) as stream:
        proxy.faults = Faults(every_nth_answers_503=1)
        for _ in range(2):
            stream.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 256000\r\n\r\n" + BODY)
            assert read_until(stream, b"</Error>").startswith(b"HTTP/1.1 503 ")


@pytest.mark.s3
def test_a_share_of_the_requests_fails_as_counted_also_from_many_threads(
    proxy: FaultyProxy, put: Callable[..., object]
) -> None:
    proxy.faults = Faults(error_share=0.3)

    def outcome(number: int) -> str:
        try:
            put(f"share/{number}", b"x")
        except ClientError:
            return "503"
        except ConnectionClosedError:
            return "reset"
        return "written"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(outcome, range(100)))
    counts = proxy.counts
    assert counts["requests"] == 100
    assert outcomes.count("503") == counts["503"] > 0
    assert outcomes.count("reset") == counts["reset"] > 0


@pytest.mark.s3
def test_a_delay_holds_each_request_and_not_the_others(
    proxy: FaultyProxy, put: Callable[..., object]
) -> None:
    proxy.faults = Faults(delay_s=0.5)
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: put(f"slow/{number}"), range(8)))
    assert 0.5 <= time.monotonic() - started < 8 * 0.5
    assert proxy.counts["delayed"] == 8


@pytest.mark.s3
def test_a_delay_past_the_wait_for_the_go_ahead_does_no_harm(
    proxy: FaultyProxy, put: Callable[..., object], behind: S3Store
) -> None:
    proxy.faults = Faults(
        delay_s=1.3
    )  # botocore waits for a second before it sends the body unasked
    put("patience")
    assert behind.get("patience") == BODY


@pytest.mark.s3
@pytest.mark.parametrize("body", [BODY, b"xy", b"x"])
def test_a_write_that_breaks_off_within_its_body_leaves_no_object(
    proxy: FaultyProxy, put: Callable[..., object], behind: S3Store, body: bytes
) -> None:
    proxy.faults = Faults(reset_mid_body_every_nth=2)
    prefix = uuid.uuid4().hex
    put(f"{prefix}/whole")
    with pytest.raises((ConnectionClosedError, HTTPClientError)):
        put(f"{prefix}/half", body)
    assert list(behind.keys(prefix)) == [f"{prefix}/whole"]
    assert proxy.counts["reset"] == 1


@pytest.mark.s3
def test_a_read_that_breaks_off_gives_some_bytes_and_an_error(
    proxy: FaultyProxy, client: Any, put: Callable[..., object]
) -> None:
    put("a")
    proxy.faults = Faults(reset_mid_body_every_nth=1)
    body = client.get_object(Bucket="renders", Key="behind/a")["Body"]
    assert body.read(100) == BODY[:100]
    with pytest.raises((ResponseStreamingError, IncompleteReadError)):
        body.read()
    assert proxy.counts["reset"] == 1


@pytest.mark.s3
def test_a_lie_answers_200_with_the_checksum_of_something_else(
    proxy: FaultyProxy, put: Callable[..., dict[str, Any]]
) -> None:
    true = put("lie")
    proxy.faults = Faults(lie_on_put_every_nth=1)
    answer = put("lie")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert answer["ETag"] != true["ETag"]
    assert answer["ChecksumSHA256"] != true["ChecksumSHA256"]
    assert proxy.counts["lie"] == 1


@pytest.mark.s3
@pytest.mark.parametrize("body", [BODY, b"x", b""])
def test_an_object_that_the_proxy_lies_about_is_not_in_the_store(
    proxy: FaultyProxy, put: Callable[..., object], behind: S3Store, body: bytes
) -> None:
    proxy.faults = Faults(lie_on_put_every_nth=1)
    key = uuid.uuid4().hex
    put(key, body)
    assert not behind.exists(key)


@pytest.mark.s3
def test_a_lie_leaves_an_earlier_object_as_it_was(
    proxy: FaultyProxy, put: Callable[..., object], behind: S3Store
) -> None:
    put("earlier", b"first")
    proxy.faults = Faults(lie_on_put_every_nth=1)
    put("earlier", b"second")
    put("earlier", b"third", IfNoneMatch="*")
    assert behind.get("earlier") == b"first"


@pytest.mark.s3
def test_the_real_server_answers_with_the_checksum_that_it_was_sent(
    put: Callable[..., dict[str, Any]],
) -> None:
    checksum = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    assert put("true")["ChecksumSHA256"] == checksum  # so that a lie can be told from it


@pytest.mark.s3
def test_a_write_whose_answer_is_lost_is_there_all_the_same(
    proxy: FaultyProxy, put: Callable[..., object], behind: S3Store
) -> None:
    proxy.faults = Faults(lose_answer_every_nth=1)
    key = uuid.uuid4().hex
    with pytest.raises(ConnectionClosedError):
        put(key, IfNoneMatch="*")
    assert behind.get(key) == BODY
    assert proxy.counts["lost_answer"] == 1


# outages


@pytest.mark.s3
def test_a_server_that_is_down_refuses_connections_and_comes_back_at_the_same_address(
    proxy: FaultyProxy, put: Callable[..., object]
) -> None:
    for _ in range(3):
        proxy.faults = Faults(is_down=True)
        with pytest.raises(ConnectionRefusedError):
            connect_to(proxy)
        with pytest.raises(EndpointConnectionError):
            put("down")
        proxy.faults = Faults()
        put("up")
    assert proxy.counts["refused"] == 3
    assert proxy.counts["requests"] == 3


def test_an_outage_set_twice_is_counted_once() -> None:
    with FaultyProxy("http://127.0.0.1:9") as proxy:
        proxy.faults = Faults(is_down=True)
        proxy.faults = Faults(is_down=True, delay_s=1)
        assert proxy.counts["refused"] == 1


def test_an_outage_resets_open_connections() -> None:
    with (
        FaultyProxy("http://127.0.0.1:9") as proxy,
        connect_to(proxy) as idle,
        connect_to(proxy) as waiting,
    ):
        proxy.faults = Faults(delay_s=60)
        waiting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: proxy.counts["delayed"] == 1 and len(proxy._clients) == 2)
        proxy.faults = Faults(is_down=True)
        for stream in (idle, waiting):
            with pytest.raises(ConnectionResetError):
                stream.recv(1)
        assert proxy.counts["cut"] == 2


def wait_for(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# faults that botocore's retries overcome


@pytest.mark.s3
@pytest.mark.parametrize(
    "faults",
    [
        Faults(every_nth_answers_503=3),
        Faults(reset_mid_body_every_nth=3),
        Faults(lose_answer_every_nth=3),
        Faults(error_share=0.5),
    ],
    ids=lambda faults: next(name for name, value in vars(faults).items() if value),
)
def test_retries_overcome_each_fault_and_every_object_is_whole(
    proxy: FaultyProxy, behind: S3Store, faults: Faults
) -> None:
    prefix = uuid.uuid4().hex
    store = store_at("behind", PATIENT)
    proxy.faults = faults
    for number in range(7):
        store.put(f"{prefix}/{number}", BODY, TEXT)
    assert sorted(store.keys(prefix)) == [f"{prefix}/{number}" for number in range(7)]
    assert all(behind.get(f"{prefix}/{number}") == BODY for number in range(7))
    assert sum(proxy.counts[name] for name in ("503", "reset", "lost_answer")) >= 2


@pytest.mark.s3
def test_retries_get_over_a_short_outage(proxy: FaultyProxy, behind: S3Store) -> None:
    store = store_at("behind", PATIENT)
    store.put("outage", b"before", TEXT)
    proxy.faults = Faults(is_down=True)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(store.put, "outage", b"after", TEXT)
        time.sleep(0.5)  # the outage's length
        assert not writing.done()
        proxy.faults = Faults()
        writing.result(60)
    assert behind.get("outage") == b"after"


@pytest.mark.s3
def test_a_conditional_write_whose_answer_was_lost_finds_its_own_object(
    proxy: FaultyProxy, behind: S3Store
) -> None:
    key = uuid.uuid4().hex
    proxy.faults = Faults(lose_answer_every_nth=2)
    store = store_at("behind", PATIENT)
    store.put("first", b"", TEXT)
    with pytest.raises(ObjectExistsError):
        store.put_if_absent(key, b"mine", TEXT)
    assert behind.get(key) == b"mine"
    assert proxy.counts["lost_answer"] == 1


@pytest.mark.s3
def test_a_store_that_always_fails_is_unavailable_and_not_refused(proxy: FaultyProxy) -> None:
    store = store_at("behind", StoreConfig(max_attempts=2))
    for faults in (
        Faults(every_nth_answers_503=1),
        Faults(reset_mid_body_every_nth=1),
        Faults(lose_answer_every_nth=1),
        Faults(is_down=True),
    ):
        proxy.faults = faults
        with pytest.raises(StoreUnavailableError):
            store.put("never", BODY, TEXT)


# its life


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_stopped_proxy_leaves_no_descriptor_and_no_thread() -> None:
    before = descriptors()
    threads = threading.active_count()
    proxy = FaultyProxy("http://127.0.0.1:9")
    for _ in range(3):
        proxy.start()
        with connect_to(proxy), connect_to(proxy) as waiting:
            proxy.faults = Faults(delay_s=60)
            waiting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_for(lambda: proxy._clients != {})
            proxy.stop()
    assert descriptors() == before
    assert threading.active_count() == threads


@pytest.mark.s3
def test_many_faults_leave_no_descriptor_open(
    proxy: FaultyProxy, put: Callable[..., object]
) -> None:
    put("warm")
    before = descriptors()
    proxy.faults = Faults(
        every_nth_answers_503=5,
        reset_mid_body_every_nth=3,
        lie_on_put_every_nth=4,
        lose_answer_every_nth=4,
    )
    for _ in range(60):
        with contextlib.suppress(BotoCoreError, ClientError):
            put("many", b"xyz")
    proxy.faults = Faults()
    put("warm")
    wait_for(lambda: descriptors() <= before)


def test_faults_of_a_proxy_that_does_not_run_are_refused() -> None:
    with pytest.raises(FaultyProxyError, match="start it first"):
        FaultyProxy("http://127.0.0.1:9").faults = Faults()


def test_a_second_start_of_the_proxy_is_refused() -> None:
    with (
        FaultyProxy("http://127.0.0.1:9") as proxy,
        pytest.raises(FaultyProxyError, match="running already"),
    ):
        proxy.start()


@pytest.mark.parametrize("url", ["127.0.0.1:9", "https://127.0.0.1:9", "http://127.0.0.1"])
def test_an_address_without_plain_http_and_port_is_refused(url: str) -> None:
    with pytest.raises(FaultyProxyError, match="http://host:port"):
        FaultyProxy(url)
