"""A model's LoRAs, on real pipelines at tiny size: found, refused, loaded, fused, rendered."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.clip_id import clip_id
from jobs.manifest.model_catalog import ModelCatalog
from jobs.types import UNREAD
from nag import NagParams
from pipelines.catalog.keys.lora_config import LoraConfig, default_choice
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.model_loras import DEFAULT_WEIGHT_NAME
from pipelines.errors import ModelFolderError, ModelNotFoundError, RequestError
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.lora_adapters import LoraAdapters
from pipelines.families.registry import load_model
from pipelines.families.wan import WanModel
from pipelines.families.worker_weights import verify_weights
from pipelines.lora_choice import LoraChoice
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from tests.builders import tiny

Tensors = dict[str, torch.Tensor]
MAKERS: dict[str, Callable[[], Any]] = {
    "wan": tiny.wan_pipeline,
    "wan2.2": lambda: tiny.wan_pipeline(two_transformers=True),
    "ltx": tiny.ltx_pipeline,
}
PLAIN = GenerationRequest(
    "a circle",
    "",
    VideoShape(9, 32, 32),
    8.0,
    SamplingParams(3, 1.0, None, seed=3),
    NagParams(nag_scale=11),
)
GUIDED = replace(PLAIN, negative_prompt="red")
STYLE, SPEED = LoraConfig("style", "./style"), LoraConfig("speed", "./speed", weight=-0.5)
TO_Q = "transformer.blocks.0.attn2.to_q.lora_"


def lora(maker: str, seed: int) -> Tensors:
    """Return a LoRA of rank 2 on every attention, named as diffusers names it."""
    generator = torch.Generator().manual_seed(seed)
    tensors: Tensors = {}
    for name, module in MAKERS[maker]().transformer.named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            tensors[f"transformer.{name}.lora_A.weight"] = torch.randn(
                2, module.in_features, generator=generator
            )
            tensors[f"transformer.{name}.lora_B.weight"] = 0.2 * torch.randn(
                module.out_features, 2, generator=generator
            )
    return tensors


def write(
    folder: Path,
    tensors: Tensors,
    name: str = DEFAULT_WEIGHT_NAME,
    metadata: dict[str, Any] | None = None,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    settings = {f"transformer.{key}": value for key, value in (metadata or {}).items()}
    save_file(
        tensors,
        folder / name,
        {"format": "pt", "lora_adapter_metadata": json.dumps(settings)} if metadata else None,
    )


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each model's folder, with two LoRAs beside it."""
    root = tmp_path_factory.mktemp("models")
    for maker, make in MAKERS.items():
        make().save_pretrained(root / maker / "weights")
        write(root / maker / "style", lora(maker, 1))
        write(root / maker / "speed", lora(maker, 2))
    return root


@pytest.fixture
def wan(saved: Path, tmp_path: Path) -> Path:
    """The folder of Wan, that a test may change."""
    shutil.copytree(saved / "wan", tmp_path / "wan")
    return tmp_path / "wan"


def model(maker: str, *loras: LoraConfig, fuse: bool = False) -> ModelConfig:
    return ModelConfig(
        name="mine",
        family="ltx" if maker == "ltx" else "wan",
        source="./weights",
        grid=ShapeGrid(8, 32, 32),
        sampling=SamplingDefaults(3, 1.0, 9, 32, 32, 8.0),
        dtype="float32",
        device="cpu",
        max_sequence_length=16,
        loras=loras,
        fuse_loras=fuse,
    )


def load(folder: Path, config: ModelConfig) -> DiffusersModel:
    family = load_model(config, inspect_model(config, folder / "mine.yaml"), 1)
    assert isinstance(family, DiffusersModel)
    return family


def latents(family: DiffusersModel, request: GenerationRequest = PLAIN) -> np.ndarray:
    return family.denoise(request, family.encode_text(request), lambda _step: None).numpy()


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


# The pipeline by hand.
@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
@pytest.mark.parametrize("request_", [PLAIN, GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize("maker", list(MAKERS))
def test_loras_of_the_yaml_are_those_that_diffusers_loads_by_hand(
    saved: Path, maker: str, request_: GenerationRequest
) -> None:
    folder = saved / maker
    ours = load(folder, model(maker, STYLE, SPEED))
    config = model(maker)
    pipeline = ours.pipeline_class.from_pretrained(folder / "weights")
    pipeline.set_progress_bar_config(disable=True)
    for name in ("style", "speed"):
        pipeline.load_lora_weights(folder / name, adapter_name=name)
        if maker == "wan2.2":
            pipeline.load_lora_weights(
                folder / name, adapter_name=name, load_into_transformer_2=True
            )
    pipeline.set_adapters(["style", "speed"], [1.0, -0.5])
    stock = type(ours)(config, pipeline, torch.device("cpu"))
    assert np.array_equal(latents(ours, request_), latents(stock, request_))
    assert distance(latents(ours, request_), latents(load(folder, config), request_)) > 1e-3


OFF = LoraConfig("off", "./speed", by_default=False)
SWITCHES: list[tuple[LoraChoice, ...] | None] = [
    None,
    (LoraChoice("style", 0.5),),
    (),
    (LoraChoice("speed", -0.5), LoraChoice("off", 2.0)),
    (LoraChoice("style", 1.0), LoraChoice("speed", 0.3)),
    None,
]


def only(
    config: ModelConfig, choice: tuple[LoraChoice, ...] | None, *, fuse: bool = False
) -> ModelConfig:
    """Return a model that has only the chosen LoRAs, with the chosen weights."""
    declared = {lora.name: lora for lora in config.loras}
    if choice is None:
        choice = default_choice(config.loras)
    loras = tuple(replace(declared[one.name], weight=one.weight, by_default=True) for one in choice)
    return replace(config, loras=loras, fuse_loras=fuse and bool(loras))


@pytest.mark.parametrize("fuse", [False, True], ids=["adapters", "fused"])
@pytest.mark.parametrize("maker", list(MAKERS))
def test_loras_of_a_clip_are_switched_without_a_trace_of_those_before(
    saved: Path, maker: str, fuse: bool
) -> None:
    """In bfloat16, where subtracting a fused LoRA again would leave its rounding."""
    config = replace(model(maker, STYLE, SPEED, OFF, fuse=fuse), dtype="bfloat16")
    family = load(saved / maker, config)
    for choice in SWITCHES:
        found = latents(family, replace(GUIDED, loras=choice))
        fresh = load(saved / maker, only(config, choice, fuse=fuse))
        assert np.array_equal(found, latents(fresh, GUIDED)), choice
    assert family.nag_coverage == load(saved / maker, model(maker)).nag_coverage


def test_a_lora_of_one_transformer_is_switched_off_there(saved: Path) -> None:
    folder = saved / "wan2.2"
    high, low = replace(STYLE, component="transformer"), replace(SPEED, component="transformer_2")
    config = model("wan2.2", high, low)
    family = load(folder, config)
    for name in ("style", "speed", "style"):
        choice = (LoraChoice(name, 0.7),)
        found = latents(family, replace(PLAIN, loras=choice))
        assert np.array_equal(found, latents(load(folder, only(config, choice))))


def test_a_switch_that_fails_leaves_a_model_that_can_switch_again(wan: Path) -> None:
    config = model("wan", STYLE, SPEED, fuse=True)
    family = load(wan, config)
    (wan / "speed" / DEFAULT_WEIGHT_NAME).rename(wan / "speed" / "moved")
    with pytest.raises(ModelFolderError, match="speed"):
        latents(family, replace(PLAIN, loras=(LoraChoice("speed", 1.0),)))
    choice = (LoraChoice("style", 1.0),)
    found = latents(family, replace(PLAIN, loras=choice))
    assert np.array_equal(found, latents(load(wan, only(config, choice, fuse=True))))


def test_a_pipeline_without_loras_refuses_a_choice() -> None:
    by_hand = WanModel(model("wan"), tiny.wan_pipeline(), torch.device("cpu"))
    with pytest.raises(RequestError, match="loaded without LoRAs"):
        latents(by_hand, replace(PLAIN, loras=(LoraChoice("style", 1.0),)))


def test_nag_acts_on_a_model_with_loras(saved: Path) -> None:
    family = load(saved / "wan", model("wan", STYLE))
    assert family.nag_coverage.guided == family.nag_coverage.total == 2
    assert distance(latents(family, GUIDED), latents(family, PLAIN)) > 1e-3


@pytest.mark.parametrize("maker", list(MAKERS))
def test_fused_loras_do_the_same_and_leave_no_layers_behind(saved: Path, maker: str) -> None:
    unfused = load(saved / maker, model(maker, STYLE, SPEED))
    fused = load(saved / maker, model(maker, STYLE, SPEED, fuse=True))
    assert distance(latents(fused, GUIDED), latents(unfused, GUIDED)) < 1e-4
    assert not [name for name, _ in fused.pipeline.transformer.named_modules() if "lora" in name]
    assert [name for name, _ in unfused.pipeline.transformer.named_modules() if "lora" in name]


def test_weights_and_each_lora_change_the_clip_and_its_id(saved: Path, tmp_path: Path) -> None:
    folder = saved / "wan"
    variants = [(), (STYLE,), (replace(STYLE, weight=0.5),), (STYLE, SPEED), (SPEED,)]
    clips = [latents(load(folder, model("wan", *loras))) for loras in variants]
    assert min(distance(one, other) for i, one in enumerate(clips) for other in clips[:i]) > 1e-3
    ids: set[str] = set()
    for index, loras in enumerate(variants):
        config = model("wan", *loras)
        entry = ModelCatalog(_yaml_folder(tmp_path / str(index), folder, config)).get("mine")
        assert str(tmp_path) not in repr(entry.identity)
        ids.add(clip_id(entry.identity, PLAIN, UNREAD))
    assert len(ids) == len(variants)


def test_the_name_of_a_lora_decides_nothing(saved: Path, tmp_path: Path) -> None:
    folder = saved / "wan"
    configs = [model("wan", replace(STYLE, name=name)) for name in ("style", "to_q")]
    clips = [latents(load(folder, config)) for config in configs]
    assert np.array_equal(clips[0], clips[1])
    one, other = (
        ModelCatalog(_yaml_folder(tmp_path / config.loras[0].name, folder, config))
        .get("mine")
        .identity
        for config in configs
    )
    assert one == other


def _yaml_folder(models: Path, weights: Path, config: ModelConfig) -> Path:
    models.mkdir()
    entries = [
        f"{{name: {lora.name}, source: {weights / lora.source}, weight: {lora.weight}}}"
        for lora in config.loras
    ]
    (models / "mine.yaml").write_text(
        f"family: wan\nsource: {weights / 'weights'}\nloras: [{', '.join(entries)}]\n"
        "grid: {num_frames: 8, height: 32, width: 32}\n"
        "sampling: {num_inference_steps: 3, guidance_scale: 1, num_frames: 9, "
        "height: 32, width: 32, fps: 8}\n"
    )
    return models


def test_a_lora_may_belong_to_one_of_two_transformers(saved: Path) -> None:
    folder, high, low = (
        saved / "wan2.2",
        replace(STYLE, component="transformer"),
        replace(SPEED, component="transformer_2"),
    )
    family = load(folder, model("wan2.2", high, low))
    adapters = family.pipeline.get_list_adapters()
    assert adapters == {"transformer": ["lora-style"], "transformer_2": ["lora-speed"]}
    fused = load(folder, model("wan2.2", high, low, fuse=True))
    assert distance(latents(fused), latents(family)) < 1e-4
    assert distance(latents(family), latents(load(folder, model("wan2.2", STYLE, SPEED)))) > 1e-3
    with pytest.raises(
        ModelFolderError,
        match="speed is for transformer_2, and the model has transformer; correct its component",
    ):
        inspect_model(model("wan", low), saved / "wan" / "mine.yaml")


def test_a_lora_saved_with_dropout_draws_nothing(wan: Path) -> None:
    plain = {
        "r": 2,
        "lora_alpha": 2,
        "target_modules": ["to_q", "to_k", "to_v", "to_out.0"],
        "peft_type": "LORA",
    }
    write(
        wan / "style",
        lora("wan", 1),
        metadata={**plain, "lora_dropout": 0.9, "init_lora_weights": "gaussian"},
    )
    family = load(wan, model("wan", STYLE))
    assert np.array_equal(latents(family), latents(family))


def test_a_file_in_a_folder_inside_the_folder_is_named_with_it(wan: Path) -> None:
    for folder in ("high noise", "low"):
        write(wan / "style" / folder, lora("wan", 2), "model.safetensors")
    (wan / "style" / DEFAULT_WEIGHT_NAME).unlink()
    with pytest.raises(
        ModelFolderError, match=r"holds high noise/model\.safetensors, low/model\.safetensors; say"
    ):
        inspect_model(model("wan", STYLE), wan / "mine.yaml")
    named = model("wan", replace(STYLE, weight_name="high noise/model.safetensors"))
    family = load(wan, named)
    assert np.array_equal(
        latents(family), latents(load(wan, model("wan", replace(SPEED, weight=1.0))))
    )


@pytest.mark.parametrize("source", ["./style/fast.safetensors", "style/fast.safetensors"])
def test_a_lora_may_be_given_as_a_file(wan: Path, source: str) -> None:
    write(wan / "style", lora("wan", 2), "fast.safetensors")
    config = model("wan", replace(STYLE, source=source))
    weights = inspect_model(config, wan / "mine.yaml")
    folder = model("wan", replace(STYLE, source="./style", weight_name="fast.safetensors"))
    assert weights == inspect_model(folder, wan / "mine.yaml")
    verify_weights(config, weights)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "./style/no.safetensors",
            r"LoRA style: the file .*/style/no\.safetensors does not exist$",
        ),
        (
            "Org/Style/high/fast.safetensors",
            r"a file of the hub is written source: Org/Style, weight_name: high/fast\.safetensors",
        ),
        ("style", r"neither a hub id \(owner/name\) nor a folder; .* begins with \./"),
        ("Org/Sty le", r"neither a hub id \(owner/name\) nor a folder"),
    ],
)
def test_a_source_that_is_not_found_says_how_to_write_it(
    wan: Path, source: str, message: str
) -> None:
    with pytest.raises(ModelNotFoundError, match=message):
        inspect_model(model("wan", replace(STYLE, source=source)), wan / "mine.yaml")


def test_a_lora_that_is_a_pickle_is_refused_as_one_file(wan: Path) -> None:
    pickled(wan / "style.pt")
    config = model("wan", replace(STYLE, source="./style.pt"))
    with pytest.raises(
        ModelFolderError, match=r"style\.pt must be a \.safetensors file, or a fold"
    ):
        inspect_model(config, wan / "mine.yaml")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 1234\n".format("ab" * 32)


@pytest.mark.parametrize(
    "name",
    [
        f"style/{DEFAULT_WEIGHT_NAME}",
        "weights/transformer/diffusion_pytorch_model.safetensors",
        "weights/text_encoder/model.safetensors",
        "weights/text_encoder/config.json",
        "weights/tokenizer/tokenizer.json",
        "weights/model_index.json",
    ],
)
def test_a_git_lfs_pointer_is_named_as_one(wan: Path, name: str) -> None:
    config = model("wan", STYLE)
    weights = inspect_model(config, wan / "mine.yaml")
    (wan / name).write_text(LFS)
    message = rf"{name} is a git-lfs pointer, not the file itself: run .*git lfs pull"
    with pytest.raises(ModelNotFoundError, match=message):
        inspect_model(config, wan / "mine.yaml")
    with pytest.raises(ModelNotFoundError, match=message):
        verify_weights(config, weights)


def test_the_only_file_of_a_folder_needs_no_name(wan: Path) -> None:
    (wan / "style" / DEFAULT_WEIGHT_NAME).rename(wan / "style" / "other.safetensors")
    config = model("wan", STYLE)
    assert inspect_model(config, wan / "mine.yaml").loras[0].path.name == "other.safetensors"
    write(wan / "style", lora("wan", 2), "third.safetensors")
    with pytest.raises(
        ModelFolderError, match=r"holds other\.safetensors, third\.safetensors; say in weight_name"
    ):
        inspect_model(config, wan / "mine.yaml")
    named = model("wan", replace(STYLE, weight_name="third.safetensors"))
    assert inspect_model(named, wan / "mine.yaml").loras[0].path.name == "third.safetensors"


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def pickled(path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, path)


def absent(path: Path) -> None:
    path.unlink()


def changed(change: Callable[[Tensors], object]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return rewrite


def with_settings(**settings: object) -> Callable[[Path], None]:
    return lambda path: write(path.parent, lora("wan", 1), metadata=settings)


def put(key: str, *shape: int, value: float = 0.0) -> Callable[[Path], None]:
    return changed(lambda tensors: tensors.update({key: torch.full(shape, value)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (truncated, "copy it again"),
        (pickled, "is not a safetensors file"),
        (absent, r"style holds no \.safetensors file, which a LoRA must be"),
        (
            put("transformer.proj_out.weight", 2, 2),
            "mine: LoRA style: .* is not a LoRA: .* not transformer.proj_out.weight",
        ),
        (
            put("text_encoder.x.lora_B.weight", 2, 2, value=1.0),
            "made for another model: transformer has no text_encoder.x; take it out of",
        ),
        (
            lambda path: write(path.parent, lora("ltx", 1)),
            "made for another model: transformer has no transformer.transformer_blocks",
        ),
        (
            with_settings(use_dora=True),
            "sets use_dora to True: it is not a plain LoRA; only LoRAs without this setting",
        ),
        (
            lambda path: save_file(
                lora("wan", 1),
                path,
                {"lora_adapter_metadata": '{"transformer.use_dora": true, "use_dora": false}'},
            ),
            "sets use_dora to True",
        ),
        (with_settings(megatron_config={"a": 1}), "sets megatron_config"),
        (with_settings(modules_to_save=["proj_out"]), "sets modules_to_save"),
        (with_settings(init_lora_weights="pissa"), "sets init_lora_weights to 'pissa'"),
    ],
)
def test_a_file_that_is_not_a_lora_of_the_model_is_refused_before_anything_runs(
    wan: Path, change: Callable[[Path], None], message: str
) -> None:
    change(wan / "style" / DEFAULT_WEIGHT_NAME)
    with pytest.raises(ModelFolderError, match=message):
        inspect_model(model("wan", STYLE), wan / "mine.yaml")


@pytest.mark.parametrize("name", ["half", "lora", "a", "-", "_"])
def test_a_lora_may_have_a_name_that_torch_or_peft_uses(saved: Path, name: str) -> None:
    named = load(saved / "wan", model("wan", replace(STYLE, name=name)))
    assert np.array_equal(latents(named), latents(load(saved / "wan", model("wan", STYLE))))


def test_weights_that_become_infinite_are_not_fused(wan: Path) -> None:
    write(wan / "style", {key: value * float("inf") for key, value in lora("wan", 1).items()})
    config = model("wan", STYLE, fuse=True)
    with pytest.raises(ModelFolderError, match="cannot be fused"):
        LoraAdapters(tiny.wan_pipeline(), config, inspect_model(config, wan / "mine.yaml").loras)


def test_biases_that_become_infinite_are_not_fused(wan: Path) -> None:
    tensors = lora("wan", 1) | {"diffusion_model.head.head.diff_b": torch.full((32,), torch.inf)}
    write(wan / "style", tensors)
    config = model("wan", STYLE, fuse=True)
    with pytest.raises(ModelFolderError, match="cannot be fused: transformer's proj_out.bias"):
        LoraAdapters(tiny.wan_pipeline(), config, inspect_model(config, wan / "mine.yaml").loras)


def test_a_lora_that_is_another_one_on_the_workers_machine_is_refused(wan: Path) -> None:
    config = model("wan", STYLE)
    weights = inspect_model(config, wan / "mine.yaml")
    verify_weights(config, weights)
    write(wan / "style", lora("wan", 2))
    with pytest.raises(
        ModelFolderError, match=r"LoRA style: .* holds sha256:\w+ here, not sha256:"
    ):
        verify_weights(config, weights)
    shutil.rmtree(wan / "style")
    with pytest.raises(ModelNotFoundError, match="does not exist on this machine"):
        verify_weights(config, weights)


def hub_cache(folder: Path, commit: str) -> Path:
    """A snapshot of Org/Style as the Hugging Face cache keeps it."""
    repository = folder / "models--Org--Style"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    snapshot.parent.mkdir()
    return snapshot


@pytest.mark.parametrize("name", ["fast.safetensors", "dir/high_noise_model.safetensors"])
def test_a_lora_of_the_hub_is_its_commit_and_its_file(
    wan: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    config = model("wan", LoraConfig("style", "Org/Style", weight_name=name, revision="main"))
    remedy = rf"mine: LoRA style: .*fetch it with: hf download Org/Style {name} --revision main"
    with pytest.raises(ModelNotFoundError, match=remedy):
        inspect_model(config, wan / "mine.yaml")
    commit = "c0ffee" * 6 + "c0ff"
    snapshot = hub_cache(tmp_path / "hub", commit)
    write(snapshot, lora("wan", 1), "slow.safetensors")
    with pytest.raises(ModelNotFoundError, match=remedy):
        inspect_model(config, wan / "mine.yaml")
    write((snapshot / name).parent, lora("wan", 1), Path(name).name)
    weights = inspect_model(config, wan / "mine.yaml")
    assert weights.loras[0].path == snapshot / name
    assert weights.loras[0].revision.startswith(f"{commit}/sha256:")
    verify_weights(config, weights)


def test_settings_of_peft_are_part_of_the_revision(wan: Path) -> None:
    tensors = {key.replace("transformer.", "base_model.model."): value
               for key, value in lora("wan", 1).items()}  # fmt: skip
    write(wan / "style", tensors)
    config, settings = model("wan", STYLE), wan / "style" / "adapter_config.json"
    settings.write_text('{"r": 2, "lora_alpha": 2}')
    weights = inspect_model(config, wan / "mine.yaml")
    verify_weights(config, weights)
    settings.write_text('{"r": 2, "lora_alpha": 4}')
    assert inspect_model(config, wan / "mine.yaml") != weights
    with pytest.raises(ModelFolderError, match=r"holds sha256:\w+\+sha256:\w+ here, not sha256"):
        verify_weights(config, weights)


def test_a_missing_folder_is_a_named_error(wan: Path) -> None:
    with pytest.raises(
        ModelNotFoundError, match="mine: LoRA style: the folder .*nowhere does not exist"
    ):
        inspect_model(model("wan", replace(STYLE, source="./nowhere")), wan / "mine.yaml")
