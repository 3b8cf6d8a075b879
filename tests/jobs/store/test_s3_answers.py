"""Every answer of a store is a plain refusal or an outage, and no clip is quarantined for it."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK
from jobs.errors import (
    ObjectExistsError,
    ObjectMissingError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
)
from jobs.failures import classify
from jobs.records.commit import commit_record, upload_clip
from jobs.records.lease import Lease
from jobs.settings.run_config import StoreConfig
from jobs.store.s3_errors import DAMAGE_CODES, MEANINGS, PASSING_CODES, s3_errors, store_error
from jobs.store.s3_remedies import KNOWN_CODES, PERMANENT_STATUSES, Verb
from jobs.store.store import Store, open_store, read_object
from tests.builders.records import record_of
from tests.fakes.s3 import (
    ENVIRONMENT,
    XML,
    Answer,
    FakeS3,
    Mutate,
    Request,
    error,
    in_process,
    served,
    unchanged,
)

pytestmark = pytest.mark.usefixtures("no_aws_environment")

ONCE = StoreConfig(max_attempts=1, connect_timeout_s=2, read_timeout_s=5)
TEXT = "text/plain"
CLIP_ID = "0123456789abcdef" * 2
VERBS: tuple[Verb, ...] = ("read", "write", "create", "list", "remove")
PAGE = b"<!DOCTYPE html><html><body><h1>404</h1>not here<br></body></html>"
BODIES = {
    "no body": b"",
    "web page": PAGE,
    "tidy web page": b"<html><body><p>not here</p></body></html>",
    "json": b'{"Code": "NoSuchKey"}',
    "no code": b"<Error><Message>no</Message></Error>",
    "half": b"<Error><Code>NoSuchK",
    "binary": bytes(range(256)),
    "odd code": b"<Error><Code>No\x1bSuch Key</Code></Error>",
    "nested code": b"<Error><Code><b>NoSuchKey</b></Code></Error>",
}
CODES = sorted(
    {"NoSuchKey", "PreconditionFailed", "NeverHeardOf"} | PASSING_CODES | DAMAGE_CODES | KNOWN_CODES
)
STATUSES = (*range(200, 600), 0, 600, 999)


def acts(store: Store) -> dict[str, Callable[[], object]]:
    """Return every request that a store makes."""
    return {
        "read": lambda: store.get("records/a"),
        "read in pieces": lambda: list(store.chunks("records/a")),
        "write": lambda: store.put("clips/a", b"x", TEXT),
        "create": lambda: store.put_if_absent("records/b", b"x", TEXT),
        "list": lambda: list(store.keys("records/")),
        "look for": lambda: store.exists("records/a"),
        "remove": lambda: store.delete("quarantine/a"),
        "read a file of values": lambda: read_object("s3://renders/prompts.txt", ONCE, 1000),
    }


def outcome(act: Callable[[], object]) -> type[StoreError] | None:
    try:
        act()
    except StoreError as raised:
        return type(raised)
    return None


def answering(answer: Answer, _request: Request, _own: Answer) -> Answer:
    return answer


# the meaning of every status and code


def client_error(status: int, code: str) -> ClientError:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": {}}
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": metadata}
    return ClientError(answer, "Any")


@pytest.mark.parametrize("verb", VERBS)
def test_no_answer_is_the_fault_of_a_clip(verb: Verb) -> None:
    allowed = {code: meaning for (of, code), meaning in MEANINGS.items() if of == verb}
    for status, code in itertools.product(STATUSES, ("", "unknown 1", *CODES)):
        raised = store_error(client_error(status, code), verb, "s3://renders/a")
        if type(raised) in (ObjectExistsError, ObjectMissingError):
            is_condition = verb == "create" and status == 412
            assert type(raised) is allowed.get("PreconditionFailed" if is_condition else code)
            continue
        assert classify(raised)[0] == "store", (status, code)
        if not code or " " in code:  # it proves nothing of an object
            assert classify(raised)[1] != (status in PERMANENT_STATUSES), status


@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
def test_an_answer_without_a_code_of_s3_is_an_outage_on_every_verb(
    monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    server = FakeS3()
    with in_process(server, monkeypatch):
        store = open_store("s3://renders/x", ONCE)
        for status in (302, 400, 403, 404, 412, 429, 503):
            server.mutate = partial(answering, Answer(status, body))
            for name, act in acts(store).items():
                found = outcome(act)
                if (name, status) == ("create", 412):  # the commit reads what lies there
                    assert found in (ObjectExistsError, StoreUnavailableError)
                else:
                    assert found is StoreUnavailableError, (name, status)


@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
@pytest.mark.parametrize("status", [200, 204, 206])
def test_a_confirmation_is_believed_only_if_it_fits_the_request(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes
) -> None:
    server = FakeS3(mutate=partial(answering, Answer(status, body)))
    with in_process(server, monkeypatch):
        store = open_store("s3://renders/x", ONCE)
        for name, act in acts(store).items():
            found = outcome(act)
            if name == "remove" or name.startswith("read"):  # any bytes may be an object's
                assert found in (None, StoreUnavailableError), name
            else:
                assert found is StoreUnavailableError, name


@pytest.mark.parametrize(
    "fault", [FileNotFoundError(2, "no credential_process"), KeyError("Size"), RecursionError()]
)
def test_an_error_of_pythons_own_out_of_botocore_is_an_outage(fault: Exception) -> None:
    with pytest.raises(StoreUnavailableError, match=type(fault).__name__), s3_errors("list", "x"):
        raise fault


def test_a_plain_404_on_an_upload_keeps_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway before the store says 404 for a while, and the clip is committed after that."""

    def gateway(request: Request, answer: Answer) -> Answer:
        return Answer(404, PAGE) if request.method == "PUT" else answer

    server = FakeS3(mutate=gateway)
    with in_process(server, monkeypatch):
        store = open_store("s3://renders/x", ONCE)
        with pytest.raises(StoreUnavailableError, match="has no error code of S3") as caught:
            upload_clip(store, CLIP_ID, b"video")
        assert classify(caught.value) == ("store", True)
        server.mutate = unchanged
        clip = upload_clip(store, CLIP_ID, b"video")
        assert commit_record(store, clip, record_of(store, b"video", CLIP_ID))


@pytest.mark.parametrize(
    "found", [error(404, "NoSuchKey"), Answer(200, PAGE), Answer(200), Answer(404, PAGE)]
)
def test_a_record_that_exists_and_is_not_returned_is_an_outage(
    monkeypatch: pytest.MonkeyPatch, found: Answer
) -> None:
    """The clip is neither counted as committed by another worker nor quarantined."""

    def contradicting(request: Request, answer: Answer) -> Answer:
        return {"create": Answer(412), "read": found}.get(request.verb, answer)

    with in_process(FakeS3(mutate=contradicting), monkeypatch):
        store = open_store("s3://renders/x", ONCE)
        clip = upload_clip(store, CLIP_ID, b"video")
        with pytest.raises(StoreUnavailableError):
            commit_record(store, clip, record_of(store, b"video", CLIP_ID))


def test_a_lease_that_is_listed_and_never_returned_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = FakeS3()
    with in_process(server, monkeypatch):
        Lease.take(open_store("s3://renders/x", ONCE), "run-1", 60)
        server.mutate = on("read", error(404, "NoSuchKey"))
        assert main(["status", "s3://renders/x"]) == EXIT_OK
    assert "cannot be read: s3://renders/x/lease/0000000001.json is listed" in (
        capsys.readouterr().out
    )


# servers with one trait each


def replacing(verb: str, old: bytes, new: bytes) -> Mutate:
    def mutate(request: Request, answer: Answer) -> Answer:
        if request.verb != verb:
            return answer
        return Answer(answer.status, answer.body.replace(old, new), answer.headers)

    return mutate


def on(verb: str, answer: Answer) -> Mutate:
    return lambda request, own: answer if request.verb == verb else own


def always(answer: Answer) -> Mutate:
    return partial(answering, answer)


def without_checksums(_request: Request, answer: Answer) -> Answer:
    headers = {name: text for name, text in answer.headers.items() if "checksum" not in name}
    return Answer(answer.status, answer.body, headers)


def on_existing(answer: Answer) -> Mutate:
    """Give another answer to a conditional write whose key is taken."""
    return lambda request, own: answer if own.status == 412 else own


def removing_what_is_missing(request: Request, answer: Answer) -> Answer:
    return error(404, "NoSuchKey") if request.verb == "remove" else answer


def redirect(status: int, to: str = "https://s3.example/renders?x=geheim") -> Answer:
    return Answer(status, b"", {"location": to})


NO_CONDITIONS = "allows no conditional write .*allows the same write without it"
SIZE = b"<Size>5</Size>"
TRAITS: dict[str, tuple[Mutate, type[StoreError] | None, str]] = {
    "no checksums": (without_checksums, None, ""),
    "412 without a body": (on_existing(Answer(412)), None, ""),
    "404 for removing what is missing": (removing_what_is_missing, None, ""),
    "200 for a removal": (on("remove", Answer(200)), None, ""),
    "refuses conditions": (
        on("create", error(501, "NotImplemented")),
        StoreRefusedError,
        NO_CONDITIONS,
    ),
    "finds conditions invalid": (
        on("create", error(400, "InvalidArgument")),
        StoreRefusedError,
        NO_CONDITIONS,
    ),
    "304 for a key that is taken": (
        on_existing(Answer(304)),
        StoreUnavailableError,
        "304, a redirect; it has no error code",
    ),
    "302": (always(redirect(302)), StoreUnavailableError, "a redirect to https://s3.example;"),
    "307": (always(redirect(307)), StoreUnavailableError, "a redirect to https://s3.example;"),
    "301 to nowhere": (
        always(redirect(301, "//[")),
        StoreUnavailableError,
        "301, a redirect; it has",
    ),
    "another region": (
        always(error(301, "PermanentRedirect")),
        StoreRefusedError,
        "PermanentRedirect; the bucket is in another region: set store.region",
    ),
    "a region that is none": (
        always(Answer(307, b"", {"x-amz-bucket-region": "no region!"})),
        StoreUnavailableError,
        "boto3 cannot read it",
    ),
    "a web page": (always(Answer(200, PAGE)), StoreUnavailableError, "no error code of S3"),
    "a web page for 404": (
        always(Answer(404, PAGE)),
        StoreUnavailableError,
        "404; it has no error code of S3; a proxy or gateway",
    ),
    "403 without a body": (
        always(Answer(403)),
        StoreUnavailableError,
        "403; it has no error code of S3; a proxy or gateway",
    ),
    "nothing but 200": (always(Answer(200)), StoreUnavailableError, "damaged on the way"),
    "entries without a size": (
        replacing("list", SIZE, b""),
        StoreUnavailableError,
        "lacks its key, size or time",
    ),
    "entries without a key": (
        replacing("list", b"Key>", b"Name>"),
        StoreUnavailableError,
        "boto3 cannot read it",
    ),
    "entries without a time": (
        replacing("list", b"LastModified>", b"Modified>"),
        StoreUnavailableError,
        "lacks its key, size or time",
    ),
    "entries of no size": (
        replacing("list", SIZE, b"<Size>big</Size>"),
        StoreUnavailableError,
        "boto3 cannot read it",
    ),
    "entries of no time": (
        replacing("list", b"<LastModified>", b"<LastModified>yesterday"),
        StoreUnavailableError,
        "boto3 cannot read it",
    ),
    "an empty listing": (
        on("list", Answer(200, b"", dict(XML))),
        StoreUnavailableError,
        "a listing without IsTruncated",
    ),
    "the listing of something else": (
        replacing("list", b"<Prefix>x/", b"<Prefix>y/"),
        StoreUnavailableError,
        "the listing of another prefix",
    ),
    "a listing without its end": (
        replacing("list", b"<IsTruncated>false", b"<IsTruncated>true"),
        StoreUnavailableError,
        "without saying where",
    ),
    "a listing in a circle": (
        replacing(
            "list",
            b"<IsTruncated>false</IsTruncated>",
            b"<IsTruncated>true</IsTruncated><NextContinuationToken>a</NextContinuationToken>",
        ),
        StoreUnavailableError,
        "without saying where",
    ),
    "half a listing": (
        lambda request, own: (
            Answer(200, own.body[:-30], own.headers) if request.verb == "list" else own
        ),
        StoreUnavailableError,
        "no error code of S3",
    ),
}


def use(store: Store) -> None:
    """Do once what a run does."""
    store.check_access()
    clip = upload_clip(store, CLIP_ID, b"video")
    commit_record(store, clip, record_of(store, b"video", CLIP_ID))
    assert {entry.key for entry in store.entries("")} == {clip.key, f"records/{CLIP_ID}.json"}
    store.delete("quarantine/a")


@pytest.mark.parametrize("name", TRAITS)
def test_a_server_with_a_trait_works_or_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    mutate, expected, message = TRAITS[name]
    server = FakeS3(mutate=mutate)
    with in_process(server, monkeypatch):
        store = open_store("s3://renders/x", ONCE)
        if expected is None:
            use(store)
            return
        with pytest.raises(expected, match=message) as caught:
            use(store)
    assert "geheim" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert server.num_requests < 12


def test_a_server_that_ignores_conditions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ignoring(FakeS3):
        def answer(self, request: Request) -> Answer:
            request.headers.pop("if-none-match", None)
            return super().answer(request)

    with (
        in_process(Ignoring(), monkeypatch),
        pytest.raises(StoreRefusedError, match="ignores If-None-Match"),
    ):
        open_store("s3://renders/x", ONCE).check_access()


def test_redirects_and_pages_come_over_a_real_connection_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = FakeS3(page_size=2)
    for name, value in (ENVIRONMENT | {"NO_PROXY": "127.0.0.1"}).items():
        monkeypatch.setenv(name, value)
    with served(server) as url:
        store = open_store("s3://renders/x", StoreConfig(endpoint_url=url, max_attempts=1))
        use(store)
        store.put("records/z", b"", TEXT)
        assert len(list(store.keys(""))) == 3
        for answer in (redirect(302, url), redirect(307, url), redirect(302)):
            server.mutate = always(answer)
            before = server.num_requests
            with pytest.raises(StoreUnavailableError, match="a redirect to http"):
                store.put("a", b"x", TEXT)
            assert server.num_requests == before + 1
