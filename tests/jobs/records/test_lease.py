"""The lease on a folder and on a real S3 server, and the thread that keeps it."""

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from jobs.errors import (
    LeaseHeldError,
    LeaseLostError,
    LeaseUnusableError,
    RecordError,
    SideThreadError,
    StoppedError,
    StoreUnavailableError,
)
from jobs.records.keys import LAST_EPOCH, lease_key
from jobs.records.lease import Lease
from jobs.records.lease_keeper import SHORT_S, LeaseKeeper
from jobs.records.lease_record import (
    MAX_WAIT_S,
    LeaseRecord,
    current_lease,
    refuse_if_leased,
    wait_until_free,
)
from jobs.settings.run_config import StoreConfig
from jobs.store.folder_store import FolderStore
from jobs.store.store import Store, open_store
from jobs.store.uri import FolderLocation
from tests.fakes.store import MemoryStore

DURATION_S = 60.0
DEADLINE_S = 20.0
TEXT = "text/plain"


@dataclass
class Clock:
    time_s: float = 1_769_860_800.0  # 2026-01-31T12:00:00Z

    def __call__(self) -> float:
        return self.time_s


class TroubledStore(FolderStore):
    """A folder store that refuses writes while `is_down`."""

    is_down = False

    def put(
        self, key: str, body: bytes | Path, content_type: str, sha256: bytes | None = None
    ) -> None:
        if type(self).is_down:
            raise StoreUnavailableError("no answer from the endpoint")
        super().put(key, body, content_type)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store((tmp_path / "store").as_uri(), StoreConfig())
    request.getfixturevalue("s3_environment")
    return open_store(f"s3://renders/{uuid.uuid4().hex}", StoreConfig(max_attempts=2))


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri(), StoreConfig())


@pytest.fixture
def troubled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TroubledStore:
    monkeypatch.setattr(TroubledStore, "is_down", False)
    return TroubledStore(FolderLocation(tmp_path / "store"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def take(
    store: Store, run_id: str, clock: Callable[[], float], *, is_takeover: bool = False
) -> Lease:
    return Lease.take(store, run_id, DURATION_S, is_takeover=is_takeover, now=clock)


def leases(store: Store) -> list[str]:
    return sorted(store.keys("lease/"))


# taking


def test_a_free_output_is_taken_and_its_lease_names_the_driver(store: Store, clock: Clock) -> None:
    lease = take(store, "one", clock)
    assert lease.epoch == 1
    found = current_lease(store)
    assert found is not None
    assert found == lease.taken
    assert found.expires_at == "2026-01-31T12:01:00.000Z"
    assert found.is_alive(clock())


def test_a_second_driver_is_refused_with_the_owner_and_the_expiry(
    store: Store, clock: Clock
) -> None:
    owner = take(store, "one", clock).taken.owner
    clock.time_s += DURATION_S - 1
    with pytest.raises(LeaseHeldError) as caught:
        take(store, "two", clock)
    assert str(caught.value) == (
        f"{store.uri} is leased by another driver: run one on {owner.host} (process {owner.pid}), "
        "since 2026-01-31T12:00:00.000Z; the lease expires at 2026-01-31T12:01:00.000Z unless that "
        "driver renews it; wait with render --wait or, if that driver is dead, take the output at "
        "once with render --takeover"
    )
    assert leases(store) == [lease_key(1)]


def test_an_expired_lease_is_taken_without_a_takeover(store: Store, clock: Clock) -> None:
    take(store, "one", clock)
    clock.time_s += DURATION_S
    assert take(store, "two", clock).epoch == 2
    assert leases(store) == [lease_key(2)]


def test_a_released_lease_is_taken_at_once_under_the_next_number(
    store: Store, clock: Clock
) -> None:
    take(store, "one", clock).release()
    assert leases(store) == [lease_key(1)], "the highest number stays"
    assert take(store, "two", clock).epoch == 2


def test_a_renewal_extends_a_lease(store: Store, clock: Clock) -> None:
    lease = take(store, "one", clock)
    clock.time_s += DURATION_S - 1
    lease.renew()
    clock.time_s += DURATION_S - 1
    with pytest.raises(LeaseHeldError, match="run one"):
        take(store, "two", clock)


def test_a_takeover_is_at_once_and_the_loser_notices_at_its_next_renewal(
    store: Store, clock: Clock
) -> None:
    first = take(store, "one", clock)
    second = take(store, "two", clock, is_takeover=True)
    with pytest.raises(
        LeaseLostError, match=r"another driver has taken this output: run two on .* \(process"
    ):
        first.renew()
    second.renew()
    assert leases(store) == [lease_key(2)], "the winner removes what the loser wrote"
    found = current_lease(store)
    assert found is not None
    assert found.run_id == "two"


def test_a_takeover_does_not_take_the_output_from_a_third_driver(
    folder: Store, clock: Clock, tmp_path: Path
) -> None:
    """The second of two drivers that take over a dead driver's output is refused."""
    take(folder, "dead", clock)

    class SlowStore(TroubledStore):
        is_raced = False

        def put_if_absent(self, key: str, body: bytes, content_type: str) -> None:
            if not type(self).is_raced:
                type(self).is_raced = True
                take(folder, "faster", clock, is_takeover=True)
            super().put_if_absent(key, body, content_type)

    with pytest.raises(LeaseHeldError, match="run faster"):
        take(SlowStore(FolderLocation(tmp_path / "store")), "slower", clock, is_takeover=True)


def test_an_expired_lease_that_no_driver_took_can_be_renewed(store: Store, clock: Clock) -> None:
    lease = take(store, "one", clock)
    clock.time_s += 100 * DURATION_S
    lease.renew()
    with pytest.raises(LeaseHeldError, match="run one"):
        take(store, "two", clock)


def test_exactly_one_of_many_drivers_takes_the_output(store: Store, clock: Clock) -> None:
    barrier = threading.Barrier(4)

    def attempt(number: int) -> int | None:
        barrier.wait()
        try:
            return take(store, f"run-{number}", clock).epoch
        except LeaseHeldError:
            return None

    with ThreadPoolExecutor(4) as pool:
        for race in range(1, 4):
            (epoch,) = [epoch for epoch in pool.map(attempt, range(4)) if epoch is not None]
            assert epoch == race
            clock.time_s += DURATION_S


def test_a_renewal_removes_lower_numbers_that_a_crash_left(store: Store, clock: Clock) -> None:
    lease = take(store, "one", clock)
    clock.time_s += DURATION_S
    later = replace(lease, epoch=2)  # as if a driver had died between its take and its sweep
    store.put(lease_key(2), lease.taken.to_json(), TEXT)
    later.renew()
    assert leases(store) == [lease_key(2)]


def test_an_output_whose_lease_cannot_be_read_is_not_free(folder: Store, clock: Clock) -> None:
    folder.put(lease_key(7), b"{}", TEXT)
    with pytest.raises(
        LeaseUnusableError, match=r"whose lease cannot be read: .* lacks run_id.*--takeover"
    ):
        take(folder, "one", clock)
    assert take(folder, "one", clock, is_takeover=True).epoch == 8


def test_foreign_objects_are_not_counted_as_leases(folder: Store, clock: Clock) -> None:
    folder.put("lease/README.txt", b"", TEXT)
    folder.put("lease/99.json", b"", TEXT)
    assert take(folder, "one", clock).epoch == 1


def test_a_free_or_expired_output_is_not_refused(folder: Store, clock: Clock) -> None:
    refuse_if_leased(folder)
    take(folder, "one", folder.now)
    with pytest.raises(LeaseHeldError):
        refuse_if_leased(folder)
    take(folder, "two", clock, is_takeover=True)  # expired long ago
    refuse_if_leased(folder)


# waiting


class Waiting:
    """A driver that waits, a clock that its pauses advance, and other drivers that act meanwhile.

    Args:
        actions: calls to make once the clock has advanced by so many seconds.
    """

    def __init__(self, clock: Clock, actions: dict[float, Callable[[], object]]) -> None:
        self.clock = clock
        self.started_s = clock.time_s
        self.actions = dict(actions)
        self.lines: list[str] = []

    @property
    def waited_s(self) -> float:
        return self.clock.time_s - self.started_s

    def pause(self, seconds: float) -> None:
        assert 0 < seconds <= MAX_WAIT_S
        self.clock.time_s += seconds
        for moment_s in [moment_s for moment_s in self.actions if moment_s <= self.waited_s]:
            self.actions.pop(moment_s)()


def test_a_free_output_is_not_waited_for(clock: Clock) -> None:
    store, waiting = MemoryStore(clock), Waiting(clock, {})
    assert not wait_until_free(store, waiting.lines.append, pause=waiting.pause)
    take(store, "one", clock).release()
    assert not wait_until_free(store, waiting.lines.append, pause=waiting.pause)
    assert (waiting.waited_s, waiting.lines) == (0.0, [])


def test_a_driver_that_died_is_waited_for_until_its_lease_expires(clock: Clock) -> None:
    store = MemoryStore(clock)
    owner = take(store, "one", clock).taken.owner
    clock.time_s += 2
    waiting = Waiting(clock, {})
    assert wait_until_free(store, waiting.lines.append, pause=waiting.pause)
    assert DURATION_S - 2 <= waiting.waited_s < DURATION_S
    (line,) = waiting.lines
    assert line == (
        f"waiting for {store.uri}, which another driver holds: run one on {owner.host} (process "
        f"{owner.pid}), since 2026-01-31T12:00:00.000Z; it is free when that driver ends or, if it "
        "is dead, in 58 s"
    )
    assert take(store, "two", clock).epoch == 2


def test_a_driver_at_work_is_waited_for_until_it_ends_and_named_once(clock: Clock) -> None:
    store = MemoryStore(clock)
    lease = take(store, "one", clock)
    renewals = dict.fromkeys((20.0, 40.0, 60.0, 80.0), lease.renew)
    waiting = Waiting(clock, {**renewals, 90.0: lease.release})
    assert wait_until_free(store, waiting.lines.append, pause=waiting.pause)
    assert 90 <= waiting.waited_s <= 90 + MAX_WAIT_S
    assert len(waiting.lines) == 1


def test_each_driver_that_is_waited_for_is_named(clock: Clock) -> None:
    store = MemoryStore(clock)
    lease = take(store, "one", clock)

    def replace_driver() -> None:
        lease.release()
        take(store, "two", clock)

    waiting = Waiting(clock, {7.0: replace_driver})
    assert wait_until_free(store, waiting.lines.append, pause=waiting.pause)
    first, second = waiting.lines
    assert "holds: run one on" in first
    assert "holds: run two on" in second


def test_a_wait_with_a_limit_ends_in_a_refusal_that_names_the_driver(clock: Clock) -> None:
    store = MemoryStore(clock)
    lease = take(store, "one", clock)
    waiting = Waiting(clock, dict.fromkeys((20.0, 40.0, 60.0, 80.0), lease.renew))
    with pytest.raises(LeaseHeldError, match="still leased by another driver after .*: run one on"):
        wait_until_free(store, waiting.lines.append, 70.0, waiting.pause)
    assert waiting.waited_s == 70
    assert len(waiting.lines) == 1


def test_a_wait_with_a_limit_takes_an_output_that_becomes_free_before(clock: Clock) -> None:
    store = MemoryStore(clock)
    lease = take(store, "one", clock)
    waiting = Waiting(clock, {20.0: lease.release})
    assert wait_until_free(store, waiting.lines.append, 30.0, waiting.pause)


@pytest.mark.parametrize("epoch", [7, LAST_EPOCH])
def test_a_lease_that_never_expires_is_refused_and_not_waited_for(epoch: int, clock: Clock) -> None:
    store, waiting = MemoryStore(clock), Waiting(clock, {})
    store.put(lease_key(epoch), b"{}", TEXT)
    with pytest.raises(LeaseUnusableError):
        wait_until_free(store, waiting.lines.append, pause=waiting.pause)


def test_an_unknown_field_in_a_lease_is_refused(folder: Store, clock: Clock) -> None:
    lease = take(folder, "one", clock)
    with pytest.raises(RecordError, match="unknown fields: 'more'"):
        LeaseRecord.from_json(lease.taken.to_json().replace(b'"run_id"', b'"more": 1, "run_id"'))


@pytest.mark.parametrize("error_s", [-86_400.0, 86_400.0])
def test_a_wrong_clock_of_the_machine_takes_no_live_lease_and_keeps_no_dead_one(
    store: Store, error_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_s = time.time() + error_s
    with monkeypatch.context() as machine:
        machine.setattr(time, "time", lambda: wrong_s)
        owner = Lease.take(store, "one", DURATION_S)
        with pytest.raises(LeaseHeldError, match="run one"):
            Lease.take(store, "two", DURATION_S)
        with pytest.raises(LeaseHeldError, match="run one"):
            refuse_if_leased(store)
    with pytest.raises(LeaseHeldError, match="run one"):
        Lease.take(store, "two", DURATION_S)
    owner.renew()
    expired = replace(owner, duration_s=-1.0)
    expired.renew()
    assert Lease.take(store, "two", DURATION_S).epoch == 2


# numbers that another program wrote


@pytest.mark.parametrize("content", [b"{}", b"a released lease"])
def test_the_last_number_lets_no_driver_in_and_its_removal_lets_one_in(
    store: Store, clock: Clock, content: bytes
) -> None:
    if content != b"{}":
        take(store, "one", clock).release()
        content = store.get(lease_key(1))
    store.put(lease_key(LAST_EPOCH), content, TEXT)
    before = leases(store)
    for is_takeover in (False, True):
        with pytest.raises(
            LeaseUnusableError, match=r"lease/9999999999\.json has the last .*: remove that object$"
        ):
            take(store, "two", clock, is_takeover=is_takeover)
    with pytest.raises(LeaseUnusableError, match="remove that object"):
        refuse_if_leased(store)
    assert leases(store) == before
    store.delete(lease_key(LAST_EPOCH))
    first = take(store, "two", clock)
    with pytest.raises(LeaseHeldError, match="run two"):
        take(store, "three", clock)
    first.renew()


def test_beside_the_last_but_one_number_only_one_driver_holds_the_output(
    folder: Store, clock: Clock
) -> None:
    folder.put(lease_key(LAST_EPOCH - 1), b"{}", TEXT)
    holder = take(folder, "one", clock, is_takeover=True)
    assert holder.epoch == LAST_EPOCH
    for is_takeover in (False, True):
        with pytest.raises(LeaseUnusableError, match="remove that object"):
            take(folder, "two", clock, is_takeover=is_takeover)
    holder.renew()


def test_a_driver_at_work_stops_when_the_last_number_appears(folder: Store, clock: Clock) -> None:
    holder = take(folder, "one", clock)
    folder.put(lease_key(LAST_EPOCH), b"{}", TEXT)
    with pytest.raises(LeaseLostError):
        holder.renew()


def test_a_number_that_no_driver_counts_from_is_foreign(folder: Store, clock: Clock) -> None:
    folder.put("lease/0000000000.json", b"{}", TEXT)
    lease = take(folder, "one", clock)
    assert lease.epoch == 1
    lease.renew()
    for number in (0, -1, LAST_EPOCH + 1):
        with pytest.raises(RecordError, match="number of a lease"):
            lease_key(number)


# keeping


def test_the_keeper_renews_by_itself_and_releases_at_the_end(store: Store) -> None:
    lease = Lease.take(store, "one", 0.6)
    renewed = threading.Event()
    turns: list[str] = []

    def on_tick() -> None:
        found = current_lease(store)
        assert found is not None
        turns.append(found.renewed_at)
        if len(set(turns)) == 3:
            renewed.set()

    with LeaseKeeper(lease, on_tick) as keeper:
        assert renewed.wait(DEADLINE_S)
        keeper.check()
    found = current_lease(store)
    assert found is not None
    assert found.is_released
    assert Lease.take(store, "two", DURATION_S).epoch == 2


def test_a_driver_that_may_be_killed_keeps_its_lease_in_short_steps(folder: Store) -> None:
    seen = threading.Semaphore(0)
    with LeaseKeeper(Lease.take(folder, "one", 3000.0), seen.release) as keeper:
        assert seen.acquire(timeout=DEADLINE_S)  # the thread runs, and waits for 1000 s
        keeper.shorten()
        keeper.shorten()
        assert seen.acquire(timeout=DEADLINE_S)
        found = current_lease(folder)
        assert found is not None
        assert found.is_alive(folder.now())
        assert not found.is_alive(folder.now() + SHORT_S)
        assert seen.acquire(timeout=DEADLINE_S), "it is renewed more often, too"
    found = current_lease(folder)
    assert found is not None
    assert found.is_released


def test_the_keeper_remembers_a_loss_and_writes_no_more(folder: Store, clock: Clock) -> None:
    keeper = LeaseKeeper(take(folder, "one", clock))
    other = take(folder, "two", clock, is_takeover=True)
    keeper.tick()
    with pytest.raises(LeaseLostError, match="another driver has taken this output: run two"):
        keeper.check()
    other.renew()
    keeper.tick()
    assert leases(folder) == [lease_key(2)], "a loser writes no more"


def test_a_loss_is_seen_by_the_driver_while_the_keeper_runs(folder: Store) -> None:
    seen = threading.Event()
    keeper = LeaseKeeper(
        Lease.take(folder, "one", 0.3), lambda: seen.set() if keeper.is_lost else None
    )
    with keeper:
        Lease.take(folder, "two", DURATION_S, is_takeover=True)
        assert seen.wait(DEADLINE_S), "on_tick is called after a loss too"
    found = current_lease(folder)
    assert found is not None
    assert (found.run_id, found.is_released) == ("two", False)


def test_a_store_error_does_not_lose_the_lease(
    troubled: TroubledStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = LeaseKeeper(take(troubled, "one", clock))
    monkeypatch.setattr(TroubledStore, "is_down", True)
    clock.time_s += 2 * DURATION_S
    keeper.tick()
    keeper.check()
    assert keeper.trouble == "no answer from the endpoint"
    monkeypatch.setattr(TroubledStore, "is_down", False)
    keeper.tick()
    assert keeper.trouble is None
    with pytest.raises(LeaseHeldError, match="run one"):
        take(troubled, "two", clock)


def test_an_error_of_on_tick_does_not_stop_the_renewals(folder: Store, clock: Clock) -> None:
    def on_tick() -> None:
        raise StoreUnavailableError("cannot write the status")

    keeper = LeaseKeeper(take(folder, "one", clock), on_tick)
    clock.time_s += DURATION_S - 1
    keeper.tick()
    assert keeper.trouble == "cannot write the status"
    found = current_lease(folder)
    assert found is not None
    assert found.is_alive(clock() + DURATION_S - 1)


def test_a_store_that_is_down_at_the_end_breaks_nothing(
    troubled: TroubledStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LeaseKeeper(take(troubled, "one", clock)) as keeper:
        monkeypatch.setattr(TroubledStore, "is_down", True)
    assert keeper.trouble == "no answer from the endpoint"
    monkeypatch.setattr(TroubledStore, "is_down", False)
    assert take(troubled, "two", lambda: clock() + DURATION_S).epoch == 2


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit])
def test_the_death_of_the_keepers_thread_is_seen_by_the_driver(
    folder: Store,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[BaseException],
) -> None:
    def on_tick() -> None:
        raise kind("in the thread")

    tracebacks: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: tracebacks.append(args.exc_type))
    with LeaseKeeper(take(folder, "one", clock), on_tick) as keeper:
        keeper._thread.join(DEADLINE_S)
        with pytest.raises(
            SideThreadError, match=f"the lease thread died: {kind.__name__}: in the thread"
        ):
            keeper.check()
    assert tracebacks == [kind]


def test_a_store_that_does_not_answer_at_the_end_delays_it_by_a_bounded_time(
    folder: Store, clock: Clock
) -> None:
    is_stuck, may_answer = threading.Event(), threading.Event()

    def on_tick() -> None:
        is_stuck.set()
        may_answer.wait(DEADLINE_S)

    started = time.monotonic()
    with LeaseKeeper(take(folder, "one", clock), on_tick) as keeper:
        assert is_stuck.wait(DEADLINE_S)
        keeper.end_s = 0.1
    assert time.monotonic() - started < DEADLINE_S / 2
    assert keeper.trouble == "the store did not answer within 0.1 s"
    may_answer.set()
    keeper._thread.join(DEADLINE_S)
    found = current_lease(folder)
    assert found is not None
    assert found.is_released, "the thread goes on while the driver ends"


def test_a_signal_during_the_end_does_not_keep_the_last_status_from_the_store(
    folder: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second Ctrl-C raises in the driver's thread wherever that is, here while it waits."""
    written = threading.Event()

    def interrupted(timeout: float | None = None) -> None:
        raise StoppedError("by SIGINT")

    keeper = LeaseKeeper(take(folder, "one", clock), written.set)
    join = keeper._thread.join
    monkeypatch.setattr(keeper._thread, "join", interrupted)
    keeper.__enter__()
    assert written.wait(DEADLINE_S)
    written.clear()
    with pytest.raises(StoppedError):
        keeper.__exit__(None, None, None)
    join(DEADLINE_S)
    assert written.is_set()
    found = current_lease(folder)
    assert found is not None
    assert found.is_released
