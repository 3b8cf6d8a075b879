"""A manifest with single clips and groups of two sizes, rendered by the real command.

The rows of two real models are interleaved. Of the two nodes, only one has room for the larger
group. An outer deadline ends a run that hangs.
"""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from infra.local.ray_cluster import LocalRay
from infra.local.ray_node import LocalNode
from jobs.cli.pattern.command import EXIT_OK
from jobs.records.commit import committed_ids, read_record
from jobs.records.schema import ClipRecord
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig

pytestmark = [pytest.mark.cluster, pytest.mark.models, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[3]
DEADLINE_S = 240.0  # on a busy machine
END_WAIT_S = 20.0  # Ray kills a process that does not end within 5 s
SMALL_CPUS, LARGE_CPUS = 2, 4  # cores of the two nodes
PAIR, FOUR = ParallelConfig(ulysses=2), ParallelConfig(ulysses=2, ring=2)
KINDS = [
    ("shapes-wan", ONE_DEVICE),
    ("shapes-ltx", PAIR),
    ("shapes-ltx", ONE_DEVICE),
    ("shapes-wan", FOUR),
]
NUM_ROUNDS = 2


@dataclass(frozen=True)
class MixedRun:
    """The output of the run, the record of each row by name, and the actors still running."""

    exit_code: int
    printed: str
    asked: dict[str, tuple[str, ParallelConfig]]
    records: dict[str, ClipRecord]
    large: LocalNode
    left_running: list[int]

    def workers(self, parallel: ParallelConfig) -> list[list[int]]:
        """Return the process ids of each worker of a kind, in the order of the log."""
        lines = [line for line in self.printed.splitlines() if " is ready on cpu" in line]
        if parallel.degree == 1:
            return [
                [int(re.findall(r":(\d+) is ready", line)[0])]
                for line in lines
                if "group" not in line
            ]
        of_kind = [
            line for line in lines if f"(group of {parallel.degree}: {parallel}; pids " in line
        ]
        return [
            [int(pid) for pid in re.findall(r"\d+", line.partition("pids")[2])] for line in of_kind
        ]


def write_rows(path: Path) -> dict[str, tuple[str, ParallelConfig]]:
    """Write rows so that each is of another kind than the row before it."""
    asked = {
        f"{model}-{parallel.degree}-{seed}": (model, parallel)
        for seed in range(NUM_ROUNDS)
        for model, parallel in KINDS
    }
    rows = [
        {
            "name": name,
            "model": model,
            "prompt": "a red circle moving right",
            "negative_prompt": "blue",
            "num_inference_steps": 4,
            "seed": 10 * parallel.degree + int(name[-1]),
            "parallel": {"ulysses": parallel.ulysses, "ring": parallel.ring},
        }
        for name, (model, parallel) in asked.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return asked


def actors(cluster: LocalRay) -> Iterator[psutil.Process]:
    for process in cluster.processes():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if re.match(r"ray::\w+Actor", (process.cmdline() or [""])[0]):
                yield process


@pytest.fixture(scope="module")
def mixed_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MixedRun]:
    folder = tmp_path_factory.mktemp("mixed")
    manifest, output = folder / "mixed.jsonl", folder / "out"
    asked = write_rows(manifest)
    with LocalRay(SMALL_CPUS, {}) as cluster:
        large = cluster.add_node(LARGE_CPUS)
        finished = subprocess.run(
            [
                sys.executable,
                "-m",
                "jobs",
                "render",
                manifest,
                "--output",
                output.as_uri(),
                "workers.count=1",
            ],
            env={**cluster.environment(), "RAY_ADDRESS": cluster.address},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        store = open_store(output.as_uri(), StoreConfig())
        found = [read_record(store, clip_id) for clip_id in committed_ids(store)]
        records = {record.name: record for record in found}
        _, left = psutil.wait_procs(list(actors(cluster)), timeout=END_WAIT_S)
        yield MixedRun(
            finished.returncode,
            finished.stdout,
            asked,
            records,
            large,
            [process.pid for process in left],
        )


def test_single_clips_and_groups_of_two_models_are_all_rendered(mixed_run: MixedRun) -> None:
    assert mixed_run.exit_code == EXIT_OK, mixed_run.printed
    assert set(mixed_run.records) == set(mixed_run.asked)


def test_each_record_has_the_group_that_rendered_its_clip(mixed_run: MixedRun) -> None:
    rendered = {
        name: (record.model.name, record.parallel) for name, record in mixed_run.records.items()
    }
    assert rendered == mixed_run.asked


def test_the_log_names_the_processes_of_each_group_and_the_records_its_leader(
    mixed_run: MixedRun,
) -> None:
    for _, parallel in KINDS:
        leaders = {pids[0] for pids in mixed_run.workers(parallel)}
        assert leaders == {
            record.worker.pid
            for record in mixed_run.records.values()
            if record.parallel == parallel
        }
        assert all(len(set(pids)) == parallel.degree for pids in mixed_run.workers(parallel))


def test_each_worker_starts_once_and_none_is_lost(mixed_run: MixedRun) -> None:
    assert [len(mixed_run.workers(kind)) for kind in (ONE_DEVICE, PAIR, FOUR)] == [2, 1, 1]
    assert "lost worker" not in mixed_run.printed


def test_a_group_is_on_the_only_node_that_has_room_for_it(mixed_run: MixedRun) -> None:
    nodes = {
        record.worker.node_id for record in mixed_run.records.values() if record.parallel == FOUR
    }
    assert nodes == {mixed_run.large.node_id}


def test_no_process_outlives_the_run(mixed_run: MixedRun) -> None:
    assert mixed_run.left_running == []
