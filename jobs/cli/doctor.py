"""`nagfarm doctor`: check this machine, or each node of a cluster, and print what is missing."""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from jobs.checks.cluster import ANSWER, NodeReport, check_nodes, findings
from jobs.checks.machine import (
    Check,
    check_decoder,
    check_devices,
    check_ffmpeg,
    check_packages,
    check_store,
)
from jobs.checks.memory import cards_here, check_memory
from jobs.checks.node import NODE_CHECKS
from jobs.checks.weights import ModelQuestion, check_own_weights
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED, Command, ConfigOptions, Context
from jobs.cli.pattern.manifest import open_written
from jobs.cli.pattern.model_options import add_models_argument
from jobs.cli.pattern.wording import table_lines
from jobs.errors import JobError, NoClusterError
from jobs.manifest.model_catalog import ModelCatalog
from jobs.plan.plan import make_plan
from jobs.run.progress.hashing_bar import inspect_with_bar
from jobs.settings.run_config import RunConfig
from jobs.text import counted, shown
from jobs.timetable.dated_output import MIDNIGHT_IN_UTC
from jobs.worker.start_timing import time_start
from nag.errors import NagError
from pipelines.catalog.files.sources import model_paths
from pipelines.errors import ModelFolderError, ModelNotFoundError, PipelineError

RAY_STATUS_TIMEOUT_S = 30.0
MAX_NODE_TIMEOUT_S = 86_400


@dataclass(frozen=True)
class DoctorOptions(ConfigOptions):
    """The options of `nagfarm doctor`."""

    output: str | None
    manifest: str | None
    model: str | None
    models: Path | None
    timing: str | None
    cluster: bool
    node_timeout: float

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--output", metavar="URI", help="also check that clips can be written there"
        )
        parser.add_argument(
            "--manifest", metavar="FILE", help="also check every row of this manifest"
        )
        parser.add_argument("--model", metavar="NAME", help="the model of rows that name none")
        add_models_argument(parser)
        kinds = parser.add_mutually_exclusive_group()
        kinds.add_argument(
            "--cluster",
            action="store_true",
            help="check each node of the running Ray cluster instead of this machine: packages, "
            "weights, devices, ffmpeg, and with --output or --manifest the store and the clock",
        )
        parser.add_argument(
            "--node-timeout",
            type=_node_timeout,
            default=120.0,
            metavar="SECONDS",
            help="with --cluster: report a node that has not answered by then (default 120)",
        )
        kinds.add_argument(
            "--timing",
            metavar="NAME",
            help="check nothing, but load this model in a fresh process, as a worker does, and "
            "print where its seconds go",
        )
        super().add_arguments(parser)


def _node_timeout(written: str) -> float:
    try:
        seconds = float(written)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= MAX_NODE_TIMEOUT_S:
        raise argparse.ArgumentTypeError(
            f"expected seconds from 1 to {MAX_NODE_TIMEOUT_S}, got {shown(written)}"
        )
    return seconds


def run(options: DoctorOptions, context: Context) -> int:
    if options.timing is not None:
        return _print_timing(options, options.timing, context)
    if options.cluster:
        return _print_cluster(options, context)
    checks = run_checks(options)
    for check in checks:
        context.say(f"{check.mark:<4}  {check.name}: {check.message}")
    return EXIT_OK if all(check.is_ok is not False for check in checks) else EXIT_REFUSED


def _print_timing(options: DoctorOptions, name: str, context: Context) -> int:
    weights = ModelCatalog(options.models, inspect_with_bar).get(name).weights
    if weights.described is not None:
        raise ModelNotFoundError(f"{name}: only its description is here, in {weights.folder}")
    timing = time_start(
        model_paths(options.models)[name], weights, options.config().workers.num_cpus
    )
    context.say(f"the start of {name} in a fresh process; {', '.join(timing.libraries)} imported")
    rows = [(part, f"{seconds:,.2f}") for part, seconds in timing.rows()]
    for line in table_lines(("part", "seconds"), rows, ("seconds",)):
        context.say(f"  {line}")
    return EXIT_OK


def _print_cluster(options: DoctorOptions, context: Context) -> int:
    config, catalog = options.config(), ModelCatalog(options.models, inspect_with_bar)
    output, names = options.output, [options.model] if options.model else catalog.names()
    calendar = MIDNIGHT_IN_UTC
    if options.manifest is not None:
        manifest = open_written(
            options.manifest, catalog, config, output=output, model=options.model
        )
        plan, output = make_plan(manifest, (), ()), manifest.output
        calendar = manifest.calendar
        names = sorted(
            {bucket.model for bucket in plan.buckets} | {one.name for one in plan.broken}
        )
    is_asked_for = options.manifest is not None or options.model is not None
    models = tuple(_model_question(catalog, name, is_asked_for=is_asked_for) for name in names)
    output = output and calendar.name(output, time.time()).uri
    reports = check_nodes(models, output, config.store, options.node_timeout)
    for line in table_lines(("node", "address", "offers", *NODE_CHECKS), map(_row, reports)):
        context.say(line)
    context.say("")
    for finding in findings(reports):
        context.say(str(finding))
    is_good = all(check.is_ok is not False for report in reports for check in report.checks)
    return EXIT_OK if is_good else EXIT_REFUSED


def _row(report: NodeReport) -> list[str]:
    if report.cell(ANSWER) == "FAIL":
        cells = ["no answer", *[""] * (len(NODE_CHECKS) - 1)]
    else:
        cells = [report.cell(name) for name in NODE_CHECKS]
    return [report.name, report.address, report.resources, *cells]


def _model_question(catalog: ModelCatalog, name: str, *, is_asked_for: bool) -> ModelQuestion:
    try:
        found = catalog.get(name).weights
    except (ModelNotFoundError, ModelFolderError):  # the nodes may have them
        found = None
    weights = None if found is None or found.described is not None else found
    return ModelQuestion(catalog.config(name), catalog.path(name), weights, is_asked_for)


def run_checks(options: DoctorOptions) -> list[Check]:
    config, catalog = options.config(), ModelCatalog(options.models, inspect_with_bar)
    checks = [*check_packages(), check_ffmpeg(), check_decoder(), check_devices()]
    checks += [*_ray(), *check_own_weights(catalog), *check_memory(catalog, cards_here())]
    if options.manifest is not None:
        checks.append(_manifest(options.manifest, options.model, config, catalog))
    if options.output is not None:
        output = MIDNIGHT_IN_UTC.name(options.output, time.time()).uri
        checks.append(check_store(output, config.store))
    return checks


def _ray() -> list[Check]:
    """Look for the cluster that a run would join, and for the right to submit jobs to one."""
    from jobs.cluster.job_access import job_access

    given = os.environ.get("RAY_ADDRESS", "")
    url = given if given.startswith(("http://", "https://")) else None
    access = job_access(url)
    jobs = Check("jobs of Ray" if url else "Ray's token", access.is_ok, access.message)
    return [jobs] if url else [_cluster(), jobs]


def _cluster() -> Check:
    """Look for the cluster that a run would join, without starting one."""
    from jobs.cluster.reach import check_start, existing_cluster, reach

    try:
        address = existing_cluster()
        if address is None:
            check_start()
            message = "no cluster is running; render starts one on this machine"
            return Check("Ray", is_ok=None, message=message)
        reach(address)
    except NoClusterError as error:
        return Check("Ray", is_ok=False, message=str(error))
    # `ray` itself may be missing from the PATH, and with -P no `ray.py` of the user's is run for it
    command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "status"]
    try:
        finished = subprocess.run(
            command, capture_output=True, timeout=RAY_STATUS_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("Ray", is_ok=False, message=f"ray status did not answer: {error}")
    if finished.returncode:
        return Check("Ray", is_ok=False, message=str(address.refusal("ray status fails there")))
    return Check("Ray", is_ok=True, message=f"a cluster is running at {address}")


def _manifest(written: str, model: str | None, config: RunConfig, catalog: ModelCatalog) -> Check:
    try:
        plan = make_plan(open_written(written, catalog, config, model=model), (), ())
    except (JobError, PipelineError, NagError) as error:
        return Check("manifest", is_ok=False, message=str(error))
    clips = counted(plan.num_clips, "clip")
    return Check("manifest", is_ok=True, message=f"every row of {written} is right: {clips}")


COMMAND = Command(
    name="doctor",
    summary="check Ray, ffmpeg, GPUs, weights and the store, and print what is missing",
    epilog="""\
examples:
  nagfarm doctor
  nagfarm doctor --output s3://renders/spring       also write, read and list there
  nagfarm doctor --manifest spring.yaml             also check its rows, as plan does
  nagfarm doctor --cluster --manifest spring.yaml   each node of the cluster that a run would join
  nagfarm doctor --timing wan2.1-t2v-14b            where the seconds of a worker's start go

With RAY_ADDRESS=http://HEAD:8265, as for `ray job submit`, asks whether jobs are taken there from
this shell. Prints a line for each check: ok; note, for a limit of this machine such as no GPU, or
a model that needs more memory than its cards have; FAIL, with the remedy. Exits with 2 if a check
fails.

With --cluster, each node is asked at once, also if its devices are held. A table has a line for
each node, and below it stands each finding with its nodes. Without --manifest or --model, weights
that a node lacks are a note if this machine lacks them, too. Large weights are not hashed.
""",
    options=DoctorOptions,
    run=run,
)
