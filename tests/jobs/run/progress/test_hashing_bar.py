"""The bar of a command that hashes weights."""

import io

import pytest
from rich.console import Console

from jobs.run.progress.hashing_bar import HashingBar

LOG_LINE = "hashing the weights of wan, once a machine\n"


@pytest.mark.parametrize(
    ("seconds", "num_bytes", "shown"),
    [(0.1, 10**10, ""), (9.0, 10**7, ""), (2.0, 10**10, LOG_LINE)],
)
def test_a_log_gets_one_line_if_the_hashing_takes_long(
    seconds: float, num_bytes: int, shown: str
) -> None:
    now, log = [0.0], io.StringIO()
    bar = HashingBar("wan", Console(file=log), lambda: now[0])
    bar.expect(num_bytes)
    for _ in range(4):
        now[0] += seconds / 4
        bar.advance(num_bytes // 4)
    bar.close()
    assert log.getvalue() == shown
    assert bar.position.verified == 1


@pytest.mark.parametrize(("seconds", "is_shown"), [(0.1, False), (2.0, True)])
def test_a_terminal_gets_a_bar_if_the_hashing_takes_long(seconds: float, is_shown: bool) -> None:
    now, terminal = [0.0], io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=80)
    bar = HashingBar("wan", console, lambda: now[0])
    bar.expect(1_000_000_000)
    now[0] += seconds
    bar.advance(400_000_000)
    bar.close()
    assert ("hashing wan" in terminal.getvalue()) is is_shown
    assert ("0.4/1.0 GB" in terminal.getvalue()) is is_shown
