"""Measure the driver with stand-in workers and the schedule alone: `python -m benchmarks.dispatch`.

The workers are real actors on a local Ray cluster. Their model sleeps two seconds a clip, and all
around it is real. 64 workers on few cores could not encode a clip every two seconds, so in the
"light" cases a worker encodes and checks its first clip only, and writes the same MP4 again; the
"full" case leaves nothing out.
"""

import argparse
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from benchmarks.command import Benchmark, Measure, Options, main
from benchmarks.dispatch import farm_run, schedule_alone
from benchmarks.dispatch.farm_run import FarmCase, Work
from benchmarks.dispatch.schedule_alone import ScheduleCase
from benchmarks.report import Cases, Figure, markdown_table, shown

CLIP_S = 2.0
HEARTBEAT_S = 1.0  # a fifth of the default, for the figure of 1,000 workers
RUNS: tuple[tuple[int, int, Work], ...] = (
    (1, 15, "light"),
    (4, 15, "light"),
    (16, 15, "light"),
    (64, 20, "light"),
    (8, 15, "full"),
)
FARM = {
    f"{num_workers} worker{'s' if num_workers > 1 else ''}, {work}": FarmCase(
        num_workers, clips_each, CLIP_S, work
    )
    for num_workers, clips_each, work in RUNS
}
SCHEDULES = {
    f"schedule, {num_workers:,} workers": ScheduleCase(num_workers, 10_000, CLIP_S)
    for num_workers in (64, 1_000, 4_096)
}
TINY_FARM = {"2 workers, light": FarmCase(2, 10, 0.5, "light")}
TINY_SCHEDULES = {
    f"schedule, {num_workers:,} workers": ScheduleCase(num_workers, 200, CLIP_S)
    for num_workers in (8, 100)
}


def cases(options: Options) -> Mapping[str, Measure]:
    schedules = TINY_SCHEDULES if options.tiny else SCHEDULES
    farm = {} if options.schedule_only else TINY_FARM if options.tiny else FARM
    return {name: partial(schedule_alone.measure, one) for name, one in schedules.items()} | {
        name: partial(farm_run.measure, one) for name, one in farm.items()
    }


def figures(found: Cases) -> Iterable[Figure]:
    schedules = {name: one for name, one in found.items() if name.startswith("schedule")}
    for name, one in schedules.items():
        yield Figure(f"CPU of a clip, {name}", one["clip_us"], unit="us")
        yield Figure(
            f"heartbeats every {HEARTBEAT_S:g} s, share of a core, {name}",
            one["num_workers"] * one["heartbeat_us"] / 1e6 / HEARTBEAT_S,
            goal=0.05 if one["num_workers"] <= 1_000 else None,
        )
        yield Figure(
            f"a clip after {one['num_clips']:,} others / before, {name}",
            one["later_clip_us"] / one["clip_us"],
        )
    if len(schedules) > 1:
        (few_name, few), *_, (many_name, many) = schedules.items()
        for field, words in (("clip_us", "a clip"), ("heartbeat_us", "a heartbeat")):
            yield Figure(
                f"{words}, {many_name} / {few_name}", many[field] / few[field], floor=1, margin=1.0
            )
    for name, one in found.items():
        if name in schedules:
            continue
        yield Figure(
            f"busy share, {name}",
            one["busy_share"],
            floor=1,
            goal=0.98 if one["work"] == "light" else None,
            is_higher_better=True,
            margin=0.02,
        )
        # an idle driver costs about 2 % of a core, which few workers share
        goal = 5 if one["num_workers"] >= 64 else None
        yield Figure(f"driver's CPU a clip, {name}", one["driver_ms"], goal=goal, unit="ms")


def body(found: Cases) -> str:
    schedules = [one for name, one in found.items() if name.startswith("schedule")]
    farm = [(name, one) for name, one in found.items() if not name.startswith("schedule")]
    return f"""\
## With stand-in workers

Real actors on a local cluster, whose model sleeps {CLIP_S:g} s a clip. In the light cases a worker
encodes and checks its first clip only, and writes the same MP4 for the others. CPU is that of the
window in which every worker has clips. Workers and driver share the machine's cores. Ray's threads
in a worker wait for messages; its main thread alone wakes 100 times a second, with or without work.

{_farm_table(farm)}{limits(farm)}
## The schedule alone

Its state machine, without Ray, with full queues. Memory is what is left of a clip that has ended.

{_schedule_table(schedules)}"""


def _farm_table(farm: list[tuple[str, Any]]) -> str:
    return markdown_table(
        (
            "case",
            "clips in the window",
            "busy share",
            "of the least busy",
            "driver, ms a clip",
            "driver, share of a core",
            "a turn of its loop, ms",
            "the longest",
            "a worker, ms a clip",
            "in it Ray's threads",
            "Ray, ms a clip",
            "cores in use",
        ),
        [
            (
                name,
                f"{one['clips_in_window']:,}",
                f"{one['busy_share']:.3f}",
                f"{one['least_busy_share']:.3f}",
                f"{one['driver_ms']:.2f}",
                f"{one['driver_share_of_core']:.3f}",
                f"{one['turn_ms']:.2f}",
                f"{one['longest_turn_ms']:.1f}",
                f"{one['workers_ms']:.1f}",
                f"{one['ray_in_workers_ms']:.1f}" if "ray_in_workers_ms" in one else "",
                f"{one['ray_ms']:.1f}",
                f"{one['cores_used']:.2f} of {one['cores']}",
            )
            for name, one in farm
        ],
    )


def _schedule_table(schedules: list[Any]) -> str:
    return markdown_table(
        (
            "workers",
            "clip, us",
            "later clip, us",
            "heartbeat, us",
            "tick, us",
            "memory a clip, bytes",
        ),
        [
            (
                f"{one['num_workers']:,}",
                shown(one["clip_us"]),
                shown(one["later_clip_us"]),
                shown(one["heartbeat_us"]),
                shown(one["tick_us"]),
                f"{one['grown_bytes_a_clip']:.0f}",
            )
            for one in schedules
        ],
    )


def limits(farm: list[tuple[str, dict[str, float]]]) -> str:
    """Say how many workers this machine could bear, and how many one driver could."""
    lines: list[str] = []
    for name, one in farm:
        all_ms = one["driver_ms"] + one["workers_ms"] + one["ray_ms"]
        if one["driver_ms"] and all_ms:
            lines.append(
                f"- {name}: {one['cores'] * 1e3 * CLIP_S / all_ms:.0f} workers fill the machine's "
                f"cores, {1e3 * CLIP_S / one['driver_ms']:.0f} fill a core with the driver's work"
            )
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--schedule-only", action="store_true", help="leave out the cases that start Ray"
    )


BENCHMARK = Benchmark(
    name="dispatch",
    title="The driver",
    about=__doc__ or "",
    libraries=("ray",),
    cases=cases,
    figures=figures,
    body=body,
    add_options=add_options,
)


if __name__ == "__main__":
    main(BENCHMARK)
