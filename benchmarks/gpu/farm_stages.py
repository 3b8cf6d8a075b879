"""The farm's stages on one GPU, beside a plain script and Ray Data: clips of Wan 1.3B's size.

The folder has random weights, which are made on the GPU once for each call of the benchmark. The
clips are noise, the worst case for H.264. One worker, 4 steps, output to a folder.
"""

import atexit
import functools
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines.sides import has_ray_data, run_farm, run_plain, run_ray_data
from benchmarks.baselines.workload import STAGES, Workload
from benchmarks.report import Figure, markdown_table
from benchmarks.wan_folder import WanSizes, write_wan_model, write_wan_yaml
from pipelines.cost.published import WAN_1_3B
from pipelines.request import VideoShape

# UMT5-XXL has 24 layers; these 8 make a folder of 6.5 GB, and each text is encoded once.
REAL = WanSizes(
    WAN_1_3B, text={"d_kv": 64, "d_ff": 10240, "num_layers": 8, "num_heads": 64}, vae={}
)
TINY = WanSizes(
    replace(WAN_1_3B, num_layers=1, num_heads=2, head_dim=12, ffn_dim=32, num_text_tokens=32)
)
SHAPE, NUM_STEPS, NUM_CLIPS = VideoShape(49, 480, 832), 4, 6
TINY_SHAPE = VideoShape(5, 64, 64)
FARM, FARM_BFLOAT16 = "farm, VAE float32", "farm, VAE bfloat16"
PLAIN, PLAIN_CFG = "plain script, no guidance", "plain script, cfg"
RAY_NAG = "Ray Data, nag"
BUSY_GOAL = 0.97
MARGIN = 0.05


@dataclass(frozen=True)
class Model:
    """A folder with the weights and a YAML for each dtype of the autoencoder."""

    folder: Path
    device: str
    shape: VideoShape

    def workload(self, vae_dtype: str, num_clips: int) -> Workload:
        return Workload(vae_dtype, self.shape, NUM_STEPS, num_clips, self.folder)

    def output(self, name: str) -> str:
        path = Path(tempfile.mkdtemp(dir=self.folder), name)
        path.mkdir()
        return path.as_uri()


@functools.cache
def write_model(is_tiny: bool) -> Model:
    """Write the folder; it ends with this process."""
    folder = tempfile.TemporaryDirectory(prefix="nagfarm-gpu-")
    atexit.register(folder.cleanup)
    models = Path(folder.name)
    sizes, device = (TINY, "cpu") if is_tiny else (REAL, "cuda")
    dtype = torch.float32 if is_tiny else torch.bfloat16
    write_wan_model(models, "weights", sizes, torch.device(device), dtype)
    if not is_tiny:
        torch.cuda.empty_cache()
    names = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
    for vae_dtype in ("float32", "bfloat16"):
        write_wan_yaml(models, vae_dtype, "weights", sizes, (names[dtype], vae_dtype))
    return Model(models, device, TINY_SHAPE if is_tiny else SHAPE)


def stage_cases(is_tiny: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the cases, the most important first; each writes the model if none did."""
    few, many = (2, 2) if is_tiny else (3, NUM_CLIPS)

    def farm(vae_dtype: str) -> dict[str, Any]:
        model = write_model(is_tiny)
        return run_farm(model.workload(vae_dtype, many), model.output("farm"), 1)

    def plain(guidance: Any) -> dict[str, Any]:
        model = write_model(is_tiny)
        return run_plain(
            model.workload("float32", few),
            guidance,
            model.output("plain"),
            model.device,
            process_a_prompt=False,
        )

    def ray_data() -> dict[str, Any]:
        model = write_model(is_tiny)
        work = model.workload("float32", few)
        return run_ray_data(work, "nag", model.output("ray-data"), model.device, 1)

    return {
        FARM: lambda: farm("float32"),
        PLAIN: lambda: plain("none"),
        PLAIN_CFG: lambda: plain("cfg"),
        FARM_BFLOAT16: lambda: farm("bfloat16"),
        **({RAY_NAG: ray_data} if has_ray_data() else {}),
    }


def stage_figures(sides: Mapping[str, Mapping[str, Any]]) -> Iterable[Figure]:
    """Yield busy shares, and the farm's pace over that of the others."""
    for name in (FARM, FARM_BFLOAT16):
        if name in sides:
            share = sides[name]["busy_share"]
            yield Figure(
                f"busy share, {name}", share, 1.0, BUSY_GOAL, is_higher_better=True, margin=MARGIN
            )
    for name, side in sides.items():
        if FARM in sides and name not in {FARM, FARM_BFLOAT16}:
            ratio = side["seconds_a_clip"] / sides[FARM]["seconds_a_clip"]
            yield Figure(f"pace, {FARM} / {name}", ratio, is_higher_better=True, margin=MARGIN)


def stage_text(sides: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the section with the seconds of each stage; empty without a measured side."""
    if not sides:
        return ""
    head = ("seconds of a clip", *STAGES, "clip to clip", "first clip", "busy share", "memory, GB")
    rows = [
        (
            name,
            *(f"{side['stages_s'].get(stage, 0.0):.3f}" for stage in STAGES),
            f"{side['seconds_a_clip']:.2f}",
            f"{side['first_clip_s']:.0f}",
            f"{side['busy_share']:.3f}",
            f"{side['peak_memory_bytes'] / 1e9:.1f}",
        )
        for name, side in sides.items()
    ]
    load = ", ".join(f"{side['load_s']:.0f} s ({name})" for name, side in sides.items()
                     if "load_s" in side)  # fmt: skip
    return f"""
## Whole clips

Wan 1.3B's size, {SHAPE}, {NUM_STEPS} steps, random weights, one device, output to a folder, each
side a program of its own, without its first clip. In the farm (NAG), encode, check and upload go on
beside the next clip; the other sides do them between two clips, and check nothing. Busy share:
text, denoise and decode over the time from the first clip to the last on the device. Memory: the
device's. Load of a worker:
{load or "not measured"}.

{markdown_table(head, rows)}"""
