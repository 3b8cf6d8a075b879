"""`nagfarm plan --simulate`: the table, the sources of the times, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED
from jobs.records.keys import record_key
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from jobs.types import StageTiming
from pipelines.device_marks import DeviceTime
from tests.builders.records import record_of

STEPS = 2


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "night.jsonl"
    rows = [
        {"prompt": "a red circle", "seed": seed, "num_inference_steps": STEPS}
        for seed in range(100)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def output(tmp_path: Path) -> str:
    """An output with the record of another clip of the same kind: 36 s on the device."""
    uri = (tmp_path / "earlier").as_uri()
    store = open_store(uri, StoreConfig())
    record = record_of(store, b"video", "0" * 32)
    sampling = replace(record.request.sampling, num_inference_steps=STEPS)
    shape = replace(record.request.shape, num_frames=17, height=64, width=64)
    record = replace(
        record,
        model=replace(record.model, name="shapes-wan"),
        request=replace(record.request, shape=shape, sampling=sampling),
        device_time=DeviceTime(36.0, 0.0),
        timings=(StageTiming("denoise", 0.0, 36.0, 0), StageTiming("load", 0.0, 10.0)),
    )
    store.put(record_key(record.clip_id), record.to_json(), "application/json")
    return uri


def plan(manifest: Path, uri: str, *options: str) -> int:
    command = ["plan", str(manifest), "--model", "shapes-wan", "--output", uri, *options]
    return main(command)


@pytest.mark.parametrize("price", [("--price", "2.50"), ("costs.price_per_device_hour=2.5",)])
def test_the_table_has_a_row_for_each_number_of_devices(
    manifest: Path, output: str, capsys: pytest.CaptureFixture[str], price: tuple[str, ...]
) -> None:
    options = ("--simulate", "1,10,100", *price, "--from", output)
    assert plan(manifest, f"{output}-new", *options) == EXIT_OK
    printed = capsys.readouterr()
    assert printed.err == ""  # the bar is for a terminal
    lines = printed.out.splitlines()
    begin = next(index for index, line in enumerate(lines) if "times of" in line)
    assert lines[begin:] == [
        f"  times of 1 kind of clip: 1 record of {output}",
        "  a worker of shapes-wan starts in 10 s (median of the records)",
        "",
        "  devices  wall time  busy  clips an hour  bottleneck  cost",
        "        1   60.2 min  100%            100  devices     2.51",
        "       10    6.2 min   97%            973  devices     2.57",
        "      100     46.5 s   77%          7,742  start       3.23",
    ]


@pytest.mark.parametrize("price", [("--price", "2.50"), ("costs.prices={cpu: 2.5}",)])
def test_a_plan_has_device_hours_and_cost_by_the_records_of_an_earlier_output(
    manifest: Path, output: str, capsys: pytest.CaptureFixture[str], price: tuple[str, ...]
) -> None:
    options = ("--from", output, *price, "costs.currency=EUR")
    assert plan(manifest, f"{output}-new", *options) == EXIT_OK
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines()[-3:] == [
        "  model       clips  device-hours      cost  times from",
        "  shapes-wan    100          1.00  EUR 2.50  1 record, cpu",
        (
            "  not in it: the start of each worker, 10 s (shapes-wan) of a device; failures; idle "
            "devices at the end. --simulate N plays the run through"
        ),
    ]


def test_a_plan_without_records_or_prediction_says_how_to_get_them(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(manifest, (tmp_path / "new").as_uri()) == EXIT_OK
    assert capsys.readouterr().out.splitlines()[-1] == (
        "  shapes-wan: device-hours not known without records; render a few of them first "
        "(--limit 10), or name an output that has some with --from URI"
    )


def test_faults_and_limits_have_a_line_or_a_word(
    manifest: Path, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--simulate", "10", "--preemptions", "10", "--store-requests", "0.2")
    assert plan(manifest, output, *options) == EXIT_OK
    printed = capsys.readouterr().out
    assert "  store\n" in printed
    assert "  10 devices: " in printed
    assert "workers lost" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--simulate", "0"), "--simulate: expected 1 to 4,096 devices, got 0"),
        (("--simulate", "many"), "expected numbers of devices, such as 8,64,512, got 'many'"),
        (("--failures", "0.5"), "--failures needs --simulate, such as --simulate 8,64,512"),
        (("--price", "-1"), "--price: expected a number of at least 0, got -1"),
        (("--from", "./absent"), "absent"),
        (("--store-requests", "5"), "--store-requests needs --simulate"),
        (("--simulate", "8", "--price", "-1"), "--price: expected a number of at least 0, got -1"),
        (("--simulate", "8", "--failures", "2"), "--failures: expected a share"),
        (("--simulate", "8"), "render a few of them first (--limit 10)"),
        (("--simulate", "8", "--from", "./absent"), "absent"),
    ],
)
def test_what_cannot_be_simulated_is_refused_with_the_remedy(
    manifest: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert plan(manifest, (tmp_path / "out").as_uri(), *options) == EXIT_REFUSED
    assert message in capsys.readouterr().err
