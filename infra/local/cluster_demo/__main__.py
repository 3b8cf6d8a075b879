"""The cluster demo: a batch on a cluster of several machines, while machines are lost and join.

Each Ray node and the S3 server are a machine of their own, in a network namespace behind a switch.
While `ray job submit` renders a batch, one node loses its network for a while, one joins, and one
loses its power for good. At the end every clip is committed once, tables show how the work moved,
and nothing is left: `make cluster-demo`, as root.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from infra.local.cluster_demo.farm import (
    MANIFEST,
    Farm,
    Job,
    JobEndedError,
    started,
    write_manifest,
)
from infra.local.cluster_demo.metrics import ask, metrics_table
from infra.local.cluster_demo.moves import Moment, find_moves, moves_table, seconds, work_table
from infra.local.cluster_demo.network import (
    Network,
    NetworkError,
    check_rights,
    isolate,
    private_network,
)
from infra.local.local_process import processes_naming, stop_signal_as_interrupt
from infra.local.ray_cluster import LocalRayError
from infra.local.ray_node import LocalNodeError
from infra.local.weed import LocalS3Error

CUT_OFF, LOST, JOINING = "node-a", "node-b", "node-c"
NODES = (CUT_OFF, LOST, JOINING)
WAIT_S = 300.0  # for a node's first clip; a worker loads for half a minute on a busy machine
INTERRUPTED = 130
MIN_WIDTH = 130  # characters, for the names of metrics


@dataclass(frozen=True)
class Arguments:
    """The arguments of the demo."""

    clips: int
    steps: int
    cut_s: float
    report: Path | None
    inside: bool


def main() -> int:
    arguments = read_arguments()
    if not arguments.inside:
        try:
            check_rights()
        except NetworkError as error:
            print(f"cluster-demo: {error}", file=sys.stderr)
            return 2
        isolate([sys.executable, "-m", "infra.local.cluster_demo", *sys.argv[1:], "--inside"])
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]  # no proxy can be reached from the private network
    try:
        with stop_signal_as_interrupt(), private_network() as network:
            exit_code = run(arguments, network)
    except KeyboardInterrupt:
        print("\ninterrupted; nothing is left running", flush=True)
        return INTERRUPTED
    except (JobEndedError, NetworkError, LocalNodeError, LocalRayError, LocalS3Error) as error:
        print(f"cluster-demo: {error}", file=sys.stderr)
        return 1
    print("all machines, their network and their files are gone")
    return exit_code


def read_arguments() -> Arguments:
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.cluster_demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clips", type=int, default=120, help="clips of the batch (default 120)")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps (default 20)")
    parser.add_argument(
        "--cut-s", type=float, default=30.0, help="seconds without network (default 30)"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write all facts as JSON")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return Arguments(**vars(parser.parse_args()))


def run(arguments: Arguments, network: Network) -> int:
    """Start the farm, play the faults, and show the result; return the exit code."""
    print("starting S3 and three Ray nodes, each on a machine of its own ...", flush=True)
    with started(network, (CUT_OFF, LOST)) as farm, contextlib.ExitStack() as jobs:
        write_manifest(farm.folder / MANIFEST, arguments.clips, arguments.steps)
        if farm.check_nodes():
            return 1
        job = Job(farm)
        jobs.callback(job.end)
        moments = play(farm, job, arguments.cut_s)
        exit_code = job.wait()
        end_s = time.time()
        farm.read_records()
        show(farm, moments, end_s)
        is_whole = farm.verify() == 0 and set(farm.writes().values()) == {1}
        if arguments.report is not None:
            write_report(arguments.report, farm, moments)
        left = farm.cluster.folder
    assert not list(processes_naming(left)), "a process is left"
    assert not left.exists(), "a folder is left"
    return exit_code or int(not is_whole)


def play(farm: Farm, job: Job, cut_s: float) -> list[Moment]:
    """Cut one node off for a while, add one, and kill one, each while the batch renders."""
    moments: list[Moment] = []

    def note(title: str) -> float:
        moments.append(Moment(time.time(), title))
        print(f"--- {title}", flush=True)
        return moments[-1].at_s

    note("the batch begins")
    job.wait_until(
        lambda: all(farm.committed_by(name) for name in (CUT_OFF, LOST)),
        f"{CUT_OFF} and {LOST} had each committed a clip",
        WAIT_S,
    )
    begin_s = note(f"{CUT_OFF} loses its network")
    farm.network.pull_cable(CUT_OFF)
    job.wait_until(lambda: time.time() > begin_s + cut_s, f"{CUT_OFF} was back", cut_s + 1)
    farm.network.plug_in(CUT_OFF)
    back_s = note(f"{CUT_OFF} is back")

    def renders_again() -> bool:
        farm.restart_if_ended(CUT_OFF)
        return farm.committed_by(CUT_OFF, back_s) > 0

    job.wait_until(renders_again, f"{CUT_OFF} rendered again", WAIT_S)
    note(f"{JOINING} joins")
    farm.add_node(JOINING)
    job.wait_until(
        lambda: farm.committed_by(JOINING) > 0, f"{JOINING} had committed a clip", WAIT_S
    )
    note(f"{LOST} loses its power")
    farm.network.pull_cable(LOST)
    farm.nodes[LOST].cut_power()
    return moments


def show(farm: Farm, moments: list[Moment], end_s: float) -> None:
    """Print the tables."""
    console = Console(width=max(Console().width, MIN_WIDTH))  # a log has a width of 80
    records = list(farm.records.values())
    moves = find_moves(farm.records, farm.failures())
    urls = {"head": farm.cluster.metrics_url}
    urls |= {name: node.metrics_url for name, node in farm.nodes.items()}
    print(flush=True)
    console.print(work_table(moments, records, NODES, end_s))
    console.print(moves_table(moves))
    console.print(metrics_table({name: ask(url) for name, url in urls.items()}))


def write_report(path: Path, farm: Farm, moments: list[Moment]) -> None:
    """Write the facts behind the tables, and how often each record was written."""
    report = {
        "moments": [asdict(moment) for moment in moments],
        "clips": [
            {
                "name": record.name,
                "node": record.worker.host,
                "attempt": record.attempt,
                "started_at_s": record.timings[0].started_at,
                "committed_at_s": seconds(record.committed_at),
            }
            for record in farm.records.values()
        ],
        "moves": [asdict(move) for move in find_moves(farm.records, farm.failures())],
        "writes": farm.writes(),
    }
    path.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    sys.exit(main())
