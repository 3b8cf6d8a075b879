"""`--remote`: a real cluster describes a model whose weights are not on the driver's machine.

The driver's own look for weights is the one thing that is replaced; the nodes find them.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local.ray_cluster import LocalRay, ray_command
from jobs.cli.main import main
from jobs.cli.pattern import model_options
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED
from jobs.cluster.joined_cluster import ClusterView
from jobs.description import remote as module
from jobs.description.remote import MAX_ASKED, asked_nodes, fetch_description
from jobs.ending import ExitCode
from jobs.errors import NoClusterError
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.records.commit import committed_ids
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from pipelines.catalog.files.sources import PACKAGED_CONFIGS, PACKAGED_WEIGHTS
from pipelines.catalog.model_folder import inspect_model
from pipelines.errors import ModelNotFoundError
from tests.jobs.manifest.test_described_models import absent

REPOSITORY = Path(__file__).parents[3]
DEADLINE_S = 280.0
DRIVER = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from jobs.cli.pattern import model_options
from jobs.cli.main import main
from tests.jobs.manifest.test_described_models import absent
model_options.inspect_with_bar = absent
sys.exit(main())
"""
ROWS = "prompt,num_inference_steps\na circle moving right,2\na square moving up,2\n"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model `mine`, whose weights the driver of this process does not see."""
    folder = tmp_path / "models"
    folder.mkdir()
    text = (PACKAGED_CONFIGS / "models" / "shapes-wan.yaml").read_text()
    shutil.copytree(PACKAGED_WEIGHTS / "shapes-wan", folder / "weights")
    (folder / "mine.yaml").write_text(text.replace("package:shapes-wan", str(folder / "weights")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def ids(models: Path, write: Callable[[str, str], Path]) -> set[str]:
    """The ids that the weights give to the clips of `rows.csv`."""
    manifest = write("rows.csv", ROWS)
    specs = open_manifest(manifest, ModelCatalog(models), model="mine").specs()
    return {spec.clip_id for spec in specs}


@pytest.fixture
def no_weights(ids: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_options, "inspect_with_bar", absent)


def arguments(command: str, models: Path) -> list[str]:
    folder = models.parent
    return [
        *(command, str(folder / "rows.csv"), "--model=mine", f"--models={models}"),
        *(f"--output={folder}/out", "--remote"),
    ]


def planned_ids(folder: Path) -> set[str]:
    lines = (folder / "rows.txt").read_text().splitlines()[1:]
    return {line.split(",")[2] for line in lines}


@pytest.mark.cluster
def test_a_node_describes_a_model_and_later_plans_need_no_cluster(
    ray_cluster: LocalRay,
    models: Path,
    ids: set[str],
    no_weights: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
    rows = f"--rows={models.parent}/rows.txt"
    assert main([*arguments("plan", models), rows]) == EXIT_OK
    assert planned_ids(models.parent) == ids
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    (models.parent / "rows.txt").unlink()
    assert main([*arguments("plan", models)[:-1], rows]) == EXIT_OK
    assert planned_ids(models.parent) == ids


@pytest.mark.cluster
def test_a_model_that_no_node_has_is_named_with_the_remedy(
    ray_cluster: LocalRay,
    models: Path,
    no_weights: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
    shutil.rmtree(models / "weights")
    assert main(arguments("plan", models)) == EXIT_REFUSED
    said = capsys.readouterr().err
    assert "mine: 1 node of the cluster asked, and none has its weights: " in said
    assert "weights does not exist; start a node that has them, or describe the model" in said


@pytest.mark.slow
@pytest.mark.cluster
def test_a_job_describes_a_model_for_a_machine_outside_the_cluster(
    ray_cluster: LocalRay,
    models: Path,
    ids: set[str],
    no_weights: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.dashboard_url)
    rows = f"--rows={models.parent}/rows.txt"
    assert main([*arguments("plan", models), rows]) == EXIT_OK
    assert planned_ids(models.parent) == ids


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.models
@pytest.mark.parametrize("way", ["--remote", "a description"])
def test_the_driver_of_a_job_renders_with_the_ids_of_the_weights(
    ray_cluster: LocalRay, models: Path, ids: set[str], tmp_path: Path, way: str
) -> None:
    """It runs on the head, which has no weights."""
    folder = tmp_path / "job"
    folder.mkdir()
    shutil.copy(tmp_path / "rows.csv", folder)
    shutil.copytree(models, folder / "models", ignore=shutil.ignore_patterns("weights"))
    (folder / "driver.py").write_text(DRIVER)
    if way == "a description":
        saved = ["--to", str(folder / "models")]
        assert main(["models", f"--models={models}", "--describe", "mine", *saved]) == EXIT_OK
    command = [
        *(ray_command(), "job", "submit", "--working-dir=.", "--", sys.executable, "driver.py"),
        *("render", "rows.csv", "--model=mine", "--models=models", "workers.count=1"),
        *(f"--output={tmp_path}/out", *([way] if way == "--remote" else [])),
    ]
    finished = subprocess.run(
        command,
        cwd=folder,
        env=ray_cluster.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "mine: planned without its weights, from " in finished.stdout
    assert committed_ids(open_store(f"{tmp_path}/out", StoreConfig())) == ids


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.models
def test_a_worker_refuses_a_plan_from_the_description_of_other_weights(
    ray_cluster: LocalRay,
    models: Path,
    no_weights: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
    assert main(arguments("plan", models)) == EXIT_OK
    config = models / "weights" / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + "\n")
    assert main([*arguments("render", models)[:-1], "workers.count=1"]) == ExitCode.STOPPED
    said = capsys.readouterr()
    assert "describe the model again where its weights are" in said.out + said.err
    assert committed_ids(open_store(f"{models.parent}/out", StoreConfig())) == set()
    # the remedy of the message
    assert main([*arguments("render", models), "workers.count=1"]) == EXIT_OK


def test_nodes_with_most_gpus_are_asked_first_and_draining_ones_never() -> None:
    nodes = {"head": {"CPU": 8.0}, "small": {"GPU": 1.0}, "large": {"GPU": 8.0}, "gone": {}}
    assert asked_nodes(ClusterView(nodes, frozenset({"gone"}))) == ["large", "small", "head"]
    many = {f"{number}": {"GPU": 1.0} for number in range(100)}
    assert len(asked_nodes(ClusterView(many))) == MAX_ASKED


def test_without_a_cluster_remote_says_what_to_set(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is started for it."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(models.parent))
    config, path = ModelCatalog(models).config("mine"), models / "mine.yaml"
    with pytest.raises(NoClusterError, match="set RAY_ADDRESS to http://HEAD:8265"):
        fetch_description(config, path)


def test_a_node_that_is_silent_is_passed_over(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, path = ModelCatalog(models).config("mine"), models / "mine.yaml"
    asked: list[str] = []

    def ask(node: str, _wait_s: float, question: Callable[..., bytes], *args: object) -> bytes:
        asked.append(node)
        if node == "small":
            return question(*args)
        raise module.NodeSilentError("it is gone")

    monkeypatch.setattr(module, "ask_node", ask)
    view = ClusterView({"head": {}, "small": {"GPU": 1.0}, "large": {"GPU": 8.0}})
    assert module._of_nodes(view, config, path)
    assert asked == ["large", "small"]
    with pytest.raises(ModelNotFoundError, match="1 node of the cluster asked.*: it is gone; st"):
        module._of_nodes(ClusterView({"head": {}}), config, path)


def test_weights_are_looked_for_on_the_node_and_not_sent(models: Path) -> None:
    config, path = ModelCatalog(models).config("mine"), models / "mine.yaml"
    packed = module.packed_description(config, path)
    whole = inspect_model(config, path)
    size = sum(file.stat().st_size for file in whole.folder.glob("*/*.safetensors"))
    assert len(packed) < size / 100
