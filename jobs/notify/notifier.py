"""Send messages in a thread, so that no run waits for a webhook, and none fails with it."""

import threading
import time
from collections import deque
from collections.abc import Callable

from jobs.errors import NotificationError
from jobs.notify.messages import Message
from jobs.side_thread import SideThread

MAX_WAITING = 16  # messages; a run has four
BACK_OFFS_S = (1.0, 3.0, 9.0)  # between the tries
CLOSE_POLL_S = 0.1


class Notifier:
    """The messages of one run on their way, in order. No failure of a webhook raises here.

    Args:
        post: sends one body; it raises NotificationError.
        back_offs_s: pauses between the tries of a message.
    """

    def __init__(
        self, post: Callable[[bytes], None], back_offs_s: tuple[float, ...] = BACK_OFFS_S
    ) -> None:
        self._post = post
        self._back_offs_s = back_offs_s
        self._waiting: deque[Message] = deque()
        self._news: deque[str] = deque(maxlen=MAX_WAITING)
        self._changed = threading.Condition()
        self._is_closing = False
        self._is_abandoned = False
        self._thread: SideThread | None = None  # until there is something to send

    def send(self, message: Message) -> None:
        """Queue a message and return at once; it is dropped if too many wait."""
        with self._changed:
            if self._is_closing or len(self._waiting) >= MAX_WAITING:
                self._news.append(_lost(message, "too many wait"))
                return
            self._waiting.append(message)
            self._changed.notify()
        if self._thread is None:
            self._thread = SideThread("notifier", self._send_all)
            self._thread.start()

    def news(self) -> list[str]:
        """Return a line for each message that was lost since the last call."""
        with self._changed:
            news = list(self._news)
            self._news.clear()
        return news

    def close(self, timeout_s: float, is_enough: Callable[[], bool] = lambda: False) -> None:
        """Wait until all messages are sent or lost, for a limited time; drop what is left.

        Args:
            is_enough: polled during the wait; True ends it.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        deadline = time.monotonic() + timeout_s
        while (
            self._thread is not None
            and self._thread.is_alive()
            and not is_enough()
            and (left_s := deadline - time.monotonic()) > 0
        ):
            self._thread.join(min(left_s, CLOSE_POLL_S))
        with self._changed:
            self._is_abandoned = True
            self._changed.notify()
            for message in self._waiting:
                self._news.append(_lost(message, "the run has ended"))

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closing)
                if not self._waiting or self._is_abandoned:
                    return
                message = self._waiting[0]
            trouble = self._send(message)
            with self._changed:
                if self._is_abandoned:
                    return
                self._waiting.popleft()
                if trouble is not None:
                    self._news.append(_lost(message, trouble))

    def _send(self, message: Message) -> str | None:
        """Send a message, and return why it was lost after the last try."""
        body = message.body()
        for pause_s in (*self._back_offs_s, None):
            try:
                self._post(body)
            except NotificationError as error:
                if pause_s is None or not error.may_pass_on_retry:
                    return str(error)
            else:
                return None
            with self._changed:
                if self._changed.wait_for(lambda: self._is_abandoned, pause_s):
                    return "the run has ended"
        return None


def _lost(message: Message, reason: str) -> str:
    return f"the notification {message.event!r} was not sent: {reason}"
