"""`nagfarm status`, `retry` and `gc` through the command line."""

import hashlib
import json
import os
import re
import socket
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED, EXIT_STOPPED
from jobs.ending import ExitCode
from jobs.errors import LeaseLostError, StoreUnavailableError
from jobs.records.commit import (
    commit_record,
    quarantined_ids,
    read_quarantine,
    upload_clip,
    write_failure,
    write_quarantine,
    write_run,
)
from jobs.records.keys import input_key
from jobs.records.lease import Lease
from jobs.records.lease_keeper import LeaseKeeper
from jobs.records.lease_record import current_lease
from jobs.records.run_status import RunStatus, write_status
from jobs.settings.run_config import StoreConfig
from jobs.store.folder_store import FolderStore
from jobs.store.store import Store, open_store
from jobs.worker.spool import Spool
from pipelines.catalog.files.sources import PACKAGED_CONFIGS
from tests.builders.input_files import image_bytes
from tests.builders.records import RUN_ID, failure_of, quarantine_of, record_of
from tests.jobs.cli.test_status import status_of

IDS = [f"{number:032x}" for number in range(3)]
DAY_S = 86_400


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return open_store((tmp_path / "store").as_uri(), StoreConfig())


@pytest.fixture
def spool_folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def quarantined(store: Store) -> Store:
    for clip_id in IDS:
        write_failure(store, failure_of(clip_id))
        write_quarantine(store, quarantine_of(clip_id))
    return store


def called(capsys: pytest.CaptureFixture[str], *arguments: str, code: ExitCode = EXIT_OK) -> str:
    """Run a command and return its output, or its error if `code` is not 0."""
    assert main(list(arguments)) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out if code == EXIT_OK else captured.err


def let_age(tmp_path: Path, key: str, age_s: float = 2 * DAY_S) -> None:
    then = time.time() - age_s
    os.utime(tmp_path / "store" / key, (then, then))


# status


def test_status_of_an_output_without_any_run(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "run          none so far" in called(capsys, "status", store.uri)
    assert not list(store.keys("")), "looking leaves nothing behind"


def test_status_as_json_is_the_document_of_the_run(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(store, RUN_ID, "run.json", {})
    write_status(store, status_of())
    text = called(capsys, "status", store.uri, "--json")
    assert RunStatus.from_json(text.encode()) == status_of()
    assert json.loads(text)["eta_s"] == 7200


def test_status_as_json_without_a_run_is_refused(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no run has written a status" in called(
        capsys, "status", store.uri, "--json", code=EXIT_REFUSED
    )


@pytest.mark.parametrize("command", ["status", "retry", "gc"])
def test_a_bad_uri_is_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected s3://" in called(capsys, command, "s3:/renders/spring", code=EXIT_REFUSED)


@pytest.mark.parametrize("command", ["status", "retry", "gc"])
def test_the_output_may_be_a_plain_folder(
    command: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert store.uri in called(capsys, command, "./store")


@pytest.mark.parametrize("command", ["status", "retry", "gc"])
def test_a_bad_setting_is_refused(
    command: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    message = called(capsys, command, store.uri, "store.endpoint_url=ftp://x", code=EXIT_REFUSED)
    assert "store.endpoint_url" in message


# retry


def test_retry_lifts_all_and_prints_each_clip_and_the_next_step(
    quarantined: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    text = called(capsys, "retry", quarantined.uri)
    for clip_id in IDS:
        reason = "failed on 3 workers; the last was OutOfMemoryError: out of"
        assert f"  {clip_id}  spring-{clip_id[-2:]}: {reason}" in text
    assert (
        "lifted the quarantine of 3 clips of 3; the next render of the manifest tries again" in text
    )
    assert not quarantined_ids(quarantined)
    assert len(list(quarantined.keys("failures/"))) == 3, "the failures stay"


def test_retry_lifts_only_the_named_clips(
    quarantined: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "lifted the quarantine of 1 clip of 3" in called(
        capsys, "retry", quarantined.uri, IDS[1]
    )
    assert quarantined_ids(quarantined) == {IDS[0], IDS[2]}


def test_a_dry_retry_changes_nothing(
    quarantined: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "the quarantine of 2 clips would be lifted" in called(
        capsys, "retry", quarantined.uri, "--dry-run", *IDS[:2]
    )
    assert quarantined_ids(quarantined) == set(IDS)


def test_retry_takes_names_and_ids(quarantined: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert "lifted the quarantine of 2 clips of 3" in called(
        capsys, "retry", quarantined.uri, "spring-02", IDS[0], IDS[0]
    )
    assert quarantined_ids(quarantined) == {IDS[1]}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("f" * 32, f"no clip with the name or id {'f' * 32!r} is quarantined in file:"),
        ("spring-1", "did you mean 'spring-01'?; nothing was lifted"),
        ("autumn", "no clip with the name or id 'autumn' is quarantined in file:"),
        ("twin", f"have the name 'twin'; expected one of their ids: {'a' * 32}, {'b' * 32};"),
    ],
)
def test_retry_of_a_clip_that_is_not_clearly_named_is_refused_and_lifts_nothing(
    word: str, message: str, quarantined: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for clip_id in ("a" * 32, "b" * 32):
        write_quarantine(quarantined, replace(quarantine_of(clip_id), name="twin"))
    before = quarantined_ids(quarantined)
    assert message in called(capsys, "retry", quarantined.uri, IDS[0], word, code=EXIT_REFUSED)
    assert quarantined_ids(quarantined) == before


def test_retry_warns_that_a_run_under_way_does_not_try_the_clips(
    quarantined: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    Lease.take(quarantined, RUN_ID, 60)
    assert "a run is under way, and its plan is older than this" in called(
        capsys, "retry", quarantined.uri
    )


def test_a_quarantine_that_cannot_be_read_is_lifted_too(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put(f"quarantine/{IDS[0]}.json", b"{}", "text/plain")
    assert f"{IDS[0]}  for a reason that cannot be read" in called(capsys, "retry", store.uri)
    assert not quarantined_ids(store)


def test_retry_without_quarantined_clips_lifts_nothing(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no clip is quarantined" in called(capsys, "retry", store.uri)


@pytest.mark.parametrize("command", ["status", "retry", "gc", "verify"])
def test_a_folder_that_does_not_exist_is_refused_and_not_made(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "typo", tmp_path / "file", tmp_path / "file" / "below"):
        message = called(capsys, command, path.as_uri(), code=EXIT_REFUSED)
        assert f"{path.as_uri()} is not a folder on this machine; correct the URI" in message
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# gc


@pytest.fixture
def littered(store: Store, tmp_path: Path) -> str:
    """Commit one clip with an MP4 beside it that lost the race; return the key of that MP4."""
    named, loser = upload_clip(store, IDS[0], b"named"), upload_clip(store, IDS[0], b"loser")
    assert commit_record(store, named, record_of(store, b"named", IDS[0]))
    for key in (named.key, loser.key):
        let_age(tmp_path, key)
    return loser.key


def test_gc_removes_nothing_without_delete(
    store: Store, littered: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(store.keys(""))
    text = called(capsys, "gc", store.uri)
    assert text.splitlines() == [
        "no record names this MP4: 1, 0.0 MB",
        f"  {littered}",
        "nothing was removed; --delete removes it",
    ]
    assert set(store.keys("")) == before


def test_gc_removes_mp4s_that_no_record_names_and_releases_the_lease(
    store: Store, littered: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(store.keys(""))
    assert "removed 1 object, 0.0 MB" in called(capsys, "gc", store.uri, "--delete")
    lease = current_lease(store)
    assert lease is not None
    assert lease.is_released
    assert lease.run_id.startswith("gc-")
    assert {key for key in store.keys("") if not key.startswith("lease/")} == before - {littered}
    assert Lease.take(store, RUN_ID, 60).epoch == 2


def test_gc_spares_objects_younger_than_the_age(
    store: Store, littered: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nothing to remove" in called(capsys, "gc", store.uri, "--older-than", "3d", "--delete")
    assert littered in called(capsys, "gc", store.uri, "--older-than", "47h")


def test_gc_removes_an_uploaded_image_that_no_clip_names_unless_a_manifest_keeps_it(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = image_bytes(size=(96, 64))
    (tmp_path / "a.png").write_bytes(content)
    manifest = tmp_path / "m.jsonl"
    row = {"model": "shapes-wan-i2v", "prompt": "a circle", "image": "a.png"}
    manifest.write_text(json.dumps(row))
    key = input_key(hashlib.sha256(content).hexdigest())
    store.put(key, content, "application/octet-stream")
    let_age(tmp_path, key)
    kept = called(capsys, "gc", store.uri, "--keep", str(manifest), "--delete")
    assert kept == f"nothing to remove in {store.uri}\n"
    text = called(capsys, "gc", store.uri)
    assert f"an uploaded image or video that no clip names: 1, 0.0 MB\n  {key}" in text
    assert "removed 1 object" in called(capsys, "gc", store.uri, "--delete")
    assert not store.exists(key)
    store.put(key, content, "application/octet-stream")
    store.put(f"records/{IDS[0]}.json", b"{", "application/json")
    let_age(tmp_path, key)
    unread = called(capsys, "gc", store.uri, "--delete")
    assert unread.startswith("uploaded images and videos stay, since a clip may name any: records/")
    assert store.exists(key)


def test_gc_removes_nothing_if_the_images_of_a_manifest_to_keep_are_not_known(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = image_bytes(size=(96, 64))
    (tmp_path / "a.png").write_bytes(content)
    models = tmp_path / "models"
    models.mkdir()
    packaged = (PACKAGED_CONFIGS / "models" / "shapes-wan-i2v.yaml").read_text()
    source = re.search(r"^source: .*$", packaged, re.MULTILINE)
    assert source is not None
    (models / "mine.yaml").write_text(packaged.replace(source[0], "source: ./not-here"))
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"model": "mine", "prompt": "a circle", "image": "a.png"}))
    key = input_key(hashlib.sha256(content).hexdigest())
    store.put(key, content, "application/octet-stream")
    let_age(tmp_path, key)
    keep = ("--keep", str(manifest), "--models", str(models), "--delete")
    message = called(capsys, "gc", store.uri, *keep, code=EXIT_REFUSED)
    assert "not-here does not exist" in message
    assert "its clips are not known, so nothing can be removed" in message
    assert store.exists(key)


@pytest.mark.parametrize("option", [[], ["--delete"]])
def test_gc_is_refused_while_a_driver_is_at_work(
    option: list[str], store: Store, littered: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Lease.take(store, RUN_ID, 60)
    message = called(capsys, "gc", store.uri, *option, code=ExitCode.BUSY)
    assert f"is leased by another driver: run {RUN_ID} on {socket.gethostname()}" in message
    assert store.exists(littered)


@pytest.mark.parametrize(("error_s", "way"), [(2 * DAY_S, "ahead of"), (-60, "behind")])
@pytest.mark.parametrize("option", [[], ["--delete"]])
def test_gc_is_refused_on_a_machine_whose_clock_is_wrong(
    error_s: float,
    way: str,
    option: list[str],
    store: Store,
    littered: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right, before = time.time, set(store.keys(""))
    monkeypatch.setattr(time, "time", lambda: right() + error_s)
    message = called(capsys, "gc", store.uri, *option, code=EXIT_REFUSED)
    assert f"{way} the clock of {store.uri}, so that ages cannot be trusted; set" in message
    assert set(store.keys("")) == before


def test_gc_goes_by_the_stores_clock(
    store: Store, littered: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's clock stands still at the machine's; the objects are younger than a day by it."""
    yesterday = time.time() - 1.5 * DAY_S
    monkeypatch.setattr(FolderStore, "now", lambda _: yesterday)
    monkeypatch.setattr(time, "time", lambda: yesterday)
    assert "nothing to remove" in called(capsys, "gc", store.uri, "--delete")


def test_gc_with_nothing_to_do_writes_nothing(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nothing to remove" in called(capsys, "gc", store.uri, "--delete")
    assert not list(store.keys(""))


def test_gc_reports_that_it_was_stopped_by_an_outage(
    store: Store, littered: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(store: FolderStore, key: str) -> None:
        raise StoreUnavailableError("no answer from the endpoint")

    monkeypatch.setattr(FolderStore, "delete", fail)
    message = called(capsys, "gc", store.uri, "--delete", code=EXIT_STOPPED)
    assert message == (
        "nagfarm: stopped: not all was removed: no answer from the endpoint; "
        "run it again to go on\n"
    )


def test_gc_that_loses_its_lease_removes_nothing_more(
    store: Store, littered: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(_keeper: LeaseKeeper) -> None:
        raise LeaseLostError("another driver has taken this output")

    monkeypatch.setattr(LeaseKeeper, "check", lose)
    message = called(capsys, "gc", store.uri, "--delete", code=EXIT_STOPPED)
    assert "not all was removed: another driver has taken this output" in message
    assert store.exists(littered)


def test_gc_empties_the_old_spool_of_this_output_and_no_other(
    store: Store, spool_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, others = (
        Spool(spool_folder, store.uri).folder,
        Spool(spool_folder, "s3://renders/other").folder,
    )
    for folder in (own / IDS[0], own / IDS[1], others / IDS[0]):
        folder.mkdir(parents=True)
        (folder / "clip.mp4").write_bytes(b"x" * 100_000)
    then = time.time() - 2 * DAY_S
    for folder in (own / IDS[0], others / IDS[0]):
        os.utime(folder, (then, then))
    setting = f"workers.spool_folder={spool_folder}"
    assert f"  {own / IDS[0]}" in called(capsys, "gc", store.uri, setting)
    assert "removed 1 clip from the spool, 0.1 MB" in called(
        capsys, "gc", store.uri, "--delete", setting
    )
    assert {path.parent for path in spool_folder.glob("*/*/clip.mp4")} == {
        own / IDS[1],
        others / IDS[0],
    }


def test_gc_leaves_files_in_the_spool_that_no_worker_made(
    store: Store, spool_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put("clips/x", b"", "text/plain")
    kept = Spool(spool_folder, store.uri).folder / IDS[0]
    kept.mkdir(parents=True)
    (kept / "thesis.tex").write_bytes(b"mine")
    os.utime(kept, (1_000, 1_000))
    output = called(capsys, "gc", store.uri, "--delete", f"workers.spool_folder={spool_folder}")
    assert "removed 0 clips from the spool" in output
    assert f"{kept} holds files that no worker made; remove it by hand" in output
    assert (kept / "thesis.tex").read_bytes() == b"mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a folder of another user")
def test_gc_follows_no_link_of_another_user(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put("clips/x", b"", "text/plain")
    precious = tmp_path / "home" / IDS[0] / "clip.mp4"
    precious.parent.mkdir(parents=True)
    precious.write_bytes(b"precious")
    os.utime(precious.parent, (1_000, 1_000))
    squatted = tmp_path / "shared" / "spool"
    squatted.mkdir(parents=True)
    Spool(squatted, store.uri).folder.symlink_to(tmp_path / "home")
    os.chown(squatted, 65534, 65534)
    arguments = ("gc", store.uri, "--delete", f"workers.spool_folder={squatted}")
    assert "belongs to the user" in called(capsys, *arguments, code=EXIT_REFUSED)
    os.chown(squatted, 0, 0)  # the link is not followed in a folder of this user either
    assert "is a link or a file, no folder" in called(capsys, *arguments, code=EXIT_REFUSED)
    assert precious.read_bytes() == b"precious"


@pytest.mark.s3
def test_gc_and_retry_work_on_s3(
    s3_environment: object, capsys: pytest.CaptureFixture[str], spool_folder: Path
) -> None:
    store = open_store(f"s3://renders/{uuid.uuid4().hex}", StoreConfig(max_attempts=2))
    write_quarantine(store, quarantine_of(IDS[1]))
    loser = upload_clip(store, IDS[0], b"loser")
    assert loser.key in called(
        capsys, "gc", store.uri, "--older-than", "0s", f"workers.spool_folder={spool_folder}"
    )
    assert "removed 1 object" in called(
        capsys,
        "gc",
        store.uri,
        "--older-than",
        "0s",
        "--delete",
        f"workers.spool_folder={spool_folder}",
    )
    assert not store.exists(loser.key)
    assert read_quarantine(store, IDS[1]).name == "spring-01"
    called(capsys, "retry", store.uri)
    assert "quarantined  0 clips" in called(capsys, "status", store.uri)


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "1 week", "nan", "24h "])
def test_a_malformed_age_is_refused(
    text: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    message = called(capsys, "gc", store.uri, f"--older-than={text}", code=EXIT_REFUSED)
    assert "--older-than: expected a number and d, h, m or s" in message
