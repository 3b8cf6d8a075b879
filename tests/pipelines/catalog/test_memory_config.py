"""The keys that fit a model on a smaller card: refused alone, together, and for groups."""

from dataclasses import replace
from typing import Any

import pytest

from pipelines.catalog.keys.lora_config import LoraConfig
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.context_parallel.divisibility import check_parallel
from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.errors import ModelConfigError, RequestError
from pipelines.parallel_config import ParallelConfig
from pipelines.request import VideoShape

CONFIG = ModelConfig(
    "mine", "wan", "./weights", ShapeGrid(4, 16, 16), SamplingDefaults(2, 1.0, 9, 32, 32, 8.0)
)
FUSED: dict[str, Any] = {"loras": (LoraConfig("style", "./style"),), "fuse_loras": True}


@pytest.mark.parametrize("offload", ["text_encoder", "model", "group"])
def test_an_offload_on_a_cpu_is_refused(offload: Any) -> None:
    assert replace(CONFIG, offload=offload).offload == offload
    with pytest.raises(ModelConfigError, match="needs a CUDA device, and the model has device"):
        replace(CONFIG, offload=offload, device="cpu")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"offload": "model", **FUSED}, "offload: model does not work with fuse_loras: true"),
        ({"offload": "group", **FUSED}, "offload: group does not work with fuse_loras: true"),
        ({"offload": "group", "compile": True}, "offload: group does not work with compile: true"),
        ({"offload": "group", "first_block_cache": 0.1}, "with first_block_cache: 0.1"),
        ({"layerwise_casting": "float8_e4m3fn", "compile": True}, "with compile: true"),
        ({"quantization": "int8_weight_only", "dtype": "float16"}, "with dtype: float16"),
        ({"quantization": "int8_weight_only", "offload": "model"}, "with offload: model"),
        ({"quantization": "int8_weight_only", "compile": True}, "with compile: true"),
        ({"quantization": "float8_weight_only", **FUSED}, "with fuse_loras: true"),
        (
            {"quantization": "int8_weight_only", "layerwise_casting": "float8_e5m2"},
            "with layerwise_casting: float8_e5m2",
        ),
        ({"quantization": "bitsandbytes_4bit", "device": "cpu"}, "with device: cpu"),
        ({"quantization": "bitsandbytes_8bit", "offload": "text_encoder"}, "offload: text_encoder"),
        ({"quantization": "bitsandbytes_8bit", "loras": FUSED["loras"]}, "with loras"),
        ({"gguf": "a.gguf", "offload": "model"}, "gguf: a.gguf does not work with offload: model"),
        ({"gguf_2": "a.gguf", "loras": FUSED["loras"]}, "gguf_2: a.gguf does not work with loras"),
        ({"gguf": "a.gguf", "quantization": "int8_weight_only"}, "with quantization: int8"),
        ({"gguf": "a.gguf", "family": "ltx2"}, "with family: ltx2"),
        ({"layerwise_casting": "float8_e5m2", **FUSED}, "float8_e5m2 does not work with fuse_lora"),
    ],
)
def test_keys_that_do_not_work_together_are_refused(keys: Any, message: str) -> None:
    with pytest.raises(ModelConfigError, match=f"{message}.*: leave one of them out"):
        replace(CONFIG, **keys)


def test_keys_that_work_together_are_accepted() -> None:
    replace(CONFIG, offload="text_encoder", **FUSED)
    replace(CONFIG, offload="model", compile=True, first_block_cache=0.1, vae_compile=True)
    replace(CONFIG, offload="text_encoder", quantization="int8_weight_only", loras=FUSED["loras"])
    replace(CONFIG, offload="group", layerwise_casting="float8_e4m3fn", loras=FUSED["loras"])


@pytest.mark.parametrize("offload", ["none", "text_encoder", "model", "group"])
def test_a_group_needs_the_transformer_on_its_devices(offload: Any) -> None:
    config = replace(CONFIG, offload=offload)
    geometry = ModelGeometry("wan", 1, 2, 12, 48, 16, 4, 16, 16)
    shape, pair = VideoShape(9, 32, 32), ParallelConfig(ulysses=2)
    check_parallel(ParallelConfig(), geometry, shape, config)
    if offload in ("none", "text_encoder"):
        check_parallel(pair, geometry, shape, config)
    else:
        with pytest.raises(RequestError, match=f"offload: {offload}, .* offload: text_encoder"):
            check_parallel(pair, geometry, shape, config)
