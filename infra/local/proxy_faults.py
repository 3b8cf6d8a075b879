"""Which fault falls on which request of the faulty proxy.

Decides that alone: what is to go wrong (`Faults`) and, request by request, what does (`FaultDraw`). It knows no socket;
`faulty_proxy` carries out what is decided here. At most one fault falls on a request. A delay is none and comes on top.
"""

import random
from collections import Counter
from dataclasses import dataclass, fields
from enum import Enum


class FaultsError(Exception):
    """The faults asked for are no faults."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong, until it is changed. "Every nth" begins to count when the faults are set; 0 is never.

    Args:
        is_down: nobody listens, so that connections are refused by the kernel; open ones are reset.
        every_nth_answers_503: each nth request is answered `503 SlowDown` and does not reach the server.
        error_share: this share of the requests, drawn at random, is answered 503 or, as often, reset; between 0 and 1.
        delay_s: a request waits for so long before it goes on to the server.
        reset_mid_body_every_nth: each nth request that has a body, or whose answer has one, is reset within that body.
        lie_on_put_every_nth: each nth PUT is damaged on its way and, whatever the server says, answered 200 with a
            checksum and an ETag of something else. An empty one has nothing to damage and goes no further.
        lose_answer_every_nth: each nth PUT reaches the server, but instead of its answer comes a reset.
    """

    is_down: bool = False
    every_nth_answers_503: int = 0
    error_share: float = 0.0
    delay_s: float = 0.0
    reset_mid_body_every_nth: int = 0
    lie_on_put_every_nth: int = 0
    lose_answer_every_nth: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise FaultsError(
                    f"{field.name} must be at least 0, not {getattr(self, field.name)}"
                )
        if self.error_share > 1:
            raise FaultsError(f"error_share must be at most 1, not {self.error_share}")


class Fate(Enum):
    """What becomes of a request."""

    FORWARD = "forward"
    SLOW_DOWN = "503"
    RESET = "reset"
    RESET_MID_BODY = "reset mid-body"
    LIE = "lie"
    LOSE_ANSWER = "lose answer"


class FaultDraw:
    """Deals out the faults. Each count runs over the requests that the faults before it in `fate_of` have spared.

    Otherwise two faults with the same n would fall on the same requests, and the later one never happen.
    """

    def __init__(self, seed: int) -> None:
        self.faults = Faults()
        self._random = random.Random(seed)
        self._turns: Counter[str] = Counter()

    def change(self, faults: Faults) -> None:
        """Counts anew; what is drawn at random goes on where it was."""
        self.faults = faults
        self._turns.clear()

    def fate_of(self, *, is_put: bool, has_body: bool) -> Fate:
        """What becomes of the next request."""
        if self._is_turn("request", self.faults.every_nth_answers_503):
            return Fate.SLOW_DOWN
        if self._random.random() < self.faults.error_share:
            return self._random.choice((Fate.SLOW_DOWN, Fate.RESET))
        if is_put and self._is_turn("lie", self.faults.lie_on_put_every_nth):
            return Fate.LIE
        if is_put and self._is_turn("answer", self.faults.lose_answer_every_nth):
            return Fate.LOSE_ANSWER
        if has_body and self.is_reset_mid_body():
            return Fate.RESET_MID_BODY
        return Fate.FORWARD

    def is_reset_mid_body(self) -> bool:
        """Whether the next body breaks off: the request's, or the answer's where the request has none."""
        return self._is_turn("body", self.faults.reset_mid_body_every_nth)

    def _is_turn(self, what: str, every_nth: int) -> bool:
        self._turns[what] += 1
        return every_nth > 0 and self._turns[what] % every_nth == 0
