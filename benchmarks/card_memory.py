"""`python -m benchmarks.card_memory` estimates the memory of each packaged model's default clip.

It asks the estimate that `nagfarm plan` prints, on folders of the published sizes without weights.
Nothing is loaded or rendered, so every figure is an estimate, not a measurement.
"""

import functools
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from benchmarks.command import Benchmark, Measure, Options, main
from benchmarks.published_folders import parts_of, write_folder
from benchmarks.report import Cases, Figure, markdown_table
from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.keys.memory_config import Offload
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.catalog.model_yaml import load_model_config
from pipelines.cost.activations import Clip
from pipelines.cost.memory import MARGIN, MemoryNeed, memory_need
from pipelines.request import VideoShape

CARDS_GB = (24, 32, 40, 48, 80, 96, 141)
TINY = "wan2.1-t2v-1.3b"
OFFLOADS: tuple[Offload, ...] = get_args(Offload)


def estimate(name: str) -> dict[str, Any]:
    """Return the bytes of a model's weights, and of its peak with each kind of offload."""
    parts = parts_of(name)
    if parts is None:
        raise ValueError(f"{name}: expected a model of benchmarks.published_folders")
    config = load_model_config(model_paths()[name])
    with tempfile.TemporaryDirectory(prefix="nagfarm-card-memory-") as folder:
        write_folder(parts, Path(folder, "weights"))
        weights = ModelWeights(Path(folder, "weights"), "published sizes")
        needs = {kind: _need(replace(config, offload=kind), weights) for kind in OFFLOADS}
    plain = needs["none"]
    return {
        "weights": dict(plain.weights),
        "peaks": {kind: need.peak_bytes for kind, need in needs.items()},
        "stages": {kind: need.peak_stage for kind, need in needs.items()},
    }


def _need(config: ModelConfig, weights: ModelWeights) -> MemoryNeed:
    sampling = config.sampling
    shape = VideoShape(sampling.num_frames, sampling.height, sampling.width)
    return memory_need(config, weights, Clip(shape, config.method))


def smallest_card(num_bytes: int) -> str:
    """Return the memory of the smallest card with room for an estimate and what it leaves out."""
    fitting = [size for size in CARDS_GB if num_bytes * (1 + MARGIN) <= size * 10**9]
    return f"{fitting[0]} GB" if fitting else "none"


def cases(options: Options) -> dict[str, Measure]:
    names = [TINY] if options.tiny else sorted(model_paths())
    return {name: functools.partial(estimate, name) for name in names if parts_of(name)}


def figures(_cases: Cases) -> Iterable[Figure]:
    """Return no figures: a table of measured values would hold estimates."""
    return ()


def body(cases: Cases) -> str:
    rows: list[list[str]] = []
    for name, found in cases.items():
        size = load_model_config(model_paths()[name]).sampling
        cells = [name, f"{size.width}x{size.height}x{size.num_frames}"]
        cells.append(f"{sum(found['weights'].values()) / 1e9:.1f}")
        cells += [f"{peak / 1e9:.1f}, {smallest_card(peak)}" for peak in found["peaks"].values()]
        rows.append(cells)
    head = ("model", "clip", "weights", *(f"`{kind}`" for kind in OFFLOADS))
    return f"""\
**By estimate, not measured**: `nagfarm plan` prints the same figures of real folders. Sizes are
published ones; files of weights are without content, and nothing is loaded. Clip: the default of
the model's YAML, with its method. The last columns are kinds of `offload`: the peak, and the
smallest card of {", ".join(map(str, CARDS_GB))} GB that has {MARGIN:.0%} more, for the estimate's
error. All in GB (1e9 bytes). A LoRA that is not fused comes on top, 0.3 to 1.2 GB, and of LTX-2 the
connectors and the parts for sound.

{markdown_table(head, rows)}"""


BENCHMARK = Benchmark(
    name="card_memory",
    title="Memory of the packaged models, by estimate",
    about="Estimate the memory that the default clip of each packaged model needs.",
    libraries=("torch", "diffusers", "transformers"),
    cases=cases,
    figures=figures,
    body=body,
)

if __name__ == "__main__":
    main(BENCHMARK)
