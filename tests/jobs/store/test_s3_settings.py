"""Buckets and endpoints with rules of their own: settings that meet them, and plain refusals.

A server in this process has one trait each; SeaweedFS shows addressing, encryption, class and ACL.
"""

import pickle
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import infra.local.s3_server
from infra.local.local_process import HOST
from infra.local.s3_server import LocalS3
from infra.local.weed import weed_command
from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_REFUSED
from jobs.errors import ConfigError, StoreError, StoreRefusedError, StoreUnavailableError
from jobs.records.commit import commit_record, upload_clip
from jobs.settings.run_config import StoreConfig, load_config
from jobs.settings.store_config import CHOICES, OF_WRITES
from jobs.store import s3_connection
from jobs.store.s3_connection import Connection, connect
from jobs.store.s3_remedies import KNOWN_CODES
from jobs.store.store import ObjectsOfS3, Store, open_store, read_object
from tests.builders.records import record_of
from tests.fakes.s3 import Answer, FakeS3, Request, Stored, error, in_process

pytestmark = pytest.mark.usefixtures("no_aws_environment")

ONCE = StoreConfig(max_attempts=1, connect_timeout_s=2, read_timeout_s=5)
OUTPUT = "s3://renders/x"
CLIP_ID = "0123456789abcdef" * 2
TEXT = "text/plain"
VIRTUAL = "[default]\ns3 =\n  addressing_style = virtual\n"
NEVER = re.compile("later|check the credentials")
SSE, KMS_KEY, ACL = (
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-acl",
)
Rule = Callable[[Request], Answer | None]


@dataclass
class RuledS3(FakeS3):
    """An S3 that refuses what a rule refuses, before anything is done, and notes all requests."""

    rule: Rule = lambda _: None
    seen: list[Request] = field(default_factory=list[Request])

    def carry_out(self, request: Request) -> Answer:
        self.seen.append(request)
        return self.rule(request) or super().carry_out(request)


def settings(*overrides: str) -> StoreConfig:
    """Return the settings of a command line, as the workers receive them."""
    config = load_config(None, ["store.max_attempts=1", *overrides]).store
    return pickle.loads(pickle.dumps(config))


def use(store: Store) -> None:
    """Do once what a run and the commands after it do."""
    store.check_access()
    clip = upload_clip(store, CLIP_ID, b"video")
    assert commit_record(store, clip, record_of(store, b"video", CLIP_ID))
    assert store.get(clip.key) == b"".join(store.chunks(clip.key)) == b"video"
    assert {entry.key for entry in store.entries("")} == {clip.key, f"records/{CLIP_ID}.json"}
    store.now()
    store.delete(clip.key)


# addressing


@pytest.mark.parametrize(
    ("file", "setting", "is_virtual"),
    [
        ("", (), False),
        (VIRTUAL, (), True),
        (VIRTUAL, ("store.addressing_style=path",), False),
        ("", ("store.addressing_style=virtual",), True),
        ("[profile farm]\ns3 =\n  addressing_style = virtual\n", (), True),
    ],
)
def test_the_bucket_stands_where_the_configuration_says(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    file: str,
    setting: tuple[str, ...],
    is_virtual: bool,
) -> None:
    (tmp_path / "config").write_text(file)
    variables = {"AWS_CONFIG_FILE": str(tmp_path / "config")}
    if "farm" in file:
        variables["AWS_PROFILE"] = "farm"
    server = RuledS3()
    with in_process(server, monkeypatch, **variables):
        use(open_store(OUTPUT, settings(*setting)))
        server.objects["renders/prompts.txt"] = Stored(b"a circle\n", 0)
        assert read_object("s3://renders/prompts.txt", settings(*setting), 100) == b"a circle\n"
    assert {request.is_virtual for request in server.seen} == {is_virtual}


@pytest.mark.parametrize(
    ("setting", "host"),
    [
        ((), "https://renders.s3."),
        (("store.addressing_style=path",), "https://s3."),
    ],
)
def test_on_aws_the_bucket_stands_in_the_host_unless_it_is_set(
    monkeypatch: pytest.MonkeyPatch, setting: tuple[str, ...], host: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "AKIDAKID")
    client = connect(settings("store.region=eu-west-1", *setting)).client
    wanted = {"Bucket": "renders", "Key": "a"}
    assert client.generate_presigned_url("get_object", wanted).startswith(host)


def test_a_style_that_is_none_is_refused_and_not_taken_for_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(VIRTUAL.replace("virtual", "vritual"))
    with (
        in_process(FakeS3(), monkeypatch, AWS_CONFIG_FILE=str(tmp_path / "config")),
        pytest.raises(StoreRefusedError, match="InvalidS3AddressingStyleError.*vritual"),
    ):
        open_store(OUTPUT, ONCE)


def test_a_host_that_virtual_addressing_made_up_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "AKIDAKID")
    config = settings(
        "store.endpoint_url=http://s3.invalid:9", "store.region=us-east-1",
        "store.addressing_style=virtual",
    )  # fmt: skip
    with pytest.raises(
        StoreError, match=r"no answer from the endpoint http://renders\.s3\.invalid"
    ):
        open_store(OUTPUT, config).get("a")


# checksums


def refusing_checksums(request: Request) -> Answer | None:
    has_one = any("checksum" in name or "trailer" in name for name in request.headers)
    return error(400, "InvalidRequest") if has_one else None


@pytest.mark.parametrize("is_file", [True, False])
def test_an_endpoint_that_takes_no_checksums_works_where_boto3_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_file: bool
) -> None:
    (tmp_path / "config").write_text(
        "[default]\nrequest_checksum_calculation = when_required\n"
        "response_checksum_validation = when_required\n"
    )
    variables = (
        {"AWS_CONFIG_FILE": str(tmp_path / "config")}
        if is_file
        else {
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }
    )
    with in_process(RuledS3(rule=refusing_checksums), monkeypatch, **variables):
        use(open_store(OUTPUT, ONCE))
        (tmp_path / "clip.mp4").write_bytes(b"video")
        open_store(OUTPUT, ONCE).put("clips/a.mp4", tmp_path / "clip.mp4", "video/mp4")


def test_a_body_that_was_damaged_on_its_way_is_noticed_without_checksums_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Damaging(FakeS3):
        def carry_out(self, request: Request) -> Answer:
            answer = super().carry_out(request)
            for path, stored in self.objects.items():
                self.objects[path] = Stored(stored.body.replace(b"video", b"viedo"), 0)
            return Answer(answer.status, answer.body)

    when_required = {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}
    with (
        in_process(Damaging(), monkeypatch, **when_required),
        pytest.raises(StoreError, match="confirms other bytes than were sent"),
    ):
        open_store(OUTPUT, ONCE).put("a", b"video", TEXT)


# the settings of every write


def test_every_write_carries_the_settings_and_every_request_the_payer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = settings(
        "store.server_side_encryption=aws:kms", "store.sse_kms_key_id=alias/farm",
        "store.bucket_key_enabled=true", "store.storage_class=STANDARD_IA",
        "store.acl=bucket-owner-full-control", "store.request_payer=requester",
    )  # fmt: skip
    server = RuledS3()
    with in_process(server, monkeypatch):
        store: Store = pickle.loads(pickle.dumps(open_store(OUTPUT, config)))
        use(store)
        (tmp_path / "clip.mp4").write_bytes(b"video")
        store.put("clips/b.mp4", tmp_path / "clip.mp4", "video/mp4")
        read_object("s3://renders/x/clips/b.mp4", config, 100)
    writes = [request.headers for request in server.seen if request.method == "PUT"]
    assert len(writes) > 5
    for headers in writes:
        assert headers[SSE] == "aws:kms"
        assert headers[KMS_KEY] == "alias/farm"
        assert headers["x-amz-server-side-encryption-bucket-key-enabled"] == "true"
        assert headers["x-amz-storage-class"] == "STANDARD_IA"
        assert headers[ACL] == "bucket-owner-full-control"
    assert {request.headers.get("x-amz-request-payer") for request in server.seen} == {"requester"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("store.addressing_style=vhost",), "must be one of auto, path, virtual, got 'vhost'"),
        (("store.server_side_encryption=aes256",), "must be one of AES256, aws:kms"),
        (("store.acl=public",), "must be one of private, public-read"),
        (("store.request_payer=me",), "must be one of requester"),
        (("store.storage_class=DEEP_ARCHIVE",), "must not be an archive"),
        (("store.storage_class=a b",), "must be ASCII without blanks"),
        (("store.sse_kms_key_id=k",), "needs store.server_side_encryption=aws:kms"),
        (
            ("store.server_side_encryption=AES256", "store.bucket_key_enabled=true"),
            "store.bucket_key_enabled needs store.server_side_encryption=aws:kms",
        ),
    ],
)
def test_a_setting_that_can_never_work_is_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(*overrides)


def test_the_page_names_every_setting_and_every_class_of_refusal() -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "s3.md").read_text()
    assert [name for name in (*OF_WRITES, *CHOICES) if f"`store.{name}`" not in page] == []
    for code in ("AccessDenied", "InvalidObjectState", "PermanentRedirect", "RequestTimeTooSkewed"):
        assert code in KNOWN_CODES
        assert f"`{code}`" in page


# rules of a bucket or an endpoint


def denying(code: str, when: Callable[[Request], bool], status: int = 403) -> Rule:
    return lambda request: error(status, code) if when(request) else None


def verb(*verbs: str) -> Callable[[Request], bool]:
    return lambda request: request.verb in verbs


def lacks(header: str, method: str = "PUT") -> Callable[[Request], bool]:
    return lambda request: request.method == method and header not in request.headers


def has(header: str) -> Callable[[Request], bool]:
    return lambda request: header in request.headers


def is_write_of(part: str) -> Callable[[Request], bool]:
    return lambda request: request.method == "PUT" and part in request.key


NO_CONDITIONS = "no conditional write .*allows the same write without it"
RULES: dict[str, tuple[Rule, tuple[str, ...], str]] = {
    "no conditional writes": (
        denying("NotImplemented", verb("create"), 501), (), NO_CONDITIONS,
    ),
    "no conditional writes, without a code": (
        lambda request: Answer(501) if request.verb == "create" else None, (), NO_CONDITIONS,
    ),
    "conditional writes are an unknown argument": (
        denying("InvalidArgument", verb("create"), 400), (), NO_CONDITIONS,
    ),
    "conditional writes are denied": (
        denying("AccessDenied", verb("create")), (), NO_CONDITIONS,
    ),
    "conditional writes fail inside": (
        denying("InternalError", verb("create"), 500), (), NO_CONDITIONS,
    ),
    "every condition fails": (
        lambda request: Answer(412) if request.verb == "create" else None, (),
        "as if an object lay there, and none does",
    ),
    "a key is demanded": (
        denying("AccessDenied", lacks(KMS_KEY)), (),
        "lack s3:PutObject .*store.server_side_encryption, store.sse_kms_key_id.*listing is all",
    ),
    "another key is demanded": (
        denying("AccessDenied", lambda request: request.headers.get(KMS_KEY) == "mine"),
        ("store.server_side_encryption=aws:kms", "store.sse_kms_key_id=mine"),
        "a write with store.server_side_encryption=aws:kms store.sse_kms_key_id=mine is refused",
    ),
    "the key is disabled": (
        denying("KMS.DisabledException", has(KMS_KEY), 400),
        ("store.server_side_encryption=aws:kms", "store.sse_kms_key_id=mine"),
        "the key that encrypts is missing or disabled: correct store.sse_kms_key_id",
    ),
    "an ACL is demanded": (denying("AccessDenied", lacks(ACL)), (), "or an ACL .store.acl."),
    "ACLs are disabled": (
        denying("AccessControlListNotSupported", has(ACL), 400), ("store.acl=public-read",),
        "store.acl=public-read is refused.*ACLs disabled: unset store.acl",
    ),
    "no such class": (
        denying("InvalidStorageClass", has("x-amz-storage-class"), 400),
        ("store.storage_class=COLD",), "store.storage_class=COLD is refused.*correct store.storage",
    ),
    "no encryption": (
        denying("InternalError", has(SSE), 500), ("store.server_side_encryption=AES256",),
        "a write with store.server_side_encryption=AES256 is refused, and the same write without",
    ),
    "no listing": (
        denying("AccessDenied", verb("list")), (), "cannot list .*lack s3:ListBucket .*s3:prefix",
    ),
    "no reading": (denying("AccessDenied", verb("read")), (), "lack s3:GetObject .*kms:Decrypt"),
    "no removal": (
        denying("AccessDenied", verb("remove")), (), "lack s3:DeleteObject .*the object is locked",
    ),
    "no clips": (
        denying("AccessDenied", is_write_of("/clips/")), (),
        "cannot write s3://renders/x/clips/.*lack s3:PutObject there",
    ),
    "no records": (
        denying("AccessDenied", is_write_of("/records/")), (),
        "cannot create s3://renders/x/records/.*lack s3:PutObject there",
    ),
    "the requester pays": (
        denying("AccessDenied", lambda request: "x-amz-request-payer" not in request.headers
                and request.method == "GET"), (), "requester pays .store.request_payer",
    ),
    "clips are archived": (
        denying("InvalidObjectState", lambda request: request.verb == "read"
                and "/clips/" in request.key), (), "the object is archived: restore it",
    ),
    "a quota": (denying("QuotaExceeded", verb("write", "create")), (), "quota of the bucket"),
    "large bodies are too large for a proxy": (
        lambda request: Answer(413) if is_write_of("/clips/")(request) else None, (),
        "413 without a code of S3; the body is larger than the server, or a proxy",
    ),
    "a clock": (denying("RequestTimeTooSkewed", lambda _: True), (), "set this machine's clock"),
    "another region": (
        lambda _: Answer(
            301, error(301, "PermanentRedirect").body,
            {"content-type": "application/xml", "x-amz-bucket-region": "eu-west-1"},
        ), (), "in another region: set store.region or AWS_DEFAULT_REGION to 'eu-west-1'",
    ),
    "a website": (
        denying("MethodNotAllowed", lambda request: request.method != "GET", 405), (),
        "MethodNotAllowed; .* a website or a CDN",
    ),
    "a server that only reads": (
        lambda request: Answer(405) if request.method != "GET" else None, (),
        "405 without a code of S3; .*a read-only one",
    ),
    "an unknown code": (
        denying("Forbidden.ByRule7", verb("write", "create")), (),
        "answers Forbidden.ByRule7; see the store's documentation .*; its message: 'no'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_a_refusal_names_its_likely_cause_and_never_passes(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    rule, overrides, message = RULES[name]
    with in_process(RuledS3(rule=rule), monkeypatch):
        store = open_store(OUTPUT, settings(*overrides))
        with pytest.raises(StoreRefusedError, match=message) as caught:
            use(store)
    assert str(caught.value).isprintable()
    assert not NEVER.search(str(caught.value))


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("a key is demanded", ("store.server_side_encryption=aws:kms", "store.sse_kms_key_id=k")),
        ("an ACL is demanded", ("store.acl=bucket-owner-full-control",)),
        ("the requester pays", ("store.request_payer=requester",)),
    ],
)
def test_the_setting_that_a_refusal_names_meets_the_rule(
    monkeypatch: pytest.MonkeyPatch, name: str, overrides: tuple[str, ...]
) -> None:
    with in_process(RuledS3(rule=RULES[name][0]), monkeypatch):
        use(open_store(OUTPUT, settings(*overrides)))


def test_a_policy_that_wants_the_condition_of_every_write_is_named_before_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = RuledS3(rule=denying("AccessDenied", lacks("if-none-match")))
    with in_process(server, monkeypatch), pytest.raises(StoreRefusedError, match="cannot write"):
        open_store(OUTPUT, ONCE).check_access()
    assert not server.objects, "the check leaves nothing"


def test_an_overload_that_passes_is_not_taken_for_a_missing_feature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = RuledS3()
    server.rule = lambda _: error(503, "SlowDown") if len(server.seen) == 1 else None
    with in_process(server, monkeypatch), pytest.raises(StoreUnavailableError, match="SlowDown"):
        open_store(OUTPUT, ONCE).check_access()
    assert not server.objects


def test_an_overload_is_not_taken_for_a_missing_feature_where_nothing_may_be_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = RuledS3()
    may_not_remove = denying("AccessDenied", verb("remove"))
    server.rule = lambda request: (
        error(503, "SlowDown") if len(server.seen) == 1 else may_not_remove(request)
    )
    with in_process(server, monkeypatch), pytest.raises(StoreUnavailableError, match="SlowDown"):
        open_store(OUTPUT, ONCE).check_access()


def test_damage_that_stays_names_the_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = denying("XAmzContentSHA256Mismatch", verb("write", "create"), 400)
    with (
        in_process(RuledS3(rule=rule), monkeypatch),
        pytest.raises(StoreRefusedError, match="AWS_REQUEST_CHECKSUM_CALCULATION=when_required"),
    ):
        open_store(OUTPUT, ONCE).check_access()


def test_render_is_refused_with_the_cause(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spring.yaml"
    path.write_text("model: shapes-wan\nclips: [{prompt: a circle moving right}]\n")
    with in_process(RuledS3(rule=RULES["ACLs are disabled"][0]), monkeypatch):
        arguments = ["render", str(path), "--output", OUTPUT, "store.acl=private"]
        assert main(arguments) == EXIT_REFUSED
    (line,) = capsys.readouterr().err.splitlines()
    assert "a write with store.acl=private is refused" in line


# a real server


@pytest.fixture(scope="module")
def encrypting() -> Iterator[LocalS3]:
    """Run a server that encrypts, and finds a bucket in the name of its host."""

    def command(*arguments: Any) -> list[str]:
        return [*weed_command(*arguments), "-s3.domainName=s3.test"]

    server = LocalS3()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infra.local.s3_server, "weed_command", command)
        patch.setenv("WEED_S3_SSE_KEY", "0123456789abcdef")
        server.start()
    yield server
    server.stop()


@pytest.mark.s3
def test_seaweedfs_encrypts_and_keeps_the_class_with_virtual_addressing(
    encrypting: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts, real = set[str](), socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **named: Any) -> Any:
        hosts.add(host)
        return real(HOST, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    port = encrypting.endpoint_url.rpartition(":")[2]
    variables = {"AWS_ENDPOINT_URL": f"http://s3.test:{port}", "NO_PROXY": "*"}
    for name, value in (encrypting.environment() | variables).items():
        monkeypatch.setenv(name, value)
    config = settings(
        "store.addressing_style=virtual", "store.server_side_encryption=AES256",
        "store.storage_class=STANDARD_IA", "store.acl=private",
    )  # fmt: skip
    store = open_store(OUTPUT, config)
    use(store)
    assert hosts == {"renders.s3.test"}
    found = connect(config).client.head_object(Bucket="renders", Key=f"x/records/{CLIP_ID}.json")
    assert found["ServerSideEncryption"] == "AES256"
    assert found["StorageClass"] == "STANDARD_IA"


@pytest.mark.s3
def test_seaweedfs_without_a_key_is_refused_by_the_setting_and_not_waited_for(
    s3_environment: LocalS3,
) -> None:
    config = settings("store.server_side_encryption=AES256")
    with pytest.raises(StoreRefusedError, match="store.server_side_encryption=AES256 is refused"):
        open_store("s3://renders/unencrypted", config).check_access()


def test_objects_that_lie_anywhere_are_read_over_one_connection_until_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With keys that expired, the next read looks up the new ones."""
    used: list[str] = []

    def rule(request: Request) -> Answer | None:
        used.append(request.headers["authorization"].partition("Credential=")[2].split("/")[0])
        return error(403, "ExpiredToken") if used[-1] == "OLD" and len(used) > 3 else None

    made: list[StoreConfig] = []

    def counted(config: StoreConfig) -> Connection:
        made.append(config)
        return connect(config)

    server = RuledS3(rule=rule)
    with in_process(server, monkeypatch, AWS_ACCESS_KEY_ID="OLD"):
        monkeypatch.setattr(s3_connection, "connect", counted)
        objects = ObjectsOfS3(ONCE, 100)
        assert not made
        for name in "abc":
            server.objects[f"renders/{name}.png"] = Stored(name.encode(), 0.0)
        with ThreadPoolExecutor(3) as threads:
            read = threads.map(objects.read, [f"s3://renders/{name}.png" for name in "abc"])
            assert list(read) == [b"a", b"b", b"c"]
        assert len(made) == 1
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NEW")
        with pytest.raises(StoreUnavailableError, match="ExpiredToken"):
            objects.read("s3://renders/a.png")
        assert objects.read("s3://renders/a.png") == b"a"
    assert used == ["OLD"] * 4 + ["NEW"]
    assert len(made) == 2
