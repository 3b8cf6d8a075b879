"""Files that a stranger provides: pipes, devices, and content made to exhaust who reads it."""

import ast
import contextlib
import json
import os
import re
import socket
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import ConfigError, ManifestError
from jobs.manifest.manifest import open_manifest
from jobs.settings.run_config import load_config
from pipelines.catalog.files.safetensors_file import MAX_JSON_BYTES, read_header
from pipelines.catalog.files.weight_files import read_json
from pipelines.catalog.keys.pipeline_classes import PIPELINE_CLASSES
from pipelines.catalog.model_folder import check_folder, inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.errors import ModelConfigError, ModelFolderError, PipelineError
from pipelines.regular_files import open_regular_file, read_bounded
from tests.builders import weights
from tests.fakes.catalog import FakeCatalog
from tests.structure import modules

Put = Callable[[Path], object]


def bind_socket(path: Path) -> None:
    os.chdir(path.parent)  # the path of a socket has at most 108 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


PUT: dict[str, Put] = {
    "a named pipe": os.mkfifo,
    "a link to a named pipe": lambda path: (
        os.mkfifo(path.with_suffix(".pipe")),
        path.symlink_to(path.with_suffix(".pipe")),
    ),
    "a device that never ends": lambda path: path.symlink_to("/dev/zero"),
    "a socket": bind_socket,
    "a folder": Path.mkdir,
}


@pytest.fixture(params=PUT)
def put(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Put:
    monkeypatch.chdir("/")  # and back after the test
    return PUT[request.param]


def replace(path: Path, put: Put) -> None:
    path.unlink(missing_ok=True)
    put(path)


def test_only_a_regular_file_is_opened(tmp_path: Path, put: Put) -> None:
    put(tmp_path / "file")
    with pytest.raises(OSError, match="regular file|Is a directory|No such device"):
        open_regular_file(tmp_path / "file")


def test_a_file_is_read_through_a_link_and_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_bounded(tmp_path / "link", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_bounded(tmp_path / "link", 4)


def model_yaml(folder: Path, more: str = "") -> Path:
    path = folder / "mine.yaml"
    path.write_text(weights.YAML.format(source="./weights") + more)
    return path


def inspect(path: Path) -> None:
    inspect_model(load_model_config(path), path)


FILES = [
    "model_index.json",
    *(
        f"{component}/{name}"
        for component in ("tokenizer", "text_encoder", "vae", "transformer")
        for name in ("config.json", "model.safetensors")
    ),
]


@pytest.mark.parametrize("name", FILES)
def test_files_of_a_model_must_be_regular(tmp_path: Path, put: Put, name: str) -> None:
    folder = weights.write_model(tmp_path / "weights")
    inspect(model_yaml(tmp_path))
    replace(folder / name, put)
    if name == "tokenizer/model.safetensors" and (folder / name).is_dir():
        return inspect(model_yaml(tmp_path))  # no library looks into it
    with pytest.raises(ModelFolderError, match="cannot be read|is missing"):
        inspect(model_yaml(tmp_path))
    return None


def test_a_lora_must_be_a_regular_file(tmp_path: Path, put: Put) -> None:
    weights.write_model(tmp_path / "weights")
    folder = weights.write_lora(tmp_path / "lora")
    path = model_yaml(tmp_path, "loras: [{name: style, source: ./lora}]\n")
    inspect(path)
    replace(folder / "lora.safetensors", put)
    with pytest.raises(ModelFolderError, match="cannot be read"):
        inspect(path)


def test_a_models_yaml_and_a_profile_must_be_regular_files(tmp_path: Path, put: Put) -> None:
    put(tmp_path / "mine.yaml")
    with pytest.raises(ModelConfigError, match="cannot read the model config"):
        load_model_config(tmp_path / "mine.yaml")
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(tmp_path / "mine.yaml")


@pytest.mark.parametrize("name", ["a.yaml", "a.jsonl", "a.csv", "prompts.txt"])
def test_manifests_must_be_regular_files(tmp_path: Path, put: Put, name: str) -> None:
    put(tmp_path / name)
    path = tmp_path / name
    if name == "prompts.txt":
        path = tmp_path / "b.yaml"
        path.write_text("name: a\nmodel: tiny\naxes: {prompt: {file: prompts.txt}}\n")
    with pytest.raises(ManifestError, match="regular file|folder|cannot be read|leaves"):
        list(open_manifest(path, FakeCatalog(), model="tiny").specs())


# sizes


def write_header(path: Path, num_bytes: int, header: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", num_bytes) + header)
    os.truncate(path, 8 + num_bytes)
    return path


def test_a_large_header_is_refused_unread(tmp_path: Path) -> None:
    path = write_header(tmp_path / "a.safetensors", 99_000_000, b"[],")
    tracemalloc.start()
    try:
        with pytest.raises(ModelFolderError, match="header is larger than 8,000,000 bytes"):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("unit", [b"[],", b"{},", b'"ab",', b"1.5,", b'{"a":[]},'])
def test_the_worst_header_within_the_limit_takes_little_memory(tmp_path: Path, unit: bytes) -> None:
    content = b"[" + unit * (80_000 // len(unit)) + b"0]"
    path = tmp_path / "a.safetensors"
    path.write_bytes(weights.safetensors(content))
    tracemalloc.start()
    try:
        with pytest.raises(ModelFolderError, match="header is broken"):
            read_header(path)
        a_byte = tracemalloc.get_traced_memory()[1] / len(content)
    finally:
        tracemalloc.stop()
    assert a_byte * MAX_JSON_BYTES < 400e6


def test_a_large_vocabulary_is_not_parsed(tmp_path: Path) -> None:
    folder = weights.write_model(tmp_path / "weights")
    write_header(folder / "tokenizer" / "tokenizer.json", MAX_JSON_BYTES)
    check_folder(folder, PIPELINE_CLASSES["WanPipeline"])
    write_header(folder / "tokenizer" / "other.json", MAX_JSON_BYTES)
    with pytest.raises(ModelFolderError, match="larger than 8,000,000 bytes"):
        check_folder(folder, PIPELINE_CLASSES["WanPipeline"])


# content

ENTRY = '{"dtype": "F32", "shape": %s, "data_offsets": [0, %s]}'
HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "a deep list": b"[" * 100_000 + b"]" * 100_000,
    "a deep object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a list not too deep to be parsed": b'{"_class_name": ' + b"[" * 900 + b"]" * 900 + b"}",
    "a number of many digits": b'{"_class_name": ' + b"1" * 100_000 + b"}",
    "a number of some digits": b'{"_class_name": ' + b"1" * 4000 + b"}",
    "not a number": b'{"_class_name": NaN, "a": Infinity, "b": 1e999}',
    "bytes that are not text": b"\xff\xfe{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "NUL": b"\0" * 100,
    "a list": b"[]",
    "a class that is a list": json.dumps(weights.INDEX | {"vae": ["diffusers", []]}).encode(),
    "a component that is an object": json.dumps(weights.INDEX | {"vae": {}}).encode(),
    "shards that are objects": b'{"weight_map": {"a": {}, "b": [1], "c": null}}',
    "a shard with a NUL": b'{"weight_map": {"a": "\\u0000.safetensors"}}',
    "a shard with half a surrogate": b'{"weight_map": {"a": "\\ud800.safetensors"}}',
    **{
        f"a tensor of the size {size}": ('{"a": ' + ENTRY % (f"[{size}]", "8") + "}").encode()
        for size in ("1e999", "NaN", "-1", "null", "true", "1.5", "[]", '"2"', "9" * 4000)
    },
    **{
        f"an end at {end}": ('{"a": ' + ENTRY % ("[2]", end) + "}").encode()
        for end in ("1e999", "NaN", "-1", "null", "true", "8.0", "[]", '"8"', "9" * 4299)
    },
    "a tensor of many dimensions": (
        '{"a": ' + ENTRY % (f"[{','.join(['9' * 18] * 20_000)}]", 8) + "}"
    ).encode(),
    "a tensor larger than its shape": ('{"a": ' + ENTRY % ("[1]", 8) + "}").encode(),
    "a tensor twice": (
        '{"a": ' + ENTRY % ("[2]", 8) + ', "a": ' + ENTRY % ("[9]", 8) + "}"
    ).encode(),
    "metadata that is a list": b'{"__metadata__": []}',
}


def refused() -> contextlib.AbstractContextManager[object]:
    return pytest.raises(PipelineError)


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_content_is_one_named_error(tmp_path: Path, content: bytes) -> None:
    folder = weights.write_model(tmp_path / "weights")
    (tmp_path / "a.safetensors").write_bytes(weights.safetensors(content))
    with pytest.raises(ModelFolderError):
        read_header(tmp_path / "a.safetensors")
    for name in ("model_index.json", "vae/config.json", "vae/m.safetensors.index.json"):
        before = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).write_bytes(content)
        allowed = contextlib.suppress(PipelineError) if name == "vae/config.json" else refused()
        with allowed:
            inspect(model_yaml(tmp_path))
        if before is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(before)


def test_a_file_whose_name_is_not_text_is_read(tmp_path: Path) -> None:
    folder = weights.write_model(tmp_path / "weights")
    (folder / "vae" / "\udcff.json").write_text("{}")
    inspect(model_yaml(tmp_path))


def test_lora_settings_that_are_nested_are_refused(tmp_path: Path) -> None:
    weights.write_model(tmp_path / "weights")
    folder = weights.write_lora(tmp_path / "lora")
    for depth in (900, 100_000):
        settings = f'{{"modules_to_save": {"[" * depth}{"]" * depth}}}'
        header = weights.header_of("transformer.a.lora_A.weight", lora_adapter_metadata=settings)
        (folder / "lora.safetensors").write_bytes(weights.safetensors(header))
        with pytest.raises(ModelFolderError):
            inspect(model_yaml(tmp_path, "loras: [{name: style, source: ./lora}]\n"))


DEEP = {
    "lists": "a: " + "[" * 90_000,
    "mappings": "{a: " * 20_000,
    "a sequence": "- " * 45_000 + "1",
    "keys": "? " * 45_000,
    "indented mappings": "".join(f"{' ' * depth}a:\n" for depth in range(400)),
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_a_deep_yaml_does_not_end_the_process(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ModelConfigError, match="nested more than 16 deep"):
        load_model_config(path)
    with pytest.raises(ConfigError, match="nested more than 16 deep"):
        load_config(path)
    with pytest.raises(ConfigError, match="nested more than 16 deep"):
        load_config(None, [f"workers.count={text}"])


def test_a_yaml_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("#" * 100_001)
    for read, kind in ((load_model_config, ModelConfigError), (load_config, ConfigError)):
        with pytest.raises(kind, match="larger than 100,000 bytes"):
            read(path)


def test_a_json_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    path = write_header(tmp_path / "a.json", MAX_JSON_BYTES)
    with pytest.raises(ModelFolderError, match="larger than 8,000,000 bytes"):
        read_json(path)


def test_no_module_that_reads_strangers_files_opens_one_in_another_way() -> None:
    """A new reader of manifests, settings or weights would wait for a pipe."""
    opening = re.compile(r"(^|\.)(open|read_text|read_bytes)$")
    found = {
        path
        for package in ("pipelines", "jobs")
        for path, tree in modules(package)
        if path.startswith(("pipelines/catalog/", "jobs/manifest/", "jobs/settings"))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and opening.search(ast.unparse(node.func))
    }
    assert found == OWN_FILES | READ_BYTES


# Our own docs, digests in a private folder, opened by descriptor, and a lock that is not read.
OWN_FILES = {
    "jobs/manifest/reference.py",
    "pipelines/catalog/fetching.py",
    "pipelines/catalog/files/file_digests.py",
}
# These call `lines.read_bytes`, which opens a regular file.
READ_BYTES = {"jobs/manifest/values_file.py", "jobs/manifest/yaml_manifest.py"}
