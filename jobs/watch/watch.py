"""The watch of an output: reads its store again and again, and shows what is new.

A thread reads, so that a store which does not answer holds neither the screen nor Ctrl-C. Decides
when the watch ends: with the run, unless it is to stay for the next one.
"""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from jobs.ending import ExitCode
from jobs.errors import StoreError
from jobs.side_thread import SideThread
from jobs.store.store import Store
from jobs.text import duration
from jobs.watch.seen import Seen, end_of, read_seen

READ_EVERY_S = 3.0
REDRAW_S = 1.0


@dataclass(frozen=True)
class Trouble:
    """A read that failed."""

    message: str


@dataclass(frozen=True)
class Moment:
    """The news at one moment: a read, a read that failed, or None if only time has passed.

    Args:
        at_s: seconds of a clock that never goes back.
    """

    at_s: float
    news: Seen | Trouble | None = None


@dataclass(frozen=True)
class View:
    """All that a screen shows.

    Args:
        now: the store's time, in seconds since 1970, as far as this machine can tell.
        trouble: the reason why the last reads failed; None if the last one succeeded.
        silent_s: seconds since the last read that succeeded.
    """

    seen: Seen
    now: float
    trouble: str | None
    silent_s: float

    @property
    def trouble_text(self) -> str | None:
        if self.trouble is None:
            return None
        return f"the store could not be read for {duration(self.silent_s)}: {self.trouble}"


class Screen(Protocol):
    """The place where a watch shows a run."""

    def show(self, view: View, /) -> None:
        """Show the state of a run; called about once a second."""
        ...

    def say(self, line: str, /) -> None:
        """Say something that stays to be read."""
        ...


def watch(store: Store, screen: Screen, *, stays: bool) -> ExitCode:
    """Watch an output until its run ends, and return that run's exit code.

    Args:
        stays: go on after the end of a run, with the next one.

    Raises:
        StoreError: the store could not be read at the start.
        StoppedError: a signal has ended the watch.
    """
    first = Moment(time.monotonic(), read_seen(store))
    with reading(store) as moments:
        return follow(_with_first(first, moments), screen, stays=stays)


def follow(moments: Iterable[Moment], screen: Screen, *, stays: bool) -> ExitCode:
    """Show one moment after another until a run has ended. The first moment holds a `Seen`."""
    seen: Seen | None = None
    read_s, trouble, told_end = 0.0, None, ""
    for moment in moments:
        match moment.news:
            case Seen() as news:
                for line in _news(seen, news, trouble, moment.at_s - read_s):
                    screen.say(line)
                seen, read_s, trouble = news, moment.at_s, None
            case Trouble(message):
                if trouble is None:
                    screen.say(f"the store could not be read: {message}; trying again")
                trouble = message
            case None:
                pass
        assert seen is not None
        silent_s = moment.at_s - read_s
        view = View(seen, seen.at_s + silent_s, trouble, silent_s)
        screen.show(view)
        end = end_of(seen, view.now) if trouble is None else None  # an old view ends nothing
        if end is not None and end.run_id != told_end:
            screen.say(end.text)
            told_end = end.run_id
            if not stays:
                return end.code
    return ExitCode.STOPPED


def _news(seen: Seen | None, news: Seen, trouble: str | None, silent_s: float) -> Iterator[str]:
    """Say what a read changes beside the run's own numbers."""
    if trouble is not None:
        yield f"the store answers again, after {duration(silent_s)}"
    if seen is None and news.run_id is None:
        yield f"no run has begun in {news.uri} so far; waiting for the first"
    if seen is not None and seen.run_id != news.run_id:
        before = "" if seen.run_id is None else f"; run {seen.run_id} is over"
        yield f"run {news.run_id} has begun{before}"


def _with_first(first: Moment, moments: Iterator[Moment]) -> Iterator[Moment]:
    yield first
    yield from moments


@contextmanager
def reading(store: Store) -> Generator[Iterator[Moment]]:
    """Read an output in a thread, and yield the moments of the block, without an end."""
    found: queue.SimpleQueue[Seen | Trouble] = queue.SimpleQueue()
    is_over = threading.Event()
    thread = SideThread("reading", lambda: _read(store, found.put, is_over))
    thread.start()
    try:
        yield _moments(found, thread)
    finally:
        is_over.set()  # the thread may wait for the store: it ends with the process


def _read(store: Store, put: Callable[[Seen | Trouble], None], is_over: threading.Event) -> None:
    while not is_over.wait(READ_EVERY_S):
        try:
            put(read_seen(store))
        except StoreError as error:
            put(Trouble(str(error)))


def _moments(found: "queue.SimpleQueue[Seen | Trouble]", thread: SideThread) -> Iterator[Moment]:
    while True:
        thread.check()
        try:
            news = found.get(timeout=REDRAW_S)
        except queue.Empty:
            news = None
        yield Moment(time.monotonic(), news)
