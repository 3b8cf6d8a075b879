"""Text of any origin becomes text that a terminal, a log and a page can show."""

import ast
import io
import json
import logging
import re
import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jobs.escaping import (
    MAX_LINE,
    csv_text,
    escape_logs,
    json_text,
    plain_block,
    plain_document,
    plain_line,
    shortened,
)
from jobs.records.schema import WorkerIdentity
from jobs.run.observer import RunObserver
from jobs.run.progress.console import ConsoleReport, print_json, print_plain
from jobs.run.progress.tally import RunTally
from jobs.schedule.events import Attempt
from jobs.schedule.retry import Retry
from jobs.text import shown
from tests.builders.records import failed
from tests.builders.specs import spec
from tests.builders.unsafe import UNSAFE, unsafe_characters
from tests.structure import modules

TEXT = st.text(st.characters(exclude_categories=()), max_size=50)
PRINTING = re.compile(
    r"(^|\.)(print|print_exc|print_exception)$|std(out|err)\.write$|console\.(out|log|print_json)$"
)


@given(TEXT)
def test_a_line_of_any_text_is_one_line_of_safe_characters(text: str) -> None:
    line = plain_line(text)
    assert "\n" not in line
    assert unsafe_characters(line) == set()
    assert len(f"{line}|".splitlines()) == 1


@given(TEXT)
def test_a_block_keeps_its_line_feeds_and_nothing_else_that_is_unsafe(text: str) -> None:
    block = plain_block(text)
    assert block.count("\n") == text.count("\n")
    assert unsafe_characters(block) == set()


@given(TEXT)
def test_an_escaped_json_document_says_the_same(text: str) -> None:
    for is_ascii in (True, False):
        document = plain_document(json.dumps({text: [text]}, ensure_ascii=is_ascii))
        assert json.loads(document) == {text: [text]}
        assert unsafe_characters(document) == set()


def test_every_control_surrogate_separator_and_bidi_character_is_escaped() -> None:
    everything = [chr(number) for number in range(0x110000)]
    left = [letter for letter in everything if letter != "\n" and plain_line(letter) == letter]
    for letter in left:
        assert unicodedata.category(letter) not in {"Cc", "Cs", "Zl", "Zp"}
        assert unicodedata.bidirectional(letter) not in {
            "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI", "B", "S",
        }  # fmt: skip
    assert not {"\u200e", "\u200f", "\u061c", "\u200b", "\ufeff", "\U000e0041"} & set(left)


@pytest.mark.parametrize(
    "text",
    [
        "Kreis 円 🎈 круг دائرة עיגול วงกลม",
        "👩‍🚀 ❤️ 👍🏽 🇯🇵",
        "می‌خواهم",
        "a\u00a0b\u3000c",
        "C:\\new",
    ],
)
def test_letters_of_all_scripts_and_emoji_stay(text: str) -> None:
    assert plain_line(text) == text


def test_escapes_are_those_of_json() -> None:
    assert plain_line("\x1b[2J\x9b\r\n\u202e\ud800\U000e0041") == (
        "\\u001b[2J\\u009b\\u000d\\u000a\\u202e\\ud800\\udb40\\udc41"
    )


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    text = f"m.yaml:7: {'x' * 10_000_000}: shorten the name"
    line = plain_line(text)
    assert len(line) < MAX_LINE + 50
    assert line.startswith("m.yaml:7: xx")
    assert line.endswith("xx: shorten the name")
    assert "characters)" in line
    assert shortened("a" * MAX_LINE) == "a" * MAX_LINE


def test_the_texts_of_a_printed_json_document_are_cut_and_it_stays_json() -> None:
    name = "\x1b" * 10_000_000
    printed = json_text({"name": name, name: [1, None, name]})
    assert len(printed) < 100_000
    assert json.loads(printed)["name"].startswith("\x1b\x1b")


def test_a_printed_line_is_neither_markup_nor_wrapped_nor_more_than_one() -> None:
    printed = io.StringIO()
    console = Console(file=printed, width=20, force_terminal=True)
    text = "a :smile: [bold]red[/bold] 10.5 " * 10
    print_plain(console, f"{text}\n\x1b[2J")
    print_json(console, f'["{text}\x9b"]')
    assert printed.getvalue() == f'{text}\\u000a\\u001b[2J\n["{text}\\u009b"]\n'


def test_each_line_of_a_run_is_escaped() -> None:
    printed = io.StringIO()
    report = ConsoleReport(Console(file=printed, force_terminal=False), 1, 0.0)
    tally = RunTally(1, 0.0)
    observer = RunObserver(tally, report, lambda _failed, _decision: None, monotonic=lambda: 99.0)
    attempt = Attempt(replace(spec("a"), name=UNSAFE), 1)
    observer.worker_ready(UNSAFE, WorkerIdentity(UNSAFE, UNSAFE, UNSAFE, 1))
    observer.clip_started(UNSAFE, attempt)
    observer.tick()
    observer.clip_failed(replace(failed("0" * 32, UNSAFE), name=UNSAFE), Retry(2))
    observer.worker_stopped(UNSAFE, UNSAFE, is_ready=True, is_lost=True)
    assert unsafe_characters(printed.getvalue()) == set()
    assert len(printed.getvalue().splitlines()) == 4
    assert "in flight: " in printed.getvalue()


def test_the_log_of_any_library_is_safe_and_keeps_what_another_factory_added() -> None:
    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **kwargs)
        record.added = 7
        return record

    logging.setLogRecordFactory(make)
    try:
        for _ in range(2):
            escape_logs()
        record = logging.getLogger("lib").makeRecord(
            "lib", logging.WARNING, "f", 1, "skip %s", ("a\x1b[2J\nb",), None
        )
    finally:
        logging.setLogRecordFactory(logging.LogRecord)
    assert record.getMessage() == "skip a\\u001b[2J\\u000ab"
    assert vars(record)["added"] == 7


def test_a_deeply_nested_value_is_shown() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert len(shown(deep)) < 100


def test_nothing_in_the_batch_prints_past_the_escaping() -> None:
    """A line printed elsewhere would show what a stranger wrote."""
    found = [
        f"{path}: {ast.unparse(node.func)}"
        for path, tree in modules("jobs")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and PRINTING.search(ast.unparse(node.func))
    ]
    assert sorted(found) == [
        "jobs/cli/main.py: print",  # the version
        "jobs/cli/main.py: print",  # an `error_line`
        "jobs/cli/main.py: sys.stderr.write",  # a `plain_block`
        "jobs/run/progress/console.py: console.out",
        "jobs/run/progress/console.py: console.out",
        "jobs/worker/start_timing.py: print",  # JSON in ASCII, which the parent process reads
    ]


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+1+cmd|'x'!A0", "-2+3", "\t=1", "\uff1d1"])
def test_a_cell_that_a_spreadsheet_would_run_begins_with_an_apostrophe(text: str) -> None:
    assert csv_text(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "a = b", "-blurry", "-1.5", "fox-1", "'x'", "{}"])
def test_other_cells_stay_as_they_are(text: str) -> None:
    assert csv_text(text) == text
