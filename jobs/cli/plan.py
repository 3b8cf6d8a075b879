"""`nagfarm plan`: check a manifest, print what a run would render, and simulate the run."""

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.pattern.command import EXIT_OK, EXIT_QUARANTINE, Command, Context
from jobs.cli.pattern.manifest import MANIFEST_HELP, ManifestOptions, open_for_run
from jobs.cli.pattern.wording import damaged_text, table_lines
from jobs.cli.plan_cost import say_cost
from jobs.errors import NoClusterError
from jobs.manifest.walk.selection import ALL
from jobs.memory.cards import cards_of
from jobs.memory.planned import (
    has_large,
    memory_lines,
    memory_needs,
    on_cluster,
    refuse_misfits,
)
from jobs.plan.advice import advise_on_plan
from jobs.plan.broken import BrokenModel
from jobs.plan.plan import Plan, PlanBucket
from jobs.plan.rows_table import write_rows
from jobs.plan.worker_kinds import check_capacity, pending_kinds
from jobs.records.listing import device_used
from jobs.records.names import mp4_keys
from jobs.run.documents import OpenedManifest
from jobs.simulation.options import SimulationOptions, add_simulation_arguments
from jobs.text import counted

MAX_PRINTED_BUCKETS = 20
ORDER_TEXT = "rendered in this order: groups of devices first, then models and sizes, longest first"
NUMBERS = ("frames", "steps", "clips", "to render")


@dataclass(frozen=True)
class PlanOptions(ManifestOptions, SimulationOptions):
    """The options of `nagfarm plan`."""

    rows: Path | None
    card: str | None
    force: bool

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        ManifestOptions.add_arguments(parser)
        parser.add_argument(
            "--rows",
            type=Path,
            metavar="FILE",
            help="write every row to a CSV: row (from 0), name, clip_id, state, and the key of "
            "the MP4 if the clip is done",
        )
        parser.add_argument(
            "--card",
            metavar="NAME",
            help="the card to compare the memory with, such as H100, L40S or A100-40GB; by default "
            "the workers' accelerator_type, or else the cards of the cluster of RAY_ADDRESS",
        )
        add_force_argument(parser)
        add_simulation_arguments(parser)


def add_force_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force",
        action="store_true",
        help="do not refuse clips that need more memory than their card has, by estimate",
    )


def run(options: PlanOptions, context: Context) -> int:
    conditions = options.conditions()
    opened = open_for_run(options, time.time())
    needs = memory_needs(opened.plan, opened.catalog, opened.config.workers, options.card)
    has_groups = any(kind.parallel.degree > 1 for kind in pending_kinds(opened.plan))
    address = os.environ.get("RAY_ADDRESS", "")
    is_asked = has_groups or has_large(needs)
    if is_asked and address and "://" not in address:  # an URL takes jobs alone
        try:
            needs = on_cluster(needs, _check_against_cluster(opened))
        except NoClusterError as error:
            if has_groups:
                raise
            context.say(f"memory is compared with no card: {error}")
    advice = advise_on_plan(opened.plan, opened.catalog, lambda: device_used(opened.store))
    advice = [*advice, *memory_lines(needs), *described_lines(opened)]
    for line in plan_lines(opened.plan, advice):
        context.say(line)
    day = f", named for {opened.day}" if opened.day else ""
    context.say(f"  output {opened.store.uri}{day}")
    if options.rows is not None:
        write_rows(opened.plan, mp4_keys(opened.store), options.rows)
        context.say(f"  {counted(opened.plan.num_rows, 'row')} in {options.rows}")
    say_cost(opened, options, conditions, context)
    if not options.force:
        refuse_misfits(needs)
    return EXIT_QUARANTINE if opened.plan.broken else EXIT_OK


def _check_against_cluster(opened: OpenedManifest) -> tuple[str, ...]:
    """Refuse groups that do not fit on the cluster, and return its kinds of card."""
    from jobs.cluster.connection import connected

    with connected() as cluster:
        workers, machines = opened.config.workers, cluster.look().machines()
        check_capacity(opened.plan, opened.catalog, workers, machines, may_grow=cluster.may_grow)
        return cards_of(machines)


def plan_lines(plan: Plan, advice: Sequence[str] = ()) -> list[str]:
    """Return the lines of a plan: the counts, a table of clips that take equally long, and advice.

    The table has a column for devices if some clip needs a group of them.
    """
    rows = f"{counted(plan.num_rows, 'row')}, {plan.num_repeats:,} pixel-equal to an earlier one"
    damaged = f"damaged {plan.num_damaged:,}, " if plan.num_damaged else ""
    counts = (
        f"done {plan.num_done:,}, {damaged}quarantined {plan.num_quarantined:,}, "
        f"to render {plan.num_pending:,}"
        + (f", cannot be rendered {plan.num_broken:,}" if plan.num_broken else "")
    )
    lines = [
        f"{plan.name}: {counted(plan.num_clips, 'clip')}"
        + (f" ({rows})" if plan.num_repeats else "")
        + (f", chosen by {plan.selection}" if plan.selection != ALL else ""),
        f"  {counts}",
        *([f"  {_random_text(plan.num_random)}"] if plan.num_random else []),
        *([f"  {damaged_text(plan.num_damaged)}"] if plan.num_damaged else []),
        *(f"  {_broken_text(model)}" for model in plan.broken),
        *([f"  {cut_text(plan.num_cut)}"] if plan.num_cut else []),
        "",
    ]
    has_groups = any(bucket.parallel.degree > 1 for bucket in plan.buckets)
    headers = ("model", "size", *(("devices",) if has_groups else ()), *NUMBERS)
    table = [_cells(bucket, has_groups=has_groups) for bucket in plan.buckets[:MAX_PRINTED_BUCKETS]]
    lines += [f"  {line}" for line in table_lines(headers, table, NUMBERS)]
    if len(plan.buckets) > MAX_PRINTED_BUCKETS:
        more = counted(len(plan.buckets) - MAX_PRINTED_BUCKETS, "more kind")
        lines.append(f"  and {more} of clip")
    if len(plan.buckets) > 1:
        lines.append(f"  {ORDER_TEXT}")
    return [*lines, *(f"  {line}" for line in advice)]


def described_lines(opened: OpenedManifest) -> list[str]:
    """Return a line for each model of a plan that was made without its weights."""
    models = dict.fromkeys(bucket.model for bucket in opened.plan.buckets)
    weights = {name: opened.catalog.get(name).weights for name in models}
    return [
        f"{name}: planned without its weights, from {found.folder}"
        for name, found in weights.items()
        if found.described is not None
    ]


def _broken_text(model: BrokenModel) -> str:
    """Return the fault of a model, and the fate of its clips."""
    if not model.num_clips:
        return f"{model.message}; its clips are quarantined"
    clips = counted(model.num_clips, "clip")
    return f"{model.message}; render quarantines its {clips} and renders the rest"


def _random_text(num_rows: int) -> str:
    return f"random seeds of {counted(num_rows, 'row')}, drawn once for this output"


def cut_text(num_cut: int) -> str:
    """Return the meaning of cut texts."""
    return (
        f"cut: {counted(num_cut, 'clip')} with a text of more tokens than the model reads; its end "
        "has no effect (text: truncate)"
    )


def _cells(bucket: PlanBucket, *, has_groups: bool) -> tuple[str, ...]:
    return (
        bucket.model,
        f"{bucket.shape.width}x{bucket.shape.height}",
        *((str(bucket.parallel),) if has_groups else ()),
        f"{bucket.shape.num_frames}",
        f"{bucket.num_inference_steps}",
        f"{bucket.num_clips:,}",
        f"{bucket.num_pending:,}",
    )


COMMAND = Command(
    name="plan",
    summary="check a manifest and print what a run would render; renders nothing",
    epilog=f"""\
examples:
  nagfarm plan spring.yaml
  nagfarm plan prompts.csv --model shapes-wan --output ./spring
  nagfarm plan spring.yaml --limit 10               of the first ten clips
  nagfarm plan spring.yaml --rows rows.csv          each row with its clip's id, state and MP4
  nagfarm plan spring.yaml --date 2026-01-31        with the {{date}} of that day in its output
  nagfarm plan spring.yaml --from s3://renders/winter --price 2.50
                                                    cost by the records of an earlier output
  nagfarm plan spring.yaml --simulate 8,64,512      how long the run would take
  nagfarm plan spring.yaml --remote                 without weights here: a node of the cluster

Device-hours and cost come from the records of clips of the same model, size and steps, in the
output or in the one of --from; else from records of another size, scaled; else from the cost model.
The table says which. Prices are settings: costs.price_per_device_hour=2.50, or by kind of device.

Without the weights of a model on this machine, its description is enough: one in the folder of
--models or beside its YAML (nagfarm models --describe), or one that --remote fetches from a Ray
cluster. The clips have the same ids as with the weights.

Every row is checked; the first wrong one is named with its file and line. With RAY_ADDRESS set to
HOST:PORT, groups of devices are also checked against the machines of that cluster, and the memory
of clips against its largest cards. A model that is missing or
broken is named, and the command exits with 3, as render would; with 2 if no model can be used.
Nothing is written, except for the draw of the first manifest with `seed: random`, which the output
keeps.

{MANIFEST_HELP}""",
    options=PlanOptions,
    run=run,
)
