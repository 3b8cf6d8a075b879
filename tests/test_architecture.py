"""The rooms of the code: imports point down, and light folders load without torch and Ray."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.structure import (
    MAX_MODULES,
    PACKAGES,
    ROOT,
    imports,
    modules,
    modules_per_folder,
    upward_imports,
)

MAY_IMPORT = {"nag": set[str](), "pipelines": {"nag"}, "jobs": {"pipelines", "nag"}}
NAG_FOR_JOBS = {"nag.errors", "nag.params"}  # the modules of nag without tensors
# A library that crosses a border is imported in one folder of jobs/ only.
ONLY_IN = {
    "ray": ("jobs/cluster/",),
    "boto3": ("jobs/store/",),
    "botocore": ("jobs/store/",),
    "imageio_ffmpeg": ("jobs/media/",),
    "decord": ("jobs/media/",),
    "torch": ("jobs/checks/",),
    "pyarrow": ("jobs/tables/",),
    "matplotlib": ("jobs/bench/reporting/",),
}
# Every module of these folders loads without torch and Ray.
LIGHT = (
    "pipelines/catalog", "pipelines/catalog/keys", "pipelines/catalog/loras", "pipelines/cost",
    "pipelines/frame_checks",
    "jobs", "jobs/manifest/tables", "jobs/inputs", "jobs/prompt_sets", "jobs/manifest/walk",
    "jobs/manifest", "jobs/plan", "jobs/memory", "jobs/media", "jobs/store", "jobs/records",
    "jobs/export", "jobs/report", "jobs/notify", "jobs/schedule", "jobs/simulation", "jobs/metrics",
    "jobs/scoring", "jobs/worker", "jobs/checks", "jobs/settings", "jobs/costs", "jobs/upkeep",
    "jobs/overview", "jobs/tables", "jobs/schemas", "jobs/run/progress", "jobs/watch",
    "jobs/cli/pattern", "jobs/cli/outputs",
    "jobs/cli",
)  # fmt: skip


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_between_packages_point_one_way(package: str) -> None:
    for path, tree in modules(package):
        own = {name.split(".")[0] for name in imports(tree)} & {
            *PACKAGES,
            "infra",
            "tests",
            "benchmarks",
        } - {package}
        assert own <= MAY_IMPORT[package], path


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_between_folders_point_down(package: str) -> None:
    assert upward_imports(package) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_has_few_modules(package: str) -> None:
    crowded = {folder: n for folder, n in modules_per_folder(package).items() if n > MAX_MODULES}
    assert crowded == {}


def test_a_package_file_imports_nothing_unless_it_is_the_public_interface() -> None:
    for package in PACKAGES:
        for path, tree in modules(package):
            if path.endswith("__init__.py") and path != "nag/__init__.py":
                assert list(imports(tree)) == [], path


def test_jobs_sees_of_nag_only_the_modules_without_tensors() -> None:
    for path, tree in modules("jobs"):
        assert {name for name in imports(tree) if name.split(".")[0] == "nag"} <= NAG_FOR_JOBS, path


def test_pipelines_knows_neither_ray_nor_s3() -> None:
    for path, tree in modules("pipelines"):
        assert not {name.split(".")[0] for name in imports(tree)} & {"ray", "boto3", "botocore"}, (
            path
        )


@pytest.mark.parametrize("library", list(ONLY_IN))
def test_a_library_is_imported_in_its_folder_only(library: str) -> None:
    found = {
        path
        for path, tree in modules("jobs")
        if library in {name.split(".")[0] for name in imports(tree)}
    }
    assert [path for path in found if not path.startswith(ONLY_IN[library])] == []


def test_light_folders_load_without_torch_and_ray() -> None:
    names = [
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for folder in LIGHT
        for path in sorted((ROOT / folder).glob("*.py"))
        if path.name not in {"__init__.py", "__main__.py"}
    ]
    assert len(names) > 50
    program = (
        f"import sys, {', '.join(names)}\n"
        "libraries = ('torch', 'ray', 'diffusers', 'transformers', 'pyarrow')\n"
        "sys.exit(' '.join(name for name in libraries if name in sys.modules) or 0)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
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
            assert not {"pickle", "cloudpickle", "dill"} & {
                name.split(".")[0] for name in imports(tree)
            }, path
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    for keyword in node.keywords:
                        is_true = (
                            isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                        )
                        assert not (keyword.arg in {"trust_remote_code", "shell"} and is_true), path
                    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
                    root = (
                        node.func.value.id
                        if isinstance(node.func, ast.Attribute)
                        and isinstance(node.func.value, ast.Name)
                        else ""
                    )
                    assert (root, name) not in {("torch", "load"), ("os", "system")}, path


def test_each_test_module_has_a_name_of_its_own() -> None:
    """Pytest imports a module outside packages by its name alone."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, number in names.items() if number > 1] == []
