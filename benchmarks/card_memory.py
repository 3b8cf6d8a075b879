"""`python -m benchmarks.card_memory` estimates the memory of each packaged model's default clip.

It asks the estimate that `nagfarm plan` prints, on folders of the published sizes without weights.
Nothing is loaded or rendered, so every figure is an estimate, not a measurement.
"""

import functools
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.command import Benchmark, Measure, Options, main
from benchmarks.published_folders import parts_of, write_folder
from benchmarks.report import Cases, Figure, markdown_table
from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.catalog.model_yaml import load_model_config
from pipelines.cost.memory import Clip, MemoryNeed, memory_need
from pipelines.request import VideoShape

CARDS_GB = (24, 32, 40, 48, 80, 96, 141)
# Decoding on one H200 took up to this share of the estimate; see pipelines/cost/memory.py.
TAKEN = 1.11
TINY = "wan2.1-t2v-1.3b"


def estimate(name: str) -> dict[str, Any]:
    """Return the bytes that a model needs as packaged, and with its text encoder offloaded."""
    parts = parts_of(name)
    if parts is None:
        raise ValueError(f"{name}: expected a model of benchmarks.published_folders")
    config = load_model_config(model_paths()[name])
    with tempfile.TemporaryDirectory(prefix="nagfarm-card-memory-") as folder:
        write_folder(parts, Path(folder, "weights"))
        weights = ModelWeights(Path(folder, "weights"), "published sizes")
        plain = _need(config, weights)
        offloaded = _need(replace(config, offload="text_encoder"), weights)
    return {
        "weights": plain.weights,
        "peak": plain.peak_bytes,
        "stage": plain.peak_stage,
        "offloaded_peak": offloaded.peak_bytes,
        "offloaded_stage": offloaded.peak_stage,
        "is_counted": None not in plain.activations.values(),
    }


def _need(config: ModelConfig, weights: ModelWeights) -> MemoryNeed:
    sampling = config.sampling
    shape = VideoShape(sampling.num_frames, sampling.height, sampling.width)
    return memory_need(config, weights, *Clip(shape, config.method).of_need)


def smallest_card(num_bytes: int) -> str:
    """Return the memory of the smallest card with room for an estimate and what it leaves out."""
    fitting = [size for size in CARDS_GB if num_bytes * TAKEN <= size * 10**9]
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
        for peak in ("peak", "offloaded_peak"):
            least = "" if found["is_counted"] else "at least "
            card = smallest_card(found[peak]) if found["is_counted"] else "not known"
            cells += [f"{least}{found[peak] / 1e9:.1f}", card]
        rows.append(cells)
    head = ("model", "clip", "weights", "peak", "card", "offloaded: peak", "card")
    return f"""\
**By estimate, not measured**: `nagfarm plan` prints the same figures of real folders. Sizes are
published ones; files of weights are without content, and nothing is loaded. Clip: the default of
the model's YAML, with its method. Weights and peaks in GB (1e9 bytes). Offloaded: with
`offload: text_encoder`. Card: the smallest of {", ".join(map(str, CARDS_GB))} GB with {TAKEN} times
the peak; on an H200 decoding took up to so much more than the estimate. A LoRA that is not fused
comes on top, 0.3 to 1.2 GB. Of LTX-2 the weights of the transformer and the text encoder count
alone.

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
