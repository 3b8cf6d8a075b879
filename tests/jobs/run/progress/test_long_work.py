"""Long work is shown on stderr: moving on a terminal, line by line elsewhere."""

import io
import threading

import pytest
from rich.console import Console

from jobs.run.progress import long_work as module
from jobs.run.progress.long_work import long_work


class Heard(io.StringIO):
    """A stream that tells when a text was written."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self.was_written = threading.Event()

    def write(self, s: str) -> int:
        if self._text in s:
            self.was_written.set()
        return super().write(s)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHOWN_AFTER_S", 0.01)
    monkeypatch.setattr(module, "LINE_EVERY_S", 0.01)


def test_a_log_gets_lines_with_the_time() -> None:
    stream = Heard("listing [b]x: 0 s so far")
    with long_work("listing [b]x", Console(file=stream, width=200)):
        assert stream.was_written.wait(20)
    first = stream.getvalue().splitlines()[0]
    assert first.endswith("Z listing [b]x: 0 s so far")


def test_a_terminal_gets_a_line_that_is_gone_at_the_end() -> None:
    stream = Heard("listing [b]x")
    with long_work("listing [b]x", Console(file=stream, force_terminal=True, width=200)):
        assert stream.was_written.wait(20)
    assert stream.getvalue().endswith("\x1b[2K")  # the line is erased


def test_short_work_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_EVERY_S", 1000.0)
    stream = io.StringIO()
    with pytest.raises(KeyError), long_work("listing", Console(file=stream)):
        raise KeyError("of the work")
    assert not stream.getvalue()
