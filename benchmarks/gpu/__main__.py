"""`python -m benchmarks.gpu` measures on this machine's GPU: steps with guidance, and whole clips.

The models have random weights of the published sizes, which it makes itself; nothing is downloaded.
The farm, a plain script and Ray Data then render whole clips. With 8 minutes of a GPU:

  python -m benchmarks.gpu --minutes 7
  python -m benchmarks.gpu.card          prints the card's row for the cost model
"""

import functools
import gc
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import torch

from benchmarks.command import Benchmark, Measure, Options, main
from benchmarks.gpu.farm_stages import stage_cases, stage_figures, stage_text
from benchmarks.gpu.steps import Case, Speed, Variant, floor, measure, step_operations
from benchmarks.report import Cases, Figure, markdown_table
from pipelines.cost.published import LTX_2B, WAN_1_3B, WAN_14B
from pipelines.request import VideoShape

LONG, SHORT = VideoShape(81, 480, 832), VideoShape(17, 480, 832)
ALL: tuple[Variant, ...] = ("none", "nag", "cfg")
TWO: tuple[Variant, ...] = ("none", "nag")
FIRST_CASES = (
    Case("Wan 1.3B, 832x480x81", WAN_1_3B, LONG, ALL),
    Case("Wan 1.3B, 832x480x17", WAN_1_3B, SHORT, ALL, num_steps=10),
    Case("LTX 2B, 768x512x121", LTX_2B, VideoShape(121, 512, 768), ALL, num_steps=10),
)
# After the whole clips: they take longest.
LAST_CASES = (
    Case("Wan 14B, 832x480x81", WAN_14B, LONG, TWO, num_steps=3),
    Case("Wan 1.3B, 832x480x81, compiled", WAN_1_3B, LONG, TWO, is_compiled=True),
    Case("LTX 2B, 768x512x121, compiled", LTX_2B, VideoShape(121, 512, 768), TWO, True, 10),
    Case("Wan 14B, 832x480x81, compiled", WAN_14B, LONG, TWO, is_compiled=True, num_steps=3),
)
CASES = (*FIRST_CASES, *LAST_CASES)
MATRIX_SIZE = 16 * 1024
# Largest promised ratios of a step with NAG to one without, by the case's name.
GOALS = {
    "Wan 1.3B, 832x480x81": 1.01,
    "Wan 1.3B, 832x480x81, compiled": 1.01,
    "Wan 1.3B, 832x480x17": 1.025,
    "LTX 2B, 768x512x121": 1.025,
    "Wan 14B, 832x480x81": 1.01,
    "Wan 14B, 832x480x81, compiled": 1.01,
}
MOST_ADDED_MEMORY = 1.02
MARGIN = 0.01  # as much as NAG may add to a step in the longest case


def tiny(case: Case) -> Case:
    """Return a case of the same kind that a CPU measures in a second."""
    geometry = replace(
        case.geometry, num_layers=1, num_heads=2, head_dim=12, ffn_dim=32, num_text_tokens=4
    )
    return replace(case, geometry=geometry, shape=VideoShape(9, 64, 64), num_steps=3)


def cases(options: Options) -> dict[str, Measure]:
    if not (options.tiny or torch.cuda.is_available()):
        sys.exit("no CUDA device is to be had here; --tiny tries the benchmark on a CPU")

    def steps(cases: Iterable[Case]) -> dict[str, Measure]:
        chosen = {case.name: tiny(case) if options.tiny else case for case in cases}
        return {
            name: functools.partial(measure_case, case, options.tiny)
            for name, case in chosen.items()
        }

    return steps(FIRST_CASES) | stage_cases(options.tiny) | steps(LAST_CASES)


def measure_case(case: Case, is_tiny: bool) -> dict[str, Any]:
    """Return seconds, memory and floor of one case, and the device's speed, as JSON."""
    device = torch.device("cpu" if is_tiny else "cuda")
    dtype = torch.float32 if is_tiny else torch.bfloat16
    speed = device_speed(device, dtype, 64 if is_tiny else MATRIX_SIZE)
    times = measure(case, device, dtype, lambda line: print(line, file=sys.stderr, flush=True))
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return {
        "median_s": {variant: found.median_s for variant, found in times.items()},
        "steps_s": {variant: found.steps_s for variant, found in times.items()},
        "step_operations": step_operations(case),
        "peak_bytes": {variant: found.peak_bytes for variant, found in times.items()},
        "floor": floor(case, times, speed),
        "speed": asdict(speed),
    }


device_speed = functools.cache(Speed.measure)


def figures(cases: Cases) -> Iterable[Figure]:
    for name, case in step_cases(cases).items():
        seconds, peaks = case["median_s"], case["peak_bytes"]
        ratio = seconds["nag"] / seconds["none"]
        yield Figure(f"nag / none, {name}", ratio, case["floor"], GOALS.get(name), margin=MARGIN)
        if peaks["none"]:
            memory = peaks["nag"] / peaks["none"]
            yield Figure(f"peak memory, {name}", memory, 1.0, MOST_ADDED_MEMORY, margin=MARGIN)
    yield from stage_figures(whole_clips(cases))


def step_cases(cases: Cases) -> dict[str, Any]:
    """Return the cases that measure a step; the others render whole clips."""
    return {name: case for name, case in cases.items() if "median_s" in case}


def whole_clips(cases: Cases) -> dict[str, Any]:
    return {name: case for name, case in cases.items() if "median_s" not in case}


def body(cases: Cases) -> str:
    """Return the page's text and its table of seconds."""
    rows: list[tuple[str, ...]] = []
    for name, case in step_cases(cases).items():
        seconds = case["median_s"]
        rows.append(
            (
                name,
                f"{seconds['none']:.4f}",
                f"{seconds['nag']:.4f}",
                f"{seconds['cfg'] / seconds['none']:.2f}" if "cfg" in seconds else "",
                f"{case['step_operations'] / seconds['none'] / 1e12:,.0f}",
                f"{case['speed']['operations_per_s'] / 1e12:,.0f}",
                f"{case['speed']['bytes_per_s'] / 1e9:,.0f}",
            )
        )
    head = ("case", "none, s", "nag, s", "cfg / none", "TFLOP/s", "at best", "GB/s")
    return f"""\
A denoise step of each case, without guidance, with NAG and with classifier-free guidance, in turn
in one process, in bfloat16. Weights and text are random. The floor of a ratio is the one if the
operations and bytes that NAG adds, as counted, ran at the device's best speed: that of a large
matrix product and of a copy in memory, in the last two columns. `TFLOP/s` is the speed of a step
without guidance.

{markdown_table(head, rows)}{stage_text(whole_clips(cases))}"""


BENCHMARK = Benchmark(
    name="gpu",
    title="Guidance and the farm on a GPU",
    about=__doc__ or "",
    libraries=("torch", "diffusers", "ray"),
    cases=cases,
    figures=figures,
    body=body,
    uses_gpu=lambda options: not options.tiny,
)

if __name__ == "__main__":
    main(BENCHMARK)
