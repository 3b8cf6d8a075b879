"""The notifications of one run: its messages, the thread that sends them, and the webhook.

A wrong webhook costs the messages and nothing else: the log says so.
"""

import math
import os
import time
from collections.abc import Callable

from jobs.errors import NotificationError
from jobs.notify.messages import RunFacts, RunMessages
from jobs.notify.notifier import Notifier
from jobs.notify.webhook import Webhook
from jobs.records.run_status import RunSummary
from jobs.records.schema import utc_iso
from jobs.settings.run_config import NotifyConfig


class RunNotices:
    """Sends the messages of one run, if the environment names a webhook.

    Args:
        config: the settings of messages.
        facts: the run.
    """

    def __init__(self, config: NotifyConfig, facts: RunFacts) -> None:
        self._config = config
        self._trouble: list[str] = []
        self._is_closing = False
        self._is_hurried = False
        self._notifier: Notifier | None = None
        self._messages: RunMessages | None = None
        try:
            webhook = Webhook.of(config, os.environ)
        except NotificationError as error:
            self._trouble.append(f"{config.webhook_variable}: {error}; no notification is sent")
            return
        if webhook is not None:
            self._notifier = Notifier(webhook.post)
            self._messages = RunMessages(
                config, facts, self._notifier.send, lambda: utc_iso(time.time())
            )

    def started(self) -> None:
        if self._messages is not None:
            self._messages.started()

    def failed(self, num_failures: int, summary: Callable[[], RunSummary]) -> None:
        """Note the number of failed attempts so far."""
        if self._messages is not None:
            self._messages.failed(num_failures, summary)

    def ended(self, summary: RunSummary) -> None:
        if self._messages is not None:
            self._messages.ended(summary)

    def news(self) -> list[str]:
        """Return what went wrong since the last call, a line each."""
        trouble, self._trouble = self._trouble, []
        return trouble + (self._notifier.news() if self._notifier is not None else [])

    def hurry(self) -> None:
        """Wait no longer for the last messages, if the run waits for them."""
        self._is_hurried = self._is_closing

    def close(self, at_most_s: float = math.inf) -> None:
        """Wait for the last messages, for `notify.end_s` at most, and drop what is left."""
        self._is_closing = True
        if self._notifier is not None:
            self._notifier.close(min(self._config.end_s, at_most_s), lambda: self._is_hurried)
