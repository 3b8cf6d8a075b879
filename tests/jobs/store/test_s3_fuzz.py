"""Random answers of a store against all commands: no traceback, no clip quarantined, none lost.

A run is played by its parts in this process, without Ray: the plan, the lease, the workers that
commit, the decision about each failure. Encoded clips lie in the spool, as after an outage.
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from botocore.retries.adaptive import ClientRateLimiter

from jobs.cli.main import main
from jobs.ending import ExitCode
from jobs.errors import JobError, StoreError
from jobs.records.commit import (
    committed_ids,
    quarantined_ids,
    write_failure,
    write_quarantine,
    write_run,
)
from jobs.records.keys import RUN_FILE, latents_key
from jobs.records.lease import Lease
from jobs.records.lease_keeper import LeaseKeeper
from jobs.records.run_status import write_status
from jobs.records.schema import ClipRecord
from jobs.schedule.retry import Stop, Wait, decide
from jobs.settings.run_config import RetryPolicy, StoreConfig
from jobs.store.store import Store, open_store
from jobs.types import ClipDone, ClipFailed, ClipSpec
from jobs.worker.clip_worker import ClipWorker
from jobs.worker.setup import WorkerSetup
from jobs.worker.spool import CLIP_FILE, Spool
from tests.builders.records import RUN_ID, failure_of, quarantine_of, record_of
from tests.builders.specs import setup_for, spec
from tests.fakes.fuzzed_s3 import FuzzedS3
from tests.fakes.s3 import Answer, Request, Stored, in_process, unchanged
from tests.jobs.cli.test_status import status_of

OUTPUT = "s3://renders/x"
ONCE = StoreConfig(max_attempts=1)
CLIPS = [spec("circle", seed) for seed in range(4)]
BAD_ID = "b" * 32  # quarantined for its own sake
DAY_S = 86_400.0
MANIFEST = f"""\
model: shapes-wan
output: {OUTPUT}
axes: {{prompt: [a circle moving right], seed: {{range: [0, 3]}}}}
"""
COMMANDS = (
    ("status", OUTPUT),
    ("status", OUTPUT, "--json"),
    ("gc", OUTPUT),
    ("gc", OUTPUT, "--delete"),
    ("gc", OUTPUT, "--delete", "--older-than", "2h"),
    ("retry", OUTPUT, "--dry-run"),
    ("retry", OUTPUT),
    ("verify", OUTPUT),
    ("verify", OUTPUT, "--json"),
    ("plan", "manifest.yaml"),
)


@dataclass
class WatchedS3(FuzzedS3):
    """A fuzzed S3 that notes the removal of what a record names."""

    harm: list[str] = field(default_factory=list[str])

    def carry_out(self, request: Request) -> Answer:
        named = self.named() if request.verb == "remove" else set[str]()
        answer = super().carry_out(request)
        self.harm += [key for key in named if key not in self.objects]
        return answer

    def records(self) -> dict[str, bytes]:
        return {key: one.body for key, one in self.objects.items() if "/records/" in key}

    def named(self) -> set[str]:
        """Return the records and the MP4s that they name."""
        found = self.records()
        return set(found) | {
            f"renders/x/{ClipRecord.from_json(body).key}" for body in found.values()
        }

    def let_age(self) -> None:
        for key, one in self.objects.items():
            self.objects[key] = Stored(one.body, min(one.modified_at, time.time() - 3 * DAY_S))


@dataclass
class Farm:
    """A run on a fuzzed store, and the commands beside it."""

    server: WatchedS3
    setup: WorkerSetup
    spool: Spool

    def keep_encoded(self, store: Store) -> None:
        """Put every clip into the spool, as a worker leaves it that did not reach the store."""
        for one in CLIPS:
            body = one.clip_id.encode()
            record = record_of(store, body, one.clip_id)
            record = replace(record, name=one.name, request=one.request, model=one.model)
            with suppress(FileExistsError), self.spool.room() as folder:
                (folder / CLIP_FILE).write_bytes(body)
                self.spool.keep(folder, record)

    def render(self) -> None:
        """Play one run until it is over or stops, as `render` does.

        A start that the store prevents is followed by one that it does not.
        """
        worker, share = ClipWorker(self.setup, "node-1"), self.server.share
        try:
            keeper, pending = self._start(worker)
        except JobError:
            self.server.share = 0.0
            self.expire_leases()
            keeper, pending = self._start(worker)
            self.server.share = share
        store = keeper.lease.store
        try:
            for one in pending:
                keeper.tick()
                if keeper.is_lost or not self._is_rendered(worker, one):
                    return
            write_failure(store, failure_of(BAD_ID))
            write_quarantine(store, quarantine_of(BAD_ID))
        finally:
            worker.close()
            with suppress(StoreError):
                keeper.lease.release()

    def _start(self, worker: ClipWorker) -> tuple[LeaseKeeper, list[ClipSpec]]:
        store = open_store(OUTPUT, ONCE)
        pending = [one for one in CLIPS if one.clip_id not in committed_ids(store)]
        quarantined_ids(store)
        store.check_access()
        lease = Lease.take(store, "run-1", 60)
        write_run(store, "run-1", RUN_FILE, {})
        worker.load()
        return LeaseKeeper(lease, lambda: write_status(store, status_of())), pending

    def expire_leases(self) -> None:
        for key in [key for key in self.server.objects if "/lease/" in key]:
            del self.server.objects[key]

    def _is_rendered(self, worker: ClipWorker, one: ClipSpec) -> bool:
        """Try a clip until it is committed, or the run stops. A clip is never quarantined."""
        for attempt in range(1, 9):
            outcome = worker.render(one, attempt)
            if isinstance(outcome, ClipDone):
                return True
            assert isinstance(outcome, ClipFailed)
            assert_is_the_stores(outcome)
            if isinstance(decide([outcome], RetryPolicy()), Stop):
                return False
        return False

    def heal(self) -> None:
        """Let the store answer well; then every clip must get committed."""
        self.server.share = 0.0
        self.expire_leases()
        self.render()
        found = {ClipRecord.from_json(body).clip_id for body in self.server.records().values()}
        assert found == {one.clip_id for one in CLIPS}
        for key in self.server.named():
            assert key in self.server.objects
        lost = [key for key in self.server.objects if "/quarantine/" in key and BAD_ID not in key]
        assert not lost
        assert not self.server.harm

    def begin_anew(self, store: Store) -> None:
        """Leave half of the clips committed, all of them twice uploaded, and other garbage."""
        for key in list(self.server.objects):
            is_other = "/records/" not in key and "/clips/" not in key
            if is_other or any(one.clip_id in key for one in CLIPS[2:]):
                del self.server.objects[key]
        for one in CLIPS:
            store.put(f"clips/{one.clip_id}/{'0' * 16}.mp4", b"left over", "video/mp4")
            store.put(latents_key(one.clip_id, RUN_ID, 1), b"left over", "video/mp4")
            store.put(f"access-check-{'0' * 16}", b"left over", "text/plain")
        self.keep_encoded(store)
        self.server.let_age()


def assert_is_the_stores(outcome: ClipFailed) -> None:
    assert outcome.failure_class == "store", outcome.traceback
    assert isinstance(decide([outcome], RetryPolicy()), Wait | Stop)


@pytest.fixture
def farm(
    no_aws_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[int], Farm]:
    """Return a function that makes a farm on a store with a seed."""
    # it sleeps after an answer such as SlowDown
    monkeypatch.setattr(ClientRateLimiter, "on_sending_request", lambda *_a, **_k: None)
    (tmp_path / "manifest.yaml").write_text(MANIFEST)
    monkeypatch.chdir(tmp_path)

    def make(seed: int) -> Farm:
        setup = replace(
            setup_for(tmp_path), output=OUTPUT, store=ONCE, spool_folder=str(tmp_path / "spool")
        )
        server = WatchedS3(page_size=3, seed=seed)
        return Farm(server, setup, Spool(setup.spool_folder, OUTPUT))

    return make


def fuzz(
    farm: Farm,
    num_exchanges: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Play episodes: a run and every command on a store that errs, then a run on a good one."""
    server = farm.server
    with in_process(server, monkeypatch):
        store = open_store(OUTPUT, ONCE)
        farm.render()  # makes the first records
        episode = 0
        while server.num_requests < num_exchanges:
            episode += 1
            farm.begin_anew(store)
            server.share = (0.3, 0.05, 0.15)[episode % 3]
            with suppress(JobError):
                farm.render()
            farm.expire_leases()
            server.let_age()
            for command in COMMANDS:
                code = main([*command, "store.max_attempts=1"])
                said = capsys.readouterr()
                assert code in set(ExitCode), server.last_changes
                assert "Traceback" not in said.err + said.out, server.last_changes
                assert re.fullmatch(r"[\t\n\x20-\x7e\x80-\U0010ffff]*", said.err + said.out)
                assert not server.harm, server.last_changes
            farm.heal()


def test_gc_removes_nothing_that_a_record_names_if_listings_turn_empty(
    farm: Callable[[int], Farm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A portal answers every listing from some moment on, at each moment there is."""
    made, asked = farm(0), Counter[str]()

    def portal(request: Request, answer: Answer) -> Answer:
        asked[request.verb] += 1
        is_portal = request.verb == "list" and asked["list"] > first
        return Answer(200, b"<ListBucketResult/>") if is_portal else answer

    first, codes = 0, list[int]()
    with in_process(made.server, monkeypatch):
        made.render()
        made.server.page_size = 1000
        while not codes or codes[-1] != 0:
            made.server.mutate = unchanged
            made.begin_anew(open_store(OUTPUT, ONCE))
            made.expire_leases()
            made.server.mutate, first = portal, first + 1
            asked.clear()
            codes.append(main(["gc", OUTPUT, "--delete", "store.max_attempts=1"]))
            assert not made.server.harm, first
    assert {ExitCode.UNAVAILABLE, ExitCode.STOPPED} <= set(codes), (
        "refused before the removal, stopped in it"
    )


def test_random_answers_cost_no_clip_and_give_no_traceback(
    farm: Callable[[int], Farm],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fuzz(farm(1), 1000, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(4))
def test_twenty_thousand_random_answers_do_not_either(
    farm: Callable[[int], Farm],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seed: int,
) -> None:
    made = farm(seed)
    fuzz(made, 5000, monkeypatch, capsys)
    with capsys.disabled():  # the evidence
        total = sum(made.server.changes.values())
        print(f"\n{made.server.num_requests} exchanges, {total} changed: {made.server.changes}")
