"""Transformers kept in fewer bits: what is stored, how far clips move, LoRAs over them."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.catalog.description import describe
from pipelines.catalog.keys.lora_config import LoraConfig
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights, inspect_model
from pipelines.context_parallel.plans import transformers_of
from pipelines.cost.activations import Clip
from pipelines.cost.memory import memory_need
from pipelines.errors import ModelConfigError, ModelFolderError
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.registry import load_model
from pipelines.families.worker_weights import verify_weights
from pipelines.lora_choice import LoraChoice
from tests.builders import tiny
from tests.builders.accelerated import METHODS, denoise, tiny_model
from tests.builders.ggufs import wide_transformer, write_gguf
from tests.builders.loras import save_matrices_and_bias

REQUESTS = {
    name: replace(METHODS[name], sampling=replace(METHODS[name].sampling, num_inference_steps=3))
    for name in ("none", "nag", "cfg+nag")
}
NAG = REQUESTS["nag"]
needs_torchao = pytest.mark.skipif(
    find_spec("torchao") is None, reason="torchao is not installed: pip install torchao"
)
needs_gguf = pytest.mark.skipif(
    find_spec("gguf") is None, reason="gguf is not installed: pip install gguf"
)
TOLERANCE = 0.02  # share of the latents' norm; measured with these random weights: 0.003 to 0.012


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each family, with a LoRA of matrices and of a whole bias beside Wan's."""
    root = tmp_path_factory.mktemp("bits")
    for name in ("wan2.2", "ltx"):
        tiny.PIPELINES[name]().save_pretrained(root / name)
    save_matrices_and_bias(root / "lora")
    return root


def config_of(name: str, **changes: Any) -> ModelConfig:
    return replace(tiny_model(name).config, source=f"./{name}", dtype="bfloat16", **changes)


def load(root: Path, config: ModelConfig) -> DiffusersModel:
    return load_model(config, inspect_model(config, root / "mine.yaml"), 1)


def stored(model: DiffusersModel, dtype: torch.dtype) -> set[str]:
    return {
        name
        for transformer in transformers_of(model.pipeline).values()
        for name, parameter in transformer.named_parameters()
        if parameter.dtype == dtype
    }


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).norm() / other.float().norm())


@pytest.mark.parametrize("name", ["wan2.2", "ltx"])
def test_cast_layers_are_kept_in_eight_bits_and_clips_stay_near(folder: Path, name: str) -> None:
    plain = load(folder, config_of(name))
    cast = load(folder, config_of(name, layerwise_casting="float8_e4m3fn"))
    low = stored(cast, torch.float8_e4m3fn)
    blocks = {one for one in stored(plain, torch.bfloat16) if ".attn" in one or ".ff" in one}
    assert {one for one in blocks if "norm" not in one} <= low
    assert not [one for one in low if "norm" in one or "patch_embed" in one]
    assert cast.nag_coverage == plain.nag_coverage
    found = {method: denoise(cast, request) for method, request in REQUESTS.items()}
    assert stored(cast, torch.float8_e4m3fn) == low  # also after calls
    assert not torch.equal(found["nag"], found["none"])
    for method, request in REQUESTS.items():
        assert 0 < distance(found[method], denoise(plain, request)) < TOLERANCE, method
    again = load(folder, config_of(name, layerwise_casting="float8_e4m3fn"))
    assert torch.equal(denoise(again, NAG), found["nag"])  # alone, and after others


def test_the_other_dtype_of_eight_bits_is_coarser(folder: Path) -> None:
    plain = denoise(load(folder, config_of("ltx")), NAG)
    fine, coarse = (
        denoise(load(folder, config_of("ltx", layerwise_casting=dtype)), NAG)
        for dtype in ("float8_e4m3fn", "float8_e5m2")
    )
    assert distance(fine, plain) < distance(coarse, plain) < 2 * TOLERANCE


def test_loras_over_cast_layers_are_switched_without_a_trace(folder: Path) -> None:
    style = LoraConfig("style", "./lora", component="transformer", by_default=False)
    config = config_of("wan2.2", layerwise_casting="float8_e4m3fn", loras=(style,))
    model = load(folder, config)
    adapters = [
        parameter
        for name, parameter in model.pipeline.transformer.named_parameters()
        if "lora_" in name
    ]
    assert adapters
    assert all(one.dtype != torch.float8_e4m3fn for one in adapters)
    off = denoise(model, NAG)
    on = denoise(model, replace(NAG, loras=(LoraChoice("style", 0.7),)))
    assert distance(on, off) > 0.001
    assert torch.equal(denoise(model, NAG), off)
    default = replace(style, by_default=True, weight=0.7)
    assert torch.equal(denoise(load(folder, replace(config, loras=(default,))), NAG), on)
    plain = load(folder, replace(config, layerwise_casting=None, loras=(default,)))
    assert distance(on, denoise(plain, NAG)) < TOLERANCE


@pytest.mark.parametrize("name", ["wan2.2", "ltx"])
def test_the_memory_of_cast_layers_is_counted(folder: Path, name: str) -> None:
    config = config_of(name, layerwise_casting="float8_e4m3fn")
    need = memory_need(config, ModelWeights(folder / name, "r"), Clip(NAG.shape, "nag"))
    for component, transformer in transformers_of(load(folder, config).pipeline).items():
        loaded = sum(one.numel() * one.element_size() for one in transformer.parameters())
        assert need.weights[component] == loaded


def quantized(model: DiffusersModel) -> dict[str, Any]:
    return {
        f"{component}.{name}": parameter
        for component, transformer in transformers_of(model.pipeline).items()
        for name, parameter in transformer.named_parameters()
        if hasattr(parameter, "qdata")
    }


def num_bytes(parameter: Any) -> int:
    parts = [parameter]
    if hasattr(parameter, "qdata"):
        parts = [getattr(parameter, name) for name in parameter.__tensor_flatten__()[0]]
    return sum(part.numel() * part.element_size() for part in parts)


@needs_torchao
@pytest.mark.parametrize(
    ("name", "way"), [("wan2.2", "int8_weight_only"), ("ltx", "float8_weight_only")]
)
def test_quantized_layers_render_near_and_their_memory_is_counted(
    folder: Path, name: str, way: Any
) -> None:
    plain, config = load(folder, config_of(name)), config_of(name, quantization=way)
    model = load(folder, config)
    blocks = {one for one in stored(plain, torch.bfloat16) if ".attn" in one or ".ff" in one}
    weights = {one for one in blocks if one.endswith(".weight") and "norm" not in one}
    assert weights
    assert all(any(key.endswith(one) for key in quantized(model)) for one in weights)
    assert model.nag_coverage == plain.nag_coverage
    tolerance = TOLERANCE if way == "int8_weight_only" else 2 * TOLERANCE
    found = {method: denoise(model, request) for method, request in REQUESTS.items()}
    assert not torch.equal(found["nag"], found["none"])
    for method, request in REQUESTS.items():
        assert 0 < distance(found[method], denoise(plain, request)) < tolerance, method
    assert torch.equal(denoise(load(folder, config), NAG), found["nag"])  # alone, and after others
    need = memory_need(config, ModelWeights(folder / name, "r"), Clip(NAG.shape, "nag"))
    for component, transformer in transformers_of(model.pipeline).items():
        assert need.weights[component] == sum(map(num_bytes, transformer.parameters()))


@needs_torchao
def test_loras_over_quantized_layers_are_switched_without_a_trace(folder: Path) -> None:
    style = LoraConfig("style", "./lora", component="transformer", by_default=False)
    config = config_of("wan2.2", quantization="int8_weight_only", loras=(style,))
    model = load(folder, config)
    off = denoise(model, NAG)
    on = denoise(model, replace(NAG, loras=(LoraChoice("style", 0.7),)))
    assert distance(on, off) > 0.001
    assert torch.equal(denoise(model, NAG), off)
    default = replace(style, by_default=True, weight=0.7)
    plain = load(folder, replace(config, quantization=None, loras=(default,)))
    assert distance(on, denoise(plain, NAG)) < TOLERANCE


@pytest.mark.parametrize("way", ["int8_weight_only", "bitsandbytes_4bit"])
def test_a_missing_library_is_named_with_its_remedy(
    folder: Path, way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.catalog.keys.memory_config.find_spec", lambda _name: None)
    config = replace(config_of("ltx"), device="auto", quantization=way)
    library = "torchao" if way == "int8_weight_only" else "bitsandbytes"
    with pytest.raises(ModelConfigError, match=f"not installed here: pip install {library}"):
        inspect_model(config, folder / "mine.yaml")


def test_bitsandbytes_needs_a_cuda_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.catalog.keys.memory_config.find_spec", lambda _name: True)
    config = replace(config_of("ltx"), device="auto", quantization="bitsandbytes_8bit")
    with pytest.raises(ModelConfigError, match="needs a CUDA device, and this machine has none"):
        load(folder, config)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder beside its GGUF file."""
    root = tmp_path_factory.mktemp("gguf")
    pipeline = tiny.wan_pipeline()
    pipeline.transformer = wide_transformer()
    pipeline.save_pretrained(root / "wan2.1")
    write_gguf(root / "wan.gguf", pipeline.transformer)
    return root


@needs_gguf
def test_a_gguf_file_takes_the_place_of_the_folders_weights(wide: Path) -> None:
    plain = load(wide, config_of("wan2.1"))
    config = config_of("wan2.1", gguf="wan.gguf")
    weights_file = wide / "wan2.1" / "transformer" / "diffusion_pytorch_model.safetensors"
    weights_file.rename(wide / "hidden")
    try:
        weights = inspect_model(config, wide / "mine.yaml")
        assert verify_weights(config, weights) == weights
        model, again = (load_model(config, weights, 1) for _ in range(2))
        need = memory_need(config, weights, Clip(NAG.shape, "nag"))
    finally:
        (wide / "hidden").rename(weights_file)
    few = [one for one in model.pipeline.transformer.parameters() if one.dtype == torch.uint8]
    assert len(few) == 2 * 10 + 3  # layers of each block, and three outside
    assert (model.nag_coverage.guided, model.nag_coverage.total) == (2, 2)
    found = {method: denoise(model, request) for method, request in REQUESTS.items()}
    assert not torch.equal(found["nag"], found["none"])
    for method, request in REQUESTS.items():
        assert 0 < distance(found[method], denoise(plain, request)) < TOLERANCE, method
    assert torch.equal(denoise(again, NAG), found["nag"])
    loaded = sum(map(num_bytes, model.pipeline.transformer.parameters()))
    assert need.weights["transformer"] == pytest.approx(loaded, rel=0.05)


@needs_gguf
def test_a_gguf_file_of_another_model_or_another_day_is_refused(wide: Path) -> None:
    write_gguf(wide / "deeper.gguf", wide_transformer(num_layers=3))
    write_gguf(wide / "flatter.gguf", wide_transformer(num_layers=1))
    for name in ("deeper.gguf", "flatter.gguf"):
        with pytest.raises(ModelFolderError, match="it belongs to another model"):
            load(wide, config_of("wan2.1", gguf=name))
    with pytest.raises(ModelFolderError, match="has no transformer_2: leave gguf_2 out"):
        inspect_model(config_of("wan2.1", gguf_2="wan.gguf"), wide / "mine.yaml")
    config = config_of("wan2.1", gguf="deeper.gguf")
    weights = inspect_model(config, wide / "mine.yaml")
    (wide / "flatter.gguf").replace(wide / "deeper.gguf")
    with pytest.raises(ModelFolderError, match="not the file that the plan was made with"):
        verify_weights(config, weights)
    with pytest.raises(ModelFolderError, match="cannot be described"):
        describe(config, wide / "mine.yaml", weights)
