"""`python -m benchmarks.gpu PREFIX` measures what guidance costs a step on this machine's GPU.

The models have random weights of the published sizes, which it makes itself; nothing is downloaded.
Each case is written as soon as it is measured, and a second call goes on with the missing ones.
"""

import argparse
import gc
import json
import sys
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch

from benchmarks.gpu.steps import Case, Speed, Variant, floor, measure
from pipelines.cost.published import LTX_2B, WAN_1_3B, WAN_14B
from pipelines.request import VideoShape

LONG, SHORT = VideoShape(81, 480, 832), VideoShape(17, 480, 832)
ALL: tuple[Variant, ...] = ("none", "nag", "cfg")
TWO: tuple[Variant, ...] = ("none", "nag")
CASES = (
    Case("Wan 1.3B, 832x480x81", WAN_1_3B, LONG, ALL),
    Case("Wan 1.3B, 832x480x81, compiled", WAN_1_3B, LONG, TWO, is_compiled=True),
    Case("Wan 1.3B, 832x480x17", WAN_1_3B, SHORT, ALL, num_steps=10),
    Case("LTX 2B, 768x512x121", LTX_2B, VideoShape(121, 512, 768), ALL, num_steps=10),
    Case("LTX 2B, 768x512x121, compiled", LTX_2B, VideoShape(121, 512, 768), TWO, True, 10),
    Case("Wan 14B, 832x480x81", WAN_14B, LONG, TWO, num_steps=3),
    Case("Wan 14B, 832x480x81, compiled", WAN_14B, LONG, TWO, is_compiled=True, num_steps=3),
)
MATRIX_SIZE = 16 * 1024


@dataclass(frozen=True)
class Machine:
    """The machine and the versions for which the times hold."""

    device: str
    torch_version: str
    diffusers_version: str
    cuda_version: str | None
    speed: Speed

    @classmethod
    def look(cls, device: torch.device, dtype: torch.dtype, size: int) -> Self:
        return cls(
            torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            version("torch"),
            version("diffusers"),
            torch.version.cuda,
            Speed.measure(device, dtype, size),
        )


def tiny(case: Case) -> Case:
    """Return a case of the same kind that a CPU measures in a second."""
    geometry = replace(
        case.geometry, num_layers=1, num_heads=2, head_dim=12, ffn_dim=32, num_text_tokens=4
    )
    return replace(case, geometry=geometry, shape=VideoShape(9, 64, 64), num_steps=3)


def page(document: dict[str, Any]) -> str:
    """Return the measured page as Markdown."""
    machine, speed = document["machine"], document["machine"]["speed"]
    rows = [
        ("case", "none, s", "nag, s", "nag / none", "floor", "cfg / none", "nag, peak memory"),
        ("---", "---:", "---:", "---:", "---:", "---:", "---:"),
    ]
    for name, case in document["cases"].items():
        seconds = case["median_s"]
        peaks = case["peak_bytes"]
        rows.append(
            (
                name,
                f"{seconds['none']:.4f}",
                f"{seconds['nag']:.4f}",
                f"{seconds['nag'] / seconds['none']:.3f}",
                f"{case['floor']:.3f}",
                f"{seconds['cfg'] / seconds['none']:.2f}" if "cfg" in seconds else "",
                f"{peaks['nag'] / peaks['none'] - 1:+.1%}" if peaks["none"] else "",
            )
        )
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"""\
# The cost of guidance on a GPU

`python -m benchmarks.gpu docs/measurements/gpu` measures a denoise step of each case, without
guidance, with NAG and with classifier-free guidance, in turn in one process. Weights and text are
random. The floor is the ratio if the operations and bytes that NAG adds, as counted, ran at the
device's best speed: that of a large matrix product and of a copy in memory.

{machine["device"]}, torch {machine["torch_version"]} with CUDA {machine["cuda_version"]}, diffusers
{machine["diffusers_version"]}, bfloat16, {speed["operations_per_s"] / 1e12:,.0f} TFLOP/s,
{speed["bytes_per_s"] / 1e9:,.0f} GB/s. The numbers are in gpu.json.

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prefix", type=Path, help="writes PREFIX.json and PREFIX.md")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="cases whose name has this text")
    parser.add_argument("--tiny", action="store_true", help="tiny models, on the CPU")
    options = parser.parse_args()
    if not (options.tiny or torch.cuda.is_available()):
        sys.exit("no CUDA device is to be had here; --tiny tries the benchmark on a CPU")
    device = torch.device("cpu" if options.tiny else "cuda")
    path = options.prefix.with_suffix(".json")
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"cases": {}}
    dtype = torch.float32 if options.tiny else torch.bfloat16
    machine = Machine.look(device, dtype, 64 if options.tiny else MATRIX_SIZE)
    if document.get("machine", asdict(machine))["device"] != machine.device:
        sys.exit(f"{path} was measured on {document['machine']['device']}; choose another PREFIX")
    document["machine"] = asdict(machine)
    for case in CASES:
        if case.name in document["cases"]:
            continue
        if options.only and not any(text in case.name for text in options.only):
            continue
        small = tiny(case) if options.tiny else case
        times = measure(small, device, dtype, print)
        document["cases"][case.name] = {
            "median_s": {variant: found.median_s for variant, found in times.items()},
            "steps_s": {variant: found.steps_s for variant, found in times.items()},
            "peak_bytes": {variant: found.peak_bytes for variant, found in times.items()},
            "floor": floor(small, times, machine.speed),
        }
        path.write_text(json.dumps(document, indent=2) + "\n")
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    text = page(document)
    options.prefix.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
