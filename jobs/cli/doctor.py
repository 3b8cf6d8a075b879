"""`nagfarm doctor`: check this machine and print what a run would miss."""

import argparse
import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.command import (
    EXIT_OK,
    EXIT_REFUSED,
    Command,
    ConfigOptions,
    Context,
    add_models_argument,
)
from jobs.cli.manifest import open_written
from jobs.cli.wording import table_lines
from jobs.config import RunConfig
from jobs.errors import CheckError, JobError, NoClusterError
from jobs.manifest.model_catalog import ModelCatalog
from jobs.media.decode_check import decoder_version
from jobs.media.ffmpeg import find_ffmpeg
from jobs.plan.plan import make_plan
from jobs.run.hashing_bar import inspect_with_bar
from jobs.store.store import open_store
from jobs.text import counted, shown
from jobs.worker.provenance import VERSIONED_PACKAGES
from jobs.worker.start_timing import time_start
from nag.errors import NagError
from nagfarm import foreign_packages
from pipelines.catalog.sources import model_paths
from pipelines.errors import ModelNotFoundError, PipelineError

RAY_STATUS_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class DoctorOptions(ConfigOptions):
    """The options of `nagfarm doctor`."""

    output: str | None
    manifest: str | None
    model: str | None
    models: Path | None
    timing: str | None

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
        parser.add_argument(
            "--timing",
            metavar="NAME",
            help="check nothing, but load this model in a fresh process, as a worker does, and "
            "print where its seconds go",
        )
        super().add_arguments(parser)


@dataclass(frozen=True)
class Check:
    """One finding. `is_ok` is None if it is worth knowing and does not prevent a run."""

    name: str
    is_ok: bool | None
    message: str


def run(options: DoctorOptions, context: Context) -> int:
    if options.timing is not None:
        return _print_timing(options, options.timing, context)
    checks = run_checks(options)
    for check in checks:
        mark = {True: "ok  ", False: "FAIL", None: "note"}[check.is_ok]
        context.say(f"{mark}  {check.name}: {check.message}")
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


def run_checks(options: DoctorOptions) -> list[Check]:
    config, catalog = options.config(), ModelCatalog(options.models, inspect_with_bar)
    checks = [*_packages(), _ffmpeg(), _decoder(), _devices(), *_ray(), *_weights(catalog)]
    if options.manifest is not None:
        checks.append(_manifest(options.manifest, options.model, config, catalog))
    if options.output is not None:
        checks.append(_store(config, options.output))
    return checks


def _packages() -> list[Check]:
    try:
        found = ", ".join(
            f"{name} {importlib.metadata.version(name)}" for name in VERSIONED_PACKAGES
        )
    except importlib.metadata.PackageNotFoundError as error:
        message = f"{error.name} is not installed; pip install nagfarm"
        return [Check("packages", is_ok=False, message=message)]
    notes = [
        Check("packages", None, f"{shown(place, 300)} is not nagfarm's, which uses its own {name}")
        for name, place in foreign_packages().items()
    ]
    return [Check("packages", is_ok=True, message=found), *notes]


def _ffmpeg() -> Check:
    try:
        return Check("ffmpeg", is_ok=True, message=find_ffmpeg())
    except JobError as error:
        return Check("ffmpeg", is_ok=False, message=str(error))


def _decoder() -> Check:
    try:
        return Check("decord", is_ok=True, message=decoder_version())
    except CheckError as error:
        return Check("decord", is_ok=False, message=str(error))


def _devices() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check(
            "GPUs",
            is_ok=None,
            message="none; only the models that run on a CPU (shapes-*) work here",
        )
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Check("GPUs", is_ok=True, message=", ".join(names))


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


def _weights(catalog: ModelCatalog) -> list[Check]:
    from pipelines.families.weight_shapes import check_weight_shapes

    def check(name: str) -> Check:
        try:
            model = catalog.get(name)
            model.tokenizer.read(())
            if model.weights.described is not None:
                only = f"{name}: only its description is here, in {model.weights.folder}"
                return Check("weights", is_ok=None, message=only)
            check_weight_shapes(model.weights.folder)
        except ModelNotFoundError as error:
            return Check("weights", is_ok=None, message=str(error))
        except PipelineError as error:
            return Check("weights", is_ok=False, message=str(error))
        return Check("weights", is_ok=True, message=f"{name}: here and complete")

    return [check(name) for name in catalog.names()]


def _manifest(written: str, model: str | None, config: RunConfig, catalog: ModelCatalog) -> Check:
    try:
        plan = make_plan(open_written(written, catalog, config, model=model), (), ())
    except (JobError, PipelineError, NagError) as error:
        return Check("manifest", is_ok=False, message=str(error))
    clips = counted(plan.num_clips, "clip")
    return Check("manifest", is_ok=True, message=f"every row of {written} is right: {clips}")


def _store(config: RunConfig, output: str) -> Check:
    try:
        open_store(output, config.store).check_access()
    except JobError as error:
        return Check("store", is_ok=False, message=str(error))
    return Check("store", is_ok=True, message=f"{output} can be written, read and listed")


COMMAND = Command(
    name="doctor",
    summary="check Ray, ffmpeg, GPUs, weights and the store, and print what is missing",
    epilog="""\
examples:
  nagfarm doctor
  nagfarm doctor --output s3://renders/spring       also write, read and list there
  nagfarm doctor --manifest spring.yaml             also check its rows, as plan does
  nagfarm doctor --timing wan2.1-t2v-14b            where the seconds of a worker's start go

With RAY_ADDRESS=http://HEAD:8265, as for `ray job submit`, asks whether jobs are taken there from
this shell. Prints a line for each check: ok; note, for a limit of this machine such as no GPU;
FAIL, with the remedy. Exits with 2 if a check fails.
""",
    options=DoctorOptions,
    run=run,
)
