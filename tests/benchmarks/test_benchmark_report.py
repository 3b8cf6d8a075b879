"""The frame of the benchmarks: going on, what the files hold, and the margins of the guard."""

import argparse
import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import guard
from benchmarks.command import Benchmark, main
from benchmarks.report import Figure, Result, shown
from jobs.ending import ExitCode

LOW = Figure("nag / none", 1.02, floor=1.0, goal=1.025, margin=0.02)
HIGH = Figure("farm / raw", 0.95, goal=0.9, is_higher_better=True, margin=0.1)
SECONDS = Figure("seconds", 3.0, goal=2.0, unit="s")


def counting_benchmark(measured: list[str]) -> Benchmark:
    def measure(name: str, size: int) -> Callable[[], dict[str, int]]:
        def run() -> dict[str, int]:
            measured.append(name)
            return {"size": size}

        return run

    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--num-clips", type=int, default=10)

    return Benchmark(
        "counting",
        "Counting",
        "Counts.",
        ("rich",),
        lambda options: {name: measure(name, options.num_clips) for name in ("one", "two")},
        lambda cases: [Figure(f"size of {name}", case["size"]) for name, case in cases.items()],
        lambda cases: f"{len(cases)} cases.",
        add_options,
    )


def test_a_second_call_measures_only_the_missing_cases(tmp_path: Path) -> None:
    measured: list[str] = []
    benchmark = counting_benchmark(measured)
    main(benchmark, [str(tmp_path / "found"), "--only", "two"])
    main(benchmark, [str(tmp_path / "found")])
    assert measured == ["two", "one"]
    assert list(Result.read(tmp_path / "found.json").cases) == ["one", "two"]
    main(benchmark, [str(tmp_path / "found"), "--again", "--only", "one"])
    assert measured == ["two", "one", "one"]
    assert list(Result.read(tmp_path / "found.json").cases) == ["one", "two"], "none is lost"
    del measured[2:]
    main(benchmark, [str(tmp_path / "found"), "--again"])
    assert measured[2:] == ["one", "two"]


def test_a_case_that_fails_leaves_those_before_it(tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("broken")

    benchmark = counting_benchmark([])
    broken = replace(benchmark, cases=lambda options: {**benchmark.cases(options), "three": fail})
    with pytest.raises(ValueError, match="broken"):
        main(broken, [str(tmp_path / "found")])
    assert list(Result.read(tmp_path / "found.json").cases) == ["one", "two"]


@pytest.mark.parametrize("field", ["machine", "versions", "arguments"])
def test_a_result_is_not_continued_elsewhere_or_with_other_options(
    tmp_path: Path, field: str
) -> None:
    benchmark = counting_benchmark([])
    path = tmp_path / "found.json"
    main(benchmark, [str(tmp_path / "found"), "--only", "one"])
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {field: "other"}))
    with pytest.raises(SystemExit, match=f"has other {field}: other; .*--again to replace it"):
        main(benchmark, [str(tmp_path / "found")])


def test_the_files_hold_the_command_and_the_machine_and_no_path_or_host(tmp_path: Path) -> None:
    main(counting_benchmark([]), [str(tmp_path / "found"), "--num-clips", "3", "--only", "one"])
    result = Result.read(tmp_path / "found.json")
    page = (tmp_path / "found.md").read_text()
    assert result.command == "python -m benchmarks.counting --num-clips=3"
    assert page.startswith(
        f"# Counting\n\n`{result.command}` writes this page and the JSON beside it."
    )
    assert "CPU cores" in result.machine
    assert set(result.versions) == {"python", "rich"}
    for text in (page, (tmp_path / "found.json").read_text()):
        assert str(tmp_path) not in text
        assert socket.gethostname() not in text


def test_an_unknown_case_names_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no case has four in its name; the cases are: one, two"):
        main(counting_benchmark([]), [str(tmp_path / "found"), "--only", "four"])


def result_of(*figures: Figure) -> Result:
    by_name = {figure.name: figure for figure in figures}
    return Result("counting", [], "2 CPU cores", {}, "2026-01-31", {}, by_name)


def test_a_page_names_the_priority_that_the_benchmark_had_in_each_case(tmp_path: Path) -> None:
    main(counting_benchmark([]), [str(tmp_path / "found")])
    found = Result.read(tmp_path / "found.json")
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert found.niceness == {"one": own, "two": own}
    assert f"ran with `nice -n {own}`." in (tmp_path / "found.md").read_text()
    of_both = replace(found, niceness={"one": -12, "two": 5}).page("T", "").replace("\n", " ")
    assert "ran with `nice -n -12` to `nice -n 5`, by case." in of_both
    assert "nice -n" not in replace(found, niceness={"two": 5}).page("T", ""), "one is unknown"


def test_a_result_is_read_as_it_was_written_and_nan_stays_nan(tmp_path: Path) -> None:
    result = result_of(LOW, HIGH, SECONDS)
    result.write(tmp_path / "found.json")
    assert Result.read(tmp_path / "found.json") == result
    result_of(replace(LOW, value=float("nan"))).write(tmp_path / "found.json")
    (broken,) = Result.read(tmp_path / "found.json").figures.values()
    assert broken.is_worse(1.02)


def test_a_page_says_which_goals_are_missed() -> None:
    page = result_of(LOW, HIGH, SECONDS, replace(HIGH, name="low", value=0.89)).page("T", "")
    assert "| nag / none | 1.020 | 1.000 | at most 1.025 | met | 2% |" in page
    assert "| farm / raw | 0.950 |  | at least 0.900 | met | 10% |" in page
    assert "| seconds | 3.000 s |  | at most 2.000 s | **MISSED** |  |" in page
    assert "| low | 0.890 |  | at least 0.900 | **MISSED** | 10% |" in page
    assert (shown(1_234_567.0), shown(0.0123), shown(None)) == ("1,234,567", "0.0123", "")


@pytest.mark.parametrize(
    ("figure", "passing", "failing"),
    [(LOW, (0.5, 1.02, 1.0403), (1.0405, float("nan"))), (HIGH, (0.856, 2.0), (0.854,))],
)
def test_the_guard_fails_beyond_the_margin_and_only_towards_the_worse(
    figure: Figure, passing: tuple[float, ...], failing: tuple[float, ...]
) -> None:
    def faults(value: float) -> list[str]:
        fresh = result_of(replace(figure, value=value))
        return [fault for _, fault in guard.compare(result_of(figure), fresh)]

    assert [faults(value) for value in passing] == [[""]] * len(passing)
    assert [faults(value) for value in failing] == [["WORSE"]] * len(failing)


def test_the_guard_takes_the_margin_that_the_benchmark_states_today() -> None:
    wider = replace(LOW, value=1.1, margin=0.1)
    assert [fault for _, fault in guard.compare(result_of(LOW), result_of(wider))] == [""]


def test_the_guard_skips_seconds_and_new_figures_and_misses_none() -> None:
    committed = result_of(LOW, SECONDS)
    slower = replace(SECONDS, value=30.0)
    assert guard.compare(committed, result_of(LOW, slower, HIGH))[0][1] == ""
    assert len(guard.compare(committed, result_of(LOW, slower, HIGH))) == 1
    assert guard.compare(committed, result_of()) == [
        ("nag / none: 1.020 committed", "not measured")
    ]


def test_the_guard_command_ends_by_what_it_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guard, "MEASUREMENTS", tmp_path)
    (tmp_path / "fresh").mkdir()
    result_of(LOW).write(tmp_path / "counting.json")
    result_of(replace(LOW, value=1.03)).write(tmp_path / "fresh" / "counting.json")
    arguments = ["--read", str(tmp_path / "fresh")]
    assert guard.main([*arguments, "counting"]) == ExitCode.OK
    assert (
        "passes: nag / none: 1.03, 1.02 committed, at most 1.04 passes" in capsys.readouterr().out
    )
    result_of(replace(LOW, value=1.05)).write(tmp_path / "fresh" / "counting.json")
    assert guard.main(arguments) == ExitCode.UNFINISHED
    assert "WORSE: nag / none: 1.05, 1.02 committed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        guard.main(["store"])
    assert "has no figures of store; it has: counting" in capsys.readouterr().err
