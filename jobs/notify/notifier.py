"""Send messages in a thread, so that no run waits for a webhook, and none fails with it."""

from collections import deque
from collections.abc import Callable

from jobs.errors import NotificationError
from jobs.notify.messages import Message
from jobs.side_thread import SideQueue

MAX_WAITING = 16  # messages; a run has four
BACK_OFFS_S = (1.0, 3.0, 9.0)  # between the tries


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
        self._news: deque[str] = deque(maxlen=MAX_WAITING)
        self._queue = SideQueue[Message]("notifier", self._send_all)

    def send(self, message: Message) -> None:
        """Queue a message and return at once; it is dropped if too many wait."""
        if len(self._queue) >= MAX_WAITING:
            self._news.append(_lost(message, "too many wait"))
        elif not self._queue.add(message):
            self._news.append(_lost(message, "the run has ended"))

    def news(self) -> list[str]:
        """Return a line for each message that was lost since the last call."""
        return [self._news.popleft() for _ in range(len(self._news))]

    def close(self, timeout_s: float, is_enough: Callable[[], bool] = lambda: False) -> None:
        """Wait until all messages are sent or lost, for a limited time; drop what is left.

        Args:
            is_enough: polled during the wait; True ends it.
        """
        for message in self._queue.close(timeout_s, is_enough):
            self._news.append(_lost(message, "the run has ended"))

    def _send_all(self) -> None:
        for message in self._queue:
            trouble = self._send(message)
            if self._queue.done() and trouble is not None:
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
            if not self._queue.pause(pause_s):
                return "the run has ended"
        return None


def _lost(message: Message, reason: str) -> str:
    return f"the notification {message.event!r} was not sent: {reason}"
