"""The memory of a clip: counts against the real classes on tensors without data, and weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.real_sizes import default_dtype
from pipelines.catalog.model_folder import ModelWeights
from pipelines.catalog.model_yaml import load_model_config
from pipelines.cost.loaded_weights import streamed_bytes
from pipelines.cost.memory import (
    Clip,
    MemoryNeed,
    describe_need,
    helpful,
    memory_need,
    remedies,
)
from pipelines.cost.prediction import memory_of_card
from pipelines.parallel_config import ParallelConfig
from pipelines.request import VideoShape
from tests.builders import tiny
from tests.builders.live_bytes import LiveBytes

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

    need = memory_need(_config(folder), ModelWeights(folder, "r"), SHAPE, "none")
    dtypes = {"transformer": torch.bfloat16, "text_encoder": torch.bfloat16, "vae": torch.float32}
    loaded = WanPipeline.from_pretrained(folder, dtype={**dtypes, "default": torch.float32})
    for name in dtypes:
        own = list(getattr(loaded, name).parameters())
        assert need.weights[name] == sum(one.numel() * one.element_size() for one in own), name


@pytest.mark.parametrize("ffn_dim", [1024, 3072])
def test_activations_of_wan_are_those_of_a_real_block(folder: Path, ffn_dim: int) -> None:
    from pipelines.context_parallel.geometry import read_geometry
    from pipelines.cost.memory import _denoise_bytes

    config = _config(folder)
    geometry = replace(
        read_geometry(folder, config),
        num_layers=1, num_heads=4, head_dim=128, ffn_dim=ffn_dim, num_text_tokens=512,
        frames_per_token=4, height_per_token=16, width_per_token=16,
    )  # fmt: skip
    with FakeTensorMode():
        with default_dtype(torch.bfloat16):
            model = WanTransformer3DModel(num_attention_heads=4, ffn_dim=ffn_dim, num_layers=1)
        latents = torch.empty(1, 16, 21, 60, 104, dtype=torch.bfloat16)
        text = torch.empty(1, 512, 4096, dtype=torch.bfloat16)
        with torch.no_grad(), LiveBytes(model) as live:
            model(latents, torch.tensor([500]), text, return_dict=False)
    assert _denoise_bytes(geometry, config, SHAPE, "none") == pytest.approx(live.peak, rel=0.12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_decode_of_wan_is_that_of_the_real_autoencoder(folder: Path, dtype: str) -> None:
    from pipelines.cost.memory import _decode_bytes

    (folder.parent / "plain" / "vae").mkdir(parents=True, exist_ok=True)
    (folder.parent / "plain" / "vae" / "config.json").write_text("{}")
    with FakeTensorMode():
        with default_dtype(getattr(torch, dtype)):
            vae = AutoencoderKLWan()
        latents = torch.empty(1, 16, 3, 60, 104, dtype=getattr(torch, dtype))
        with torch.no_grad(), LiveBytes(vae) as live:
            vae.decode(latents, return_dict=False)
    counted = _decode_bytes(
        folder.parent / "plain", _config(folder, vae_dtype=dtype), replace(SHAPE, num_frames=9)
    )
    assert counted == pytest.approx(live.peak, rel=0.1)


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
    described = MemoryNeed({"all": 40}, {"text": 0, "denoise": None}, takes_turns=True)
    assert described.peaks == {"text": 40, "denoise": 40}


def test_streamed_blocks_count_two_at_a_time_beside_what_is_outside_of_blocks(folder: Path) -> None:
    need = memory_need(_config(folder, offload="group"), ModelWeights(folder, "r"), SHAPE, "none")
    plain = memory_need(_config(folder), ModelWeights(folder, "r"), SHAPE, "none")
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


def test_a_stage_that_was_not_counted_makes_the_need_a_lower_bound() -> None:
    assert describe_need(NEED).startswith("about 47.0 GB at decode")
    unknown: Any = {"text": 0, "denoise": None, "decode": None}
    assert describe_need(replace(NEED, activations=unknown)).startswith("at least 39.0 GB")


def test_only_lines_that_help_are_advised(folder: Path) -> None:
    config, weights = _config(folder), ModelWeights(folder, "r")
    assert remedies(config, "text") == ["offload: model", "offload: group"]
    assert remedies(config, "decode")[0] == "offload: text_encoder"
    assert remedies(replace(config, device="cpu"), "text") == []
    clip = Clip(VideoShape(81, 480, 832), "none")
    need = memory_need(config, weights, *clip.of_need)
    for line in helpful(need, config, weights, clip):
        assert line != "offload: text_encoder"  # the tiny encoder has kilobytes


def test_a_card_is_known_by_its_name() -> None:
    assert memory_of_card("NVIDIA H100 80GB HBM3") == 80_000_000_000
    assert memory_of_card("h200") == 141_000_000_000
    assert memory_of_card("abacus") is None
