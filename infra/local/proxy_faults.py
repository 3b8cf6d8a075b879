"""The choice of a fault for each request of the faulty proxy.

`Faults` says which faults a test wants; `FaultDraw` chooses one, or none, for each request. It
knows no socket; `faulty_proxy` carries the choice out. At most one fault falls on a request; a
delay does not count as a fault and comes on top.
"""

import itertools
import random
from collections import Counter
from dataclasses import dataclass, fields
from enum import Enum


class FaultsError(Exception):
    """The requested faults are invalid."""


@dataclass(frozen=True)
class Faults:
    """The faults to inject until they are changed.

    "Every nth" begins to count when the faults are set; 0 means never.

    Args:
        is_down: the proxy does not listen, so that the kernel refuses connections; open ones are
            reset.
        every_nth_answers_503: each nth request is answered `503 SlowDown` and does not reach the
            server.
        every_nth_put_answers_503: each nth PUT is answered the same, as by a full server.
        gateway_every_nth: each nth request is answered by a gateway before the server: with a plain
            404, a 403 without a body and a redirect, in turn.
        error_share: share of requests, 0 to 1, drawn at random; half of them are answered 503, half
            are reset.
        delay_s: seconds that each request waits before it goes on to the server.
        reset_mid_body_every_nth: each nth request that has a body, or whose answer has one, is
            reset within that body.
        lie_on_put_every_nth: each nth PUT is damaged on its way and, whatever the server answers,
            answered 200 with the checksum and the ETag of other bytes. An empty PUT cannot be
            damaged and goes no further.
        lose_answer_every_nth: each nth PUT reaches the server, but a reset replaces its answer.
    """

    is_down: bool = False
    every_nth_answers_503: int = 0
    every_nth_put_answers_503: int = 0
    gateway_every_nth: int = 0
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
    """The treatment of a request."""

    FORWARD = "forward"
    SLOW_DOWN = "503"
    PLAIN_404 = "plain 404"
    PLAIN_403 = "plain 403"
    REDIRECT = "redirect"
    RESET = "reset"
    RESET_MID_BODY = "reset mid-body"
    LIE = "lie"
    LOSE_ANSWER = "lose answer"


GATEWAY = (Fate.PLAIN_404, Fate.PLAIN_403, Fate.REDIRECT)


class FaultDraw:
    """The draw of a fate for each request.

    Each count runs over the requests that the faults before it in `fate_of` have spared. Otherwise
    two faults with the same n would fall on the same requests, and the later one would never
    happen.
    """

    def __init__(self, seed: int) -> None:
        self.faults = Faults()
        self._random = random.Random(seed)
        self._turns: Counter[str] = Counter()
        self._gateway = itertools.cycle(GATEWAY)

    def change(self, faults: Faults) -> None:
        """Set the faults and restart the counts; the random sequence continues."""
        self.faults = faults
        self._turns.clear()

    def fate_of(self, *, is_put: bool, has_body: bool) -> Fate:
        """Return the fate of the next request."""
        if self._is_turn("request", self.faults.every_nth_answers_503):
            return Fate.SLOW_DOWN
        if self._is_turn("gateway", self.faults.gateway_every_nth):
            return next(self._gateway)
        if self._random.random() < self.faults.error_share:
            return self._random.choice((Fate.SLOW_DOWN, Fate.RESET))
        to_put = {
            Fate.SLOW_DOWN: self.faults.every_nth_put_answers_503,
            Fate.LIE: self.faults.lie_on_put_every_nth,
            Fate.LOSE_ANSWER: self.faults.lose_answer_every_nth,
        }
        for fate, every_nth in to_put.items() if is_put else ():
            if self._is_turn(fate.value, every_nth):
                return fate
        if has_body and self.is_reset_mid_body():
            return Fate.RESET_MID_BODY
        return Fate.FORWARD

    def is_reset_mid_body(self) -> bool:
        """Return True if the next body breaks off: the request's, or else the answer's."""
        return self._is_turn("body", self.faults.reset_mid_body_every_nth)

    def _is_turn(self, fault: str, every_nth: int) -> bool:
        self._turns[fault] += 1
        return every_nth > 0 and self._turns[fault] % every_nth == 0
