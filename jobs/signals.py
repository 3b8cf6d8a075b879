"""Signal handlers for the length of a `with` block, for the command line and the local programs."""

import contextlib
import signal
from collections.abc import Callable, Generator
from types import FrameType


@contextlib.contextmanager
def handled_signals(
    numbers: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], None]
) -> Generator[None]:
    """Install a handler for some signals, and restore the earlier handlers at the end.

    SIGHUP stays ignored if the process was started so, as by `nohup`.
    """
    previous = {
        number: signal.signal(number, handler)
        for number in numbers
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)
