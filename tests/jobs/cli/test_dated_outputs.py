"""Outputs that are named after a day: `plan` resolves {date} and {week}, or refuses them."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.checks.cluster import NodeReport
from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED

CLIPS = "model: shapes-wan\nclips: [{prompt: a circle, num_inference_steps: 1}]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(head: str) -> None:
    Path("spring.yaml").write_text(head + CLIPS)


def planned(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Plan the manifest, and return the line of its output."""
    assert main(["plan", "spring.yaml", *options]) == EXIT_OK
    (line,) = re.findall(r"^  output .*$", capsys.readouterr().out, re.MULTILINE)
    return line


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["plan", "spring.yaml", *options]) == EXIT_REFUSED
    return capsys.readouterr().err


def test_a_plan_names_the_output_of_a_day_in_the_zone_of_the_manifest(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("output: ./{week}/{date}\ntime_zone: Europe/Berlin\nday_starts: 12:00\n")
    assert planned(capsys, "--date", "2026-01-31") == (
        f"  output {folder.as_uri()}/2026-W05/2026-01-31, named for 2026-01-31 in Europe/Berlin, "
        "of ./{week}/{date}"
    )
    now = datetime.now(UTC)
    # Berlin is one or two hours ahead of UTC, and its days begin twelve hours late
    days = {(now + timedelta(hours=hours)).date().isoformat() for hours in (-11, -10)}
    assert planned(capsys).split()[-5] in days
    assert "in Asia/Tokyo" in planned(capsys, "--time-zone", "Asia/Tokyo", "--day-starts=00:00")


def test_an_output_of_the_command_line_has_placeholders_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("")
    line = planned(capsys, "--output", "./{date}", "--date", "2026-01-31")
    assert line.endswith("/2026-01-31, named for 2026-01-31 in UTC, of ./{date}")


@pytest.mark.parametrize(
    ("head", "options", "message"),
    [
        ("\noutput: ./{day}\n", [], "spring.yaml:2: output: unknown placeholder {day}; expected"),
        ("output: ./out\n", ["--output=./{day}"], "nagfarm: --output: unknown placeholder {day}"),
        ("output: ./out\n", ["--date=2026-01-31"], "--date 2026-01-31: the output './out' holds"),
        ("output: x\ntime_zone: Berlin\n", [], "spring.yaml:2: unknown time zone 'Berlin'"),
        ("output: x\ntime_zone: 1\n", [], "spring.yaml:2: time_zone must be text, not 1"),
        ("output: x\nday_starts: noon\n", [], "spring.yaml:2: day_starts must be a time of the"),
        ("output: x\nday_starts: 12:75\n", [], "spring.yaml:2: day_starts must be a time of the"),
    ],
)
def test_a_name_that_cannot_be_resolved_is_refused_with_its_place(
    head: str, options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(head)
    assert message in refused(capsys, *options)
    assert [path.name for path in folder.iterdir()] == ["spring.yaml"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--date=2026-02-30", "expected a date such as 2026-01-31, got '2026-02-30'"),
        ("--day-starts=25:00", "expected a time of the day such as 12:00, got '25:00'"),
        ("--time-zone=Berlin", "unknown time zone 'Berlin'"),
    ],
)
def test_an_option_that_cannot_be_read_is_refused(
    option: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("output: ./{date}\n")
    with pytest.raises(SystemExit) as ended:
        main(["plan", "spring.yaml", option])
    assert ended.value.code == EXIT_REFUSED
    assert message in capsys.readouterr().err


def test_doctor_checks_the_output_of_the_day_on_every_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str | None]()

    def check_nodes(_models: object, output: str | None, *_: object) -> list[NodeReport]:
        asked.append(output)
        return []

    monkeypatch.setattr("jobs.cli.doctor.check_nodes", check_nodes)
    path = tmp_path / "night.yaml"
    path.write_text(f"output: s3://renders/{{date}}\n{CLIPS}")
    assert main(["doctor", "--cluster", "--manifest", str(path)]) == EXIT_OK
    assert main(["doctor", "--cluster", "--output", "s3://renders/{week}"]) == EXIT_OK
    assert re.fullmatch(r"s3://renders/\d{4}-\d\d-\d\d", asked[0] or "")
    assert re.fullmatch(r"s3://renders/\d{4}-W\d\d", asked[1] or "")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_in_which_no_node_can_answer_is_refused(
    seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--cluster", f"--node-timeout={seconds}"])
    assert "expected seconds from 1 to 86400" in capsys.readouterr().err
