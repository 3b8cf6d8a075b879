"""A real Prometheus fetches the metrics of a real run, and every query finds them."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from infra.dashboards.__main__ import FOLDER
from infra.local.local_process import HOST, LocalProcess, free_ports
from infra.local.ray_cluster import LocalRay
from infra.local.s3_server import LocalS3
from jobs.cli.pattern.command import EXIT_OK, EXIT_QUARANTINE
from jobs.metrics.definitions import METRICS
from tests.infra.test_dashboards import queries
from tests.structure import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.s3, pytest.mark.slow]

PROGRAM = shutil.which("prometheus")
DISCOVERED = "/tmp/ray/prom_metrics_service_discovery.json"  # in prometheus.yaml
NUM_CLIPS = 6
DEADLINE_S = 120.0
LIMIT = re.compile(r"\s*(==|>=|<=|>|<)\s*[\d.]+$")
CONDITION = re.compile(r"\n(?:and|unless)\b(?: on \(\w+\))?")
BOARD_VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$model": ".*"}
DRIVER = """
import sys
from jobs.cli.main import main
from tests.fakes.model import FakeLoader
sys.exit(main(sys.argv[1:], loader=FakeLoader()))
"""
STAGES = {"text", "denoise", "decode", "encode", "check", "upload"}


@dataclass
class Prometheus:
    """A Prometheus with the settings of infra/dashboards, which fetches every second."""

    folder: Path
    discovery: Path
    process: LocalProcess = field(init=False)
    url: str = field(init=False)

    def __post_init__(self) -> None:
        text = (FOLDER / "prometheus.yaml").read_text()
        assert DISCOVERED in text
        config = yaml.safe_load(text.replace(DISCOVERED, str(self.discovery)))
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["scrape_configs"][0]["file_sd_configs"][0]["refresh_interval"] = "1s"
        config["rule_files"] = [str(FOLDER / "rules.yaml")]
        path = self.folder / "prometheus.yaml"
        path.write_text(yaml.safe_dump(config))
        (port,) = free_ports(1)
        self.url = f"http://{HOST}:{port}"
        command = [
            *(PROGRAM or "prometheus", f"--config.file={path}", "--log.level=warn"),
            *(f"--storage.tsdb.path={self.folder / 'data'}", f"--web.listen-address={HOST}:{port}"),
        ]
        self.process = LocalProcess(command, self.folder / "log")

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the answer; None while there is none."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.loads(answer.read())["data"]
        except OSError:
            return None

    def values(self, query: str) -> list[tuple[dict[str, str], float]]:
        found = (self.ask("query", query=query) or {"result": []})["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def wait_for_value(self, query: str, wanted: float) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while (found := [value for _, value in self.values(query)]) != [wanted]:
            assert time.monotonic() < deadline, f"{query} is {found}, not {wanted}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster(s3_server: LocalS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRay]:
    environment = {
        **s3_server.environment(),
        "RAY_metrics_report_interval_ms": "1000",
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
    }
    with LocalRay(2, environment) as found:
        yield found


@pytest.fixture
def prometheus(cluster: LocalRay, tmp_path: Path) -> Iterator[Prometheus]:
    if PROGRAM is None:
        pytest.skip("Prometheus is missing: apt-get install prometheus")
    found = Prometheus(tmp_path, cluster.folder / Path(DISCOVERED).name)
    try:
        yield found
    finally:
        found.process.end(5.0)


def render(cluster: LocalRay, folder: Path, prompts: list[str], name: str) -> int:
    """Render in a process of its own, which has this cluster's token from its beginning."""
    path = folder / f"{name}.jsonl"
    rows = [
        {"prompt": prompt, "seed": seed, "num_inference_steps": 1}
        for seed, prompt in enumerate(prompts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--model", "shapes-wan", "--output", f"s3://renders/{name}", "workers.count=2"]
    settings = ["costs.price_per_device_hour=3600", "stall.heartbeat_interval_s=1"]
    finished = subprocess.run(
        [sys.executable, "-c", DRIVER, "render", path, *options, *settings],
        cwd=ROOT,
        env={**cluster.environment(), "RAY_ADDRESS": cluster.address},
        check=False,
    )
    return finished.returncode


def single_queries() -> list[str]:
    """Return the queries of the board and of each part of an alert, without limits."""
    found = list[str]()
    for query in queries():
        for part in CONDITION.split(query):
            one = LIMIT.sub("", part)
            for name, value in BOARD_VARIABLES.items():
                one = one.replace(name, value)
            found.append(one.strip())
    return found


def test_every_query_of_the_board_and_of_the_alerts_has_data_while_a_run_renders(
    cluster: LocalRay, prometheus: Prometheus, tmp_path: Path
) -> None:
    gate = cluster.folder / "gate"  # a short path, since the model reads 48 tokens of a prompt
    without_data, is_over = single_queries(), threading.Event()

    def watch() -> None:
        """Let the last clip end once all queries have data."""
        deadline = time.monotonic() + DEADLINE_S
        while without_data and time.monotonic() < deadline and not is_over.is_set():
            without_data[:] = [query for query in without_data if not prometheus.values(query)]
            time.sleep(0.2)
        gate.touch()

    watching = threading.Thread(target=watch)
    watching.start()
    prompts = [*["sunrise"] * (NUM_CLIPS - 1), "error", f"wait {gate}"]
    try:
        code = render(cluster, tmp_path, prompts, "watched")
    finally:
        is_over.set()
        watching.join()
    assert without_data == []
    assert code == EXIT_QUARANTINE

    committed = "ray_nagfarm_clips_committed_total"
    prometheus.wait_for_value(f"sum({committed})", NUM_CLIPS)
    prometheus.wait_for_value("sum(ray_nagfarm_clips_quarantined_total)", 1)
    prometheus.wait_for_value("sum(ray_nagfarm_attempts_failed_total)", 1)
    prometheus.wait_for_value(
        'sum(ray_nagfarm_stage_duration_seconds_count{stage="upload"})', NUM_CLIPS
    )
    assert {labels["model"] for labels, _ in prometheus.values(committed)} == {"shapes-wan"}
    stages = prometheus.values("sum by (stage) (ray_nagfarm_stage_duration_seconds_count)")
    assert {labels["stage"] for labels, _ in stages} >= STAGES
    ((_, held_s),) = prometheus.values("sum(ray_nagfarm_device_held_seconds_total)")
    ((_, cost),) = prometheus.values("sum(ray_nagfarm_cost_total)")
    assert cost == pytest.approx(held_s)

    known = prometheus.ask("metadata")
    for one in METRICS:
        name = one.exported_name  # Prometheus may drop the end of a counter's
        found = known.get(name) or known[name.removesuffix("_total")]
        assert {(entry["type"], entry["help"]) for entry in found} == {(one.kind, one.help)}


def test_a_run_ends_as_ever_while_the_agent_of_rays_metrics_does_not_answer(
    cluster: LocalRay, tmp_path: Path
) -> None:
    agents = list(agents_of(cluster))
    assert agents
    for agent in agents:
        agent.send_signal(signal.SIGSTOP)
    try:
        assert render(cluster, tmp_path, ["sunrise"] * NUM_CLIPS, "unwatched") == EXIT_OK
    finally:
        for agent in agents:
            agent.send_signal(signal.SIGCONT)


def agents_of(cluster: LocalRay) -> Iterator[psutil.Process]:
    """Yield the process of each node to which all others send their metrics."""
    for process in cluster.processes():
        if process.cmdline()[:1] and process.cmdline()[0].endswith("/raylet"):
            for child in process.children():
                words = " ".join(child.cmdline())
                if "ray::DashboardAgent" in words or "dashboard/agent.py" in words:
                    yield child
