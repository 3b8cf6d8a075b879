"""The command line. Answers without torch; Ray is imported by the commands that need a cluster.

Decides what is printed and the exit code: 0 all committed; 2 refused before anything ran; 3 finished, with clips in
quarantine; 4 stopped.
"""

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from rich.console import Console

from jobs.bench.arguments import read_bench_options
from jobs.cli.arguments import parse_arguments
from jobs.cli.store_commands import run_store_command
from jobs.config import RunConfig, load_config
from jobs.errors import JobError, ManifestError, RefusedError, StoppedError
from jobs.manifest.manifest import Manifest, open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.manifest.values_file import MAX_VALUES_FILE_BYTES
from jobs.plan.advice import advise_on_plan
from jobs.plan.plan import Plan, counted, make_plan, render_plan_text
from jobs.plan.worker_kinds import check_places, pending_kinds
from jobs.records.commit import committed_ids, lift_quarantine, quarantined_ids
from jobs.redaction import redact
from jobs.store.store import Store, open_store, read_object
from nag.errors import NagError
from pipelines.context_parallel.divisibility import BACKEND_VARIABLE, check_backend, is_text_biased
from pipelines.errors import ModelNotFoundError, PipelineError

if TYPE_CHECKING:
    from jobs.worker.setup import ModelLoader

EXIT_OK, EXIT_REFUSED, EXIT_QUARANTINE, EXIT_STOPPED = 0, 2, 3, 4
REFUSALS = (JobError, PipelineError, NagError)


def main(arguments: list[str] | None = None, loader: "ModelLoader | None" = None) -> int:
    """Runs one command and returns its exit code. An error that was foreseen is one plain line; others are raised.

    Args:
        loader: loads the workers' models; None takes diffusers' pipelines.
    """
    sys.excepthook = _print_redacted
    threading.excepthook = lambda args: _print_redacted(
        args.exc_type, args.exc_value, args.exc_traceback
    )
    options = parse_arguments(arguments)
    try:
        return _run_command(options, Console(), loader)
    except StoppedError as error:
        _complain(f"stopped: {error}")
        return EXIT_STOPPED
    except REFUSALS as error:
        _complain(str(error))
        return EXIT_REFUSED


def _run_command(
    options: argparse.Namespace, console: Console, loader: "ModelLoader | None"
) -> int:
    match options.command:
        case "plan":
            return plan_command(options, console)
        case "render":
            return render_command(options, console, loader)
        case "bench":
            return bench_command(options, console)
        case "status" | "retry" | "gc":
            run_store_command(options, lambda line: _say(console, line))
            return EXIT_OK
        case "models":
            return models_command(options, console)
        case _:
            return doctor_command(options, console)


def _open(options: argparse.Namespace) -> tuple[RunConfig, ModelCatalog, Manifest, Store, Plan]:
    """Everything that is refused before a run, in the order that costs least."""
    config = load_config(options.profile, options.settings)
    catalog = ModelCatalog(options.models)
    manifest = open_manifest(
        options.manifest,
        catalog,
        lambda uri: read_object(uri, config.store, MAX_VALUES_FILE_BYTES),
        output=options.output,
        model=options.model,
    )
    if manifest.output is None:
        raise ManifestError(
            f"{options.manifest}: no output; give --output or, in a YAML manifest, output:"
        )
    store = open_store(manifest.output, config.store)
    make_plan(manifest, (), ())  # every row is checked before the store is asked anything
    plan = make_plan(manifest, committed_ids(store), quarantined_ids(store))
    _check_backends(plan, catalog)
    return config, catalog, manifest, store, plan


def _check_backends(plan: Plan, catalog: ModelCatalog) -> None:
    backend = os.environ.get(BACKEND_VARIABLE)
    for spec in plan.pending() if backend is not None else ():
        is_biased = is_text_biased(catalog.get(spec.model.name).config.family, spec.request)
        check_backend(spec.parallel, backend, has_text_bias=is_biased)


def plan_command(options: argparse.Namespace, console: Console) -> int:
    config, catalog, _, store, plan = _open(options)
    if os.environ.get("RAY_ADDRESS") and any(
        kind.parallel.degree > 1 for kind in pending_kinds(plan)
    ):
        from jobs.cluster.connection import cluster_machines, connect, disconnect

        try:
            connect()
            check_places(plan, catalog, config.workers, cluster_machines())
        finally:
            disconnect()
    _say(console, render_plan_text(plan, advise_on_plan(plan, catalog)))
    _say(console, f"  output {store.uri}")
    return EXIT_OK


def render_command(
    options: argparse.Namespace, console: Console, loader: "ModelLoader | None" = None
) -> int:
    config, catalog, manifest, store, plan = _open(options)
    if options.retry_quarantined and plan.num_quarantined:
        plan = make_plan(manifest, committed_ids(store), ())
        _check_backends(plan, catalog)
    _say(console, render_plan_text(plan))
    if plan.num_pending == 0:
        return _report_nothing_to_do(plan, store, console)
    store.check_access()

    from jobs.cluster.connection import cluster_machines, connect, disconnect
    from jobs.records.lease import Lease, LeaseKeeper
    from jobs.run.run import Run, new_run_id

    run = Run(new_run_id(), manifest, plan, catalog, store, config, console)
    if loader is not None:
        run.loader = loader
    try:
        with (
            _stop_on_signals(run.request_stop),
            LeaseKeeper(
                Lease.take(store, run.run_id, config.store.lease_s, is_takeover=options.takeover),
                run.write_status,
            ) as keeper,
        ):
            connect()
            machines = cluster_machines()
            check_places(plan, catalog, config.workers, machines)
            with _stop_on_signals(run.request_stop):  # once more: Ray brings handlers of its own
                if options.retry_quarantined:
                    _lift_quarantine(store, plan)
                _say(
                    console, f"run {run.run_id} on {counted(len(machines), 'node')}, to {store.uri}"
                )
                summary = run.render(keeper)
    except RefusedError:
        raise
    except REFUSALS as error:
        _complain(f"stopped: {error}")
        return EXIT_STOPPED
    finally:
        disconnect()
    work_s = {
        stage: seconds for stage, seconds in summary.stage_totals_s.items() if stage != "queue"
    }
    shares = ", ".join(
        f"{stage} {seconds / sum(work_s.values()):.0%}" for stage, seconds in work_s.items()
    )
    _say(
        console,
        f"committed {counted(summary.num_committed, 'clip')} in {summary.wall_s:.1f} s; {shares or 'no work done'}",
    )
    _say(console, f"clips and records are in {store.uri}")
    num_quarantined = plan.num_quarantined + summary.num_quarantined
    return _report_quarantine(num_quarantined, store, console) if num_quarantined else EXIT_OK


def _lift_quarantine(store: Store, plan: Plan) -> None:
    quarantined = quarantined_ids(store)
    for spec in plan.pending():
        if spec.clip_id in quarantined:
            lift_quarantine(store, spec.clip_id)


def _print_redacted(
    _kind: type[BaseException], error: BaseException | None, _traceback: TracebackType | None
) -> None:
    """An unforeseen exception's traceback, as Python prints it, without secrets."""
    sys.stderr.write(redact("".join(traceback.format_exception(error))))


def _complain(text: str) -> None:
    print(f"nagfarm: {redact(text)}", file=sys.stderr)


def bench_command(options: argparse.Namespace, console: Console) -> int:
    """Renders a benchmark's clips as `render` does, then judges and reports what is committed."""
    asked = read_bench_options(options)

    from jobs.bench.command import describe, prepare, report

    bench = prepare(asked, options.models)
    _say(console, describe(bench))
    options.manifest, options.models, options.model = bench.manifest, bench.models_folder, None
    options.takeover = False
    options.output = options.output or (asked.report / "clips").resolve().as_uri()
    code = EXIT_OK if options.report_only else render_command(options, console)
    if code not in (EXIT_OK, EXIT_QUARANTINE):
        return code
    config, _, manifest, store, _ = _open(options)
    report(bench, manifest, store, config.encoding, console)
    _say(console, f"the report is {asked.report / asked.kind}.md")
    return code


def _say(console: Console, text: str) -> None:
    """Plain text: what strangers wrote is neither markup nor wrapped."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _report_nothing_to_do(plan: Plan, store: Store, console: Console) -> int:
    _say(
        console,
        f"nothing to render: {plan.num_done:,} of {plan.num_clips:,} clips are already in {store.uri}",
    )
    return (
        _report_quarantine(plan.num_quarantined, store, console)
        if plan.num_quarantined
        else EXIT_OK
    )


def _report_quarantine(num_quarantined: int, store: Store, console: Console) -> int:
    _say(
        console,
        f"given up: {counted(num_quarantined, 'clip')}; {store.uri}/quarantine/ says why, "
        "and render --retry-quarantined tries again",
    )
    return EXIT_QUARANTINE


@contextmanager
def _stop_on_signals(request_stop: Callable[[str], None]) -> Generator[None]:
    """SIGTERM (`ray job stop`, a spot notice) and Ctrl-C let the run finish what it can in bounded time; a second one
    ends it at once.
    """
    asked: list[str] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        reason = f"by {signal.Signals(number).name}; run it again to go on"
        if asked:
            raise StoppedError(reason)
        asked.append(reason)
        request_stop(reason)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def models_command(options: argparse.Namespace, console: Console) -> int:
    from rich.table import Table

    catalog = ModelCatalog(options.models)
    table = Table("model", "weights", "what it is", box=None, pad_edge=False)
    missing: list[str] = []
    for name in catalog.names():
        description, state = "", "here"
        try:
            description = catalog.config(name).description
            catalog.get(name)
        except PipelineError as error:
            state = "missing" if isinstance(error, ModelNotFoundError) else "broken"
            missing.append(str(error))
        table.add_row(name, state, description)
    console.print(table)
    for line in missing:
        _say(console, line)
    return EXIT_OK


def doctor_command(options: argparse.Namespace, console: Console) -> int:
    from jobs.cli.doctor import run_checks

    config = load_config(None, options.settings)
    checks = run_checks(config, ModelCatalog(options.models), options.output)
    for check in checks:
        mark = {True: "ok  ", False: "FAIL", None: "note"}[check.is_ok]
        _say(console, f"{mark}  {check.name}: {check.message}")
    return EXIT_OK if all(check.is_ok is not False for check in checks) else EXIT_REFUSED
