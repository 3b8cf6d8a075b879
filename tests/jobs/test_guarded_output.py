"""Output that cannot be written, on a real full device, on pipes, and for every kind of writer."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jobs.cli.pattern.command import EXIT_OK, EXIT_STOPPED

REPOSITORY = Path(__file__).parents[2]
WRITE_IN_EVERY_WAY = """
import logging, os, sys, warnings
from rich.console import Console
from rich.progress import track
from tqdm import tqdm
from jobs.guarded_output import guard_output

dropped = guard_output(is_log=True)
count = int(sys.argv[1])
for _ in range(count):
    print("printed")
    Console().print("by rich")
    logging.warning("logged")
    warnings.warn("warned")
    sys.stderr.write("to stderr")
    list(tqdm(range(2)))
    list(track(range(2), console=Console(force_terminal=True)))
sys.stdout.flush()
os.write(3, f"{dropped.num_bytes} {dropped.reason}".encode())
"""


def run(script: str, *arguments: str, stdout: int, stderr: int) -> str:
    """Run a script with these outputs, and return what it wrote to descriptor 3."""
    report, write = os.pipe()
    with os.fdopen(report, "rb") as file:
        process = subprocess.Popen(
            [
                *("bash", "-c", 'exec "$@" 3>&"$0"', str(write)),
                *(sys.executable, "-c", script, *arguments),
            ],
            stdout=stdout,
            stderr=stderr,
            pass_fds=[write],
            cwd=REPOSITORY,
        )
        os.close(write)
        text = file.read().decode()
    assert process.wait() == EXIT_OK, text
    return text


def test_what_a_full_device_does_not_take_is_counted_and_raises_nothing() -> None:
    with Path("/dev/full").open("w") as full:
        text = run(WRITE_IN_EVERY_WAY, "1", stdout=full.fileno(), stderr=full.fileno())
    count, _, reason = text.partition(" ")
    assert int(count) > len("printed by rich logged warned to stderr")
    assert reason == "No space left on device"


def test_a_pipe_without_a_reader_raises_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    text = run(WRITE_IN_EVERY_WAY, "1", stdout=write, stderr=write)
    os.close(write)
    assert text.endswith(" Broken pipe")


def test_a_reader_that_does_not_read_is_waited_for_only_once() -> None:
    read, write = os.pipe()
    script = WRITE_IN_EVERY_WAY.replace(
        "dropped =", "import jobs.guarded_output\njobs.guarded_output.PATIENCE_S = 0.2\ndropped ="
    )
    text = run(script, "200", stdout=write, stderr=write)  # more than a pipe holds
    os.close(write)
    os.close(read)
    assert text.endswith(" the reader of the output does not read")


def test_threads_may_write_at_once(tmp_path: Path) -> None:
    script = """
import sys, threading
from jobs.guarded_output import guard_output
guard_output(is_log=True)
def write():
    for _ in range(2000):
        sys.stderr.write("x")
threads = [threading.Thread(target=write) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([sys.executable, "-c", script], stderr=log, check=True)
    assert (tmp_path / "log").read_text() == 8000 * "x"


def test_all_that_a_slow_reader_reads_arrives() -> None:
    read, write = os.pipe()
    received: list[bytes] = []

    def drain() -> None:
        while part := os.read(read, 1000):
            received.append(part)

    reader = threading.Thread(target=drain)
    reader.start()
    script = WRITE_IN_EVERY_WAY + "print('x' * 1_000_000)\nprint('the end')"
    text = run(script, "1", stdout=write, stderr=write)
    os.close(write)
    reader.join()
    os.close(read)
    output = b"".join(received)
    assert text == "0 None"
    assert output.endswith(b"x" * 1_000_000 + b"\nthe end\n")
    for word in (b"printed", b"by rich", b"logged", b"warned", b"to stderr"):
        assert word in output


def test_letters_that_the_encoding_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "from jobs.guarded_output import guard_output; guard_output(); print('\\u00e9\\udc80')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    printed = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    assert printed.stdout == b"\\xe9\\udc80\n"


@pytest.mark.parametrize("command", ["models", "plan --help", "plan examples/shapes.yaml"])
def test_a_command_whose_result_cannot_be_written_says_so(command: str, tmp_path: Path) -> None:
    output = ["--output", tmp_path.as_uri()] if command.endswith(".yaml") else []
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "jobs", *command.split(), *output],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=REPOSITORY,
            text=True,
            check=False,
        )
    assert ended.returncode == EXIT_STOPPED, ended.stderr
    assert ended.stderr == (
        "nagfarm: stopped: the output cannot be written: No space left on device\n"
    )


@pytest.mark.parametrize("command", ["models", "bench --help", "--version"])
def test_a_reader_that_has_enough_of_a_result_gets_no_complaint(command: str) -> None:
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-m", "jobs", *command.split()], stdout=write, stderr=subprocess.PIPE,
        cwd=REPOSITORY, check=False,
    )  # fmt: skip
    os.close(write)
    assert (ended.returncode, ended.stderr) == (EXIT_STOPPED, b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_outputs_change_nothing(closed: str) -> None:
    ended = subprocess.run(
        ["bash", "-c", f'exec "$@" {closed}', "bash", sys.executable, "-m", "jobs", "models"],
        cwd=REPOSITORY,
        check=False,
    )
    assert ended.returncode == EXIT_OK
