"""The memory of a clip: its weights against a loaded pipeline, its peaks, and what lowers them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.catalog.model_folder import ModelWeights
from pipelines.catalog.model_yaml import load_model_config
from pipelines.cost.activations import Clip
from pipelines.cost.loaded_weights import streamed_bytes
from pipelines.cost.memory import MemoryNeed, describe_need, memory_need
from pipelines.cost.memory_advice import advice_of, helpful, lines_that_help, remedies
from pipelines.cost.prediction import memory_of_card
from pipelines.parallel_config import ParallelConfig
from pipelines.request import VideoShape
from tests.builders import tiny

SHAPE = VideoShape(81, 480, 832)
YAML = """\
family: wan
source: ./weights
grid: {num_frames: 4, height: 16, width: 16}
sampling:
  {num_inference_steps: 8, guidance_scale: 1.0, num_frames: 81, height: 480, width: 832, fps: 16}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("memory") / "weights"
    tiny.wan_pipeline().save_pretrained(path)
    return path


def _config(folder: Path, **changes: Any) -> Any:
    path = folder.parent / "mine.yaml"
    path.write_text(YAML)
    return replace(load_model_config(path), **changes)


def test_weights_are_those_of_the_loaded_pipeline(folder: Path) -> None:
    from diffusers import WanPipeline

    need = memory_need(_config(folder), ModelWeights(folder, "r"), Clip(SHAPE, "none"))
    dtypes = {"transformer": torch.bfloat16, "text_encoder": torch.bfloat16, "vae": torch.float32}
    loaded = WanPipeline.from_pretrained(folder, dtype={**dtypes, "default": torch.float32})
    for name in dtypes:
        own = list(getattr(loaded, name).parameters())
        assert need.weights[name] == sum(one.numel() * one.element_size() for one in own), name


NEED = MemoryNeed(
    {"transformer": 28_000_000_000, "text_encoder": 11_000_000_000},
    {"text": 0, "denoise": 7_000_000_000, "decode": 8_000_000_000},
)


def test_an_offloaded_encoder_counts_in_the_text_stage_alone() -> None:
    assert (NEED.peak_bytes, NEED.peak_stage) == (47_000_000_000, "decode")
    offloaded = replace(NEED, offloaded=frozenset({"text_encoder"}))
    assert (offloaded.peak_bytes, offloaded.peak_stage) == (39_000_000_000, "text")
    assert "text encoder 11.0 (text stage alone)" in describe_need(offloaded)


def test_components_that_take_turns_count_one_at_a_time() -> None:
    weights = {"text_encoder": 11, "transformer": 28, "transformer_2": 29, "vae": 1}
    need = MemoryNeed(weights, {"text": 0, "denoise": 7, "decode": 8}, takes_turns=True)
    assert need.peaks == {"text": 11, "denoise": 36, "decode": 9}
    assert "transformer 2 0.0 (in turn)" in describe_need(need)
    described = MemoryNeed({"all": 40}, {"text": 0, "denoise": 0}, takes_turns=True)
    assert described.peaks == {"text": 40, "denoise": 40}


def test_streamed_blocks_count_two_at_a_time_beside_what_is_outside_of_blocks(folder: Path) -> None:
    need = memory_need(
        _config(folder, offload="group"), ModelWeights(folder, "r"), Clip(SHAPE, "none")
    )
    plain = memory_need(_config(folder), ModelWeights(folder, "r"), Clip(SHAPE, "none"))
    assert need.weights == plain.weights  # it has two blocks
    assert streamed_bytes({"a.0.w": 5, "a.1.w": 7, "a.2.x.0.b": 6, "a.2.w": 3, "in.w": 2}) == 18
    assert need.offloaded == {"text_encoder"}


def test_a_line_that_another_line_forbids_is_not_advised(folder: Path) -> None:
    clip = Clip(VideoShape(81, 480, 832), "none")
    large = replace(NEED, activations={"text": 0, "denoise": 10**9})
    weights, config = ModelWeights(folder, "r"), _config(folder)
    assert "layerwise_casting: float8_e4m3fn" in helpful(large, config, weights, clip)
    assert "offload: group" in helpful(large, config, weights, clip)
    compiled = helpful(large, replace(config, compile=True), weights, clip)
    assert not {"layerwise_casting: float8_e4m3fn", "offload: group"} & {*compiled}
    shared = replace(clip, parallel=ParallelConfig(ulysses=2))
    assert "offload: model" not in helpful(large, config, weights, shared)


def test_weights_of_an_unknown_dtype_make_the_need_a_lower_bound() -> None:
    assert describe_need(NEED).startswith("about 47.0 GB at decode")
    assert describe_need(replace(NEED, is_least=True)).startswith("at least 47.0 GB at decode")
    assert NEED.cautious_bytes == 51_700_000_000


def test_only_lines_that_help_are_advised(folder: Path) -> None:
    config, weights = _config(folder), ModelWeights(folder, "r")
    assert remedies(config, "text") == ["offload: model", "offload: group"]
    assert remedies(config, "decode")[0] == "offload: text_encoder"
    assert remedies(replace(config, device="cpu"), "text") == []
    clip = Clip(VideoShape(81, 480, 832), "none")
    need = memory_need(config, weights, clip)
    for line in helpful(need, config, weights, clip):
        assert line != "offload: text_encoder"  # the tiny encoder has kilobytes


def test_a_card_is_known_by_its_name() -> None:
    assert memory_of_card("NVIDIA H100 80GB HBM3") == 80_000_000_000
    assert memory_of_card("h200") == 141_000_000_000
    assert memory_of_card("abacus") is None


def test_the_cheapest_line_with_which_a_stage_fits_is_named_alone(folder: Path) -> None:
    config, weights = _config(folder, offload="text_encoder"), ModelWeights(folder, "r")
    clip = Clip(VideoShape(5, 2160, 3840), "none")
    lines = ("vae_dtype: bfloat16", "vae_tiling: true")
    assert lines_that_help(config, weights, clip, "decode", None) == lines
    assert lines_that_help(config, weights, clip, "decode", 10**9) == lines  # none is enough
    peak = memory_need(config, weights, clip).peaks["decode"]
    assert lines_that_help(config, weights, clip, "decode", int(0.6 * peak)) == lines[:1]
    assert lines_that_help(config, weights, clip, "decode", int(0.45 * peak)) == lines[1:]
    assert advice_of(config, lines[1:]) == "add `vae_tiling: true` to mine.yaml"
    assert advice_of(config, ()).startswith("no line of mine.yaml lowers that: take fewer frames")
