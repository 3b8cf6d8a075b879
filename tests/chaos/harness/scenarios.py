"""The list of scenarios: faults that the farm must survive, and how each run must end.

`faults` injects the faults; `audit` checks the invariants that hold after each of them.
"""

import os
import signal

from infra.local.faulty_proxy import Faults
from jobs.cli.pattern.command import EXIT_OK, EXIT_QUARANTINE, EXIT_STOPPED
from jobs.ending import ExitCode
from tests.chaos.harness.farm import PipedDriver
from tests.chaos.harness.faults import (
    Inject,
    count_poison,
    disturb_store,
    drain_nodes,
    fill_disks,
    kill_driver,
    kill_nodes,
    put_driver_to_sleep,
    signal_actors,
    start_rival_driver,
    start_second_driver,
    take_store_down,
    terminate_driver,
)
from tests.chaos.harness.head_faults import kill_head, restart_head
from tests.chaos.harness.output_faults import (
    MAX_OUTAGE_S,
    end_log_reader,
    fill_log_disk,
    fill_output,
)
from tests.chaos.harness.removal_faults import collect_garbage_by_a_wrong_clock, remove_unnamed_mp4s
from tests.chaos.harness.runner import Scenario, inject_nothing
from tests.chaos.harness.share_faults import lose_share, unmount_share
from tests.chaos.harness.workload import Workload

FEW, MANY = Workload(24), Workload(60)
LASTING = Workload(120)  # outlasts ten drivers, each of which dies after a few clips
FEWEST = Workload(12)  # for the short form
SLOW = Workload(40, step_s=0.15)  # takes longer than a driver's start
SLOWEST = Workload(40, step_s=0.6)  # takes longer than a run waits for Ray's control service
SHAPES = Workload(8, num_steps=8, family="shapes")
KILLED = -signal.SIGKILL
SHORT_SCENARIOS = (
    "actors-killed",
    "row-kills",
    "answers-lost",
    "driver-killed",
)  # run with every change
OUTAGE_S, SHORT_OUTAGE_S = 60.0, 15.0


def poisoned(*words: str) -> Workload:
    return Workload(24, poison=words)


def fault_free(workload: Workload) -> Scenario:
    """Return the scenario of the same clips without poison and without faults, for comparison."""
    healthy = workload.healthy
    size = f"{healthy.num_clips}x{healthy.num_steps}x{healthy.step_s * 1000:g}"
    name = f"fault-free-{healthy.family}-{size}"
    return Scenario(name, "none", healthy, inject_nothing)


def all_scenarios(*, is_short: bool) -> tuple[Scenario, ...]:
    """Return all scenarios; without root, those that need it are left out.

    Args:
        is_short: True for fewer kills and shorter outages.
    """
    found = (
        *process_faults(is_short=is_short),
        *row_faults(),
        *store_faults(is_short=is_short),
        *render_faults(),
    )
    return tuple(scenario for scenario in found if os.geteuid() == 0 or not scenario.needs_root)


def process_faults(*, is_short: bool) -> tuple[Scenario, ...]:
    kills, resumes, few = (1, 1, FEWEST) if is_short else (4, 10, FEW)
    return (
        Scenario(
            "actors-killed", "kill -9 of an actor", few, signal_actors(kills, signal.SIGKILL, 3)
        ),
        Scenario("actor-stopped", "SIGSTOP of an actor", FEW, signal_actors(1, signal.SIGSTOP, 3)),
        Scenario(
            "actor-terminated", "SIGTERM to an actor", FEW, signal_actors(2, signal.SIGTERM, 3)
        ),
        Scenario("node-killed", "kill -9 of a raylet: a node is lost", MANY, kill_nodes(2, 5)),
        Scenario(
            "head-killed",
            "kill -9 of Ray's control service, then resumed",
            SLOWEST,
            kill_head(3),
            (EXIT_STOPPED, EXIT_OK),
        ),
        Scenario(
            "head-restarted",
            "kill -9 of Ray's control service, back after 20 s",
            SLOW,
            restart_head(20.0, 3),
        ),
        Scenario("node-preempted", "a node is drained for preemption", MANY, drain_nodes(15, 5)),
        Scenario(
            "driver-killed",
            "kill -9 of the driver, then resumed",
            few if is_short else LASTING,
            kill_driver(resumes),
            (*([KILLED] * resumes), EXIT_OK),
        ),
        Scenario(
            "driver-terminated",
            "SIGTERM to the driver, then resumed",
            SLOW,
            terminate_driver(2),
            (EXIT_STOPPED, EXIT_STOPPED, EXIT_OK),
        ),
        Scenario(
            "two-drivers",
            "a second driver on the output",
            SLOW,
            start_second_driver,
            (ExitCode.BUSY, EXIT_OK),
        ),
        Scenario(
            "rival-drivers",
            "two drivers render the same, neither knows",
            SLOW,
            start_rival_driver,
            (EXIT_OK, EXIT_OK),
            ("store.lease_s=3000",),  # the first driver renews only after a third of it
        ),
        Scenario(
            "driver-hung-up",
            "the driver's terminal goes away, then resumed",
            SLOW,
            terminate_driver(1, signal.SIGHUP),
            (EXIT_STOPPED, EXIT_OK),
        ),
        Scenario(
            "log-disk-full",
            "the disk of the driver's log is full",
            SLOW,
            fill_log_disk,
            needs_root=True,
        ),
        Scenario(
            "log-reader-gone",
            "the reader of the driver's log ends",
            SLOW,
            end_log_reader,
            driver=PipedDriver,
        ),
        Scenario(
            "driver-asleep",
            "a driver sleeps, its output is taken, it wakes",
            SLOW,
            put_driver_to_sleep,
            (EXIT_STOPPED, EXIT_OK),
            ("store.lease_s=6",),
        ),
    )


def row_faults() -> tuple[Scenario, ...]:
    quarantined = (EXIT_QUARANTINE,)
    return (
        Scenario(
            "row-kills", "a row that kills its process", poisoned("die"), count_poison, quarantined
        ),
        Scenario(
            "row-stops", "a row that stops its process", poisoned("stop"), count_poison, quarantined
        ),
        Scenario("row-hangs", "a row that hangs", poisoned("hang"), count_poison, quarantined),
        Scenario(
            "rows-nan",
            "rows that render NaN",
            poisoned("nan", "nan", "nan"),
            count_poison,
            quarantined,
        ),
        Scenario(
            "rows-memory",
            "rows that run out of device memory",
            poisoned("memory", "memory"),
            count_poison,
            quarantined,
        ),
        Scenario(
            "row-eats",
            "a row that allocates until RLIMIT_AS",
            poisoned("eat"),
            count_poison,
            quarantined,
        ),
        Scenario(
            "rows-error",
            "rows with an unknown error",
            poisoned("error", "error"),
            count_poison,
            quarantined,
        ),
    )


def store_faults(*, is_short: bool) -> tuple[Scenario, ...]:
    outage_s, few = (SHORT_OUTAGE_S, FEWEST) if is_short else (OUTAGE_S, FEW)
    return (
        Scenario("store-down", f"S3 down for {outage_s:g} s", MANY, take_store_down(outage_s, 3)),
        Scenario(
            "store-slow",
            "S3 slow: 0.5 s more a request",
            FEW,
            disturb_store(Faults(delay_s=0.5), 1),
        ),
        Scenario(
            "every-third-503",
            "S3 answers 503 to every third",
            few,
            # after 503 at the start, boto3 stays slow for long
            disturb_store(Faults(every_nth_answers_503=3), int(is_short)),
        ),
        Scenario(
            "gateway-answers",
            "a gateway answers every fourth: plain 404 and 403, redirect",
            FEW,
            disturb_store(Faults(gateway_every_nth=4), 1),
        ),
        Scenario(
            "store-resets",
            "S3 resets every fourth body",
            FEW,
            disturb_store(Faults(reset_mid_body_every_nth=4)),
        ),
        Scenario(
            "store-lies",
            "S3 lies about every fourth PUT",
            FEW,
            disturb_store(Faults(lie_on_put_every_nth=4), 1),
        ),
        Scenario(
            "answers-lost",
            "S3's answer to every fourth PUT is lost",
            FEW,
            disturb_store(Faults(lose_answer_every_nth=4)),
        ),
        *share_faults(is_short=is_short),
        Scenario(
            "gc-wrong-clock",
            "gc by a clock 2 days ahead, between upload and record",
            FEW,
            collect_garbage_by_a_wrong_clock(3),
        ),
        Scenario(
            "mp4s-removed",
            "another program removes MP4s between upload and record",
            FEWEST,
            remove_unnamed_mp4s,
        ),
        Scenario(
            "output-full",
            f"a full output, with retry.max_outage_s={MAX_OUTAGE_S:g}, then resumed",
            SLOW,
            fill_output,
            (EXIT_STOPPED, EXIT_OK),
            (f"retry.max_outage_s={MAX_OUTAGE_S:g}",),
        ),
        Scenario(
            "disks-full", "every node's disk full for 8 s", FEW, fill_disks(8.0, 3), needs_root=True
        ),
    )


def share_faults(*, is_short: bool) -> tuple[Scenario, ...]:
    """Return the scenarios with an output in a folder, on a share that can be unmounted."""
    resumes = 1 if is_short else 4

    def on_share(name: str, fault: str, inject: Inject, *codes: int) -> Scenario:
        settings = ("retry.max_outage_s=8",) if name == "share-lost" else ()
        return Scenario(name, fault, MANY, inject, codes, settings, True, True)

    return (
        on_share(
            "share-away",
            f"a share unmounted for {SHORT_OUTAGE_S:g} s",
            unmount_share(SHORT_OUTAGE_S, 3),
            EXIT_OK,
        ),
        on_share(
            "share-lost",
            "a share unmounted for good, then resumed",
            lose_share(3),
            EXIT_STOPPED,
            EXIT_OK,
        ),
        on_share(
            "share-driver-killed",
            "kill -9 of the driver of a folder",
            kill_driver(resumes),
            *([KILLED] * resumes),
            EXIT_OK,
        ),
    )


def render_faults() -> tuple[Scenario, ...]:
    nan = Workload(8, num_steps=8, poison=("nan",), family="shapes")
    return (
        Scenario(
            "shapes-killed",
            "kill -9 of an actor with a real model",
            SHAPES,
            signal_actors(1, signal.SIGKILL, 2),
        ),
        Scenario(
            "shapes-nan", "a real model's latents are NaN", nan, count_poison, (EXIT_QUARANTINE,)
        ),
    )
