"""The examples of schedules: systemd and cron read them, and nagfarm reads their commands."""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import time
from pathlib import Path

import pytest

from jobs.cli.main import parse_arguments
from jobs.cli.render import RenderOptions
from jobs.timetable.clock_times import WrittenDeadline, zone_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "schedules"
PAGE = ROOT / "docs" / "how-to" / "schedules.md"
SERVICE, TIMER = FOLDER / "nagfarm-render.service", FOLDER / "nagfarm-render.timer"
HALF_HOURS = {(hour, minute) for hour in (22, 23, *range(7)) for minute in (0, 30)}


def found(command: str) -> str:
    """Return the path of a program, or skip the test."""
    path = shutil.which(command)
    if path is None:
        pytest.skip(f"{command} is not installed")
    return path


def run(*command: str | Path) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout + finished.stderr


def parsed(command: str) -> argparse.Namespace:
    """Return the arguments of a command line of nagfarm, read by its own parser."""
    program, *arguments = shlex.split(command)
    assert Path(program).name == "nagfarm"
    return parse_arguments(arguments)


def cron_line() -> tuple[list[str], str]:
    """Return the five fields and the command of the one job in the crontab."""
    lines = [
        line
        for line in (FOLDER / "crontab").read_text().splitlines()
        if not re.match(r"#|\w+=|$", line)
    ]
    (line,) = lines
    *fields, command = line.split(None, 5)
    return fields, command


def numbers(field: str, limit: int) -> Iterator[int]:
    """Yield the numbers below a limit that a field of a crontab means."""
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            first, last = "0", str(limit - 1)
        yield from range(int(first), int(last or first) + 1, int(step or 1))


def commands() -> dict[str, str]:
    (started,) = re.findall(r"^ExecStart=(.*)$", SERVICE.read_text(), re.MULTILINE)
    _, command = cron_line()
    nagfarm = re.fullmatch(r"cd \S+ && (\S+/nagfarm .*) >>\S+ 2>&1", command)
    assert nagfarm, command
    return {"systemd": started, "cron": nagfarm[1]}


@pytest.mark.parametrize("scheduler", ["systemd", "cron"])
def test_the_command_of_a_schedule_is_one_that_nagfarm_takes(scheduler: str) -> None:
    options = RenderOptions.read(parsed(commands()[scheduler]))
    assert options.manifest == "spring.yaml"
    assert options.deadline == WrittenDeadline(time(8))
    assert options.time_zone == zone_of("Europe/Berlin")
    assert options.wait is None, "the next start comes soon"


def test_cron_starts_it_every_half_an_hour_of_the_night() -> None:
    (minutes, hours, *days), command = cron_line()
    starts = {(hour, minute) for hour in numbers(hours, 24) for minute in numbers(minutes, 60)}
    assert starts == HALF_HOURS
    assert days == ["*", "*", "*"]
    assert "%" not in command, "cron ends the command there"


def test_the_crontab_is_read_by_cron() -> None:
    crontab = found("crontab")
    shown = subprocess.run([crontab, "-h"], capture_output=True, text=True, check=False)
    if "-n" not in shown.stderr:
        pytest.skip("this crontab cannot check a file without installing it")
    run(crontab, "-n", FOLDER / "crontab")


def test_systemd_starts_it_every_half_an_hour_of_the_night() -> None:
    analyze = found("systemd-analyze")
    starts: set[tuple[int, int]] = set()
    for rule in re.findall(r"^OnCalendar=(.*)$", TIMER.read_text(), re.MULTILINE):
        assert rule.endswith(" Europe/Berlin")
        plain = rule.removesuffix(" Europe/Berlin")
        printed = run(analyze, "calendar", "--iterations=20", f"{plain} UTC")
        times = re.findall(r"(\d\d):(\d\d):00 UTC$", printed, re.MULTILINE)
        assert len(times) == 20
        starts |= {(int(hour), int(minute)) for hour, minute in times}
        run(analyze, "calendar", rule)
    assert starts == HALF_HOURS


@pytest.mark.parametrize("place", ["alone", "on a cluster"])
def test_systemd_finds_no_fault_in_the_units(tmp_path: Path, place: str) -> None:
    """The program's and the folder's paths are replaced by those of this machine."""
    analyze = found("systemd-analyze")
    for unit in (SERVICE, TIMER):
        text = unit.read_text().replace("/opt/nagfarm/bin/nagfarm", sys.executable)
        if place == "on a cluster":
            text = re.sub(r"^#(?=\w+=)", "", text, flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text.replace("/srv/nagfarm", str(tmp_path)))
        printed = run(analyze, "verify", "--man=no", tmp_path / unit.name)
        assert unit.name not in printed, "a warning"


def test_the_lines_for_a_cluster_are_those_of_its_units() -> None:
    """Uncommented, they find the head and the token as nagfarm-head.service has them."""
    units = ROOT / "infra" / "ray" / "systemd"
    lines = re.findall(r"^#(\w+=.*)$", SERVICE.read_text(), re.MULTILINE)
    settings = (units / "environment").read_text()
    head, port = re.findall(r"^NAGFARM_HEAD(?:_PORT)?=(.*)$", settings, re.MULTILINE)
    environment, credential = lines
    assert f"RAY_ADDRESS={head}:{port}" in environment.removeprefix("Environment=").split()
    unit = (units / "nagfarm-head.service").read_text()
    assert credential in unit.splitlines()
    for word in environment.split()[1:]:
        assert word in unit, word
