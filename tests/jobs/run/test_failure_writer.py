"""Failures reach the store, and an outage of the store does not delay the driver."""

import threading
import time
from pathlib import Path

import pytest

import jobs.run.failure_writer
from jobs.errors import StoreRefusedError, StoreUnavailableError
from jobs.records.commit import (
    commit_record,
    quarantined_ids,
    read_failures,
    read_quarantine,
    upload_clip,
)
from jobs.run.failure_writer import FailureWriter
from jobs.schedule.retry import Quarantine, Retry
from jobs.settings.run_config import StoreConfig
from jobs.store.folder_store import FolderStore
from jobs.store.store import open_store
from jobs.types import ClipFailed
from tests.builders.records import record_of
from tests.builders.specs import spec

ONE, BODY = spec("sunrise"), b"an mp4"


def failed(attempt: int) -> ClipFailed:
    return ClipFailed(
        clip_id=ONE.clip_id,
        name=ONE.name,
        model=ONE.model.name,
        request=ONE.request,
        attempt=attempt,
        failure_class="worker",
        may_pass_on_retry=True,
        error_type="WorkerLostError",
        message="died",
        traceback="",
        worker=f"host:{attempt}",
    )


class Away(FolderStore):
    """A store that accepts no write until `back` is set."""

    back = threading.Event()

    def put(
        self, key: str, body: bytes | Path, content_type: str, sha256: bytes | None = None
    ) -> None:
        if not self.back.is_set():
            raise StoreUnavailableError("away")
        super().put(key, body, content_type)


def test_failures_and_quarantines_are_written(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri(), StoreConfig())
    writer = FailureWriter(store, "run-1")
    writer.add(failed(1), Retry(2))
    writer.add(failed(2), Quarantine("enough"))
    assert writer.close(30) == 0
    assert [failure.attempt for failure in read_failures(store, ONE.clip_id)] == [1, 2]
    quarantine = read_quarantine(store, ONE.clip_id)
    assert quarantine.reason == "enough"
    assert (quarantine.model, quarantine.request) == (ONE.model.name, ONE.request)


def test_a_clip_that_was_committed_in_the_meantime_is_not_quarantined(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri(), StoreConfig())
    clip = upload_clip(store, ONE.clip_id, BODY)
    commit_record(store, clip, record_of(store, BODY, ONE.clip_id))
    writer = FailureWriter(store, "run-1")
    writer.add(failed(1), Quarantine("enough"))
    assert writer.close(30) == 0
    assert not quarantined_ids(store)


def test_a_committed_clip_whose_mp4_is_gone_is_quarantined_if_its_repair_fails(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path.as_uri(), StoreConfig())
    clip = upload_clip(store, ONE.clip_id, BODY)
    commit_record(store, clip, record_of(store, BODY, ONE.clip_id))
    store.delete(clip.key)
    writer = FailureWriter(store, "run-1")
    writer.add(failed(1), Quarantine("enough"))
    assert writer.close(30) == 0
    assert quarantined_ids(store) == {ONE.clip_id}


def test_the_driver_does_not_wait_during_an_outage_and_no_failure_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.run.failure_writer, "PAUSE_S", 0.01)
    folder = open_store(tmp_path.as_uri(), StoreConfig())
    assert isinstance(folder, FolderStore)
    store = Away(folder.location)
    writer = FailureWriter(store, "run-1")
    start = time.monotonic()
    for attempt in (1, 2, 3):
        writer.add(failed(attempt), Retry(attempt + 1))
    assert time.monotonic() - start < 5
    store.back.set()
    assert writer.close(30) == 0
    assert len(read_failures(folder, ONE.clip_id)) == 3


def test_failures_that_could_not_be_written_in_time_are_counted(tmp_path: Path) -> None:
    class Gone(FolderStore):
        def put(
            self, key: str, body: bytes | Path, content_type: str, sha256: bytes | None = None
        ) -> None:
            raise StoreUnavailableError("away")

    folder = open_store(tmp_path.as_uri(), StoreConfig())
    assert isinstance(folder, FolderStore)
    writer = FailureWriter(Gone(folder.location), "run-1")
    writer.add(failed(1), Retry(2))
    assert writer.close(0.1) == 1


def test_a_refusal_of_the_store_is_kept_so_that_the_run_can_stop(tmp_path: Path) -> None:
    class Refusing(FolderStore):
        def put(
            self, key: str, body: bytes | Path, content_type: str, sha256: bytes | None = None
        ) -> None:
            raise StoreRefusedError("no")

    folder = open_store(tmp_path.as_uri(), StoreConfig())
    assert isinstance(folder, FolderStore)
    writer = FailureWriter(Refusing(folder.location), "run-1")
    writer.add(failed(1), Retry(2))
    assert writer.close(30) == 1
    assert isinstance(writer.refused, StoreRefusedError)
