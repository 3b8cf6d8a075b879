"""The reach of a manifest, of weights and of a stranger: the claims of explanation/security.md."""

import ast
import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import ConfigError, ManifestError
from jobs.manifest import values_file
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.settings.run_config import load_config
from jobs.store.folder_root import MARK_FILE
from jobs.types import ClipDone
from jobs.worker.clip_worker import ClipWorker
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.errors import ModelConfigError
from pipelines.families.registry import load_model
from tests.builders import tiny
from tests.builders.specs import setup_for
from tests.fakes.catalog import FakeCatalog

ROOT = Path(__file__).parents[2]
SECRET = "this is private"
HEAD = "name: spring\nmodel: tiny\n"
OWN_CODE = "import pathlib\npathlib.Path({marker!r}).touch()\n"

Write = Callable[[str, str | bytes], Path]


def refusal(path: Path, catalog: FakeCatalog) -> str:
    with pytest.raises(ManifestError) as caught:
        list(open_manifest(path, catalog).specs())
    return str(caught.value)


def naming(file: str) -> str:
    return f"{HEAD}axes:\n  prompt: {{file: {json.dumps(file)}}}\n"


# files that a manifest can read


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make a typical folder for a manifest, with secrets in it and around it."""
    home = tmp_path / "home"
    for path in (
        "home/.env",
        "home/.aws/credentials",
        "home/sub/.netrc",
        "elsewhere/secret.txt",
        "secret.txt",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).write_text(SECRET)
    (home / "up").symlink_to(tmp_path)
    (home / "link.txt").symlink_to(tmp_path / "secret.txt")
    (home / "visible.txt").symlink_to(home / ".env")
    (home / "cloud").symlink_to(home / ".aws")
    return home


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("{outside}/secret.txt", "must be a path below the manifest's folder"),
        ("../secret.txt", "must be a path below the manifest's folder"),
        ("sub/../../secret.txt", "must be a path below the manifest's folder"),
        ("/proc/self/environ", "must be a path below the manifest's folder"),
        ("up/secret.txt", "is a link that leaves the manifest's folder"),
        ("up/elsewhere/secret.txt", "is a link that leaves the manifest's folder"),
        ("link.txt", "is a link that leaves the manifest's folder"),
        (".env", "is hidden"),
        ("./.env", "is hidden"),
        ("sub/.netrc", "is hidden"),
        (".aws/credentials", "is hidden"),
        ("visible.txt", "is hidden"),
        ("cloud/credentials", "is hidden"),
        ("~/.env", "is hidden"),
        ("file:///proc/self/environ", "the file does not exist"),
        ("http://127.0.0.1/secret.txt", "the file does not exist"),
        ("$HOME/secret.txt", "the file does not exist"),
        ("${{oc.env:HOME}}/secret.txt", "the file does not exist"),
        ("s3:/renders/secret.txt", "the file does not exist"),
    ],
)
def test_a_manifest_reads_no_file_outside_its_folder_and_no_hidden_one_in_it(
    home: Path, catalog: FakeCatalog, file: str, message: str
) -> None:
    path = home / "manifest.yaml"
    path.write_text(naming(file.format(outside=home.parent)))
    told = refusal(path, catalog)
    assert message in told
    assert SECRET not in told


@pytest.mark.parametrize("file", ["prompts.txt", "./prompts.txt", "sub/a.b/c..txt", "inside.txt"])
def test_a_manifest_reads_files_of_its_folder(home: Path, catalog: FakeCatalog, file: str) -> None:
    for path in ("prompts.txt", "sub/a.b/c..txt"):
        (home / path).parent.mkdir(exist_ok=True, parents=True)
        (home / path).write_text("a circle\n")
    (home / "inside.txt").symlink_to(home / "prompts.txt")
    path = home / "manifest.yaml"
    path.write_text(naming(file))
    assert [spec.request.prompt for spec in open_manifest(path, catalog).specs()] == ["a circle"]


def test_a_hidden_folder_may_hold_a_manifest_and_its_files(
    tmp_path: Path, catalog: FakeCatalog
) -> None:
    folder = tmp_path / ".cache" / "spring"
    folder.mkdir(parents=True)
    (folder / "prompts.txt").write_text("a circle\n")
    (folder / "manifest.yaml").write_text(naming("prompts.txt"))
    assert len(list(open_manifest(folder / "manifest.yaml", catalog).specs())) == 1


def test_a_pipe_among_the_files_is_refused_and_not_waited_for(
    home: Path, catalog: FakeCatalog
) -> None:
    os.mkfifo(home / "pipe")
    path = home / "manifest.yaml"
    path.write_text(naming("pipe"))
    assert "expected a regular file" in refusal(path, catalog)


def test_a_file_of_values_has_a_limit(
    write: Write, catalog: FakeCatalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(values_file, "MAX_VALUES_FILE_BYTES", 100)
    write("prompts.txt", b"a\n" * 51)
    assert "is larger than 100 bytes; split it" in refusal(
        write("manifest.yaml", naming("prompts.txt")), catalog
    )


@pytest.mark.parametrize(
    "text", ["${oc.env:PLANTED}", "$PLANTED", "${PLANTED}", "{PLANTED}", "%(PLANTED)s", "`id`"]
)
@pytest.mark.parametrize("suffix", ["yaml", "jsonl", "csv"])
def test_nothing_in_a_manifest_is_expanded(
    write: Write, catalog: FakeCatalog, monkeypatch: pytest.MonkeyPatch, text: str, suffix: str
) -> None:
    monkeypatch.setenv("PLANTED", SECRET)
    content = {
        "yaml": f"{HEAD}clips: [{{prompt: {json.dumps(text)}}}]\n",
        "jsonl": json.dumps({"prompt": text}),
        "csv": f'prompt\n"{text}"\n',
    }
    (spec,) = open_manifest(
        write(f"spring.{suffix}", content[suffix]), catalog, model="tiny"
    ).specs()
    assert spec.request.prompt == text


@pytest.mark.parametrize(
    "name", ["../shapes-wan", "/etc/passwd", "shapes-wan/../shapes-wan", "./shapes-wan", ".", ""]
)
def test_a_manifest_names_models_by_the_catalog_and_not_by_path(write: Write, name: str) -> None:
    path = write("spring.jsonl", json.dumps({"prompt": "a circle", "model": name}))
    with pytest.raises(ManifestError, match="unknown model"):
        list(open_manifest(path, ModelCatalog()).specs())


# code in a manifest, a profile or a model's YAML


TAGS = [
    "!!python/object/apply:os.system ['touch {marker}']",
    "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{marker}']]",
    "!!python/object/new:subprocess.Popen [['touch', '{marker}']]",
    "!!python/name:os.system ''",
    "!!python/module:antigravity ''",
]


@pytest.mark.parametrize("tag", TAGS)
def test_a_yaml_tag_runs_nothing(tmp_path: Path, catalog: FakeCatalog, tag: str) -> None:
    marker = tmp_path / "marker"
    tagged = tag.format(marker=marker)
    path = tmp_path / "spring.yaml"
    path.write_text(f"{HEAD}clips:\n  - prompt: {tagged}\n")
    assert "tags are refused" in refusal(path, catalog)
    path.write_text(f"family: {tagged}\n")
    with pytest.raises(ModelConfigError):
        load_model_config(path)
    path.write_text(f"store:\n  region: {tagged}\n")
    with pytest.raises(ConfigError):
        load_config(path)
    with pytest.raises(ConfigError):
        load_config(None, [f"store.region={tagged}"])
    assert not marker.exists()


@pytest.mark.parametrize("num_levels", [4, 6, 9])
def test_aliases_do_not_blow_up_a_profile_or_a_models_yaml(tmp_path: Path, num_levels: int) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, num_levels)]
    path = tmp_path / "laughs.yaml"
    path.write_text("\n".join(lines))
    started = time.process_time()
    with pytest.raises(ModelConfigError, match="alias"):
        load_model_config(path)
    with pytest.raises(ConfigError, match="alias"):
        load_config(path)
    assert time.process_time() - started < 20


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Return every call in a file by its dotted name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_programs_are_started_with_lists_and_no_text_is_run_as_code() -> None:
    started: set[str] = set()
    for package in ("nag", "pipelines", "jobs", "infra"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for name, call in calls(path):
                place = f"{path}:{call.lineno}"
                assert name not in {
                    "eval",
                    "exec",
                    "os.system",
                    "os.popen",
                    "subprocess.getoutput",
                }, place
                assert name not in {
                    "yaml.load",
                    "yaml.unsafe_load",
                    "yaml.full_load",
                    "torch.load",
                }, place
                if name in {
                    "subprocess.run",
                    "subprocess.Popen",
                    "subprocess.check_output",
                    "subprocess.check_call",
                }:
                    started.add(path.name)
                    assert not isinstance(call.args[0], ast.JoinedStr | ast.Constant | ast.BinOp), (
                        place
                    )
                    assert "shell" not in {keyword.arg for keyword in call.keywords}, place
    assert {"ffmpeg.py", "local_process.py"} <= started


# files that a manifest can write


HOSTILE_PROMPTS = [
    "../../escape",
    "-i /etc/passwd",
    "file:/etc/passwd",
    ";FFMETADATA1\n[CHAPTER]\nSTART=0",
    "$(id) `id`",
]
KEYS = re.compile(
    r"clips/[0-9a-f]{32}/[0-9a-f]{16}\.mp4|posters/[0-9a-f]{32}/[0-9a-f]{16}(-thumbnail)?\.jpg|"
    r"records/[0-9a-f]{32}\.json|runs/run-1/run\.json",
    re.ASCII,
)


def test_a_rendered_manifest_writes_below_its_output_alone_and_under_names_of_our_own(
    tmp_path: Path, catalog: FakeCatalog
) -> None:
    output, manifest = tmp_path / "out", tmp_path / "spring.jsonl"
    theirs = output / "theirs.txt"
    output.mkdir()
    theirs.write_text("as it was")
    manifest.write_text(
        "\n".join(json.dumps({"prompt": text, "num_frames": 5}) for text in HOSTILE_PROMPTS)
    )
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    worker = ClipWorker(setup_for(output), "node-1")
    worker.load()
    for spec in open_manifest(manifest, catalog, model="tiny").specs():
        small = replace(spec.request, shape=replace(spec.request.shape, height=32, width=32))
        assert isinstance(worker.render(replace(spec, request=small), 1), ClipDone)
    worker.close()
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    written.remove(output / MARK_FILE)
    assert len(written) == 1 + 4 * len(HOSTILE_PROMPTS)
    for path in written:
        assert KEYS.fullmatch(path.relative_to(output).as_posix())
    assert theirs.read_text() == "as it was"


# code in a folder of weights


CONFIG = ModelConfig(
    name="mine", family="wan", source="./weights", grid=ShapeGrid(4, 16, 16),
    sampling=SamplingDefaults(2, 1.0, 5, 32, 32, 8.0), dtype="float32", device="cpu",
    max_sequence_length=16,
)  # fmt: skip


@pytest.mark.parametrize(
    ("places", "is_loaded"),
    [
        (["pipeline.py", "WanPipeline.py", "wan.py"], True),
        (
            [
                "transformer/modeling.py",
                "vae/vae.py",
                "text_encoder/modeling_umt5.py",
                "tokenizer/t5.py",
            ],
            True,
        ),
        (["extra/own_module.py", "own_module.py", "extra/__init__.py"], True),
        (
            ["__init__.py", "conftest.py", "sitecustomize.py", "diffusers.py", "transformers.py"],
            True,
        ),
        (["transformer/diffusers.py"], False),  # diffusers itself asks for trust_remote_code here
        (["text_encoder/transformers.py"], False),
    ],
)
def test_code_in_a_folder_of_weights_is_never_run(
    tmp_path: Path, places: list[str], is_loaded: bool
) -> None:
    folder, marker = tmp_path / "weights", tmp_path / "marker"
    tiny.wan_pipeline().save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "extra": ["own_module", "Own"]}))
    for place in places:
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_text(OWN_CODE.format(marker=str(marker)))
    weights = inspect_model(CONFIG, tmp_path / "mine.yaml")
    with contextlib.nullcontext() if is_loaded else pytest.raises(ValueError, match="custom code"):
        load_model(CONFIG, weights, 1).close()
    assert not marker.exists()


# the document


def test_every_test_that_the_document_names_exists() -> None:
    named = re.findall(
        r"`([\w/]+\.py): (test_\w+)`", (ROOT / "docs" / "explanation" / "security.md").read_text()
    )
    assert len(named) > 30
    for file, test in named:
        paths = [ROOT / file] if "/" in file else list((ROOT / "tests").rglob(file))
        assert any(f"def {test}(" in path.read_text() for path in paths), f"{file}: {test}"
