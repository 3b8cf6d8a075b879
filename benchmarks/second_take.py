"""`python -m benchmarks.second_take` measures the way from 200 clips to a second take of 12 picks.

200 clips of shapes-wan-4step are rendered first, which does not count. Then each step is done as a
user does it: `nagfarm report`; the page opened in Chromium, from disk; twelve clips picked by the
keyboard; the picks exported with another number of steps; `nagfarm plan` and `nagfarm render` of
the exported manifest, on a Ray that starts with it; and `nagfarm report` again. The browser picks
without looking, so that the time that a person takes to choose comes on top.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.command import Benchmark, Measure, Options, main
from benchmarks.report import ROOT, Cases, Figure, markdown_table
from tests.builders.browser import chromium, until, watched_page

NUM_PICKS = 12
STEPS = 6  # the second take has more than the first, which has 4
GOAL_S = 300.0
MANIFEST = """\
name: shapes
model: shapes-wan-4step
axes:
  prompt:
    - a circle moving right
    - a circle moving left
    - a square moving up
    - a square moving down
    - a triangle standing still
  negative_prompt: ["", red, blue, green, yellow]
  seed: {{range: [0, {num_seeds}]}}
combine: prompt * negative_prompt * seed
"""
CLIPS_A_SEED = 5 * 5


def nagfarm(folder: Path, *arguments: str) -> None:
    """Run a command as a process of its own, in a folder.

    Raises:
        RuntimeError: it ended with an error; the message holds its output.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    finished = subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(f"{arguments}: exit code {finished.returncode}: {finished.stdout}")


def first_take(folder: Path, num_seeds: int) -> None:
    """Render the clips from which picks are taken, into `out`."""
    (folder / "shapes.yaml").write_text(MANIFEST.format(num_seeds=num_seeds))
    nagfarm(folder, "render", "shapes.yaml", "--output", "./out")


def second_take(folder: Path, num_picks: int = NUM_PICKS) -> dict[str, float]:
    """Go the whole way in a folder with `out`, and return the seconds of each step."""
    times: dict[str, float] = {}

    def timed(step: str, work: Callable[[], object]) -> None:
        begin_s = time.monotonic()
        work()
        times[step] = time.monotonic() - begin_s

    timed("nagfarm report", lambda: nagfarm(folder, "report", "./out"))
    root = f"{(folder / 'out').as_uri()}/"
    with chromium() as browser, watched_page(browser, root) as page:

        def look() -> None:
            page.goto(f"{root}report/index.html#view=clips")
            until(page, "nagfarm.page.isLoaded && document.querySelector('.tile')")

        def pick() -> None:
            page.keyboard.press("c")
            for _ in range(num_picks):
                page.keyboard.press("ArrowRight")
                page.keyboard.press("p")

        def export() -> None:
            page.keyboard.press("k")
            page.get_by_role("textbox", name="Steps").fill(str(STEPS))
            with page.expect_download() as download:
                page.get_by_role("button", name="Download").click()
            download.value.save_as(folder / "again.jsonl")

        timed("open the page", look)
        timed("pick twelve clips, by the keyboard", pick)
        timed("export them", export)
    rendering = ("again.jsonl", "--output", "./out")
    timed("nagfarm plan", lambda: nagfarm(folder, "plan", *rendering))
    timed("nagfarm render", lambda: nagfarm(folder, "render", *rendering))
    timed("nagfarm report, again", lambda: nagfarm(folder, "report", "./out"))
    return times


def measure(num_seeds: int) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="nagfarm-second-take-"))
    try:
        first_take(folder, num_seeds)
        times = second_take(folder)
        rows = (folder / "again.jsonl").read_text().splitlines()
        records = [json.loads(path.read_bytes()) for path in (folder / "out/records").iterdir()]
        fresh = [
            one for one in records if one["request"]["sampling"]["num_inference_steps"] == STEPS
        ]
        return {"num_picks": len(rows), "num_rendered": len(fresh), "times_s": times}
    finally:
        shutil.rmtree(folder)


def cases(options: Options) -> dict[str, Measure]:
    num_seeds = 1 if options.tiny else 8
    return {f"{num_seeds * CLIPS_A_SEED} clips": partial(measure, num_seeds)}


def figures(cases: Cases) -> list[Figure]:
    return [
        Figure(f"the whole way, {name}", sum(one["times_s"].values()), goal=GOAL_S, unit="s")
        for name, one in cases.items()
    ]


def body(cases: Cases) -> str:
    about = (__doc__ or "").partition("\n")[2].strip()
    tables = [
        f"{name}, {one['num_picks']} picks, {one['num_rendered']} clips rendered again:\n\n"
        + markdown_table(
            ("step", "s"),
            [(step, f"{time_s:.1f}") for step, time_s in one["times_s"].items()],
        )
        for name, one in cases.items()
    ]
    return "\n\n".join([about, *tables])


BENCHMARK = Benchmark(
    name="second_take",
    title="From 200 clips to a second take of 12 picks",
    about=__doc__ or "",
    libraries=("torch", "ray", "playwright"),
    cases=cases,
    figures=figures,
    body=body,
)

if __name__ == "__main__":
    main(BENCHMARK)
