"""Much work on one store at once: many small tasks in order, and a long listing in parts."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar, runtime_checkable

from jobs.store.uri import StoredObject

NUM_THREADS = 8  # below the ten connections that boto3 keeps open
WAITING_PER_THREAD = 4  # items under way or done whose results were not fetched yet
HEX_DIGITS = "0123456789abcdef"
MAX_PART_KEYS = 10_000  # expected of a part, since all keys of 32 parts may be held at once
T = TypeVar("T")
R = TypeVar("R")


@runtime_checkable
class ListsInParts(Protocol):
    """A store that answers several listings at once sooner than one after another."""

    def entries_by_id(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects below a prefix that hex digits of a hash follow, in no promised order.

        Leaves out objects behind whose prefix another character stands, if there are many objects.
        """
        ...


def entries_by_id(store: object, prefix: str) -> Iterator[StoredObject] | None:
    """Return the listing in parts; None for a store that gains nothing by it."""
    return store.entries_by_id(prefix) if isinstance(store, ListsInParts) else None


def parts_of(prefix: str, first_page: list[StoredObject]) -> list[str]:
    """Return the prefixes that together hold every key whose prefix a hash follows.

    Their number follows from the share of all hashes that the first page covers.
    """
    digits = first_page[-1].key.removeprefix(prefix)[:8]
    try:
        share = (int(digits, 16) + 1) / 16 ** len(digits)
    except ValueError:  # a foreign key, which a digit does not follow
        share = 0.0
    is_long = share * 16 * MAX_PART_KEYS < len(first_page)
    ends = [a + b for a in HEX_DIGITS for b in HEX_DIGITS] if is_long else [*HEX_DIGITS]
    return [prefix + end for end in ends]


def in_parallel(function: Callable[[T], R], items: Iterable[T], num_threads: int) -> Iterator[R]:
    """Yield `function` of each item, in their order, with a bounded number under way."""
    waiting: deque[Future[R]] = deque()
    executor = ThreadPoolExecutor(num_threads, thread_name_prefix="read")
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) >= WAITING_PER_THREAD * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)
