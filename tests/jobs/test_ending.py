"""The end of a process whose main thread is held: by signals, and by a deadline."""

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator

import pytest

from jobs.ending import STOP_SIGNALS, ExitCode, is_request, stop_reason

# a mutex that is locked twice holds its thread in C for ever, where Python runs no handler
HEAD = """
import ctypes, signal, sys, threading
from jobs.ending import ended_after, ended_by_signals
arrived = threading.Event()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda *_: arrived.set())
library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
library.pthread_mutex_init(mutex, None)
def ready():
    print("ready", flush=True)
def hold():
    ready()
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)
"""
WAIT_S = 20.0


@contextlib.contextmanager
def started(code: str) -> "Generator[subprocess.Popen[str]]":
    """Start a program, wait until it says that it is ready, and leave none behind."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", HEAD + code], stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("numbers", [[signal.SIGINT] * 2, [signal.SIGINT, signal.SIGTERM]])
def test_the_second_signal_ends_a_process_whose_main_thread_is_held(
    numbers: list[signal.Signals],
) -> None:
    with started("with ended_by_signals(2): hold()") as process:
        process.send_signal(numbers[0])
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2.5)
        process.send_signal(numbers[1])
        sent = time.monotonic()
        _, errors = process.communicate(timeout=WAIT_S)
        assert time.monotonic() - sent < 4  # 1.5 s on an idle machine
    assert process.returncode == ExitCode.STOPPED
    time_of_day, _, line = errors.partition(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time_of_day)
    assert line == f"nagfarm: stopped: by {numbers[1].name}; run it again to go on\n"


def test_a_process_that_ends_by_itself_after_the_signals_keeps_its_exit_code() -> None:
    code = "with ended_by_signals(1): ready(); arrived.wait(); sys.exit(5)"
    with started(code) as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, errors) == (5, "")


def test_a_closed_terminal_asks_once_however_often_it_is_said() -> None:
    first = [number for number in STOP_SIGNALS if is_request(number, is_first=True)]
    again = [number for number in STOP_SIGNALS if is_request(number, is_first=False)]
    assert first == list(STOP_SIGNALS)
    assert set(first) - set(again) == {signal.SIGHUP}
    assert not is_request(signal.SIGUSR1, is_first=True)


def test_a_reader_that_stopped_reading_does_not_hold_up_the_end() -> None:
    code = """
import os
read, write = os.pipe()
os.dup2(write, 2)
os.set_blocking(2, False)
try:
    while True: os.write(2, bytes(4096))
except BlockingIOError:
    os.set_blocking(2, True)
with ended_after(0.2, "late", 69): hold()
"""
    with started(code) as process:
        assert process.wait(WAIT_S) == ExitCode.UNAVAILABLE


def test_other_signals_end_nothing() -> None:
    code = "with ended_by_signals(1): ready(); arrived.wait(); arrived.clear(); arrived.wait(2.5)"
    with started(code) as process:
        process.send_signal(signal.SIGUSR1)
        assert process.wait(WAIT_S) == 0


def test_a_held_process_ends_at_its_deadline_with_one_line() -> None:
    with started("with ended_after(0.5, 'Ray is late', 69): hold()") as process:
        _, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, errors) == (ExitCode.UNAVAILABLE, "nagfarm: Ray is late\n")


def test_a_block_that_ends_in_time_is_not_ended() -> None:
    code = "with ended_after(0.5, 'late', 69): ready()\narrived.wait(1)"
    with started(code) as process:
        assert process.wait(WAIT_S) == 0


INTERRUPTED = """
import os, signal, sys, nagfarm
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of a shell may ignore it
class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
if sys.argv[1] == "arguments":
    import argparse
    argparse.ArgumentParser.parse_known_args = lambda *_: os.kill(os.getpid(), signal.SIGINT)
sys.exit(nagfarm.main())
"""


@pytest.mark.parametrize("moment", ["jobs.cli.main", "jobs.escaping", "arguments"])
def test_an_interrupt_while_the_program_starts_ends_it_as_a_later_one(moment: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, moment],
        capture_output=True, text=True, check=False, timeout=WAIT_S,
    )  # fmt: skip
    expected = f"nagfarm: stopped: {stop_reason(signal.SIGINT)}\n"
    assert (finished.returncode, finished.stderr) == (ExitCode.STOPPED, expected)
