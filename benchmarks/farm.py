"""`python -m benchmarks.farm` compares the farm with a plain script and with Ray Data.

All render the same texts and seeds with the same model, size and steps, on this machine, and put
the clips into one local S3 server; the farm and Ray Data share one local Ray cluster. No GPU is
used.
"""

import atexit
import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.baselines.sides import has_ray_data, run_farm, run_plain, run_ray_data
from benchmarks.baselines.workload import STAGES, Workload
from benchmarks.command import Benchmark, Measure, Options, main
from benchmarks.report import Cases, Figure, markdown_table
from infra.local.local_process import stop_signal_as_interrupt
from infra.local.ray_cluster import LocalRay
from infra.local.s3_server import LocalS3
from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.request import VideoShape

BUCKET = "renders"
FARM = "nagfarm, nag"
PLAIN, PLAIN_CFG = "plain script, no guidance", "plain script, cfg"
A_PROCESS = "a process a prompt, cfg"
RAY_CFG, RAY_NAG = "Ray Data, cfg", "Ray Data, nag"
SIDES = (FARM, PLAIN, PLAIN_CFG, RAY_CFG, RAY_NAG, A_PROCESS)
NUM_PROCESSES = 3  # a process a prompt is measured on fewer clips
MARGIN = 0.15
# Each factor between two sides, from the plain script with guidance to the farm.
STEPS_BETWEEN = (
    (PLAIN_CFG, RAY_CFG, "one process with all cores -> one with one thread for each core"),
    (RAY_CFG, RAY_NAG, "two passes a step -> one pass with NAG"),
    (RAY_NAG, FARM, "Ray Data -> the farm: checks, records, commits, overlap"),
)
SCALED = ModelGeometry(
    family="wan",
    num_layers=6,
    num_heads=16,
    head_dim=64,
    ffn_dim=4096,
    num_text_tokens=64,
    frames_per_token=4,
    height_per_token=16,
    width_per_token=16,
)


@dataclass(frozen=True)
class Size:
    """Clips of one length.

    Args:
        goals: least ratio of the farm's pace to another side's.
    """

    name: str
    model: str
    shape: VideoShape
    num_clips: int
    goals: Mapping[str, float]


TWO_SECONDS = Size(
    "2 s clips", "scaled", VideoShape(17, 64, 64), 12, {PLAIN_CFG: 2.2, RAY_CFG: 1.1, RAY_NAG: 1.1}
)
NATIVE = Size("native clips", "shapes-wan-4step", VideoShape(17, 64, 64), 36, {PLAIN: 1.0})
SIZES = (TWO_SECONDS, NATIVE)
NUM_STEPS = 4


def cases(options: Options) -> dict[str, Measure]:
    num_workers = 1 if options.tiny else len(os.sched_getaffinity(0))
    sides = SIDES if has_ray_data() else [side for side in SIDES if side not in {RAY_CFG, RAY_NAG}]
    return {
        f"{size.name}, {side}": functools.partial(
            measure, small(size) if options.tiny else size, side, num_workers
        )
        for size in SIZES
        for side in sides
    }


def small(size: Size) -> Size:
    """Return two small clips."""
    return replace(size, shape=VideoShape(5, 64, 64), num_clips=2)


def measure(size: Size, side: str, num_workers: int) -> dict[str, Any]:
    """Render the clips of one size by one side."""
    outputs = start_servers()
    models = write_scaled() if size.model == "scaled" else None
    work = Workload(size.model, size.shape, NUM_STEPS, size.num_clips, models)
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{size.name}-{side}")
    output = f"{outputs}/{name}-{os.getpid()}"
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        FARM: lambda: run_farm(work, output, num_workers),
        PLAIN: lambda: run_plain(work, "none", output, "cpu", process_a_prompt=False),
        PLAIN_CFG: lambda: run_plain(work, "cfg", output, "cpu", process_a_prompt=False),
        RAY_CFG: lambda: run_ray_data(work, "cfg", output, "cpu", num_workers),
        RAY_NAG: lambda: run_ray_data(work, "nag", output, "cpu", num_workers),
        A_PROCESS: lambda: run_plain(
            replace(work, num_clips=min(work.num_clips, NUM_PROCESSES)),
            "cfg",
            output,
            "cpu",
            process_a_prompt=True,
        ),
    }
    return runs[side]()


@functools.cache
def start_servers() -> str:
    """Start a local S3 server and a local Ray cluster for this process; return the outputs' root.

    The variables of this process lead to both. They end with it.
    """
    server = LocalS3(BUCKET)
    server.start()
    os.environ.update(server.environment())
    cluster = LocalRay(os.cpu_count() or 1, server.environment())
    cluster.start()
    os.environ.update(cluster.environment() | {"RAY_ADDRESS": cluster.address})
    return f"s3://{BUCKET}"


@functools.cache
def write_scaled() -> Path:
    """Write the model of the 2 s clips into a folder that ends with this process."""
    import torch

    from benchmarks.wan_folder import WanSizes, write_wan_model, write_wan_yaml

    folder = tempfile.TemporaryDirectory(prefix="nagfarm-models-")
    atexit.register(folder.cleanup)
    models, sizes = Path(folder.name), WanSizes(SCALED)
    write_wan_model(models, "weights", sizes, torch.device("cpu"), torch.float32)
    write_wan_yaml(models, "scaled", "weights", sizes, ("float32", "float32"))
    return models


def figures(cases: Cases) -> Iterable[Figure]:
    for size in SIZES:
        sides = sides_of(cases, size)
        farm = sides.get(FARM)
        for side, other in sides.items():
            if farm is None or side == FARM:
                continue
            yield Figure(
                f"pace, {size.name}, nagfarm / {side}",
                other["seconds_a_clip"] / farm["seconds_a_clip"],
                other["seconds_a_clip"] / device_s(farm),
                size.goals.get(side),
                is_higher_better=True,
                margin=MARGIN if side in size.goals else None,
            )


def sides_of(cases: Cases, size: Size) -> dict[str, dict[str, Any]]:
    """Return the measured sides of one size, by name."""
    return {side: case for side in SIDES if (case := cases.get(f"{size.name}, {side}"))}


def device_s(side: Mapping[str, Any]) -> float:
    """Return the seconds between two clips if the devices never waited."""
    return side["seconds_a_clip"] * side["busy_share"]


def body(cases: Cases) -> str:
    parts = [INTRODUCTION]
    for size in SIZES:
        if sides := sides_of(cases, size):
            parts += [f"## {size.name.capitalize()}\n", _side_table(sides), _stage_table(sides)]
            parts += (
                [_factors(sides)] if sides.keys() >= {PLAIN_CFG, RAY_CFG, RAY_NAG, FARM} else []
            )
    return "\n".join(parts)


INTRODUCTION = f"""\
All sides render the same texts and seeds in {NUM_STEPS} steps, without a GPU. The 2 s clips come
from a Wan with random weights, {SCALED.num_layers} layers of width {SCALED.width} and a small
autoencoder, {TWO_SECONDS.shape}; the native ones from `shapes-wan-4step`, {NATIVE.shape}.

- `nagfarm`: `nagfarm render` with NAG, one worker with one torch thread for each core, on a local
  Ray cluster. It also checks latents, frames and the MP4, and commits a record.
- `plain script`: one process, torch's own number of threads (a thread a core), a loop over
  `WanPipeline`, `export_to_video`, boto3's `upload_file`. `cfg` is classifier-free guidance, two
  passes a step; without guidance the negative prompt has no effect.
- `a process a prompt`: the plain script started for each prompt, {NUM_PROCESSES} of them.
- `Ray Data`: `map_batches` with a class on a pool of actors, one for each core with one thread, on
  the same Ray cluster; the body of the plain loop. `nag` is the plain loop inside `nag.guide`, so
  it needs this project's library.

All upload to one local S3 server, and each encodes by its own defaults. The pace is steady: it
begins when each worker has finished a clip. `with start` counts from the start of the program. Busy
share: text, denoise and decode over a worker's time from its first clip to its last. Memory: the
sum of the rendering processes' peaks.
"""


def _side_table(sides: Mapping[str, Mapping[str, Any]]) -> str:
    head = ("side", "clips an hour", "with start", "first clip, s", "busy share", "memory, GB")
    return markdown_table(
        head,
        [
            (
                name,
                f"{side['clips_per_hour']:,.0f}",
                f"{side['clips_per_hour_with_start']:,.0f} ({side['num_clips']} clips)",
                f"{side['first_clip_s']:.1f}",
                f"{side['busy_share']:.3f}",
                f"{side['peak_memory_bytes'] / 1e9:.1f}",
            )
            for name, side in sides.items()
        ],
    )


def _stage_table(sides: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the seconds of a clip in its worker, by stage."""
    rows = []
    for name, side in sides.items():
        stages = side["stages_s"]
        interval_s = side["seconds_a_clip"] * side["num_workers"]
        idle_s = interval_s * (1 - side["busy_share"])
        cells = [f"{stages[stage]:.3f}" if stage in stages else "" for stage in STAGES]
        rows.append((name, f"{side['num_workers']}", *cells, f"{interval_s:.3f}", f"{idle_s:.3f}"))
    head = ("seconds of a clip", "workers", *STAGES, "clip to clip", "device without work")
    return f"""\
The seconds of a clip in one worker, but for its first clip. `clip to clip` is the time from one
clip to the next of a worker; in the farm encode, check and upload go on beside the next clip, in
the others between. The device's time without work follows from its busy share.

{markdown_table(head, rows)}"""


def _factors(sides: Mapping[str, Mapping[str, Any]]) -> str:
    rows: list[tuple[str, str]] = []
    for before, after, words in STEPS_BETWEEN:
        ratio = sides[before]["seconds_a_clip"] / sides[after]["seconds_a_clip"]
        rows.append((words, f"{ratio:.3f}"))
    whole = sides[PLAIN_CFG]["seconds_a_clip"] / sides[FARM]["seconds_a_clip"]
    rows.append(("together: nagfarm / plain script, cfg", f"{whole:.3f}"))
    return f"""\
The gap between the plain script with guidance and the farm, as factors. Here the encoder and the
checks take the cores on which the workers render; beside a GPU they would not.

{markdown_table(("from -> to", "pace"), rows)}"""


BENCHMARK = Benchmark(
    name="farm",
    title="The farm beside a plain script and Ray Data",
    about=__doc__ or "",
    libraries=("torch", "diffusers", "ray"),
    cases=cases,
    figures=figures,
    body=body,
)

if __name__ == "__main__":
    with stop_signal_as_interrupt():  # so that the servers end
        main(BENCHMARK)
