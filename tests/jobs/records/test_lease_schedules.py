"""The lease under random schedules of several drivers.

Each driver stops before every operation on the store.

The last test plants a mistake in the lease and shows that the same schedules find it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Self, cast

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from jobs.errors import LeaseHeldError, LeaseLostError, StoreUnavailableError
from jobs.records.commit import JSON
from jobs.records.keys import lease_key, parse_key
from jobs.records.lease import Clock, Lease
from jobs.records.lease_record import LeaseRecord
from jobs.store.store import Store
from tests.fakes.stepping import Fault, Program, SteppingStore

DURATION_S = 60.0
NUM_DRIVERS = 3
OPERATIONS = (1, 2, 100)  # before this driver stops and another goes on
WAITS_S = (1.0, 20.0, DURATION_S)
BY_THE_STORE = (None,) * NUM_DRIVERS
Schedule = list[tuple[int, str, int]]  # driver, command, amount
CALM = (*["go"] * 8, "release", "release", "wait", "wait", "fail", "lose", "repeat", "crash")
SCHEDULES = settings(max_examples=400, derandomize=True)
# the same few contents are looked at after every operation
read_lease = cache(LeaseRecord.from_json)


@dataclass
class World:
    """The state that the drivers share, and the facts that the tests check."""

    objects: dict[str, bytes] = field(default_factory=dict[str, bytes])
    time_s: float = 1_000_000.0
    taken: list[int] = field(
        default_factory=list[int]
    )  # numbers that a driver holds, by its own view
    lapsed: set[str] = field(default_factory=set[str])  # runs whose lease was over at some moment
    lost: set[str] = field(default_factory=set[str])
    highest: int = 0

    def epochs(self) -> list[int]:
        return [parsed.epoch for key in self.objects if (parsed := parse_key(key))]

    def look(self) -> None:
        """Check the invariants after every single operation."""
        highest = max(self.epochs(), default=0)
        assert highest >= self.highest, "the highest number is never removed"
        self.highest = highest
        assert len(set(self.taken)) == len(self.taken), "a number has had two holders"
        for content in self.objects.values():
            record = read_lease(content)
            if not record.is_alive(self.time_s):
                self.lapsed.add(record.run_id)


class Driver:
    """One place from which drivers are started, one after the other.

    Args:
        skew_s: the error of the clock by which it judges leases; None for the store's clock.
    """

    def __init__(self, world: World, name: str, skew_s: float | None, kind: type[Lease]) -> None:
        self.world = world
        self.kind = kind
        self.failures: list[AssertionError] = []
        self.name = name
        self.skew_s = skew_s
        self.num_started = 0
        self.lease: Lease | None = None
        self.program = Program()
        self.store = SteppingStore(world.objects, self.program, lambda: world.time_s)

    @property
    def now(self) -> Clock | None:
        skew_s = self.skew_s
        return None if skew_s is None else lambda: self.world.time_s + skew_s

    def take(self, *, is_takeover: bool) -> None:
        self.num_started += 1
        run_id = f"{self.name}-{self.num_started}"
        try:
            self.lease = self.kind.take(
                self.store, run_id, DURATION_S, is_takeover=is_takeover, now=self.now
            )
        except (LeaseHeldError, StoreUnavailableError):
            return
        self.world.taken.append(self.lease.epoch)

    def renew(self) -> None:
        assert self.lease is not None
        is_lost = max(self.world.epochs()) > self.lease.epoch
        try:
            self.lease.renew()
        except LeaseLostError:
            assert max(self.world.epochs()) > self.lease.epoch
            self.world.lost.add(self.lease.taken.run_id)
            self.lease = None
        except StoreUnavailableError:
            return
        else:
            assert not is_lost, "a loser has not noticed"

    def release(self) -> None:
        assert self.lease is not None
        lease, self.lease = self.lease, None
        try:
            lease.release()
        except StoreUnavailableError:
            return

    def perform(self, command: str, num_operations: int) -> None:
        """Begin a command, unless one is running, and let so many operations happen."""
        fault: Fault = cast("Fault", command) if command in ("fail", "lose", "repeat") else "none"
        if command == "crash":
            self.lease = None
            if self.program.is_running:
                self.program.crash()
            return
        if not self.program.is_running:
            self.program.start(lambda: self.watched(self.chosen(command)))
        for _ in range(num_operations):
            if self.program.is_running:
                self.program.step(fault)
                self.world.look()
            fault = "none"

    def chosen(self, command: str) -> Callable[[], None]:
        if self.lease is None:
            return lambda: self.take(is_takeover=command == "takeover")
        return self.release if command == "release" else self.renew

    def watched(self, action: Callable[[], None]) -> None:
        """Keep an assertion that fails in a thread, for the test's thread to raise."""
        try:
            action()
        except AssertionError as error:
            self.failures.append(error)


def play(
    schedule: Schedule, skews_s: Sequence[float | None] = BY_THE_STORE, kind: type[Lease] = Lease
) -> World:
    world = World()
    drivers = [
        Driver(world, f"driver{number}", skew_s, kind) for number, skew_s in enumerate(skews_s)
    ]
    try:
        for number, command, amount in schedule:
            if command == "wait":
                world.time_s += WAITS_S[amount]
                world.look()
            else:
                drivers[number].perform(command, OPERATIONS[amount])
    finally:
        for driver in drivers:
            while driver.program.is_running:
                driver.program.crash()
    for driver in drivers:
        for failure in driver.failures:
            raise failure
    return world


def schedules(commands: tuple[str, ...]) -> st.SearchStrategy[Schedule]:
    one = st.tuples(
        st.integers(0, NUM_DRIVERS - 1), st.sampled_from(commands), st.integers(0, len(WAITS_S) - 1)
    )
    return st.lists(one, min_size=6, max_size=40)


skewed_clocks = st.lists(st.sampled_from([0.0, -200.0, -30.0, 30.0, 200.0]), min_size=3, max_size=3)


@SCHEDULES
@given(schedules((*CALM, "takeover", "takeover")), skewed_clocks)
def test_no_number_has_two_holders_and_every_loser_notices(
    schedule: Schedule, skews_s: list[float]
) -> None:
    play(schedule, skews_s)


@SCHEDULES
@given(schedules(CALM))
def test_by_the_stores_clock_no_live_lease_is_taken_without_a_takeover(schedule: Schedule) -> None:
    world = play(schedule)
    assert world.lost <= world.lapsed


class WithoutSecondLook(Lease):
    """Holds what it has written, though it may have slept in between."""

    def _write(self, record: LeaseRecord) -> None:
        super()._write(record)
        object.__setattr__(self, "is_new", record is self.taken)  # and not a renewal

    def _highest_above(self) -> int:
        return 0 if self.__dict__["is_new"] else super()._highest_above()


class WithoutTheCondition(Lease):
    """Writes over what is there."""

    def _is_created(self) -> bool:
        self.store.put(lease_key(self.epoch), self.taken.to_json(), JSON)
        return True


class OursIfItExists(Lease):
    """Takes any object under its number for its own."""

    def _is_created(self) -> bool:
        return super()._is_created() or self.store.exists(lease_key(self.epoch))


class RemovedAtRelease(Lease):
    """Removes the highest number."""

    def release(self) -> None:
        self.store.delete(lease_key(self.epoch))


class WithoutLooking(Lease):
    """Renews without looking for a higher number."""

    def renew(self) -> None:
        self._write(self.taken)


class RemovesAll(Lease):
    """Removes higher numbers too."""

    def _remove_lower(self) -> None:
        for key in list(self.store.keys("lease/")):
            if key != lease_key(self.epoch):
                self.store.delete(key)


class AlwaysTakesOver(Lease):
    """Takes live leases unasked."""

    @classmethod
    def take(
        cls,
        store: Store,
        run_id: str,
        duration_s: float,
        is_takeover: bool = False,
        now: Clock | None = None,
    ) -> Self:
        return super().take(store, run_id, duration_s, is_takeover=True, now=now)


MISTAKES = [
    WithoutSecondLook, WithoutTheCondition, OursIfItExists, RemovedAtRelease, WithoutLooking,
    RemovesAll, AlwaysTakesOver,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(mistake: type[Lease]) -> None:
    @settings(SCHEDULES, max_examples=8000, phases=[Phase.generate], report_multiple_bugs=False)
    @given(schedules(CALM))
    def look_for_it(schedule: Schedule) -> None:
        world = play(schedule, kind=mistake)
        assert world.lost <= world.lapsed

    with pytest.raises(AssertionError):
        look_for_it()
