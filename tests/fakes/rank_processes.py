"""Processes of ranks made by hand: each question has an answer that a test can set."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

from jobs.group.generations import GroupDeadlines
from jobs.group.rank_group import RankGroup
from jobs.group.rank_state import Detached, Joined, RankState, Unusable
from jobs.records.schema import WorkerIdentity
from jobs.types import ClipDone, ClipFailed, ClipOutcome, ClipSpec, WorkerHeartbeat
from pipelines.errors import GroupError, RankLostError
from pipelines.parallel_config import ParallelConfig
from tests.builders.specs import spec

PAIR = ParallelConfig(ulysses=2)
CLIP = spec("sunrise")
DONE = ClipDone(CLIP.clip_id, CLIP.name, 1, ())
UNUSABLE = Unusable("worker", Detached())


class Answers(TypedDict, total=False):
    """The answers of a fake rank, by question.

    Each is a value, an exception, a function that makes one of these when the answer is awaited,
    a list of them, of which each question takes the first, or an `Awaited` or `Late`.
    """

    load: Any
    join: Any
    lead: Any
    leave: Any
    finish: Any
    state: Any
    heartbeat: Any
    spooled: Any
    render: Any


class Given:
    """An answer that is there already, or that a function makes when it is awaited."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self._made: Future[Any] | None = None

    @property
    def future(self) -> Future[Any]:
        if self._made is None:
            self._made = Future()
            value = self._value() if callable(self._value) else self._value
            if isinstance(value, Exception):
                self._made.set_exception(value)
            else:
                self._made.set_result(value)
        return self._made

    def get(self, wait_s: float | None) -> Any:
        return self.future.result(0)


class Awaited:
    """An answer that never comes."""

    def __init__(self) -> None:
        self.future: Future[Any] = Future()

    def get(self, wait_s: float | None) -> Any:
        raise AssertionError("this answer never comes")


class Late:
    """An answer that another thread gives."""

    def __init__(self) -> None:
        self.future: Future[Any] = Future()

    def get(self, wait_s: float | None) -> Any:
        return self.future.result(wait_s)


FakeAnswer = Given | Awaited | Late


@dataclass
class FakeRank:
    """A leader or a follower whose questions succeed unless a test sets another answer.

    Args:
        index: the rank.
        number: counts the ranks that were started.
    """

    index: int
    number: int
    answers: Answers = field(default_factory=Answers)
    asked: list[str] = field(default_factory=list[str])
    joined: list[Any] = field(default_factory=list[Any])  # (generation, rank) of each rendezvous
    is_killed: bool = False

    @property
    def address(self) -> int:
        return self.number

    def answer(self, **answers: Unpack[Answers]) -> None:
        """Set the answers to some questions."""
        self.answers.update(answers)

    def load(self) -> FakeAnswer:
        return self._ask("load", WorkerIdentity("host", f"node-{self.index}", "fake", self.number))

    def join(self, rendezvous: Any) -> FakeAnswer:
        self.joined.append(rendezvous)
        return self._ask("join", None)

    def lead(self, rendezvous: Any, followers: Sequence[Any]) -> FakeAnswer:
        self.joined.append(rendezvous)
        return self._ask("lead", None)

    def leave(self, wait_s: float) -> FakeAnswer:
        return self._ask("leave", None)

    def finish(self, wait_s: float) -> FakeAnswer:
        return self._ask("finish", None)

    def state(self) -> FakeAnswer:
        state: RankState = Joined()
        return self._ask("state", state)

    def heartbeat(self) -> FakeAnswer:
        return self._ask("heartbeat", WorkerHeartbeat((), 100 + self.index))

    def spooled(self) -> FakeAnswer:
        return self._ask("spooled", frozenset({"spooled"}))

    def render(self, spec: ClipSpec, attempt: int, uses_exact_attention: bool) -> FakeAnswer:
        outcome: ClipOutcome = DONE
        return self._ask("render", outcome)

    def recall(self, clip_id: str) -> None:
        self.asked.append(f"recall {clip_id}")

    def kill(self) -> None:
        self.is_killed = True

    def _ask(self, question: str, default: Any) -> FakeAnswer:
        self.asked.append(question)
        if self.is_killed:
            return Given(RankLostError("killed"))
        answer: Any = self.answers.get(question, default)
        if isinstance(answer, list):
            answer = answer.pop(0)
        return answer if isinstance(answer, Awaited | Late) else Given(answer)


class FakeRendezvousPoint:
    """Hands out (generation, rank) instead of a rendezvous."""

    def rendezvous(self, generation: int, rank: int, *_: Any) -> tuple[int, int]:
        return generation, rank


class FakeLauncher:
    """Starts fake ranks and remembers them in order.

    Args:
        prepare: called with each rank before it is used.
    """

    def __init__(self, prepare: Callable[[FakeRank], None] = lambda _: None) -> None:
        self.started: list[FakeRank] = []
        self.prepare = prepare

    def start_leader(self) -> FakeRank:
        return self.start_follower(0)

    def start_follower(self, rank: int) -> FakeRank:
        started = FakeRank(rank, len(self.started))
        self.prepare(started)
        self.started.append(started)
        return started

    def open_rendezvous(self) -> Any:
        return FakeRendezvousPoint()

    @property
    def leader(self) -> FakeRank:
        """The first leader that was started."""
        return self.started[0]

    @property
    def follower(self) -> FakeRank:
        """The first follower that was started."""
        return self.started[1]

    @property
    def alive(self) -> list[int]:
        return sorted(rank.number for rank in self.started if not rank.is_killed)


def formed(ranks: FakeLauncher, leave_s: float = 0.05, join_s: float = 0.05) -> RankGroup:
    """Return a loaded group of two fake ranks."""
    group = RankGroup(PAIR, ranks, GroupDeadlines(1.0, 0.05, 1.0, 0.05, leave_s, join_s))
    group.load()
    return group


def failed_by(error: type[GroupError]) -> ClipFailed:
    """Return a failure that the ranks of a group caused."""
    return ClipFailed(
        clip_id=CLIP.clip_id,
        name=CLIP.name,
        attempt=1,
        failure_class="worker",
        may_pass_on_retry=True,
        error_type=error.__name__,
        message="why",
        traceback="",
        worker="host:1",
        group_error=error,
    )
