"""Descriptions of models: made from weights, read without them, and proved by a worker."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache

from jobs.description.files import read_contents, save_description
from pipelines.catalog import description as module
from pipelines.catalog.description import describe, describe_download, read_description
from pipelines.catalog.keys.lora_config import LoraConfig
from pipelines.catalog.keys.pipeline_classes import PIPELINE_CLASSES
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.catalog.model_folder import ModelWeights, inspect_model
from pipelines.errors import ModelFolderError, ModelNotFoundError
from pipelines.families.worker_weights import read_ahead, verify_weights
from tests.builders.weights import write_lora, write_model

COMMIT, NEWER = "c0ffee" * 6 + "c0ff", "beef" * 10
LORA = LoraConfig("style", "./style")
CONFIG = ModelConfig(
    name="mine",
    family="wan",
    source="./weights",
    grid=ShapeGrid(4, 16, 16),
    sampling=SamplingDefaults(2, 1.0, 5, 32, 32, 8.0),
)
WITH_LORA = replace(CONFIG, loras=(LORA,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a YAML, beside which a model's weights and a LoRA lie."""
    write_whole(tmp_path / "weights")
    write_lora(tmp_path / "style")
    return tmp_path / "mine.yaml"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache on this machine, which is empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def write_whole(folder: Path) -> Path:
    """Write a model's folder, with weights only where models have them."""
    write_model(folder)
    for component in ("tokenizer", "scheduler"):
        (folder / component / "model.safetensors").unlink()
    return folder


def write_snapshot(cache: Path, commit: str, *, is_main: bool = True) -> Path:
    """Write a snapshot of Org/Model as the Hugging Face cache keeps it."""
    repository = cache / "models--Org--Model"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    if is_main:
        (repository / "refs" / "main").write_text(commit)
    return write_whole(repository / "snapshots" / commit)


def list_files(snapshot: Path, *missing: str) -> None:
    """List a snapshot's files as the hub's client does when it downloads a part of them."""
    names = [file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*.*")]
    entries = {name: TreeCacheEntry(1, "0" * 40) for name in (*names, *missing)}
    write_tree_cache(str(snapshot.parents[1]), snapshot.name, entries)


def remove_weights(folder: Path) -> None:
    for file in folder.glob("*/*.safetensors"):
        file.unlink()


def save(config: ModelConfig, path: Path) -> Path:
    """Describe a model in a folder beside its YAML, and return the description's own folder."""
    weights = inspect_model(config, path)
    made = describe(config, path, weights)
    return save_description(made, read_contents(weights.folder, made), path.parent / "described")


def change(folder: Path, **values: Any) -> None:
    document = json.loads((folder / "description.json").read_text())
    (folder / "description.json").write_text(json.dumps({**document, **values}))


@pytest.mark.parametrize("config", [CONFIG, WITH_LORA], ids=["alone", "with a LoRA"])
def test_a_worker_finds_and_proves_the_weights_of_a_description(
    path: Path, config: ModelConfig
) -> None:
    whole = inspect_model(config, path)
    folder = save(config, path)
    assert not list(folder.rglob("*.safetensors"))
    planned = read_description(folder, config, path)
    assert planned.folder == folder
    assert planned.revision == whole.revision
    assert [lora.revision for lora in planned.loras] == [lora.revision for lora in whole.loras]
    assert verify_weights(config, planned) == whole
    read_ahead(verify_weights(config, planned))


def test_a_description_has_the_size_of_the_weights_and_no_path_of_this_machine(path: Path) -> None:
    folder = save(WITH_LORA, path)
    text = (folder / "description.json").read_text()
    weights = list((path.parent / "weights").glob("*/*.safetensors"))
    assert json.loads(text)["num_weight_bytes"] == sum(file.stat().st_size for file in weights)
    assert str(path.parent) not in text


def test_a_worker_with_other_weights_refuses_the_plan(path: Path) -> None:
    planned = read_description(save(CONFIG, path), CONFIG, path)
    file = path.parent / "weights" / "vae" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(ModelFolderError, match=r"here, not sha256:\w+; describe the model again"):
        verify_weights(CONFIG, planned)
    shutil.rmtree(path.parent / "weights")
    with pytest.raises(ModelNotFoundError, match="does not exist on this machine"):
        verify_weights(CONFIG, planned)


def test_a_worker_with_another_lora_refuses_the_plan(path: Path) -> None:
    planned = read_description(save(WITH_LORA, path), WITH_LORA, path)
    shutil.rmtree(path.parent / "style")
    write_lora(path.parent / "style", width=1, height=2)
    file = path.parent / "style" / "lora.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\2")
    with pytest.raises(ModelFolderError, match="LoRA style: .* here, not sha256"):
        verify_weights(WITH_LORA, planned)


@pytest.mark.parametrize("is_of_hub", [True, False])
def test_a_worker_refuses_a_plan_from_another_tokenizer(
    path: Path, cache: Path, is_of_hub: bool
) -> None:
    """The commit of the hub alone would not show it."""
    config = replace(CONFIG, source="Org/Model") if is_of_hub else CONFIG
    write_snapshot(cache, COMMIT)
    folder = save(config, path)
    (folder / "tokenizer" / "config.json").write_text('{"other": 1}')
    with pytest.raises(ModelFolderError, match="the files beside it are not those that it names"):
        read_description(folder, config, path)
    change(folder, files=module.described_files(folder, PIPELINE_CLASSES["WanPipeline"]))
    planned = read_description(folder, config, path)
    with pytest.raises(ModelFolderError, match="differs from .* in tokenizer/config.json; desc"):
        verify_weights(config, planned)


def test_a_worker_takes_the_described_commit_of_the_hub(path: Path, cache: Path) -> None:
    config = replace(CONFIG, source="Org/Model", revision="main")
    write_snapshot(cache, COMMIT)
    planned = read_description(save(config, path), config, path)
    assert planned.revision == COMMIT
    newer = write_snapshot(cache, NEWER)
    assert verify_weights(config, planned).folder.name == COMMIT
    shutil.rmtree(newer.parent / COMMIT)
    with pytest.raises(ModelNotFoundError, match=f"hf download Org/Model --revision {COMMIT}"):
        verify_weights(config, planned)


def test_a_download_without_weights_is_a_description(path: Path, cache: Path) -> None:
    config = replace(CONFIG, source="Org/Model", revision="main")
    snapshot = write_snapshot(cache, COMMIT)
    whole = inspect_model(config, path)
    remove_weights(snapshot)
    with pytest.raises(ModelNotFoundError, match="holds no weights; fetch them with: hf download"):
        inspect_model(config, path)
    list_files(snapshot, "vae/model.safetensors", "README.md")
    with pytest.raises(ModelNotFoundError, match="fetch it with: hf download"):
        inspect_model(config, path)
    planned = describe_download(config, path)
    assert planned is not None
    assert (planned.revision, planned.folder) == (whole.revision, whole.folder)
    with pytest.raises(ModelNotFoundError, match=f"hf download Org/Model --revision {COMMIT}"):
        verify_weights(config, planned)
    list_files(snapshot)
    write_snapshot(cache / "other", COMMIT)
    shutil.rmtree(snapshot)
    shutil.copytree(cache / "other" / "models--Org--Model" / "snapshots" / COMMIT, snapshot)
    assert verify_weights(config, planned) == whole


def test_no_download_without_weights_tells_the_revision_of_a_lora_or_a_folder(
    path: Path, cache: Path
) -> None:
    remove_weights(write_snapshot(cache, COMMIT))
    remove_weights(path.parent / "weights")
    assert describe_download(replace(WITH_LORA, source="Org/Model"), path) is None
    assert describe_download(CONFIG, path) is None


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "another name": (lambda folder: change(folder, name="../mine"), "a value in it"),
    "another family": (lambda folder: change(folder, family="sora"), "a value in it"),
    "a family of a strange kind": (lambda folder: change(folder, family=[]), "not a description"),
    "a revision that is a path": (lambda folder: change(folder, revision="../x"), "a value in it"),
    "a file elsewhere": (
        lambda folder: change(folder, files={"../../secret": "0" * 64}), "a value in it"
    ),
    "a file below": (
        lambda folder: change(folder, files={"tokenizer/../x": "0" * 64}), "a value in it"
    ),
    "a later version": (lambda folder: change(folder, schema_version=2), "reads schema_version 1"),
    "not JSON": (
        lambda folder: (folder / "description.json").write_text("{"), "is not valid JSON"
    ),
    "a list": (lambda folder: change(folder, loras=7), "not a description"),
    "a pipe": (
        lambda folder: [
            (folder / "description.json").unlink(), os.mkfifo(folder / "description.json")
        ],
        "this is a named pipe",
    ),
    "a pipe in the place of a config": (
        lambda folder: [
            (folder / "vae" / "config.json").unlink(), os.mkfifo(folder / "vae" / "config.json")
        ],
        "this is a named pipe",
    ),
    "a missing file": (lambda folder: (folder / "vae" / "config.json").unlink(), "cannot be read"),
    "a further file for the tokenizer": (
        lambda folder: (folder / "tokenizer" / "added_tokens.json").write_text("{}"),
        "the files beside it are not those that it names",
    ),
    "code": (
        lambda folder: [
            (folder / "vae" / "config.json").write_text('{"auto_map": {}}'),
            change(folder, files=module.described_files(folder, PIPELINE_CLASSES["WanPipeline"])),
        ],
        "asks for code of its own",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_description_is_one_named_error(path: Path, case: str) -> None:
    folder = save(CONFIG, path)
    spoil, message = BROKEN[case]
    spoil(folder)
    with pytest.raises(ModelFolderError, match=message):
        read_description(folder, CONFIG, path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(CONFIG, name="other"), "it is of mine, a wan"),
        (replace(CONFIG, family="ltx"), "it is of mine, a wan"),
        (replace(CONFIG, source="Org/Other"), "it has folder:weights, .* names Org/Other"),
        (WITH_LORA, "it has other LoRAs than the model's YAML"),
    ],
)
def test_a_description_that_does_not_fit_the_yaml_is_refused(
    path: Path, config: ModelConfig, message: str
) -> None:
    folder = save(CONFIG, path)
    with pytest.raises(ModelFolderError, match=f"{message}.*: nagfarm models --describe"):
        read_description(folder, config, path)


def test_a_description_of_another_commit_than_the_yamls_is_refused(path: Path, cache: Path) -> None:
    config = replace(CONFIG, source="Org/Model", revision=COMMIT)
    write_snapshot(cache, COMMIT)
    folder = save(config, path)
    assert read_description(folder, config, path).revision == COMMIT
    with pytest.raises(ModelFolderError, match=f"names Org/Model, revision {NEWER}"):
        read_description(folder, replace(config, revision=NEWER), path)


@pytest.mark.parametrize("limit", ["MAX_FILES", "MAX_BYTES", "MAX_VOCABULARY_BYTES"])
def test_a_description_has_limits(path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    folder = save(CONFIG, path)
    monkeypatch.setattr(module, limit, 1)
    with pytest.raises(ModelFolderError, match="a description holds at most"):
        describe(CONFIG, path, ModelWeights(path.parent / "weights", "r1"))
    refusal = "is not one of a description" if limit == "MAX_FILES" else "holds at most"
    with pytest.raises(ModelFolderError, match=refusal):
        read_description(folder, CONFIG, path)
