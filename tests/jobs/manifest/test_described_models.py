"""Planning without weights: from a description, with the ids that the weights would give."""

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.checks.weights import check_own_weights
from jobs.cli import doctor
from jobs.cli.main import main
from jobs.cli.pattern import model_options
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED
from jobs.description.files import pack, read_contents, save_description, save_fetched
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from pipelines.catalog.description import describe
from pipelines.catalog.files.sources import PACKAGED_CONFIGS, PACKAGED_WEIGHTS
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.errors import ModelFolderError, ModelNotFoundError

NAMES = ("shapes-wan", "shapes-ltx", "shapes-wan-4step")
ROWS = """\
prompt,negative_prompt,seed,num_inference_steps
a circle moving right,,0,
a “curly” caf\u00e9 &amp; a square,red,1,4
a \u7dd1 circle,blue,2,
"""


def absent(config: ModelConfig, config_path: Path) -> ModelWeights:
    """Stand for `inspect_model` on a machine without any weights."""
    raise ModelNotFoundError(f"{config.name}: no weights")


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the descriptions of the packaged models."""
    place = tmp_path_factory.mktemp("described")
    assert main(["models", "--describe", *NAMES, "--to", str(place)]) == EXIT_OK
    return place


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of models with `mine`, whose weights are in a folder."""
    folder = tmp_path / "models"
    folder.mkdir()
    text = (PACKAGED_CONFIGS / "models" / "shapes-wan.yaml").read_text()
    (folder / "mine.yaml").write_text(text.replace("package:shapes-wan", "./weights"))
    shutil.copytree(PACKAGED_WEIGHTS / "shapes-wan", folder / "weights")
    return folder


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_options, "inspect_with_bar", absent)
    monkeypatch.setattr(doctor, "inspect_with_bar", absent)


def clips(catalog: ModelCatalog, manifest: Path, model: str) -> list[tuple[object, ...]]:
    specs = list(open_manifest(manifest, catalog, model=model).specs())
    assert len(specs) == 3
    geometry = catalog.get(model).geometry
    return [(spec.clip_id, spec.tokens, spec.model, geometry) for spec in specs]


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_without_weights_has_the_ids_of_a_plan_with_them(
    described: Path, write: Callable[[str, str], Path], name: str
) -> None:
    manifest = write("rows.csv", ROWS)
    without = ModelCatalog(described, absent)
    assert clips(without, manifest, name) == clips(ModelCatalog(), manifest, name)
    assert without.get(name).weights.folder == described / f"{name}.described"


def test_a_model_of_a_folder_keeps_its_ids_when_the_folder_is_gone(
    own: Path, write: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is faked here: the weights are removed."""
    manifest = write("rows.csv", ROWS)
    before = clips(ModelCatalog(own), manifest, "mine")
    assert main(["models", "--models", str(own), "--describe", "mine"]) == EXIT_OK
    assert "revision sha256:" in capsys.readouterr().out
    shutil.rmtree(own / "weights")
    assert clips(ModelCatalog(own), manifest, "mine") == before
    (own / "mine.described").rename(own / "elsewhere.described")
    with pytest.raises(ModelNotFoundError, match="can do without: --remote, or nagfarm models"):
        ModelCatalog(own).get("mine")


def test_weights_on_this_machine_win_over_their_description(described: Path) -> None:
    assert ModelCatalog(described).get("shapes-wan").weights.described is None


def test_a_description_of_the_user_wins_over_one_that_was_fetched(
    described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    entry, path = ModelCatalog().get("shapes-wan"), ModelCatalog().config_file("shapes-wan")[1]
    description = describe(entry.config, path, entry.weights)
    packed = pack(description, read_contents(entry.weights.folder, description))
    with pytest.raises(ModelNotFoundError):
        ModelCatalog(None, absent).get("shapes-wan")
    fetched = save_fetched(packed, "shapes-wan")
    assert ModelCatalog(None, absent).get("shapes-wan").weights.folder == fetched
    assert ModelCatalog(described, absent).get("shapes-wan").weights.folder.parent == described
    fetched.parent.chmod(0o777)  # others may have written there
    with pytest.raises(ModelNotFoundError):
        ModelCatalog(None, absent).get("shapes-wan")


def test_a_broken_description_of_the_user_is_named_and_not_passed_over(
    described: Path, tmp_path: Path
) -> None:
    shutil.copytree(described, tmp_path / "copy")
    (tmp_path / "copy" / "shapes-wan.described" / "description.json").write_text("{}")
    with pytest.raises(ModelFolderError, match="not a description; describe the model again"):
        ModelCatalog(tmp_path / "copy", absent).get("shapes-wan")


def test_a_catalog_that_asks_takes_the_answer(described: Path, tmp_path: Path) -> None:
    """A description on this machine may be outdated."""
    shutil.copytree(described, tmp_path / "answer")
    asked: list[str] = []

    def ask(config: ModelConfig, _path: Path) -> Path:
        asked.append(config.name)
        return tmp_path / "answer" / f"{config.name}.described"

    catalog = ModelCatalog(described, absent, ask)
    assert catalog.get("shapes-wan").weights.folder.parent == tmp_path / "answer"
    assert catalog.get("shapes-wan").weights.described is not None
    assert ModelCatalog(described, ask=ask).get("shapes-ltx").weights.described is None
    assert asked == ["shapes-wan"]


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_the_commands_say_that_only_a_description_is_here(
    described: Path,
    write: Callable[[str, str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    manifest = write("spring.csv", ROWS)
    plan = ["plan", str(manifest), "--model=shapes-wan", f"--output={tmp_path}/out"]
    plan += [f"--models={described}"]
    assert main([*plan, "--rows", str(tmp_path / "with.csv")]) == EXIT_OK
    assert "without its weights" not in capsys.readouterr().out
    request.getfixturevalue("no_weights")
    assert main([*plan, "--rows", str(tmp_path / "without.csv")]) == EXIT_OK
    folder = described / "shapes-wan.described"
    line = f"  shapes-wan: planned without its weights, from {folder}\n"
    assert line in capsys.readouterr().out
    assert rows_of(tmp_path / "without.csv") == rows_of(tmp_path / "with.csv")

    assert main(["models", f"--models={described}"]) == EXIT_OK
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["shapes-wan", "described"] for line in lines)
    assert any(line.split()[:2] == ["wan2.1-t2v-14b", "missing"] for line in lines)


@pytest.mark.slow  # it imports torch
def test_doctor_says_that_only_a_description_is_here(described: Path) -> None:
    found = check_own_weights(ModelCatalog(described, absent))
    assert [check.is_ok for check in found] == [None] * len(found)
    folder = described / "shapes-wan.described"
    assert f"shapes-wan: only its description is here, in {folder}" in {
        check.message for check in found
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--describe", "shapes-wan"], "--describe needs a folder: --to FOLDER"),
        (["--describe", "shape-wan", "--to", "x"], "did you mean 'shapes-wan'?"),
        (["--remote"], "--remote fetches the models that --describe names"),
        (["--describe", "wan2.1-t2v-14b", "--to", "x"], "fetch it with: hf download"),
    ],
)
def test_models_refuses_what_it_cannot_describe(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert main(["models", *arguments]) == EXIT_REFUSED
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_copy_of_a_description_is_not_described_again(
    described: Path, no_weights: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be the outdated one that a message asks to make again."""
    arguments = ["models", f"--models={described}", "--describe", "shapes-wan"]
    assert main(arguments) == EXIT_REFUSED
    assert "its weights are not on this machine, only a description" in capsys.readouterr().err


def test_a_described_model_is_saved_as_a_whole(described: Path, tmp_path: Path) -> None:
    entry, path = ModelCatalog().get("shapes-ltx"), ModelCatalog().config_file("shapes-ltx")[1]
    description = describe(entry.config, path, entry.weights)
    contents = read_contents(entry.weights.folder, description)
    folder = save_description(description, contents, tmp_path)
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.json"))
    assert names == [
        "description.json", "model_index.json", "scheduler/scheduler_config.json",
        "text_encoder/config.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
        "transformer/config.json", "vae/config.json",
    ]  # fmt: skip


PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "planning.md").read_text()
COMMANDS = [
    line.partition("nagfarm ")[2].split()
    for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if "nagfarm " in line
]


def test_the_page_describes_and_plans(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    describe_command, plan_command = COMMANDS[:2]
    assert (describe_command[0], plan_command[0]) == ("models", "plan")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spring.yaml").write_text(
        "model: shapes-wan\noutput: ./out\nclips: [{prompt: a red circle}]\n"
    )
    assert main(describe_command) == EXIT_OK
    request.getfixturevalue("no_weights")
    assert main(plan_command) == EXIT_OK
    assert "planned without its weights, from described/shapes-wan" in capsys.readouterr().out
