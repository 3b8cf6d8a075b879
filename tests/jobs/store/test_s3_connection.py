"""A client that can never work is refused with the variable or file at fault, without a request."""

import io
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.utils import parse_timestamp
from urllib3 import HTTPResponse

from jobs.errors import StoreRefusedError, StoreUnavailableError
from jobs.settings.run_config import StoreConfig
from jobs.store.s3_connection import SMALL_BODY_BYTES, connect
from jobs.store.s3_listing import read_time
from jobs.store.s3_retries import num_s3_retries
from jobs.store.store import open_store
from tests.fakes.s3 import ENVIRONMENT, FakeS3, error, in_process, served

ONCE = StoreConfig(max_attempts=1, connect_timeout_s=2, read_timeout_s=5)
HALF = "[default\nregion = x\n"
NOT_A_URL = "expected a URL as S3's endpoint, such as https://host:port; correct"


def put(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in (ENVIRONMENT | variables).items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("no_aws_environment")
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"AWS_PROFILE": "nope"}, "AWS_PROFILE names the profile 'nope', which is in none of"),
        ({"AWS_PROFILE": "n\x1b[2Jope"}, r"the profile 'n\x1b[2Jope', which"),
        ({"AWS_ACCESS_KEY_ID": "AKID\r"}, r"AWS_ACCESS_KEY_ID is empty or holds the character '\r"),
        ({"AWS_SECRET_ACCESS_KEY": "geheim\r"}, "AWS_SECRET_ACCESS_KEY is empty or holds the"),
        ({"AWS_SESSION_TOKEN": "to ken"}, "AWS_SESSION_TOKEN is empty or holds the character ' '"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "since AWS_SECRET_ACCESS_KEY is missing; set"),
        ({"AWS_DEFAULT_REGION": "a b"}, "'a b' is not the name of a region; correct store.region"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:99999"}, NOT_A_URL),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:0"}, NOT_A_URL),
        ({"AWS_ENDPOINT_URL": "127.0.0.1:8333"}, NOT_A_URL),
        ({"AWS_ENDPOINT_URL": "ftp://127.0.0.1"}, NOT_A_URL),
        ({"AWS_ENDPOINT_URL": "https://"}, NOT_A_URL),
        ({"AWS_ENDPOINT_URL": "http://[::1"}, NOT_A_URL),
        ({"AWS_ENDPOINT_URL": "http://exa mple"}, NOT_A_URL),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9\r"}, NOT_A_URL),
    ],
)
def test_a_variable_that_can_never_work_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    put(monkeypatch, **variables)
    with pytest.raises(StoreRefusedError) as caught:
        open_store("s3://renders/x", ONCE)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert "geheim" not in str(caught.value)


@pytest.mark.usefixtures("no_aws_environment")
@pytest.mark.parametrize(
    ("variable", "content", "message"),
    [
        ("AWS_CONFIG_FILE", HALF, "cannot be read as AWS's configuration; correct it"),
        ("AWS_SHARED_CREDENTIALS_FILE", HALF, "cannot be read as AWS's configuration; correct it"),
        ("AWS_CONFIG_FILE", "\0\xff", "cannot be read as AWS's configuration; correct it"),
        (
            "AWS_CONFIG_FILE",
            "[default]\ncredential_process = /does/not/exist\n",
            "boto3 refuses the configuration (FileNotFoundError",
        ),
        (
            "AWS_CONFIG_FILE",
            "[default]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = nope\n",
            "boto3 refuses the configuration (InvalidConfigError",
        ),
        (
            "AWS_SHARED_CREDENTIALS_FILE",
            "[default]\naws_access_key_id = AKID\naws_secret_access_key = gehe im\n",
            "AWS_SECRET_ACCESS_KEY is empty or holds the character ' '",
        ),
    ],
)
def test_a_file_of_aws_that_can_never_work_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, content: str, message: str
) -> None:
    (tmp_path / "file").write_text(content, encoding="latin-1")
    put(monkeypatch, AWS_ENDPOINT_URL="http://127.0.0.1:9", **{variable: str(tmp_path / "file")})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StoreRefusedError) as caught:
        open_store("s3://renders/x", ONCE)
    assert message in str(caught.value)
    if "cannot be read" in message:
        assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.usefixtures("no_aws_environment")
def test_https_to_an_endpoint_without_tls_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(FakeS3()) as url:
        put(monkeypatch, AWS_ENDPOINT_URL=url.replace("http:", "https:"), NO_PROXY="127.0.0.1")
        with pytest.raises(StoreUnavailableError, match="begins with https:// only if") as caught:
            open_store("s3://renders/x", ONCE).exists("a")
    assert "no TLS connection to the endpoint (" in str(caught.value)
    assert "WRONG_VERSION_NUMBER" in str(caught.value)


@pytest.mark.usefixtures("no_aws_environment")
def test_a_proxy_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, AWS_ENDPOINT_URL="http://s3.invalid", HTTP_PROXY="http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(StoreUnavailableError, match="HTTPS_PROXY and HTTP_PROXY"):
        open_store("s3://renders/x", ONCE).exists("a")


@pytest.mark.usefixtures("no_aws_environment")
def test_requests_that_botocore_sends_again_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([error(503, "SlowDown"), error(500, "InternalError")])
    server = FakeS3(mutate=lambda _request, answer: next(answers, answer))
    with in_process(server, monkeypatch):
        before = num_s3_retries()
        store = open_store("s3://renders/x", StoreConfig(max_attempts=3))
        store.put("clips/one", b"1", "text/plain")
        store.get("clips/one")
        assert num_s3_retries() - before == 2


@pytest.mark.usefixtures("no_aws_environment")
def test_a_large_body_waits_for_the_servers_word_and_a_small_one_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(monkeypatch)
    client, sent = connect(ONCE).client, list[bool]()

    def answer(request: Any, **_: object) -> AWSResponse:
        sent.append("Expect" in request.headers)
        return AWSResponse(request.url, 200, {}, HTTPResponse(io.BytesIO()))

    client.meta.events.register("before-send.s3", answer)
    for num_bytes in (SMALL_BODY_BYTES, SMALL_BODY_BYTES + 1):
        client.put_object(Bucket="renders", Key="x", Body=bytes(num_bytes), ChecksumSHA256="x")
    assert sent == [False, True]


@pytest.mark.parametrize(
    "written",
    [
        "2026-01-31T12:00:00Z",
        "2024-02-29T23:59:59.5Z",
        "2026-01-31T12:00:00.123456Z",
        "2026-01-31T12:00:00.123456789Z",
        "2026-01-31T12:00:00+02:00",
        "Sat, 31 Jan 2026 12:00:00 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sat, 31 Jan 2026 12:00:00 -0200",
        "1769860800",
        1769860800.5,
    ],
)
def test_a_time_is_the_one_that_botocore_reads(written: str | float) -> None:
    found = read_time(written)
    assert found == parse_timestamp(written)
    assert found.tzinfo is not None


@pytest.mark.parametrize(
    "written",
    [
        "2026-13-31T12:00:00Z",
        "2026-W05-6T12:00:00Z",
        "Tue, 31 Feb 2026 12:00:00 GMT",
        "Sat, 31 Jux 2026 12:00:00 GMT",
        "soon",
        "",
    ],
)
def test_a_time_that_botocore_cannot_read_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="Invalid timestamp"):
        read_time(written)
