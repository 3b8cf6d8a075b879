"""The architecture, enforced: which package may import which, and what loads without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("nag", "pipelines", "jobs")
MAY_IMPORT = {"nag": set[str](), "pipelines": {"nag"}, "jobs": {"pipelines", "nag"}}
# of nag, jobs/ may see what holds no tensor: the parameters and the errors
NAG_FOR_JOBS = {"nag.errors", "nag.params"}
ONLY_IN = {
    "ray": {"jobs/actors.py", "jobs/rank_actors.py", "jobs/placing.py", "jobs/dispatch.py", "jobs/cluster.py"},
    "boto3": {"jobs/store.py"},
    "imageio_ffmpeg": {"jobs/encode.py"},
    "decord": {"jobs/check.py", "jobs/doctor.py"},
    "torch": {"jobs/doctor.py"},  # in jobs/
    "matplotlib": {"jobs/bench/plots.py"},
}
LIGHT_MODULES = (
    "nag.params", "nag.errors", "pipelines.types", "pipelines.config", "pipelines.errors", "pipelines.loading",
    "pipelines.loras", "pipelines.weight_files", "pipelines.picture_limits", "pipelines.parallel.config",
    "pipelines.parallel.geometry", "pipelines.parallel.fitness", "pipelines.parallel.backends",
    "pipelines.parallel.cost", "pipelines.parallel.prediction", "pipelines.parallel.advice",
    "pipelines.parallel.published",
    "jobs.errors", "jobs.types", "jobs.config", "jobs.clip_id", "jobs.catalog", "jobs.manifest", "jobs.plan",
    "jobs.retry", "jobs.events", "jobs.deadlines", "jobs.outage", "jobs.blame", "jobs.pool",
    "jobs.recruiting", "jobs.schedule", "jobs.group_places", "jobs.worker_setup",
    "jobs.failure_classes", "jobs.pulse", "jobs.in_flight", "jobs.timing", "jobs.records", "jobs.redaction",
    "jobs.spool", "jobs.store", "jobs.s3_credentials", "jobs.failure_ledger", "jobs.lease", "jobs.lease_record",
    "jobs.run_status", "jobs.progress", "jobs.status", "jobs.garbage", "jobs.store_commands", "jobs.arguments",
    "jobs.cli", "jobs.plan_advice", "jobs.parallel_fields", "jobs.record_versions",
)  # fmt: skip


def modules(package: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            yield node.module


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    for path, tree in modules(package):
        own = {name.split(".")[0] for name in imports(tree)} & {*PACKAGES, "infra", "tests"} - {package}
        assert own <= MAY_IMPORT[package], path


def test_jobs_sees_of_nag_only_what_holds_no_tensor() -> None:
    for path, tree in modules("jobs"):
        assert {name for name in imports(tree) if name.split(".")[0] == "nag"} <= NAG_FOR_JOBS, path


def test_pipelines_knows_neither_ray_nor_s3() -> None:
    for path, tree in modules("pipelines"):
        assert not {name.split(".")[0] for name in imports(tree)} & {"ray", "boto3", "botocore"}, path


@pytest.mark.parametrize("library", list(ONLY_IN))
def test_a_library_is_imported_where_it_belongs_and_nowhere_else(library: str) -> None:
    found = {path for path, tree in modules("jobs") if library in {name.split(".")[0] for name in imports(tree)}}
    assert found <= ONLY_IN[library]


def test_what_has_to_answer_at_once_loads_without_torch_and_ray() -> None:
    program = (
        f"import sys, {', '.join(LIGHT_MODULES)}\n"
        "sys.exit(' '.join(name for name in ('torch', 'ray', 'diffusers', 'transformers') if name in sys.modules) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_no_exception_takes_more_than_a_message() -> None:
    """Anything else does not survive Ray's pickling."""
    for package in PACKAGES:
        for path, tree in modules(package):
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                    names = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
                    assert "__init__" not in names, f"{path}: {node.name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_is_called_utils(package: str) -> None:
    names = {Path(path).stem for path, _ in modules(package)}
    assert not names & {"utils", "helpers", "common", "manager", "misc"}


def test_nothing_is_loaded_by_pickle_or_runs_a_models_own_code() -> None:
    for package in PACKAGES:
        for path, tree in modules(package):
            assert not {"pickle", "cloudpickle", "dill"} & {name.split(".")[0] for name in imports(tree)}, path
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    for keyword in node.keywords:
                        is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                        assert not (keyword.arg in {"trust_remote_code", "shell"} and is_true), path
                    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
                    root = (
                        node.func.value.id
                        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
                        else ""
                    )
                    assert (root, name) not in {("torch", "load"), ("os", "system")}, path
