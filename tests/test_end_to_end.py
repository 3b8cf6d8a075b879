"""A run as users start it: `ray job submit` of a Shapes manifest, on real Ray and real S3.

The working_dir has packages named like ours, and Ray puts it first on the path of driver and
workers. One run loses a worker to `kill -9`. An independent S3 client, rclone, checks the output.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from infra.local.ray_cluster import LocalRay, ray_command
from infra.local.s3_server import LocalS3
from jobs.cluster.dispatcher import Dispatcher
from jobs.cluster.joined_cluster import ClusterView
from jobs.cluster.worker_pool import PoolPlan
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.media.contact_sheet import SheetClip, draw_contact_sheet, negative_heading
from jobs.media.decode_check import decode_mp4
from jobs.plan.demand import Demand
from jobs.plan.group_capacity import RankResources
from jobs.records.commit import committed_ids, quarantined_ids, read_record, write_run
from jobs.records.keys import RUN_FILE
from jobs.records.lease_record import current_lease
from jobs.run.observer import RunObserver
from jobs.run.progress.console import ConsoleReport
from jobs.run.progress.tally import RunTally
from jobs.settings.run_config import EncodingConfig, RunConfig, StoreConfig
from jobs.store.store import Store, open_store
from jobs.worker.setup import DiffusersLoader, WorkerSetup
from pipelines.parallel_config import ONE_DEVICE
from tests.builders.foreign import write_foreign_packages, write_program

pytestmark = [pytest.mark.cluster, pytest.mark.s3, pytest.mark.models, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).parents[1]
OUTPUT = "s3://renders/end-to-end"
DEADLINE_S = 600.0


@pytest.fixture
def store(s3_environment: LocalS3) -> Store:
    return open_store(OUTPUT, StoreConfig())


@pytest.fixture(scope="module")
def working_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a user: the example, and packages of the user."""
    folder = tmp_path_factory.mktemp("user") / "work"
    shutil.copytree(REPOSITORY / "examples", folder)
    write_foreign_packages(folder)
    write_program(folder.parent)
    return folder


def submit(
    cluster: LocalRay, working_dir: Path, output: str = OUTPUT, submission_id: str | None = None
) -> "subprocess.Popen[str]":
    name = [f"--submission-id={submission_id}"] if submission_id else []
    command = [
        *(ray_command(), "job", "submit", f"--address={cluster.dashboard_url}", *name),
        *("--working-dir=.", "--"),
        *(str(working_dir.parent / "nagfarm"), "render", "shapes.yaml", "--output", output),
    ]
    return subprocess.Popen(
        command,
        cwd=working_dir,
        env=cluster.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def render_workers(cluster: LocalRay) -> Iterator[psutil.Process]:
    for process in cluster.processes():
        if process.is_running() and process.cmdline()[0].startswith("ray::RenderActor"):
            yield process


def rclone(server: LocalS3, *arguments: str) -> str:
    environment = {
        **os.environ,
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_S3_PROVIDER": "Other",
        "RCLONE_S3_ENDPOINT": server.endpoint_url,
        "RCLONE_S3_ACCESS_KEY_ID": server.access_key,
        "RCLONE_S3_SECRET_ACCESS_KEY": server.secret_key,
    }
    program = Path(sysconfig.get_path("scripts")) / "rclone"
    finished = subprocess.run(
        [program, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return finished.stdout


def test_a_killed_worker_costs_no_clip_and_a_second_run_renders_nothing(
    ray_cluster: LocalRay, s3_server: LocalS3, store: Store, working_dir: Path, tmp_path: Path
) -> None:
    job = submit(ray_cluster, working_dir)
    deadline = time.monotonic() + DEADLINE_S
    while not committed_ids(store):
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    victim = next(render_workers(ray_cluster))
    victim.kill()
    log, _ = job.communicate(timeout=DEADLINE_S)
    assert job.returncode == 0, log
    assert "lost worker" in log
    assert "committed 24 clips" in log

    records = [read_record(store, clip_id) for clip_id in committed_ids(store)]
    assert len(records) == 24
    assert len({record.name for record in records}) == 24
    # the same prompt with two negative prompts makes two clips
    assert len({record.sha256 for record in records}) == 24
    assert {str(record.nag_coverage) for record in records} == {"5 of 5"}

    root = f":s3:{OUTPUT.removeprefix('s3://')}"
    listed = json.loads(rclone(s3_server, "lsjson", "-R", "--files-only", root))
    assert sum(entry["Path"].startswith("records/") for entry in listed) == 24
    named = {record.key for record in records}
    assert named <= {entry["Path"] for entry in listed}
    rclone(s3_server, "copy", f"{root}/clips", str(tmp_path / "clips"))
    sheet = []
    for record in records:
        decoded = decode_mp4(tmp_path / record.key)
        assert decoded.frames.shape == (17, 64, 64, 3)
        request = record.request
        column = negative_heading(request.negative_prompt)
        sheet.append(SheetClip(request.prompt, column, request.sampling.seed, decoded.frames))
    draw_contact_sheet(sheet, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 10_000

    again = submit(ray_cluster, working_dir)
    log, _ = again.communicate(timeout=DEADLINE_S)
    assert again.returncode == 0, log
    assert "nothing to render: 24 of 24 clips are already in" in log
    assert {record.sha256 for record in records} == {
        read_record(store, clip_id).sha256 for clip_id in committed_ids(store)
    }


def ray_job(ray_cluster: LocalRay, action: str) -> str:
    """Return what `ray job` prints about the job that is stopped."""
    command = [ray_command(), "job", action, f"--address={ray_cluster.dashboard_url}", "stopped"]
    environment = ray_cluster.environment()
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_a_stopped_run_ends_in_order_before_ray_kills_it(
    ray_cluster: LocalRay, s3_environment: LocalS3, working_dir: Path
) -> None:
    """Ray kills after a wait; a released lease proves that the driver ended before."""
    store = open_store(f"{OUTPUT}-stopped", StoreConfig())
    job = submit(ray_cluster, working_dir, store.uri, "stopped")
    deadline = time.monotonic() + DEADLINE_S
    while not committed_ids(store):
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    ray_job(ray_cluster, "stop")
    job.communicate(timeout=60)
    # the output of `ray job submit` may lack the last lines; the job's own log has them
    assert "nagfarm: stopped: by SIGTERM; run it again to go on" in ray_job(ray_cluster, "logs")
    lease = current_lease(store)
    assert lease is not None
    assert lease.is_released
    committed = committed_ids(store)
    assert 0 < len(committed) < 24
    assert not quarantined_ids(store)
    for clip_id in committed:
        record = read_record(store, clip_id)
        assert hashlib.sha256(store.get(record.key)).hexdigest() == record.sha256


def test_the_command_line_answers_without_torch_and_ray() -> None:
    program = (
        "import sys\n"
        "from jobs.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "code = main(['plan', 'examples/shapes.yaml', '--output', 'file:///nowhere/at/all'])\n"
        "libraries = ('torch', 'ray', 'diffusers')\n"
        "heavy = [name for name in libraries if name in sys.modules]\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert "24 clips" in finished.stdout


@pytest.mark.slow
def test_a_clip_is_the_same_bit_for_bit_on_another_worker_and_in_another_order(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    catalog = ModelCatalog()
    entry = catalog.get("shapes-wan")
    specs = list(open_manifest(REPOSITORY / "examples" / "shapes.yaml", catalog).specs())[:10]
    digests: list[dict[str, str]] = []
    for name, num_workers, ordered in (("one", 2, specs), ("two", 1, specs[::-1])):
        output = (tmp_path / name).as_uri()
        write_run(open_store(output, StoreConfig()), f"run-{name}", RUN_FILE, {})
        setup = WorkerSetup(
            model=entry.config,
            weights=entry.weights,
            output=output,
            store=StoreConfig(),
            encoding=EncodingConfig(),
            spool_folder=str(tmp_path / "spool"),
            run_id=f"run-{name}",
            num_threads=1,
            loader=DiffusersLoader(),
        )
        report = ConsoleReport(Console(quiet=True), len(specs), 0.0)
        observer = RunObserver(RunTally(len(specs), 0.0), report, lambda *_: None)
        demand = Demand(ONE_DEVICE, RankResources(1), len(specs), num_workers)
        plan = PoolPlan(setup, lambda _, demand=demand: demand, iter(ordered))
        assert not Dispatcher(RunConfig(), observer, ClusterView).run([plan])
        store = open_store(output, StoreConfig())
        digests.append(
            {clip_id: read_record(store, clip_id).sha256 for clip_id in committed_ids(store)}
        )
    assert digests[0] == digests[1]
    assert len(set(digests[0].values())) == len(specs)
