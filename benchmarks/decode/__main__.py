"""`python -m benchmarks.decode` measures the settings of a model's autoencoder: time and pixels.

On a CPU the Shapes models decode clips that they denoised in four steps. With `--device cuda`
autoencoders of the published sizes with random weights decode noise. Each setting is measured in
turn with the plain autoencoder, in float32, on the same latents.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from benchmarks.command import Benchmark, Measure, Options, main
from benchmarks.decode.material import (
    REAL_SIZES,
    SHAPES_TILE_PX,
    Material,
    real_material,
    shapes_material,
)
from benchmarks.report import Cases, Figure, markdown_table

SETTINGS: dict[str, dict[str, Any]] = {
    "bfloat16": {"vae_dtype": "bfloat16"},
    "channels_last_3d": {"vae_memory_format": "channels_last_3d"},
    "compiled": {"vae_compile": True},
    "tiled": {"vae_tiling": True},
    "bfloat16, channels_last_3d": {
        "vae_dtype": "bfloat16", "vae_memory_format": "channels_last_3d",
    },
    "bfloat16, compiled": {"vae_dtype": "bfloat16", "vae_compile": True},
}  # fmt: skip
CPU_SETTINGS = ("bfloat16", "channels_last_3d", "compiled", "tiled")  # bfloat16 is slow there
SHAPES_MODELS = ("shapes-wan-4step", "shapes-ltx-4step")
TINY_CASES = (
    "shapes-wan-4step: tiled",
    "wan of real size: bfloat16, channels_last_3d",
    "ltx of real size: bfloat16, channels_last_3d",
)
MARGIN = 0.15


def measure(material: Material) -> dict[str, Any]:
    """Return seconds, memory and PSNR of the decoder without and with the setting, as JSON."""
    models = {"plain": material.plain, "changed": material.changed}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    peak_bytes = dict.fromkeys(models, 0)
    psnr_db: list[float] = []
    for number, (request, latents) in enumerate([material.clips[0], *material.clips]):
        frames: dict[str, np.ndarray] = {}
        for name, model in models.items():
            begin_s = _now_s(latents.device)
            frames[name] = model.decode(request, latents).result().frames
            if number:  # the first call warms caches and compiles
                seconds[name].append(_now_s(latents.device) - begin_s)
                peak_bytes[name] = max(peak_bytes[name], _peak_bytes(latents.device))
        if number:
            psnr_db.append(psnr(frames["plain"], frames["changed"]))
    for model in models.values():
        model.close()
    pairs = zip(seconds["changed"], seconds["plain"], strict=True)
    return {
        "seconds": {name: statistics.median(found) for name, found in seconds.items()},
        "time_to_plain": statistics.median(one / plain for one, plain in pairs),
        "peak_bytes": peak_bytes,
        "psnr_db": {"mean": statistics.fmean(psnr_db), "least": min(psnr_db)},
        "num_clips": len(material.clips),
    }


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Return the ratio of signal to noise in dB; at most 99, which equal frames have."""
    error = float(((one.astype(np.float32) - other) ** 2).mean())
    return min(99.0, float(10 * np.log10(255**2 / error)) if error else 99.0)


def _now_s(device: torch.device) -> float:
    """Return processor time on a CPU, where other programs run too, and wall time on a GPU."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak_bytes(device: torch.device) -> int:
    """Return the most memory that tensors held since the last call; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    found = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return found


def measure_shapes(name: str, setting: str, options: Options) -> dict[str, Any]:
    return measure(shapes_material(name, SETTINGS[setting], 1 if options.tiny else options.clips))


def measure_real(family: str, setting: str, options: Options) -> dict[str, Any]:
    device = torch.device(options.device)
    num_clips = 1 if options.tiny else 5
    return measure(real_material(family, SETTINGS[setting], num_clips, device, options.tiny))


def cases(options: Options) -> dict[str, Measure]:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is to be had here; leave --device out")
    shapes = {
        f"{name}: {setting}": functools.partial(measure_shapes, name, setting, options)
        for name in SHAPES_MODELS
        for setting in CPU_SETTINGS
    }
    real = {
        f"{family} of real size: {setting}": functools.partial(
            measure_real, family, setting, options
        )
        for family in REAL_SIZES
        for setting in SETTINGS
    }
    if options.tiny:
        return {name: case for name, case in (shapes | real).items() if name in TINY_CASES}
    return shapes if options.device == "cpu" else real


def figures(cases: Cases) -> Iterable[Figure]:
    for name, case in cases.items():
        yield Figure(f"time / plain, {name}", case["time_to_plain"], margin=MARGIN)
        yield Figure(
            f"PSNR, least, {name}",
            case["psnr_db"]["least"],
            unit="dB",
            is_higher_better=True,
            margin=MARGIN,
        )


def body(cases: Cases) -> str:
    """Return the page's text and table."""
    rows: list[tuple[str, ...]] = []
    for name, case in cases.items():
        peaks = case["peak_bytes"]
        rows.append(
            (
                name,
                f"{case['time_to_plain']:.2f}",
                f"{peaks['changed'] / peaks['plain']:.2f}" if peaks["plain"] else "",
                f"{case['psnr_db']['mean']:.1f}",
                f"{case['psnr_db']['least']:.1f}",
            )
        )
    head = ("autoencoder: setting", "time", "peak memory", "PSNR, mean, dB", "PSNR, least, dB")
    return f"""\
The decoder with each setting, beside the same decoder in float32 without any, on the same latents:
time and memory as shares of the plain decoder's, and the PSNR to its frames, 99 dB if they are
equal. On a CPU the time is processor time of one thread, the models are the Shapes models and
their tiles are {SHAPES_TILE_PX} pixels wide. On a GPU the autoencoders have the published sizes and
random weights: there the time counts, and the PSNR says little about real clips.

{markdown_table(head, rows)}"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=int, default=8, help="clips of a Shapes model (default 8)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda measures real sizes"
    )


BENCHMARK = Benchmark(
    name="decode",
    title="Decoding",
    about=__doc__ or "",
    libraries=("torch", "diffusers"),
    cases=cases,
    figures=figures,
    body=body,
    add_options=add_options,
    uses_gpu=lambda options: options.device == "cuda",
)

if __name__ == "__main__":
    main(BENCHMARK)
