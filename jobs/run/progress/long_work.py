"""A sign that a command is at work, when it reads much before its first line.

Decides when: a terminal gets a line that moves, after two seconds; anything else gets a line of a
log every 30 seconds. Both go to stderr, so that what a command prints is its result alone.
"""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from jobs.escaping import plain_line
from jobs.run.progress.console import print_log
from jobs.text import duration

SHOWN_AFTER_S = 2.0
LINE_EVERY_S = 30.0


@contextmanager
def long_work(what: str, console: Console | None = None) -> Generator[None]:
    """Show that a block goes on, once it takes long.

    Args:
        what: the work, such as "listing the records of s3://renders/spring".
        console: None for stderr.
    """
    done = threading.Event()
    target = (console or Console(stderr=True), what, done)
    thread = threading.Thread(target=_show, args=target, name="long-work", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _show(console: Console, what: str, done: threading.Event) -> None:
    if console.is_terminal:
        if not done.wait(SHOWN_AFTER_S):
            _show_moving(console, what, done)
        return
    begin_s = time.monotonic()
    while not done.wait(LINE_EVERY_S):
        print_log(console, f"{what}: {duration(time.monotonic() - begin_s)} so far")


def _show_moving(console: Console, what: str, done: threading.Event) -> None:
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        bar.add_task(plain_line(what), total=None)
        done.wait()
