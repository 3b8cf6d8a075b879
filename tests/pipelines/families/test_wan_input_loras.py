"""LoRAs of Wan's pipelines that take images or videos, on real classes at tiny size."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipelines.catalog.keys.lora_config import LoraConfig
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.catalog.model_folder import inspect_model
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.registry import load_model
from pipelines.lora_choice import LoraChoice
from tests.pipelines.families.test_wan_inputs import FRAMES, KINDS, REQUEST, SIZE, stock_of

Tensors = dict[str, torch.Tensor]
NAMES = ("wan2.1-i2v", "wan2.1-vace", "wan2.2-i2v", "skyreels-i2v")
# The layers of images and of the control video alone, by the ends and the beginnings of names.
OF_INPUTS = {
    "wan2.1-i2v": ("add_k_proj", "add_v_proj"),
    "wan2.1-vace": ("vace_blocks.",),
    "skyreels-i2v": ("add_k_proj", "add_v_proj"),
    "wan2.2-i2v": ("blocks.0.",),
}
# Wan's own names of the layers that text-to-video lacks, by hand.
PUBLISHED = (
    ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"),
    ("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"),
    ("attn2.add_k_proj", "cross_attn.k_img"),
    ("attn2.add_v_proj", "cross_attn.v_img"),
    ("attn1.to_out.0", "self_attn.o"),
    ("attn2.to_out.0", "cross_attn.o"),
    *((f"attn1.to_{one}", f"self_attn.{one}") for one in "qkv"),
    *((f"attn2.to_{one}", f"cross_attn.{one}") for one in "qkv"),
    ("ffn.net.0.proj", "ffn.0"),
    ("ffn.net.2", "ffn.2"),
)
PUBLISHED_VACE = (("proj_in", "before_proj"), ("proj_out", "after_proj"))


@cache
def layers(name: str, parts: tuple[str, ...] = ("",), seed: int = 1) -> Tensors:
    """Return a LoRA of rank 2 on some linear layers, named as diffusers names them."""
    generator, tensors = torch.Generator().manual_seed(seed), dict[str, torch.Tensor]()
    for path, module in stock_of(name).transformer.named_modules():
        is_in_block = "blocks." in path or "image_embedder" in path
        is_wanted = is_in_block and any(
            path.startswith(part) or path.endswith(part) for part in parts
        )
        if is_wanted and isinstance(module, torch.nn.Linear):
            down = torch.randn(2, module.in_features, generator=generator)
            up = 0.2 * torch.randn(module.out_features, 2, generator=generator)
            tensors |= {f"{path}.lora_A.weight": down, f"{path}.lora_B.weight": up}
    assert tensors
    return tensors


def published(tensors: Tensors) -> Tensors:
    """Return a LoRA under the names that Wan's own repository gives to the layers."""

    def name_of(name: str) -> str:
        own = PUBLISHED_VACE if name.startswith("vace_blocks.") else ()
        for ours, theirs in (*own, *PUBLISHED):
            name = name.replace(f"{ours}.lora_", f"{theirs}.lora_")
        return f"diffusion_model.{name}"

    return {name_of(name): tensor for name, tensor in tensors.items()}


@pytest.fixture(scope="module", params=NAMES)
def named(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """Return a model's name and its folder, with LoRAs beside it."""
    name, root = request.param, tmp_path_factory.mktemp("model")
    kind = KINDS[name]
    (kind.saved or kind.stock)().save_pretrained(root / "weights")
    for lora, tensors in (
        ("all", layers(name)),
        ("inputs", layers(name, OF_INPUTS[name], seed=2)),
    ):
        save_file(
            {f"transformer.{key}": value for key, value in tensors.items()},
            root / f"{lora}.safetensors",
        )
    save_file(published(layers(name)), root / "published.safetensors")
    return name, root


def load(named: tuple[str, Path], *loras: LoraConfig, fuse: bool = False) -> DiffusersModel:
    name, root = named
    config = ModelConfig(
        name=name,
        family="wan",
        pipeline=KINDS[name].pipeline,
        source="./weights",
        grid=ShapeGrid(4, 32, 32),
        sampling=SamplingDefaults(3, 1.0, FRAMES, SIZE, SIZE, 8.0),
        dtype="float32",
        device="cpu",
        max_sequence_length=KINDS[name].num_tokens,
        loras=loras,
        fuse_loras=fuse,
    )
    return load_model(config, inspect_model(config, root / "mine.yaml"), 1)


def lora(name: str, component: Any = "all", file: str = "", weight: float = 1.0) -> LoraConfig:
    return LoraConfig(
        name, f"./{file or name}.safetensors", component=component, weight=weight, by_default=False
    )


def latents(model: DiffusersModel, *chosen: tuple[str, float]) -> torch.Tensor:
    choice = tuple(LoraChoice(*one) for one in chosen)
    request = replace(REQUEST, loras=choice if model.config.loras else None)
    inputs = KINDS[model.config.name].inputs
    embeddings = replace(model.encode_text(request), inputs=inputs)
    return model.denoise(request, embeddings, lambda _step: None)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one - other).abs().max().item()


def always(one: LoraConfig, weight: float) -> LoraConfig:
    return replace(one, weight=weight, by_default=True)


def test_loras_are_switched_between_clips_without_a_trace(named: tuple[str, Path]) -> None:
    """Each switch equals a model that was loaded with this LoRA alone, or with none."""
    fuse = named[0] != "wan2.1-i2v"  # both ways, at the price of one
    plain = latents(load(named))
    every, of_inputs = lora("all"), lora("inputs")
    model = load(named, every, of_inputs, fuse=fuse)
    first = latents(model, ("all", 0.5))
    assert torch.equal(latents(model), plain)
    second = latents(model, ("inputs", 1.0))
    assert torch.equal(latents(model, ("all", 0.5)), first)
    fresh = load(named, always(of_inputs, 1.0), fuse=fuse)
    assert torch.equal(second, latents(fresh, ("inputs", 1.0)))
    assert min(distance(first, plain), distance(second, plain), distance(first, second)) > 1e-3
    assert model.nag_coverage.guided == model.nag_coverage.total == KINDS[named[0]].num_attentions


def test_a_lora_is_that_of_the_stock_pipeline_loaded_by_hand(named: tuple[str, Path]) -> None:
    name, root = named
    model = load(named, lora("all"))
    stock = type(model).pipeline_class.from_pretrained(
        root / "weights",
        **({"image_encoder": None, "image_processor": None} if name == "wan2.2-i2v" else {}),
    )
    stock.set_progress_bar_config(disable=True)
    stock.load_lora_weights(root / "all.safetensors", adapter_name="all")
    if name == "wan2.2-i2v":
        stock.load_lora_weights(
            root / "all.safetensors", adapter_name="all", load_into_transformer_2=True
        )
    by_hand = type(model)(replace(model.config, loras=()), stock, torch.device("cpu"))
    try:
        assert distance(latents(model, ("all", 1.0)), latents(by_hand)) < 1e-5
    finally:
        by_hand.close()


def test_a_lora_with_the_publishers_names_is_the_same(named: tuple[str, Path]) -> None:
    """Also where they name the keys of images and the projections of the control video."""
    model = load(named, lora("all"), lora("published"))
    found = latents(model, ("published", 1.0))
    assert torch.equal(found, latents(model, ("all", 1.0)))


def test_each_transformer_of_a_pair_has_its_own_lora(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A high-noise and a low-noise LoRA, as few-step LoRAs of Wan 2.2 come."""
    name, root = "wan2.2-i2v", tmp_path_factory.mktemp("pair")
    KINDS[name].stock().save_pretrained(root / "weights")
    for seed, noise in ((3, "high"), (4, "low")):
        save_file(published(layers(name, seed=seed)), root / f"{noise}.safetensors")
    high, low = lora("high", "transformer"), lora("low", "transformer_2")
    model, plain = load((name, root), high, low), latents(load((name, root)))
    assert model.pipeline.get_list_adapters() == {
        "transformer": ["lora-high"],
        "transformer_2": ["lora-low"],
    }
    choices: list[tuple[tuple[str, float], ...]] = [
        (("high", 1.0), ("low", 0.5)),
        (("high", 1.0),),
        (("low", 0.5),),
        (),
    ]
    clips = [latents(model, *choice) for choice in choices]
    assert torch.equal(clips[3], plain)
    assert torch.equal(latents(model, *choices[0]), clips[0])
    assert min(distance(a, b) for index, a in enumerate(clips) for b in clips[:index]) > 1e-3
    for choice, clip in zip(choices[:3], clips, strict=False):
        declared = {"high": high, "low": low}
        fresh = load((name, root), *(always(declared[one], weight) for one, weight in choice))
        assert torch.equal(latents(fresh, *choice), clip), choice
