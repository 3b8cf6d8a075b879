"""The messages of a run: when it sends one, and the JSON of each. Pure.

The body has `text` in the form of Slack's incoming webhooks, and the same facts as JSON for other
programs. docs/how-to/notifications.md lists its keys.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from jobs.costs.wording import cost_text
from jobs.escaping import json_text, plain_line
from jobs.records.run_status import RunSummary
from jobs.redaction import redact
from jobs.settings.run_config import NotifyConfig
from jobs.text import counted, duration

MAX_TEXT = 1_000  # characters
MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})  # <!channel> would ring for all


@dataclass(frozen=True)
class RunFacts:
    """The facts about a run that each of its messages has.

    Args:
        manifest: name of the manifest.
        output: URI of the output.
        num_clips: clips to render.
    """

    run: str
    manifest: str
    output: str
    num_clips: int


@dataclass(frozen=True)
class Message:
    """One message.

    Args:
        text: text for people, not escaped.
        time: time of the event.
        summary: counts of the run so far; None at its start.
    """

    event: str
    text: str
    facts: RunFacts
    time: str
    summary: RunSummary | None = None

    def body(self) -> bytes:
        """Return the JSON to send, without secrets and with Slack's markup escaped."""
        document = {
            "text": plain_line(redact(self.text), MAX_TEXT).translate(MARKUP),
            "event": self.event,
            "time": self.time,
            **asdict(self.facts),
            "summary": None if self.summary is None else asdict(self.summary),
        }
        return json_text(document).encode()


class RunMessages:
    """Decides about the messages of one run.

    Args:
        config: the events to send, and the number of failures of one of them.
        facts: the run.
        send: takes each message and returns at once.
        now: returns the wall-clock time in ISO 8601.
    """

    def __init__(
        self,
        config: NotifyConfig,
        facts: RunFacts,
        send: Callable[[Message], None],
        now: Callable[[], str],
    ) -> None:
        self._config = config
        self._facts = facts
        self._send = send
        self._now = now
        self._is_above = False
        self._has_ended = False

    def started(self) -> None:
        clips = counted(self._facts.num_clips, "clip")
        self._say("started", f"started: {clips} of {self._facts.manifest} to render")

    def failed(self, num_failures: int, summary: Callable[[], RunSummary]) -> None:
        """Note the number of failed attempts so far; send a message once, when it is too high."""
        limit = self._config.failures
        if self._is_above or limit is None or num_failures < limit:
            return
        self._is_above = True
        counts = summary()
        text = f"has {counted(num_failures, 'failed attempt')} so far: {_counts_text(counts)}"
        self._say("failures", text, counts)

    def ended(self, summary: RunSummary) -> None:
        """Send the message of the end of the run, once."""
        if self._has_ended:
            return
        self._has_ended = True
        took = f"after {duration(summary.wall_s)}: {_counts_text(summary)}"
        if summary.stop is None:
            self._say("finished", f"finished {took}", summary)
        else:
            self._say("stopped", f"stopped {took}; {summary.stop.message}", summary)

    def _say(self, event: str, text: str, summary: RunSummary | None = None) -> None:
        if event in self._config.events:
            whole = f"nagfarm run {self._facts.run} {text} ({self._facts.output})"
            self._send(Message(event, whole, self._facts, self._now(), summary))


def _counts_text(summary: RunSummary) -> str:
    busy = "" if summary.busy_share is None else f", devices {summary.busy_share:.0%} busy"
    cost = f", {text}" if (text := cost_text(summary.cost)) else ""
    return (
        f"{counted(summary.num_committed, 'clip')} committed, "
        f"{summary.num_quarantined:,} quarantined, {summary.num_failures:,} attempts failed{busy}"
        f"{cost}"
    )
