"""The commit, under any interleaving of its steps.

The real `upload_clip`, `commit_record` and `write_quarantine` run one store operation at a time, in
an order that Hypothesis draws. Several attempts at the same clips take part, some with the same
bytes and some with others; drivers that resume from a listing; a driver that quarantines clips; and
the real search for garbage, with its removal. Each of them may crash, get no answer or a false one,
or go on hours later; the clocks of the machines are set wrong, and not the store's. After every
step the test checks the promises of the records.

In a second kind of world, another program removes MP4s that no record names, however young. Then a
record may lose its MP4 before its writer looks at it, and the writers that go on must mend it.

A writer is a plain function that runs from its beginning for every step. The journal answers the
operations that it has done, the next operation is done, and the one after that stops it. A writer's
look at its clock is journalled too.
"""

import functools
import hashlib
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jobs.records.commit
import jobs.records.schema
from jobs.errors import ObjectExistsError, StoreError, StoreUnavailableError
from jobs.records.commit import (
    COMMIT_WITHIN_S,
    UploadedClip,
    commit_record,
    committed_ids,
    is_intact,
    lift_quarantine,
    quarantined_ids,
    upload_clip,
    write_quarantine,
)
from jobs.records.damage import find_damaged, without_mp4
from jobs.records.keys import PREFIXES, clip_key, record_key
from jobs.records.schema import ClipRecord, QuarantineRecord
from jobs.store.store import Store
from jobs.store.uri import StoredObject, is_listed
from jobs.upkeep.garbage import Garbage, find_garbage, remove_garbage
from tests.builders import records as builders
from tests.fakes.store import MemoryObject, MemoryStore, Trouble

CLIPS = ("a" * 32, "b" * 32)
BODIES = (b"one", b"two", b"one")  # one for each writer of a clip: two render the same bytes
RESUMED = 2  # the writer that a driver starts after listing what is done
SPARED_S = 24 * 3600.0  # younger MP4s are not removed
IN_FLIGHT_S = (
    SPARED_S - COMMIT_WITHIN_S - 1
)  # a request in flight for longer never arrives; S3 allows 15 min


CLOCK_ERROR_S = 2 * 24 * 3600.0
MAX_OPERATIONS = 16  # a program that nothing disturbs needs fewer

RECORD_KEYS = {clip_id: record_key(clip_id) for clip_id in CLIPS}
NOTHING = MemoryObject(b"", 0.0)


class BrokenPromiseError(AssertionError):
    """An invariant does not hold."""


class NotYetError(BaseException):
    """The writer has done what it may for now: nothing may catch it."""


@dataclass(frozen=True)
class PreparedRecord(ClipRecord):
    """A record whose JSON is made once, because it would dominate the time of the schedules."""

    def to_json(self) -> bytes:
        if "json" not in self.__dict__:
            self.__dict__["json"] = super().to_json()
        return self.__dict__["json"]


@pytest.fixture(autouse=True, scope="module")
def _records_are_read_once() -> Iterator[None]:
    """Each JSON is read once, for the same reason. A record that is read is never changed."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in (ClipRecord, QuarantineRecord):
            patch.setattr(kind, "from_json", functools.cache(kind.from_json))
        yield


def record_of(clip_id: str, number: int) -> ClipRecord:
    record = builders.record_of(MemoryStore(), BODIES[number], clip_id)
    return PreparedRecord(**vars(replace(record, attempt=number + 1)))


@dataclass(frozen=True)
class PreparedQuarantine(QuarantineRecord):
    """As `PreparedRecord`."""

    def to_json(self) -> bytes:
        if "json" not in self.__dict__:
            self.__dict__["json"] = super().to_json()
        return self.__dict__["json"]


def quarantine_of(clip_id: str) -> QuarantineRecord:
    return PreparedQuarantine(**vars(builders.quarantine_of(clip_id)))


QUARANTINES = {clip_id: quarantine_of(clip_id) for clip_id in CLIPS}


# the protocol, and what a writer does with it


@dataclass(frozen=True)
class Protocol:
    """The functions under test, of which a planted bug replaces one."""

    upload: Callable[..., UploadedClip] = upload_clip
    commit: Callable[..., bool] = commit_record
    key: Callable[[str, str], str] = clip_key
    record_first: bool = False
    believes: tuple[str, ...] = ()  # keys for which a false answer is taken at its word
    spared_s: float = SPARED_S
    looks_twice: bool = True  # before an MP4 is removed
    ages_by_machine: bool = False  # garbage ages by a clock that is set wrong
    uploads_by_machine: bool = False  # an upload ages by the same clock


@dataclass
class Operation:
    """One that a writer asked for: how to do it, and until when it can arrive."""

    expires_at: float
    do: Callable[[], Any]


@dataclass
class JournalledStore:
    """One writer's view of the store: the journal answers past operations, one more is done."""

    inner: MemoryStore
    clock: Callable[[], float]
    uploaded: set[str] = field(default_factory=set[str])
    journal: list[Any] = field(default_factory=list[Any])
    position: int = 0
    waiting: Operation | None = None

    @property
    def uri(self) -> str:
        return self.inner.uri

    def uri_of(self, key: str) -> str:
        return self.inner.uri_of(key)

    def put(
        self, key: str, body: bytes | Path, content_type: str, sha256: bytes | None = None
    ) -> None:
        def write() -> None:
            before = self.inner.objects.get(key)
            try:
                self.inner.put(key, body, content_type)
            finally:  # an answer that is lost leaves the object there
                if self.inner.objects.get(key) is not before:
                    self.uploaded.add(key)

        self._step(write)

    def put_if_absent(self, key: str, body: bytes, content_type: str) -> None:
        self._step(lambda: self.inner.put_if_absent(key, body, content_type))

    def get(self, key: str) -> bytes:
        return self._step(lambda: self.inner.get(key))

    def chunks(self, key: str) -> Iterator[bytes]:
        return iter([self.get(key)])

    def exists(self, key: str) -> bool:
        return self._step(lambda: self.inner.exists(key))

    def holds(self, key: str, num_bytes: int) -> bool:
        return is_listed(self.entries(key), key, num_bytes)

    def delete(self, key: str) -> None:
        self._step(lambda: self.inner.delete(key))

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        return iter(self._step(lambda: list(self.inner.entries(prefix))))

    def keys(self, prefix: str) -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def check_access(self) -> None:
        self._step(self.inner.check_access)

    def pause(self) -> None:
        """A point where a process may stop for any time: a paused container, a sleeping machine."""
        self._step(lambda: None, math.inf)

    def now(self) -> float:
        return self._step(self.inner.now)

    def uptime(self) -> float:
        """The time at which the writer came here first: a writer reads it and goes on at once."""
        if self.position == len(self.journal):
            self.journal.append(self.clock())
        self.position += 1
        return self.journal[self.position - 1]

    def _step(self, do: Callable[[], Any], limit_s: float = IN_FLIGHT_S) -> Any:
        if self.position == len(self.journal):
            self.waiting = Operation(self.inner.now() + limit_s, do)
            raise NotYetError
        self.position += 1
        answer = self.journal[self.position - 1]
        if isinstance(answer, StoreError):
            raise answer
        return answer


Program = Callable[[JournalledStore], Any]


@dataclass
class Writer:
    """A process that carries out a program until it knows the outcome, fails, or dies."""

    program: Program
    store: JournalledStore
    is_dead: bool = False
    told: Any = None
    outcome: str = ""  # "told" or "failed"; empty while it runs

    def __post_init__(self) -> None:
        self.go_on()

    def go_on(self) -> None:
        """Runs up to the next operation, or to the end."""
        self.store.position = 0
        try:
            self.told = self.program(self.store)
        except NotYetError:
            return
        except StoreError:
            self.outcome = "failed"
        else:
            self.outcome = "told"

    def restart(self) -> None:
        """Another attempt, or the same one after a failure: from the upload again."""
        self.store = JournalledStore(self.store.inner, self.store.clock, self.store.uploaded)
        self.is_dead, self.told, self.outcome = False, None, ""
        self.go_on()


@dataclass(frozen=True)
class Cast:
    """The records that the writers would commit, and their JSON, by clip and writer."""

    records: dict[tuple[str, int], ClipRecord]
    contents: dict[tuple[str, int], bytes]

    @classmethod
    def make(cls) -> Self:
        records = {
            (clip_id, number): record_of(clip_id, number)
            for clip_id in CLIPS
            for number in range(len(BODIES))
        }
        return cls(records, {key: record.to_json() for key, record in records.items()})


@dataclass
class World:
    """A store, all who write to it, and the clocks.

    Args:
        has_strangers: another program removes MP4s that no record names.
        clock_s: the store's clock, which is never set.
        error_s: the error of the clocks of all machines.
    """

    protocol: Protocol
    cast: Cast
    has_strangers: bool = False
    clock_s: float = 0.0
    error_s: float = 0.0
    seen: dict[str, bytes] = field(
        default_factory=dict[str, bytes]
    )  # records, as they were first seen
    in_flight: deque[Operation] = field(default_factory=deque[Operation])
    doomed: deque[Garbage] = field(default_factory=deque[Garbage])
    verified: dict[str, tuple[MemoryObject, MemoryObject]] = field(default_factory=dict[str, Any])
    bare: set[bytes] = field(default_factory=set[bytes])  # records that lost their MP4 at some time
    replaced: set[str] = field(default_factory=set[str])  # clips whose record did not stand
    happened: Counter[str] = field(default_factory=Counter[str])

    def __post_init__(self) -> None:
        self.store = MemoryStore(clock=lambda: self.clock_s, believes=self.protocol.believes)
        self.by_content = {content: writer for writer, content in self.cast.contents.items()}
        self.writers = {
            key: Writer(self.render(record, resumes=key[1] == RESUMED), self.journalled())
            for key, record in self.cast.records.items()
        }
        self.untold = set(self.writers)
        self.giver_up = Writer(self.give_up, self.journalled())

    def journalled(self) -> JournalledStore:
        clock = self.machine_clock if self.protocol.uploads_by_machine else self.uptime
        return JournalledStore(self.store, clock)

    def machine_clock(self) -> float:
        return self.clock_s + self.error_s

    def uptime(self) -> float:
        return self.clock_s - 1e6  # it begins anywhere and is never set

    # programs

    def render(self, record: ClipRecord, *, resumes: bool) -> Program:
        body = BODIES[record.attempt - 1]

        def program(store: JournalledStore) -> bool | None:
            """Return True if the record is its own, None if a listing showed a record before."""
            if resumes and record.clip_id in committed_ids(store):
                return None
            if self.protocol.record_first:
                early = UploadedClip(
                    record.clip_id,
                    record.uri,
                    record.key,
                    record.sha256,
                    len(body),
                    store.uptime(),
                    body,
                )
                told = self.protocol.commit(store, early, record, store.uptime)
                store.pause()
                self.protocol.upload(store, record.clip_id, body, store.uptime)
                return told
            clip = self.protocol.upload(store, record.clip_id, body, store.uptime)
            store.pause()
            return self.protocol.commit(store, clip, record, store.uptime)

        return program

    def give_up(self, store: JournalledStore) -> None:
        for clip_id in CLIPS:
            write_quarantine(store, QUARANTINES[clip_id])

    # steps

    def act(self, writer: Writer, fate: str) -> bool:
        """Do one operation of one writer, with its fate; return False if the writer has ended."""
        if writer.is_dead or writer.outcome == "failed":
            writer.restart()
        operation = writer.store.waiting
        if operation is None:
            return False
        if operation.expires_at == math.inf and "crash" not in fate:
            fate = "well"  # a pause has no answer that could be lost
        self.happened[fate] += 1
        if self.clock_s > operation.expires_at or fate == "crash":
            writer.is_dead = True
            return True
        if fate == "in flight":  # the client stops waiting, and its request arrives later
            self.in_flight.append(operation)
            answer: Any = StoreUnavailableError("no answer")
        else:
            answer = self.do(operation, fate)
        if fate == "sent again":  # the client has no answer, and sends it again when it is next
            return True
        writer.is_dead = fate == "crash after"
        writer.store.waiting = None
        writer.store.journal.append(answer)
        if not writer.is_dead:
            writer.go_on()
        return True

    def do(self, operation: Operation, fate: str) -> Any:
        """Do a writer's operation and return its answer, or the error in place of one."""
        self.store.troubles.append(TROUBLES.get(fate))
        try:
            return operation.do()
        except StoreError as error:
            return error
        finally:
            self.store.troubles.clear()

    def deliver(self) -> None:
        if self.in_flight:
            operation = self.in_flight.popleft()
            if self.clock_s <= operation.expires_at:
                self.happened["late arrival"] += 1
                self.do(operation, "well")

    def find_garbage(self) -> None:
        self.doomed = deque(find_garbage(self.seen_by_gc(), self.protocol.spared_s))

    def seen_by_gc(self) -> MemoryStore:
        if not self.protocol.ages_by_machine:
            return self.store
        return replace(self.store, clock=self.machine_clock)

    def remove(self) -> None:
        """Remove a piece of garbage after a second look.

        The lease keeps other drivers from writing between that look and the removal.
        """
        if not self.doomed:
            return
        one = self.doomed.popleft()
        if not self.protocol.looks_twice:
            self.store.delete(one.stored.key)
            return
        removed = remove_garbage(self.seen_by_gc(), [one], self.protocol.spared_s, lambda: None)
        self.happened["removal" if removed.num_removed else "removal spared"] += 1

    def sleep(self, duration_s: float) -> None:
        self.clock_s += duration_s
        waiting = [writer.store.waiting for writer in self.writers.values() if not writer.is_dead]
        self.happened["standing still"] += sum(
            each is not None and each.expires_at == math.inf for each in waiting
        )

    def set_clocks(self) -> None:
        """Set the machines' clocks: two days ahead, and back again."""
        self.error_s = 0.0 if self.error_s else CLOCK_ERROR_S
        self.happened["clock set"] += 1

    def meddle(self) -> None:
        """Remove all MP4s that no record names, as another program does."""
        if not self.has_strangers:
            return
        named = {
            self.cast.records[self.by_content[self.store.objects[place].body]].key
            for place in RECORD_KEYS.values()
            if place in self.store.objects
        }
        for key in [key for key in self.store.objects if key.startswith(PREFIXES["clip"])]:
            if key not in named:
                del self.store.objects[key]
                self.happened["meddling"] += 1

    def lift(self) -> None:
        for clip_id in quarantined_ids(self.store):
            self.happened["quarantine"] += 1
            lift_quarantine(self.store, clip_id)

    # invariants

    def check(self) -> None:
        for clip_id, place in RECORD_KEYS.items():
            found = self.store.objects.get(place)
            if found is None:
                self.expect(clip_id not in self.seen, "a committed clip stays committed")
                continue
            content = found.body
            before = self.seen.setdefault(clip_id, content)
            if before != content:
                self.expect(before in self.bare, UNCHANGED)
                self.seen[clip_id] = content
                self.replaced.add(clip_id)
            self.expect(content in self.by_content, "a record is what one writer wrote")
            writer = self.by_content[content]
            record = self.cast.records[writer]
            clip = self.store.objects.get(record.key, NOTHING)
            if self.has_strangers and clip is NOTHING:
                self.bare.add(content)
                self.verified.pop(clip_id, None)
                continue
            if self.verified.get(clip_id) == (found, clip):
                continue
            self.expect(record.key in self.writers[writer].store.uploaded, OWN_UPLOAD)
            self.expect(hashlib.sha256(clip.body).hexdigest() == record.sha256, RIGHT_DIGEST)
            self.verified[clip_id] = (found, clip)
        for key in tuple(self.untold):
            if self.writers[key].outcome != "told":
                continue
            self.untold.remove(key)
            told, record = self.writers[key].told, self.seen.get(key[0])
            self.expect(record is not None, FINDS_RECORD)
            is_own = record == self.cast.contents[key]
            if told and is_own:
                self.expect(self.cast.records[key].key in self.store.objects, LEFT_WHOLE)
            if key[0] not in self.replaced:
                self.expect(told is None or told == is_own, TOLD_RIGHT)

    def expect(self, holds: bool, promise: str) -> None:
        if not holds:
            raise BrokenPromiseError(promise)

    def finish(self) -> None:
        """Let every writer try again undisturbed until it has an outcome; restart dead writers."""
        self.lift()
        for writer in self.writers.values():
            if writer.is_dead:
                writer.restart()
        for _ in range(MAX_OPERATIONS):
            for writer in self.writers.values():
                if writer.outcome != "told" and self.act(writer, "well"):
                    self.check()
        self.expect(
            all(writer.outcome == "told" for writer in self.writers.values()),
            "every writer gets an outcome in the end",
        )
        self.expect(committed_ids(self.store) == set(CLIPS), "every clip is committed in the end")

    def repair(self, number: int) -> None:
        """Let a driver plan, and one writer of each clip that is missing render it, undisturbed."""
        self.lift()
        committed = committed_ids(self.store)
        damaged = set(find_damaged(self.store))
        self.expect(
            without_mp4(self.store, committed) <= damaged, "a reader of records misses no clip"
        )
        self.happened["repair"] += len(damaged)
        for clip_id in {*CLIPS} - (committed - damaged):
            writer = self.writers[(clip_id, number)]
            writer.restart()
            for _ in range(MAX_OPERATIONS):
                self.act(writer, "well")
                self.check()
        self.expect(committed_ids(self.store) == set(CLIPS), "every clip is committed in the end")
        self.expect(not set(find_damaged(self.store)), REPAIRED)


# schedules

CAST = Cast.make()
TROUBLES: dict[str, Trouble] = {"unavailable": "unavailable", "lost": "lost", "lie": "lie"}
FATES = (
    *["well"] * 7, *["lost"] * 2, *["sent again"] * 2, *["crash after"] * 2, "crash", "unavailable",
    "lie", "in flight",
)  # fmt: skip
SCHEDULES = st.binary(min_size=24, max_size=48)  # a byte for each step: who, and with which fate


def play(schedule: bytes, protocol: Protocol, cast: Cast, *, has_strangers: bool = False) -> World:
    """Runs a schedule and then everybody to the end; among strangers, one repairing driver.

    Raises:
        BrokenPromiseError: an invariant does not hold, after some step or in the end.
    """
    world = World(protocol, cast, has_strangers=has_strangers)
    writers = [*world.writers.values(), world.giver_up]
    others: tuple[Callable[[], None], ...] = (
        world.deliver,
        world.find_garbage,
        world.remove,
        world.lift,
        lambda: world.sleep(0.6 * COMMIT_WITHIN_S),
        lambda: world.sleep(SPARED_S + 1),
        world.set_clocks,
    )
    if has_strangers:  # few take part, so that the schedules reach what is rare
        writers = [world.writers[(CLIPS[0], number)] for number in range(RESUMED)] * 3
        others = (world.deliver, world.meddle, world.meddle, *others[1:3], others[5])
    for byte in schedule:
        fate, who = divmod(byte, len(writers) + len(others))
        if who >= len(writers):
            others[who - len(writers)]()
        elif not world.act(writers[who], FATES[fate % len(FATES)]):
            continue
        world.check()
    if has_strangers:
        world.repair(schedule[0] % RESUMED)
    else:
        world.finish()
    return world


# Each planted bug below is found within 500 schedules; `make slow` draws many more, and new ones.
@settings(max_examples=2_500, deadline=None)
@given(schedule=SCHEDULES)
def test_the_commit_keeps_its_promises_in_any_order_of_steps(schedule: bytes) -> None:
    play(schedule, Protocol(), CAST)


@settings(max_examples=1_000, deadline=None)
@given(schedule=SCHEDULES)
def test_a_clip_is_whole_in_the_end_although_another_program_removes_its_mp4s(
    schedule: bytes,
) -> None:
    play(schedule, Protocol(), CAST, has_strangers=True)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(schedule=SCHEDULES)
def test_the_commit_keeps_its_promises_in_ten_thousand_orders(schedule: bytes) -> None:
    play(schedule, Protocol(), CAST)


@pytest.mark.slow
@settings(max_examples=2_000, deadline=None)
@given(schedule=SCHEDULES)
def test_a_clip_is_whole_in_the_end_in_two_thousand_orders(schedule: bytes) -> None:
    play(schedule, Protocol(), CAST, has_strangers=True)


def test_the_random_schedules_reach_every_event_of_the_protocol() -> None:
    """Otherwise the test above would prove little: some schedule must reach each of these."""
    happened = Counter[str]()
    for schedule in random_schedules(300, 60):
        for has_strangers in (False, True):
            world = play(schedule, Protocol(), CAST, has_strangers=has_strangers)
            happened.update(world.happened)
            happened["replacement"] += len(world.replaced)
            assert has_strangers or not world.bare
    assert set(happened) == {
        *FATES,
        "late arrival",
        "removal",
        "removal spared",
        "standing still",
        "quarantine",
        "clock set",
        "meddling",
        "replacement",
        "repair",
    }
    assert min(happened.values()) > 0


def test_an_upload_that_is_too_old_is_not_committed_and_may_be_made_again() -> None:
    store, record = MemoryStore(), record_of(CLIPS[0], 0)
    clip = upload_clip(store, CLIPS[0], BODIES[0], lambda: 1000.0)
    with pytest.raises(StoreUnavailableError, match="upload it again") as caught:
        commit_record(store, clip, record, lambda: 1001.0 + COMMIT_WITHIN_S)
    assert caught.value.may_pass_on_retry
    assert not committed_ids(store)
    assert commit_record(store, clip, record, lambda: 1000.0 + COMMIT_WITHIN_S)


def test_a_commit_brings_back_the_mp4_that_was_removed_before_its_record() -> None:
    store, record = MemoryStore(), record_of(CLIPS[0], 0)
    clip = upload_clip(store, CLIPS[0], BODIES[0])
    store.delete(clip.key)
    assert commit_record(store, clip, record)
    assert store.get(record.key) == BODIES[0]


def test_an_mp4_that_does_not_stay_is_no_commit_and_costs_the_clip_nothing() -> None:
    class Sieve(MemoryStore):
        def put(
            self, key: str, body: bytes | Path, content_type: str, sha256: bytes | None = None
        ) -> None:
            pass

    store, record = Sieve(), record_of(CLIPS[0], 0)
    clip = upload_clip(store, CLIPS[0], BODIES[0])
    with pytest.raises(StoreUnavailableError, match="although a record names it") as caught:
        commit_record(store, clip, record)
    assert caught.value.may_pass_on_retry


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_record_without_its_mp4_is_mended_by_the_next_commit(number: int) -> None:
    """By the same bytes the record stays; by other bytes it is replaced."""
    store = MemoryStore()
    first = record_of(CLIPS[0], 0)
    assert commit_record(store, upload_clip(store, CLIPS[0], BODIES[0]), first)
    store.delete(first.key)
    again = record_of(CLIPS[0], number)
    is_own = commit_record(store, upload_clip(store, CLIPS[0], BODIES[number]), again)
    stands = ClipRecord.from_json(store.get(record_key(CLIPS[0])))
    assert is_own == (number != 2)
    assert stands.to_json() == (again if number == 1 else first).to_json()
    assert is_intact(store, stands)


# planted bugs, each recognized by the promise that it breaks


def refuse_if_late(clip: UploadedClip, now: Callable[[], float]) -> None:
    """As the real commit does, so that each bug is the only one."""
    if now() - clip.uploaded_at > COMMIT_WITHIN_S:
        raise StoreUnavailableError("upload it again")


def commit_unconditionally(
    store: Store, clip: UploadedClip, record: ClipRecord, now: Callable[[], float]
) -> bool:
    refuse_if_late(clip, now)
    store.put(record_key(record.clip_id), record.to_json(), "application/json")
    return True


def commit_after_a_look(
    store: Store, clip: UploadedClip, record: ClipRecord, now: Callable[[], float]
) -> bool:
    if store.exists(record_key(record.clip_id)):
        return store.get(record_key(record.clip_id)) == record.to_json()
    return commit_unconditionally(store, clip, record, now)


def commit_by_existence(
    store: Store, clip: UploadedClip, record: ClipRecord, now: Callable[[], float]
) -> bool:
    """Takes any existing record for its own, as if only the answer had been lost."""
    commit_record(store, clip, record, now)
    return True


def commit_without_comparing(
    store: Store, clip: UploadedClip, record: ClipRecord, now: Callable[[], float]
) -> bool:
    """Takes a record that is there for another's."""
    refuse_if_late(clip, now)
    try:
        store.put_if_absent(record_key(record.clip_id), record.to_json(), "application/json")
    except ObjectExistsError:
        return False
    return True


def commit_without_a_look(
    store: Store, clip: UploadedClip, record: ClipRecord, now: Callable[[], float]
) -> bool:
    refuse_if_late(clip, now)
    try:
        store.put_if_absent(record_key(record.clip_id), record.to_json(), "application/json")
    except ObjectExistsError:
        return store.get(record_key(record.clip_id)) == record.to_json()
    return True


def commit_over_another(
    store: Store, clip: UploadedClip, record: ClipRecord, now: Callable[[], float]
) -> bool:
    """Replaces every other record, though its MP4 is there."""
    if not commit_record(store, clip, record, now):
        store.put(record_key(record.clip_id), record.to_json(), "application/json")
    return True


def commit_however_late(
    store: Store, clip: UploadedClip, record: ClipRecord, now: Callable[[], float]
) -> bool:
    return commit_record(store, clip, record, lambda: clip.uploaded_at)


def upload_only_once(
    store: Store, clip_id: str, body: bytes, now: Callable[[], float]
) -> UploadedClip:
    """Spares an upload where the same bytes are there."""
    uploaded_at, sha256 = now(), hashlib.sha256(body).hexdigest()
    key = clip_key(clip_id, sha256)
    if not store.exists(key):
        return upload_clip(store, clip_id, body, now)
    return UploadedClip(clip_id, store.uri_of(key), key, sha256, len(body), uploaded_at, body)


def key_without_digest(clip_id: str, sha256: str) -> str:
    return f"clips/{clip_id}/clip.mp4"


UNCHANGED = "a record never changes"
RIGHT_DIGEST = "a record's digest is that of its MP4"
OWN_UPLOAD = "a record names what its own writer uploaded"
FINDS_RECORD = "a writer that gets an outcome finds a record"
LEFT_WHOLE = "a writer that owns the record leaves its MP4 there"
REPAIRED = "a clip without its MP4 is rendered again"
TOLD_RIGHT = "a writer that owns the record learns so, and no other writer does"
PLANTED = {
    "the record is written without the condition": (
        Protocol(commit=commit_unconditionally),
        UNCHANGED,
    ),
    "a look takes the place of the condition": (Protocol(commit=commit_after_a_look), UNCHANGED),
    "the record is written before the MP4": (Protocol(record_first=True), OWN_UPLOAD),
    "the key does not hold the digest": (Protocol(key=key_without_digest), RIGHT_DIGEST),
    "the answer to an upload is taken at its word": (
        Protocol(believes=(PREFIXES["clip"],)),
        OWN_UPLOAD,
    ),
    "the answer to a commit is taken at its word": (
        Protocol(believes=(PREFIXES["record"],)),
        FINDS_RECORD,
    ),
    "a record that is there is taken for one's own": (
        Protocol(commit=commit_by_existence),
        TOLD_RIGHT,
    ),
    "a record that is there is taken for another's": (
        Protocol(commit=commit_without_comparing),
        TOLD_RIGHT,
    ),
    "an upload is committed however old it is": (
        Protocol(commit=commit_however_late),
        RIGHT_DIGEST,
    ),
    "what is there is not uploaded again": (Protocol(upload=upload_only_once), OWN_UPLOAD),
    "young MP4s are removed": (Protocol(spared_s=0.0), RIGHT_DIGEST),
    "an MP4 is removed without a second look": (Protocol(looks_twice=False), RIGHT_DIGEST),
    "garbage ages by a machine's clock": (Protocol(ages_by_machine=True), RIGHT_DIGEST),
    "an upload ages by a machine's clock": (Protocol(uploads_by_machine=True), RIGHT_DIGEST),
    "a record that is there is replaced": (Protocol(commit=commit_over_another), UNCHANGED),
}
PLANTED_AMONG_STRANGERS = {
    "no look follows the record": (Protocol(commit=commit_without_a_look), LEFT_WHOLE),
}


def random_schedules(count: int, num_bytes: int) -> Iterator[bytes]:
    """Yield the same schedules in every run, whatever the version of Hypothesis."""
    return (random.Random(seed).randbytes(num_bytes) for seed in range(count))


def first_broken_promise(
    protocol: Protocol, cast: Cast, *, has_strangers: bool = False
) -> str | None:
    for schedule in random_schedules(500, 48):
        try:
            play(schedule, protocol, cast, has_strangers=has_strangers)
        except BrokenPromiseError as error:
            return str(error)
    return None


@pytest.mark.parametrize("bug", list(PLANTED))
def test_a_planted_bug_breaks_its_promise(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol, promise = PLANTED[bug]
    for module in (builders, jobs.records.schema, jobs.records.commit):
        monkeypatch.setattr(module, "clip_key", protocol.key)
    cast = Cast.make()
    assert first_broken_promise(protocol, cast) == promise


@pytest.mark.parametrize("bug", list(PLANTED_AMONG_STRANGERS))
def test_a_planted_bug_among_strangers_breaks_its_promise(bug: str) -> None:
    protocol, promise = PLANTED_AMONG_STRANGERS[bug]
    assert first_broken_promise(protocol, CAST, has_strangers=True) == promise
