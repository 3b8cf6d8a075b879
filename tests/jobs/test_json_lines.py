"""A log in JSON: one object a line, whatever the program, its libraries and strangers print."""

import atexit
import io
import json
import logging
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.json_lines import MAX_TRACEBACK, JsonLines, write_json_lines
from tests.builders.unsafe import UNSAFE, unsafe_characters

REPOSITORY = Path(__file__).parents[2]
TEXT = st.text(st.characters(exclude_categories=()), max_size=50)
WRITE_IN_EVERY_WAY = """
import logging, sys, warnings
from rich.console import Console
from rich.progress import track
from tqdm import tqdm
from jobs.guarded_output import guard_output
from jobs.json_lines import write_json_lines

guard_output(is_log=True)
write_json_lines()
print("printed")
print("in", "two", end=" ")
print("parts")
Console().print("[red]by rich[/red]")
logging.warning("logged")
warnings.warn("warned")
for _ in tqdm(range(1000)): pass
list(track(range(3), console=Console()))
sys.stderr.write("without an end")
"""


def entries(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def opened() -> tuple[JsonLines, io.StringIO]:
    printed = io.StringIO()
    return JsonLines(printed, "stdout", {"run": "r"}), printed


@given(st.lists(TEXT))
def test_any_text_in_any_parts_becomes_one_safe_object_a_line(parts: list[str]) -> None:
    lines, printed = opened()
    for part in parts:
        lines.write(part)
    lines.end_lines()
    assert unsafe_characters(printed.getvalue()) == set()
    for entry in entries(printed):
        assert list(entry) == ["time", "level", "event", "message", "run", "stream"]
        assert (entry["event"], entry["run"], entry["stream"]) == ("output", "r", "stdout")
    if not any("\r" in part or "\x1b" in part for part in parts):
        whole = [line for line in "".join(parts).split("\n") if line.strip()]
        assert [entry["message"] for entry in entries(printed)] == whole


@given(TEXT, TEXT)
def test_an_entry_says_the_same_as_before_whatever_its_texts_are(message: str, name: str) -> None:
    lines, printed = opened()
    lines.write_entry("clip_failed", f"x{message}", "error", name=name, clip=None, share=0.12345)
    (entry,) = entries(printed)
    assert len(printed.getvalue().splitlines()) == 1
    assert unsafe_characters(printed.getvalue()) == set()
    assert (entry["message"], entry["name"], entry["share"]) == (f"x{message}", name, 0.123)
    assert "clip" not in entry


def test_the_time_is_utc_with_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_769_864_461.9)
    lines, printed = opened()
    lines.write_entry("message", "hello")
    assert entries(printed)[0]["time"] == "2026-01-31T13:01:01.900Z"


def test_a_bar_and_colors_leave_their_last_text() -> None:
    lines, printed = opened()
    lines.write("\r 10%\r 50%")
    lines.write("\r100% done\r\n\x1b[36m(worker pid=7)\x1b[0m hello\n")
    messages = [entry["message"] for entry in entries(printed)]
    assert messages == ["100% done", "(worker pid=7) hello"]


def test_no_line_is_too_long_for_a_collector_and_a_traceback_keeps_both_ends() -> None:
    lines, printed = opened()
    lines.write(1_000_000 * "x")
    lines.write("end\n")
    lines.write_entry("exception", "E: no", "error", traceback="first" + 99_999 * "y" + "last")
    output, failure = entries(printed)
    assert output["message"].endswith("xend")
    assert len(output["message"]) < 5_000
    assert MAX_TRACEBACK < len(failure["traceback"]) < MAX_TRACEBACK + 50
    assert failure["traceback"].startswith("firsty")
    assert failure["traceback"].endswith("ylast")


def test_threads_that_write_long_lines_do_not_mix_them(tmp_path: Path) -> None:
    read, write = os.pipe()
    received: list[bytes] = []

    def drain() -> None:
        while part := os.read(read, 65_536):
            received.append(part)

    reader = threading.Thread(target=drain)
    reader.start()
    script = """
import sys, threading
from jobs.guarded_output import guard_output
from jobs.json_lines import write_json_lines
guard_output(is_log=True)
write_json_lines()
def work(name):
    for _ in range(200):
        sys.stdout.write_entry("message", name, traceback=9000 * name)
        print(name, 3000 * name)
threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    subprocess.run([sys.executable, "-c", script], stdout=write, check=True, cwd=REPOSITORY)
    os.close(write)
    reader.join()
    os.close(read)
    found = [json.loads(line) for line in b"".join(received).splitlines()]
    assert len(found) == 1600
    assert all(len(set(entry["message"]) - {" "}) == 1 for entry in found)


def test_libraries_write_json_and_draw_no_bar() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WRITE_IN_EVERY_WAY],
        env={**os.environ, "FORCE_COLOR": "1"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    out = [json.loads(line) for line in ended.stdout.splitlines()]
    errors = [json.loads(line) for line in ended.stderr.splitlines()]
    messages = [entry["message"] for entry in out]
    assert messages[:3] == ["printed", "in two parts", "by rich"]
    assert {entry["stream"] for entry in out} == {"stdout"}
    assert {entry["stream"] for entry in errors} == {"stderr"}
    said = " ".join(entry["message"] for entry in errors)
    for word in ("WARNING:root:logged", "UserWarning: warned", "1000/1000", "without an end"):
        assert word in said
    assert len(errors) < 8  # a bar is one line


def test_the_log_of_a_library_names_no_line_of_its_own() -> None:
    lines, printed = opened()
    handler = logging.StreamHandler(lines)
    handler.emit(logging.LogRecord("lib", logging.INFO, "f", 1, "skip %s", (UNSAFE,), None))
    messages = "".join(entry["message"] for entry in entries(printed))
    assert "committed 99 clips" in messages
    assert {entry["event"] for entry in entries(printed)} == {"output"}


def test_numbers_that_json_does_not_have_are_null_or_left_out() -> None:
    lines, printed = opened()
    lines.write_entry("e", "m", left_s=math.inf, stages_s={"text": math.nan, "decode": 1.0})
    (entry,) = entries(printed)
    assert json.loads(printed.getvalue(), parse_constant=pytest.fail) == entry
    assert (entry["left_s"], entry["stages_s"]) == (None, {"text": None, "decode": 1.0})


def test_a_log_is_json_in_utf_8_whatever_the_encoding_of_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    monkeypatch.setattr(atexit, "register", lambda _: None)
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, "ascii", errors="backslashreplace", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    write_json_lines()
    print("\U0001f600 \u00e9")
    assert json.loads(written.getvalue().decode())["message"] == "\U0001f600 \u00e9"
    assert sys.stdout.encoding == "utf-8"
