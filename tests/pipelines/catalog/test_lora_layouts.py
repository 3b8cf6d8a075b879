"""LoRAs in every layout of trainers: loaded with their exact scale, or refused by the header."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipelines.catalog.keys.lora_config import LoraConfig
from pipelines.catalog.loras.lora_entries import TransformerShapes, read_lora
from pipelines.catalog.loras.lora_names import ModuleNames, published_name
from pipelines.catalog.loras.lora_settings import CONFIG_NAME, METADATA_KEY
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.catalog.model_loras import LoraWeights
from pipelines.errors import ModelFolderError
from pipelines.families.lora_adapters import LoraAdapters
from tests.builders import tiny
from tests.builders.loras import (
    ATTENTION,
    LAYOUTS,
    TRANSFORMERS,
    Layout,
    Matrices,
    Tensors,
    every_layer,
)

PIPELINES: dict[str, Callable[[], Any]] = {"wan": tiny.wan_pipeline, "ltx": tiny.ltx_pipeline}


def config(family: Any, weight: float = 1.0, fuse: bool = True) -> ModelConfig:
    return ModelConfig(
        name="mine",
        family=family,
        source="./weights",
        grid=ShapeGrid(8, 32, 32),
        sampling=SamplingDefaults(3, 1.0, 9, 32, 32, 8.0),
        dtype="float32",
        device="cpu",
        loras=(LoraConfig("style", "./style", weight),),
        fuse_loras=fuse,
    )


def changes(family: str, path: Path, weight: float = 1.0, dtype: Any = torch.float32) -> Tensors:
    """Return the change of each parameter when a LoRA is loaded and fused."""
    pipeline = PIPELINES[family]()
    pipeline.transformer.to(dtype)
    before = {name: value.clone() for name, value in pipeline.transformer.state_dict().items()}
    LoraAdapters(pipeline, config(family, weight), (LoraWeights(path, ""),))
    after = pipeline.transformer.state_dict()
    found = {name: after[name].double() - value.double() for name, value in before.items()}
    return {name: change for name, change in found.items() if change.any()}


def assert_equal(found: Tensors, expected: Tensors, tolerance: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name, change in expected.items():
        assert (found[name] - change).abs().max() < tolerance, name


def expected_changes(layers: dict[str, Matrices], alpha: float | None) -> Tensors:
    return {
        f"{module}.weight": matrices.change(1.0 if alpha is None else alpha / matrices.rank)
        for module, matrices in layers.items()
    }


def save(folder: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
    path = folder / "style.safetensors"
    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, path, metadata)
    return path


def shapes_of(family: str) -> TransformerShapes:
    state = TRANSFORMERS[family]().state_dict()
    return {"transformer": {name: tuple(value.shape) for name, value in state.items()}}


def read(path: Path, family: Any = "wan") -> object:
    return read_lora("mine: LoRA style", path, family, shapes_of(family))


# layouts


@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("alpha", [None, 0.75])
def test_a_lora_of_every_layer_changes_each_weight_by_its_exact_product(
    tmp_path: Path, family: str, layout: str, alpha: float | None
) -> None:
    layers = every_layer(family)
    path = save(tmp_path, LAYOUTS[layout].entries(family, layers, alpha))
    assert_equal(changes(family, path), expected_changes(layers, alpha))


@pytest.mark.parametrize(
    ("layout", "alpha", "endings"),
    [
        ("diffusers", None, ("",)),
        (
            "ComfyUI",
            None,
            ("to_q", "to_k", "to_v", "to_out.0", "time_proj", "proj_out", "linear_1"),
        ),
        ("lightx2v", 0.75, (*ATTENTION, "ffn.net.0.proj", "ffn.net.2")),
        ("kohya, musubi", 0.75, (*ATTENTION, "ffn.net.0.proj", "ffn.net.2")),
    ],
)
def test_what_diffusers_loads_is_loaded_with_the_same_weights(
    tmp_path: Path, layout: str, alpha: float | None, endings: tuple[str, ...]
) -> None:
    layers = every_layer("wan", endings)
    if layout == "ComfyUI":  # diffusers wants both halves of an embedder
        layers = {name: value for name, value in layers.items() if "text_emb" not in name}
        layers |= {n: v for n, v in every_layer("wan").items() if "time_embedder" in n}
    path = save(tmp_path, LAYOUTS[layout].entries("wan", layers, alpha))
    pipeline = tiny.wan_pipeline()
    before = {name: value.clone() for name, value in pipeline.transformer.state_dict().items()}
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    after = pipeline.transformer.state_dict()
    theirs = {name: after[name].double() - value.double() for name, value in before.items()}
    assert_equal(changes("wan", path), {n: c for n, c in theirs.items() if c.any()}, 1e-12)


@pytest.mark.parametrize("endings", [("to_q",), ("attn1.to_k",), ("ffn.net.2",), ("proj_out",)])
@pytest.mark.parametrize("layout", ["kohya, musubi", "lightx2v"])
def test_a_lora_of_some_layers_is_loaded(
    tmp_path: Path, layout: str, endings: tuple[str, ...]
) -> None:
    """Diffusers' converters refuse several of these."""
    layers = every_layer("wan", endings)
    assert layers
    path = save(tmp_path, LAYOUTS[layout].entries("wan", layers, 4.0))
    assert_equal(changes("wan", path), expected_changes(layers, 4.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_scale_is_applied_before_the_matrices_are_rounded(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    layers = {
        name: Matrices(value.down.to(dtype), value.up.to(dtype))
        for name, value in every_layer("wan", ATTENTION).items()
    }
    entries = LAYOUTS["lightx2v"].entries("wan", layers, 1e-4)
    path = save(tmp_path, {name: value.to(dtype) for name, value in entries.items()})
    alpha = float(torch.tensor(1e-4).to(dtype))
    assert_equal(changes("wan", path), expected_changes(layers, alpha), 1e-7)


def test_8_bit_floats_are_loaded(tmp_path: Path) -> None:
    small = torch.float8_e4m3fn
    layers = every_layer("wan", ATTENTION)
    rounded = {
        name: Matrices(value.down.to(small), value.up.to(small)) for name, value in layers.items()
    }
    for alpha in (None, 3.0):
        path = save(tmp_path, LAYOUTS["lightx2v"].entries("wan", rounded, alpha))
        assert_equal(changes("wan", path), expected_changes(rounded, alpha))


def test_an_alpha_may_be_a_whole_number_or_a_list_of_one(tmp_path: Path) -> None:
    layers = every_layer("wan", ATTENTION)
    entries = LAYOUTS["kohya, musubi"].entries("wan", layers, 1.0)
    for alpha in (torch.tensor(6), torch.tensor([6.0]), torch.tensor(6, dtype=torch.bfloat16)):
        changed = {name: alpha if "alpha" in name else value for name, value in entries.items()}
        assert_equal(changes("wan", save(tmp_path, changed)), expected_changes(layers, 6.0))


# changes that a file holds whole


def lightx2v(layers: dict[str, Matrices], **whole: torch.Tensor) -> Tensors:
    entries = LAYOUTS["lightx2v"].entries("wan", layers, None)
    return entries | {f"diffusion_model.{name}": value for name, value in whole.items()}


WHOLE = {
    # parameter -> the entry that changes it; diffusers loads the first two and skips the rest
    "blocks.0.attn1.to_q.bias": "blocks.0.self_attn.q.diff_b",
    "proj_out.bias": "head.head.diff_b",
    "condition_embedder.time_proj.bias": "time_projection.1.diff_b",
    "patch_embedding.bias": "patch_embedding.diff_b",
    "patch_embedding.weight": "patch_embedding.diff",
    "blocks.1.norm2.weight": "blocks.1.norm3.diff",
    "blocks.1.norm2.bias": "blocks.1.norm3.diff_b",
    "blocks.0.attn2.norm_k.weight": "blocks.0.cross_attn.norm_k.diff",
    "blocks.0.scale_shift_table": "blocks.0.diff_m",
    "scale_shift_table": "head.modulation.diff",
}


@pytest.mark.parametrize("weight", [1.0, -0.5])
def test_biases_norms_and_modulations_are_changed_by_their_differences(
    tmp_path: Path, weight: float
) -> None:
    state = tiny.wan_transformer().state_dict()
    whole = {name: torch.randn(state[name].shape) for name in WHOLE}
    layers = every_layer("wan", ATTENTION)
    tensors = lightx2v(layers, **{WHOLE[name]: value for name, value in whole.items()})
    expected = {name: weight * change for name, change in expected_changes(layers, None).items()}
    expected |= {name: weight * value.double() for name, value in whole.items()}
    assert_equal(changes("wan", save(tmp_path, tensors), weight), expected)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
def test_weights_can_be_changed_and_leave_nothing_behind(tmp_path: Path) -> None:
    layers = every_layer("wan", ATTENTION)
    pipeline = tiny.wan_pipeline()
    path = save(tmp_path, lightx2v(layers, **{"patch_embedding.diff_b": torch.ones(24)}))
    own = pipeline.transformer.patch_embedding.bias.clone()
    loras = LoraAdapters(pipeline, config("wan", fuse=False), (LoraWeights(path, ""),))
    bias = pipeline.transformer.patch_embedding.bias
    layer = pipeline.transformer.blocks[0].attn1.to_q
    assert torch.allclose(bias, own + 1)
    loras.set_weights({"style": 0.1})
    assert torch.allclose(bias, own + 0.1)
    assert layer.scaling == {"lora-style": 0.1}
    assert not layer.disable_adapters
    loras.set_weights({})
    assert torch.equal(bias, own)
    assert layer.disable_adapters
    loras.set_weights({"style": 1.0})
    assert torch.allclose(bias, own + 1)
    assert not layer.disable_adapters


def test_a_bias_of_peft_is_scaled_with_its_matrices(tmp_path: Path) -> None:
    layers = every_layer("ltx", ATTENTION)
    entries = LAYOUTS["diffusers"].entries("ltx", layers, 0.5)
    bias = torch.randn(24)
    entries["transformer.transformer_blocks.0.attn2.to_k.lora_B.bias"] = bias
    found = changes("ltx", save(tmp_path, entries))
    name = "transformer_blocks.0.attn2.to_k"
    scale = 0.5 / layers[name].rank
    assert torch.allclose(found.pop(f"{name}.bias"), scale * bias.double(), atol=1e-6)
    assert_equal(found, expected_changes(layers, 0.5))


# settings of PEFT


def peft_scale(module: str, rank: int) -> float:
    return (7.0 if module.endswith("blocks.1.attn2.to_v") else 5.0) / rank**0.5


SETTINGS: dict[str, Any] = {
    "r": 2,
    "lora_alpha": 5,
    "alpha_pattern": {"blocks.1.attn2.to_v": 7.0},
    "use_rslora": True,
    "target_modules": list(ATTENTION),
    "peft_type": "LORA",
    "lora_dropout": 0.9,
}


def settings(layers: dict[str, Matrices], **other: Any) -> dict[str, Any]:
    ranks = {f"^{name}": value.rank for name, value in layers.items() if value.rank != 2}
    return SETTINGS | {"rank_pattern": ranks} | other


def test_the_scale_of_saved_settings_is_that_of_diffusers(tmp_path: Path) -> None:
    layers = every_layer("wan", ATTENTION)
    saved = {f"transformer.{key}": value for key, value in settings(layers).items()}
    entries = LAYOUTS["diffusers"].entries("wan", layers, None)
    path = save(tmp_path, entries, {METADATA_KEY: json.dumps(saved)})
    expected = {
        f"{name}.weight": value.change(peft_scale(name, value.rank))
        for name, value in layers.items()
    }
    assert_equal(changes("wan", path), expected, 1e-5)
    pipeline = tiny.wan_pipeline()
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    for name, change in expected.items():
        layer = pipeline.transformer.get_submodule(name.removesuffix(".weight"))
        assert torch.allclose(layer.get_delta_weight("default_0").double(), change, atol=1e-5)


def test_a_file_of_peft_takes_its_scale_from_the_settings_beside_it(tmp_path: Path) -> None:
    layers = every_layer("wan", ATTENTION)
    layout = Layout("base_model.model.", is_published=False)
    path = save(tmp_path, layout.entries("wan", layers, None))
    with pytest.raises(ModelFolderError, match=r"adapter_config\.json, which is missing beside it"):
        read(path)
    (tmp_path / CONFIG_NAME).write_text(json.dumps(settings(layers)))
    expected = {
        f"{name}.weight": value.change(peft_scale(name, value.rank))
        for name, value in layers.items()
    }
    assert_equal(changes("wan", path), expected, 1e-5)


# refused by the header


def without(tensors: Tensors, part: str) -> Tensors:
    return {name: value for name, value in tensors.items() if part not in name}


def renamed(tensors: Tensors, old: str, new: str) -> Tensors:
    return {name.replace(old, new): value for name, value in tensors.items()}


LORA = LAYOUTS["lightx2v"].entries("wan", every_layer("wan", ATTENTION), 2.0)
Q = "diffusion_model.blocks.0.self_attn.q"
REFUSED: dict[str, tuple[Tensors, str]] = {
    "wrong width": (
        LORA | {f"{Q}.lora_down.weight": torch.ones(2, 28)},
        r"has the shape \(24, 24\), not \(24, 28\), for blocks.0.attn1.to_q.weight; take it out",
    ),
    "wrong width of a difference": (
        LORA | {"diffusion_model.blocks.0.norm3.diff_b": torch.ones(28)},
        r"has the shape \(24,\), not \(28,\), for blocks\.0\.norm2\.bias",
    ),
    "more blocks": (
        renamed(LORA, "blocks.1.", "blocks.7."),
        r"transformer has no diffusion_model\.blocks\.7\..* and 5 more; take it out",
    ),
    "image-to-video": (
        LORA | renamed(LORA, "cross_attn.k.", "cross_attn.k_img."),
        r"has no diffusion_model\.blocks\.0\.cross_attn\.k_img",
    ),
    "a norm without parameters": (
        LORA | {"diffusion_model.blocks.0.norm1.diff": torch.ones(24)},
        r"has no diffusion_model\.blocks\.0\.norm1",
    ),
    "another family": (
        LAYOUTS["diffusers"].entries("ltx", every_layer("ltx", ATTENTION), None),
        r"made for another model: transformer has no transformer\.transformer_blocks",
    ),
    "unequal rank": (
        LORA | {f"{Q}.lora_up.weight": torch.ones(24, 5)},
        r"unequal rank: \(24, 5\) after \(2, 24\); .* fetch it again",
    ),
    "one matrix": (
        without(LORA, f"{Q}.lora_up"),
        "one of the two matrices of blocks.0.attn1.to_q is missing",
    ),
    "no rank": (
        LORA
        | {f"{Q}.lora_down.weight": torch.ones(0, 24), f"{Q}.lora_up.weight": torch.ones(24, 0)},
        "the matrices of blocks.0.attn1.to_q are empty",
    ),
    "a weight": (LORA | {"diffusion_model.head.head.weight": torch.ones(2)}, "is not a LoRA: .*"),
    "DoRA": (LORA | {f"{Q}.dora_scale": torch.ones(24)}, "is a DoRA, not a plain LoRA"),
    "LoKr": ({f"{Q}.lokr_w1": torch.ones(2, 2), f"{Q}.lokr_w2": torch.ones(12, 12)}, "is a LoKr"),
    "LoHa": ({f"{Q}.hada_w1_a": torch.ones(2, 2)}, "is a LoHa"),
    "whole numbers": (
        LORA | {f"{Q}.lora_up.weight": torch.ones(24, 2, dtype=torch.int8)},
        "as I8; a LoRA's numbers must be one of BF16",
    ),
    "infinite alpha": (LORA | {f"{Q}.alpha": torch.tensor(torch.inf)}, "one finite number"),
    "two alphas": (LORA | {f"{Q}.alpha": torch.ones(2)}, "one finite number"),
    "alpha of 0": (
        {name: 0 * value if "alpha" in name else value for name, value in LORA.items()},
        "changes nothing: .* holds zeros only",
    ),
    "zeros": (
        {name: 0 * value if "up" in name else value for name, value in LORA.items()},
        "changes nothing: .* holds zeros only",
    ),
    "one module in two layouts": (
        LORA | {"transformer.blocks.0.attn1.to_q.lora_A.weight": torch.ones(2, 24)},
        "changes the same module twice, a second time by",
    ),
    "differences alone": (
        {"diffusion_model.blocks.0.norm3.diff": torch.ones(24)},
        r"holds no LoRA, only diffusion_model\.blocks\.0\.norm3\.diff",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_the_header(tmp_path: Path, case: str) -> None:
    tensors, message = REFUSED[case]
    path = save(tmp_path, tensors)
    with pytest.raises(ModelFolderError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"use_dora": True}, "sets use_dora to True: it is not a plain LoRA"),
        ({"r": 4}, r"has the rank 4 for blocks\..*, whose matrices are of rank \d"),
        ({"lora_alpha": "2"}, "lora_alpha must be a number above 0, not '2'"),
        ({"lora_alpha": 10**400}, "lora_alpha must be a number above 0"),
        ({"alpha_pattern": {"to_q|(a+)+": 2}}, r"has the regular expression 'to_q\|\(a\+\)\+'"),
        ({"rank_pattern": [1]}, r"rank_pattern must be an object, not \[1\]"),
        ({"r": 2, "lora_alpha": 2}, r"lora_adapter_metadata of .* and .*\.alpha both set a scale"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, saved: dict[str, Any], message: str
) -> None:
    metadata = {METADATA_KEY: json.dumps({f"transformer.{key}": saved[key] for key in saved})}
    tensors = LORA if "both" in message else without(LORA, "alpha")
    path = save(tmp_path, tensors, metadata)
    with pytest.raises(ModelFolderError, match=message):
        read(path)


def test_zeros_for_modules_that_the_model_has_not_are_left_out(tmp_path: Path) -> None:
    zeros = {name: 0 * value if "up" in name else value for name, value in LORA.items()}
    tensors = renamed(zeros, "cross_attn.k.", "cross_attn.k_img.") | LORA
    tensors["diffusion_model.blocks.0.norm1.diff"] = torch.zeros(24)
    path = save(tmp_path, tensors)
    layers = every_layer("wan", ATTENTION)
    assert_equal(changes("wan", path), expected_changes(layers, 2.0))


# names


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_each_name_means_one_module(family: Any) -> None:
    state = TRANSFORMERS[family]().state_dict()
    modules = {name.removesuffix(".weight").removesuffix(".bias") for name in state}
    names = ModuleNames(family, state)
    aliases: dict[str, str] = {}
    for module in modules:
        for alias in (module, published_name(family, module)):
            for spelled in (alias, alias.replace(".", "_")):
                assert aliases.setdefault(spelled, module) == module
                assert names.find(spelled) == module
                assert names.find(f"base_model.model.{spelled}") == module
    assert names.find("transformer.nothing") is None


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_published_names_are_those_that_diffusers_converts(family: Any) -> None:
    from diffusers.loaders import single_file_utils

    convert = {
        "wan": single_file_utils.convert_wan_transformer_to_diffusers,
        "ltx": single_file_utils.convert_ltx_transformer_checkpoint_to_diffusers,
    }[family]
    state = TRANSFORMERS[family]().state_dict()
    checkpoint: dict[str, Any] = {}
    for name in state:
        match = re.fullmatch(r"(.*?)(\.weight|\.bias)?", name)
        assert match is not None
        checkpoint[published_name(family, match[1]) + (match[2] or "")] = name
    assert convert(checkpoint) == {name: name for name in state}


def test_the_shapes_of_a_folder_are_those_of_the_loaded_model(tmp_path: Path) -> None:
    """The plan reads the folder, the worker its model: both decide by the same shapes."""
    from pipelines.catalog.model_folder import transformer_shapes

    tiny.wan_pipeline(two_transformers=True).save_pretrained(tmp_path)
    parameters = dict(tiny.wan_transformer().named_parameters())
    expected = {name: tuple(value.shape) for name, value in parameters.items()}
    found = transformer_shapes(tmp_path)
    assert found == {"transformer": expected, "transformer_2": expected}
