"""The board, the alerts and the monitors: they fit the metrics, Grafana, Prometheus, Kubernetes."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from infra.dashboards.__main__ import FOLDER, files
from infra.dashboards.board import board
from jobs.metrics.definitions import METRICS
from tests.builders.crds import check_object
from tests.structure import ROOT

PAGE = ROOT / "docs" / "how-to" / "metrics.md"
UNIT_TESTS = ROOT / "tests" / "infra" / "rules_test.yaml"
NAMES = {one.exported_name for one in METRICS}
LABELS = {"model", "node", "stage", "state", "reason", "le"}
CRDS = "prometheus-operator-crds"


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((FOLDER / "rules.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    targets = [target for panel in board()["panels"] for target in panel["targets"]]
    return [*(one["expr"] for one in targets), *(rule["expr"] for rule in rules())]


def promtool(*arguments: str | Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    finished = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize("name", list(files()))
def test_a_file_is_as_the_program_writes_it(name: str) -> None:
    assert (FOLDER / name).read_text() == files()[name], "run python -m infra.dashboards"


def test_queries_name_metrics_and_labels_that_exist_and_each_metric_is_shown() -> None:
    named = set[str]()
    for query in queries():
        found = {name.removesuffix("_bucket") for name in re.findall(r"\bray_\w+", query)}
        assert found, query
        named |= found
        for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", query):
            assert set(labels.split(", ")) <= LABELS, query
    assert named == NAMES


def test_panels_have_ids_and_places_of_their_own() -> None:
    panels = json.loads((FOLDER / "nagfarm-board.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(panels)
    assert all(
        x + panel["gridPos"]["w"] <= 24 for (x, _), panel in zip(places, panels, strict=True)
    )


def test_grafana_knows_each_field_of_the_board() -> None:
    """A field that Grafana's own classes do not have is lost on its way through them."""
    dashboard = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder").JSONEncoder
    plugins = pytest.importorskip("grafana_foundation_sdk.cog.plugins")
    plugins.register_default_plugins()

    def known(found: dict[str, Any]) -> dict[str, Any]:
        return json.loads(encoder(sort_keys=True).encode(dashboard.Dashboard.from_json(found)))

    assert list(lost(board(), known(board()))) == []
    wrong = {**board(), "refreshh": "30s"}
    assert list(lost(wrong, known(wrong))) == ["refreshh"]


def lost(found: Any, known: Any, path: str = "") -> Iterator[str]:
    """Yield the path of each value that the second document lacks."""
    if isinstance(found, dict):
        for name, value in found.items():
            below = f"{path}.{name}".removeprefix(".")
            if name in known:
                yield from lost(value, known[name], below)
            else:
                yield below
    elif isinstance(found, list):
        for index, value in enumerate(found):
            yield from lost(value, known[index], f"{path}[{index}]")
    elif found != known:
        yield path


@pytest.mark.parametrize("name", ["pod-monitor.yaml", "prometheus-rule.yaml"])
def test_the_prometheus_operator_knows_each_field(name: str) -> None:
    found = yaml.safe_load((FOLDER / name).read_text())
    check_object(found, CRDS)
    wrong = deepcopy(found)
    wrong["spec"]["intervall"] = "15s"
    with pytest.raises(jsonschema.ValidationError, match="intervall"):
        check_object(wrong, CRDS)


def test_prometheus_takes_rules_and_settings() -> None:
    promtool("check", "rules", FOLDER / "rules.yaml")
    promtool("check", "config", FOLDER / "prometheus.yaml")


def test_prometheus_takes_the_machines_of_the_page(tmp_path: Path) -> None:
    (block,) = re.findall(r"^  ```yaml\n(.*?)^  ```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    settings = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    (job,) = settings["scrape_configs"]
    del job["file_sd_configs"]
    job |= yaml.safe_load(block)
    units = ROOT / "infra" / "ray" / "systemd"
    (port,) = re.findall(
        r"^NAGFARM_METRICS_PORT=(\d+)$", (units / "environment").read_text(), re.MULTILINE
    )
    (targets,) = job["static_configs"]
    assert {target.partition(":")[2] for target in targets["targets"]} == {port}
    (tmp_path / "rules.yaml").write_text((FOLDER / "rules.yaml").read_text())
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    promtool("check", "config", tmp_path / "prometheus.yaml")


def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", UNIT_TESTS)


def test_each_alert_has_a_unit_test_in_which_it_fires_and_a_row_in_the_page() -> None:
    fired = {
        check["alertname"]
        for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"]
        for check in test["alert_rule_test"]
        if check.get("exp_alerts")
    }
    alerts = {rule["alert"] for rule in rules()}
    assert fired == alerts
    assert set(re.findall(r"^\| `(Nagfarm\w+)`", PAGE.read_text(), re.MULTILINE)) == alerts


def test_the_pages_table_of_metrics_is_that_of_the_code() -> None:
    rows = [
        f"| `{one.exported_name}` | {one.kind} | {', '.join(one.labels)} | {one.help} |"
        for one in METRICS
    ]
    found = [line for line in PAGE.read_text().splitlines() if line.startswith("| `ray_nagfarm_")]
    assert found == rows
