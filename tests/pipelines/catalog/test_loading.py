"""Model folders: real ones at tiny size, and broken and unsafe ones, which are refused."""

import json
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file, save_file

from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.catalog.model_folder import fingerprint, inspect_model
from pipelines.errors import ModelFolderError, ModelNotFoundError
from pipelines.families.registry import load_model
from pipelines.families.weight_shapes import check_weight_shapes
from pipelines.families.worker_weights import verify_weights
from tests.builders import tiny

CONFIG = ModelConfig(
    name="mine",
    family="wan",
    source="./wan",
    grid=ShapeGrid(4, 16, 16),
    sampling=SamplingDefaults(2, 1.0, 5, 32, 32, 8.0),
)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "wan"
    tiny.wan_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "wan")
    return tmp_path / "wan"


def inspect(folder: Path) -> str:
    return inspect_model(CONFIG, folder.parent / "mine.yaml").revision


def change_json(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_complete_folder_is_accepted_and_has_a_revision(folder: Path) -> None:
    assert inspect(folder).startswith("sha256:")
    assert inspect(folder) == inspect(folder)


def test_both_transformers_of_a_folder_are_checked(tmp_path: Path) -> None:
    tiny.wan_pipeline(two_transformers=True).save_pretrained(tmp_path / "wan")
    inspect(tmp_path / "wan")
    (tmp_path / "wan" / "transformer_2" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelFolderError, match="transformer_2 holds no .safetensors file"):
        inspect(tmp_path / "wan")


def test_an_ltx_folder_is_accepted_for_ltx_alone(tmp_path: Path) -> None:
    tiny.ltx_pipeline().save_pretrained(tmp_path / "wan")
    assert inspect_model(replace(CONFIG, family="ltx"), tmp_path / "mine.yaml")
    with pytest.raises(
        ModelFolderError, match="is for 'LTXPipeline', not 'WanDMDPipeline' or 'WanPipeline'"
    ):
        inspect(tmp_path / "wan")


def test_one_changed_byte_anywhere_is_another_revision(folder: Path) -> None:
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    whole = path.read_bytes()
    revisions = {fingerprint(folder)}
    positions = range(len(whole) // 10, len(whole), len(whole) // 10)
    for position in positions:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        revisions.add(fingerprint(folder))
    assert len(revisions) == 1 + len(positions)


def test_other_weights_on_a_workers_machine_are_refused(folder: Path) -> None:
    weights = inspect_model(CONFIG, folder.parent / "mine.yaml")
    verify_weights(CONFIG, weights)
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["proj_out.bias"] = tensors["proj_out.bias"] + 1
    save_file(tensors, path)
    with pytest.raises(ModelFolderError, match="holds revision sha256:.* here, not sha256:"):
        verify_weights(CONFIG, weights)
    shutil.rmtree(folder)
    with pytest.raises(ModelNotFoundError, match="does not exist on this machine"):
        verify_weights(CONFIG, weights)


def test_the_revision_does_not_depend_on_where_the_folder_lies(folder: Path, saved: Path) -> None:
    assert fingerprint(folder) == fingerprint(saved)


def test_weights_in_shards_are_found_whole(folder: Path) -> None:
    part = folder / "transformer"
    tensors = list(load_file(part / "diffusion_pytorch_model.safetensors").items())
    (part / "diffusion_pytorch_model.safetensors").unlink()
    names = ["a-00001-of-00002.safetensors", "a-00002-of-00002.safetensors"]
    halves = [dict(tensors[: len(tensors) // 2]), dict(tensors[len(tensors) // 2 :])]
    for name, half in zip(names, halves, strict=True):
        save_file(half, part / name)
    index = {
        "weight_map": {key: name for name, half in zip(names, halves, strict=True) for key in half}
    }
    (part / "a.safetensors.index.json").write_text(json.dumps(index))
    inspect(folder)
    (part / names[1]).unlink()
    with pytest.raises(ModelFolderError, match="the shard a-00002-of-00002.safetensors is missing"):
        inspect(folder)


def remove(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return change


def set_index(component: str, entry: object) -> Callable[[Path], None]:
    return lambda folder: change_json(
        folder / "model_index.json", lambda index: index.update({component: entry})
    )


def pickled(folder: Path) -> None:
    part = folder / "transformer"
    tensors = load_file(part / "diffusion_pytorch_model.safetensors")
    (part / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(tensors, part / "diffusion_pytorch_model.bin")


def truncated(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def leading_out(folder: Path) -> None:
    part = folder / "transformer"
    (part / "diffusion_pytorch_model.safetensors").unlink()
    (part / "a.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "../../secret.safetensors"}})
    )


WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("model_index.json"), "model_index.json is missing"),
        (write("model_index.json", b"{"), "not valid JSON"),
        (write("model_index.json", b"[" * 100_000), "not valid JSON"),
        (write("model_index.json", b"[1]"), "must hold a JSON object, not a list"),
        (write("model_index.json", b"\xff\xfe"), "not valid JSON"),
        (set_index("_class_name", "StableDiffusionPipeline"), "is for 'StableDiffusionPipeline'"),
        (
            set_index("transformer", ["my_module", "Evil"]),
            "must name a diffusers or transformers class",
        ),
        (
            set_index("transformer", ["diffusers", "FluxTransformer2DModel"]),
            "must be WanTransformer3DModel",
        ),
        (set_index("text_encoder", ["transformers", "AutoModel"]), "must be UMT5EncoderModel"),
        (set_index("vae", None), "must name a diffusers or transformers class for vae"),
        (
            set_index("scheduler", "DDIM"),
            "must name a diffusers or transformers class for scheduler",
        ),
        (remove("vae"), "the folder 'vae' is missing"),
        (remove("transformer/config.json"), "config.json is missing"),
        (remove(WEIGHTS), "holds no .safetensors file"),
        (pickled, "is a pickle, convert it to safetensors"),
        (truncated, "copy it again"),
        (write(WEIGHTS, b""), "is not a safetensors file"),
        (write(WEIGHTS, b"\x80\x02}q\x00."), "is not a safetensors file"),
        (write(WEIGHTS, struct.pack("<Q", 2**60)), "is not a safetensors file"),
        (write(WEIGHTS, struct.pack("<Q", 2) + b"{}"), "holds no tensors"),
        (write(WEIGHTS, struct.pack("<Q", 2) + b"[]"), "its header is broken"),
        (leading_out, "is not a .safetensors file of its own folder"),
        (
            lambda folder: change_json(
                folder / "text_encoder" / "config.json",
                lambda c: c.update(auto_map={"AutoModel": "evil.Model"}),
            ),
            "asks for code of its own",
        ),
    ],
)
def test_a_broken_or_unsafe_folder_is_one_named_error(
    folder: Path, change: Callable[[Path], None], message: str
) -> None:
    change(folder)
    with pytest.raises(ModelFolderError, match=message):
        inspect(folder)


def test_a_missing_folder_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        inspect(tmp_path / "wan")


def test_the_error_for_a_missing_hub_model_names_the_download_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    config = replace(CONFIG, source="Wan-AI/Wan2.1-T2V-1.3B-Diffusers", revision="main")
    with pytest.raises(
        ModelNotFoundError, match="hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers --revision main"
    ):
        inspect_model(config, tmp_path / "mine.yaml")


def test_a_source_that_is_neither_a_hub_id_nor_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="neither a hub id"):
        inspect_model(replace(CONFIG, source="a/b/c"), tmp_path / "mine.yaml")


@pytest.mark.parametrize("fault", ["missing", "of another shape"])
@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("transformer/diffusion_pytorch_model", "blocks.1.attn2.to_k.weight"),
        ("vae/diffusion_pytorch_model", "decoder.conv_in.weight"),
        ("text_encoder/model", "encoder.block.0.layer.0.SelfAttention.k.weight"),
    ],
)
def test_weights_that_do_not_fit_their_config_are_refused_before_they_are_loaded(
    folder: Path, name: str, weight: str, fault: str
) -> None:
    """Transformers gives a missing weight of the text encoder random values."""
    path = folder / f"{name}.safetensors"
    tensors = load_file(path)
    if fault == "missing":
        del tensors[weight]
    else:
        tensors[weight] = torch.zeros(3, 3)
    save_file(tensors, path, {"format": "pt"})
    weights = inspect_model(CONFIG, folder.parent / "mine.yaml")
    found = re.escape(weight)
    message = f"lacks {found}, which" if fault == "missing" else rf"{found} has the shape \(3, 3\)"
    with pytest.raises(ModelFolderError, match=message):
        load_model(CONFIG, weights, 1)


def test_a_config_that_no_model_can_be_built_from_is_one_named_error(folder: Path) -> None:
    change_json(folder / "transformer" / "config.json", lambda content: content.update(ffn_dim="a"))
    with pytest.raises(ModelFolderError, match=r"no WanTransformer3DModel can be built from"):
        check_weight_shapes(folder)


def test_a_parameter_of_several_names_is_found_under_any(folder: Path) -> None:
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    check_weight_shapes(folder)
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    save_file(tensors, path, {"format": "pt"})
    check_weight_shapes(folder)


def test_weights_read_straight_onto_the_device_are_those_of_the_usual_road(folder: Path) -> None:
    config = replace(CONFIG, dtype="bfloat16", device="cpu")
    loaded = load_model(config, inspect_model(config, folder.parent / "mine.yaml"), 1).pipeline
    dtypes = {"transformer": torch.bfloat16, "text_encoder": torch.bfloat16}
    usual = WanPipeline.from_pretrained(folder, dtype={**dtypes, "default": torch.float32})
    for name in ("transformer", "text_encoder", "vae"):
        component = getattr(loaded, name)
        found, expected = component.state_dict(), getattr(usual, name).state_dict()
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key].dtype == value.dtype, key
            assert torch.equal(found[key], value), key
        assert not any(hasattr(module, "_hf_hook") for module in component.modules())
    dtypes_found = {value.dtype for value in loaded.transformer.parameters()}
    assert dtypes_found == {torch.bfloat16, torch.float32}  # some are kept in float32
