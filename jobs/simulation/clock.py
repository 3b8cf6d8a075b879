"""A virtual clock: the events of a simulation in the order of their time. Loads without torch."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any


class VirtualClock:
    """The clock of a simulation. It jumps from each event to the next one."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = count()  # events of one moment happen in the order in which they were set
        self._coming: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, moment_s: float, call: Callable[..., None], *arguments: object) -> None:
        """Set an event: a call at a moment that has not passed."""
        heapq.heappush(self._coming, (moment_s, next(self._order), call, arguments))

    def after(self, wait_s: float, call: Callable[..., None], *arguments: object) -> None:
        """Set an event some seconds ahead."""
        heapq.heappush(self._coming, (self.now + wait_s, next(self._order), call, arguments))

    def advance(self) -> bool:
        """Let the next event happen; return False if there is none."""
        if not self._coming:
            return False
        self.now, _, call, arguments = heapq.heappop(self._coming)
        call(*arguments)
        return True
