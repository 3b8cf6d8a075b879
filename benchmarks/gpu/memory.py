"""`python -m benchmarks.gpu.memory` measures the memory of a step and of a decode on a GPU.

It compares each peak with the estimate that `nagfarm plan` prints. The models have the published
sizes and random weights, which it makes itself; nothing is downloaded. A case is one model at one
size; a row of `CASES` adds one. Call it again to go on with the cases that are left.
"""

import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKLLTX2Video,
    AutoencoderKLWan,
    LTX2VideoTransformer3DModel,
    WanTransformer3DModel,
)

from benchmarks.command import Benchmark, Measure, Options, main
from benchmarks.real_sizes import TEXT_CHANNELS, default_dtype
from benchmarks.report import Cases, Figure, markdown_table
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.cost.activations import Autoencoder, Clip, forward_bytes
from pipelines.cost.memory import MARGIN
from pipelines.request import VideoShape

ROUNDS = 3
_14B: dict[str, Any] = {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}
_5B: dict[str, Any] = {
    "num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "in_channels": 48,
    "out_channels": 48,
}  # fmt: skip
_5B_VAE: dict[str, Any] = {
    "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "in_channels": 12,
    "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16,
}  # fmt: skip
_LTX2_VAE: dict[str, Any] = {"spatial_compression_ratio": 32, "temporal_compression_ratio": 8}
_THIN: dict[str, Any] = {
    "num_attention_heads": 2, "num_layers": 1, "ffn_dim": 64, "cross_attention_dim": 256,
    "audio_num_attention_heads": 2, "audio_attention_head_dim": 64,
    "audio_cross_attention_dim": 128,
    "base_dim": 8, "decoder_base_dim": 8, "num_res_blocks": 1,
    "block_out_channels": (8, 8, 8, 8), "decoder_block_out_channels": (16, 32, 64),
    "layers_per_block": (1, 1, 1, 1, 1), "decoder_layers_per_block": (1, 1, 1, 1),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One model at one size.

    Args:
        sizes: arguments of the class; those that are left out are the published ones.
        num_copies: transformers that are on the device at once; one computes.
        changes: keys of the model's YAML, such as `vae_tiling`.
        index: keys of the folder's model_index.json.
    """

    name: str
    family: Literal["wan", "ltx2"]
    stage: Literal["step", "decode"]
    shape: VideoShape
    sizes: Mapping[str, Any]
    num_copies: int = 1
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    index: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def model_class(self) -> Any:
        if self.stage == "step":
            return WanTransformer3DModel if self.family == "wan" else LTX2VideoTransformer3DModel
        return AutoencoderKLWan if self.family == "wan" else AutoencoderKLLTX2Video

    @property
    def config(self) -> ModelConfig:
        shape, grid = self.shape, ShapeGrid(4, 16, 16)
        sampling = SamplingDefaults(4, 1.0, shape.num_frames, shape.height, shape.width, 24.0)
        config = ModelConfig("case", self.family, "./weights", grid, sampling)
        return replace(config, **{"vae_dtype": "bfloat16", **self.changes})


_480P, _5B_720P, _LTX2 = (
    VideoShape(81, 480, 832),
    VideoShape(121, 704, 1280),
    VideoShape(121, 512, 768),
)
_TOKENS: dict[str, Any] = {"expand_timesteps": True}
_IMAGE: dict[str, Any] = {"pipeline": "LTX2ImageToVideoPipeline"}
_FLOAT32: dict[str, Any] = {"vae_dtype": "float32"}
_TILED: dict[str, Any] = {"vae_tiling": True}
CASES = (
    Case("Wan 5B, step", "wan", "step", _5B_720P, _5B, index=_TOKENS),
    Case("Wan 5B, decode", "wan", "decode", _5B_720P, _5B_VAE),
    Case("Wan 5B, decode in float32", "wan", "decode", _5B_720P, _5B_VAE, changes=_FLOAT32),
    Case("Wan 5B, decode in tiles", "wan", "decode", _5B_720P, _5B_VAE, changes=_TILED),
    Case("Wan 2.1, decode", "wan", "decode", _480P, {}),
    Case("Wan 2.1, decode in float32", "wan", "decode", _480P, {}, changes=_FLOAT32),
    Case("LTX-2, step", "ltx2", "step", _LTX2, {}),
    Case("LTX-2, step with an image", "ltx2", "step", _LTX2, {}, changes=_IMAGE),
    Case("LTX-2, decode", "ltx2", "decode", _LTX2, _LTX2_VAE),
    Case("LTX-2, decode in tiles", "ltx2", "decode", _LTX2, _LTX2_VAE, changes=_TILED),
    Case("Wan A14B, step", "wan", "step", _480P, _14B, num_copies=2),
)


def tiny(case: Case) -> Case:
    """Return a case of the same kind that a CPU measures in a second."""
    known = case.model_class.__init__.__wrapped__.__code__.co_varnames
    sizes = {name: size for name, size in _THIN.items() if name in known}
    return replace(case, shape=VideoShape(9, 64, 64), sizes={**case.sizes, **sizes})


def measure_case(case: Case, device: torch.device) -> dict[str, Any]:
    """Return the seconds of one call, its peak and the estimate of it, as JSON."""
    dtype = torch.float32 if case.config.vae_dtype == "float32" else torch.bfloat16
    with device, default_dtype(torch.bfloat16 if case.stage == "step" else dtype), torch.no_grad():
        models = [case.model_class(**case.sizes).eval() for _ in range(case.num_copies)]
        for model in models:
            model.requires_grad_(requires_grad=False)
        if case.config.vae_tiling:
            models[0].enable_tiling()
        call = partial(models[0].forward if case.stage == "step" else models[0].decode,
                       **_arguments(case), return_dict=False)  # fmt: skip
        held = _allocated(device)
        seconds = [_seconds(call, device) for _ in range(ROUNDS)]
        found = {
            "median_s": statistics.median(seconds[1:]),
            "weight_bytes": held,
            "activation_bytes": max(0, _peak(device) - held),
            "estimated_bytes": _estimate(case, models[0]),
        }
    del models, call
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return found


def _arguments(case: Case) -> dict[str, Any]:
    """Return the tensors of one call, as the pipeline of the model passes them."""
    shape, sizes = case.shape, case.sizes
    if case.family == "wan":
        spatial = 16 if sizes.get("z_dim", sizes.get("in_channels")) == 48 else 8
        frames, height, width = (
            (shape.num_frames - 1) // 4 + 1, shape.height // spatial, shape.width // spatial
        )  # fmt: skip
        if case.stage == "decode":
            return {"z": torch.randn(1, sizes.get("z_dim", 16), frames, height, width)}
        tokens = frames * (height // 2) * (width // 2)
        times = (1, tokens) if case.index.get("expand_timesteps") else (1,)
        return {
            "hidden_states": torch.randn(1, sizes.get("in_channels", 16), frames, height, width),
            "timestep": torch.full(times, 500.0, dtype=torch.float32),
            "encoder_hidden_states": torch.randn(1, 512, TEXT_CHANNELS),
        }
    frames, height, width = (
        (shape.num_frames - 1) // 8 + 1, shape.height // 32, shape.width // 32
    )  # fmt: skip
    if case.stage == "decode":
        return {"z": torch.randn(1, 128, frames, height, width)}
    tokens, audio = frames * height * width, round(shape.num_frames / 24 * 25)
    per_token = tokens if "pipeline" in case.changes else 1
    return {
        "hidden_states": torch.randn(1, tokens, 128),
        "audio_hidden_states": torch.randn(1, audio, 128),
        "encoder_hidden_states": torch.randn(1, 1024, 3840),
        "audio_encoder_hidden_states": torch.randn(1, 1024, 3840),
        "encoder_attention_mask": torch.ones(1, 1024),
        "audio_encoder_attention_mask": torch.ones(1, 1024),
        "timestep": torch.full((1, per_token), 500.0, dtype=torch.float32),
        "audio_timestep": torch.full((1,), 500.0, dtype=torch.float32),
        **dict(zip(("num_frames", "height", "width"), (frames, height, width), strict=True)),
        "audio_num_frames": audio,
    }


def _estimate(case: Case, model: Any) -> int:
    """Return the activations that the estimate of `nagfarm plan` counts."""
    with tempfile.TemporaryDirectory(prefix="nagfarm-gpu-memory-") as name:
        folder = Path(name)
        is_step = case.stage == "step"
        model.save_config(folder / ("transformer" if is_step else "vae"))
        if is_step:
            wan_5b = _5B_VAE if case.sizes.get("in_channels") == 48 else {}
            (folder / "vae").mkdir()
            vae = wan_5b if case.family == "wan" else _LTX2_VAE
            (folder / "vae" / "config.json").write_text(json.dumps(vae))
            (folder / "model_index.json").write_text(json.dumps(case.index))
            config = replace(case.config, max_sequence_length=512 if case.family == "wan" else 1024)
            return forward_bytes(folder, config, Clip(case.shape, "none"))
        return Autoencoder.of(folder, case.config).decode_bytes(case.shape)


def _seconds(call: Any, device: torch.device) -> float:
    _wait(device)
    begin = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _allocated(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def cases(options: Options) -> dict[str, Measure]:
    if not (options.tiny or torch.cuda.is_available()):
        sys.exit("no CUDA device is to be had here; --tiny tries the benchmark on a CPU")
    device = torch.device("cpu" if options.tiny else "cuda")
    chosen = [tiny(case) if options.tiny else case for case in CASES]
    return {case.name: partial(measure_case, case, device) for case in chosen}


def figures(cases: Cases) -> Iterable[Figure]:
    """Yield each peak over its estimate, on a device that counts its memory."""
    for name, case in cases.items():
        if case["activation_bytes"]:
            ratio = case["activation_bytes"] / case["estimated_bytes"]
            yield Figure(f"activations / estimate, {name}", ratio, 1.0, 1 + MARGIN, margin=MARGIN)


def body(cases: Cases) -> str:
    rows = [
        (
            name,
            f"{case['median_s']:.3f}",
            *(
                f"{case[f'{part}_bytes'] / 1e9:.1f}"
                for part in ("weight", "activation", "estimated")
            ),
        )
        for name, case in cases.items()
    ]
    head = ("case", "seconds", "weights", "activations", "by estimate")
    return f"""\
One forward without guidance, or one decode, of random weights in the published sizes, in bfloat16
unless the case says otherwise. Memory in GB (1e9 bytes): weights on the device, the peak beyond
them, and the peak beyond them by the estimate of `nagfarm plan`.

{markdown_table(head, rows)}"""


BENCHMARK = Benchmark(
    name="gpu_memory",
    title="Memory of a step and of a decode on a GPU",
    about=__doc__ or "",
    libraries=("torch", "diffusers"),
    cases=cases,
    figures=figures,
    body=body,
    uses_gpu=lambda options: not options.tiny,
)

if __name__ == "__main__":
    main(BENCHMARK)
