"""A user's folder with packages named like ours: nagfarm finds its own, in driver and workers.

`tests/test_end_to_end.py` submits a whole run from such a folder.
"""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.ray_cluster import LocalRay
from jobs.checks.machine import check_packages
from jobs.cluster.connection import _own_packages
from jobs.errors import RefusedError
from nagfarm import PACKAGES, ROOT, foreign_packages
from tests.builders.foreign import write_foreign_packages, write_program

# Imports all packages in the driver, and then in a worker.
PROGRAM = f"""
import json, ray
import nagfarm
from jobs.cluster.connection import connected

def places():
    import importlib
    return [importlib.import_module(name).__file__ for name in {PACKAGES!r}]

with connected():
    print(json.dumps([places(), ray.get(ray.remote(num_cpus=0)(places).remote())]))
"""


def test_packages_of_a_user_are_noticed_and_their_own_folders_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in PACKAGES:  # a folder without __init__.py yields to a package
        (tmp_path / name).mkdir()
    assert foreign_packages() == {}
    assert _own_packages() is None
    write_foreign_packages(tmp_path)
    importlib.invalidate_caches()
    assert foreign_packages().keys() == set(PACKAGES)
    assert _own_packages() == {"worker_process_setup_hook": "nagfarm.claim_packages"}
    _, *notes = check_packages()
    assert {note.is_ok for note in notes} == {None}
    assert any("jobs/__init__.py' is not nagfarm's, which uses its own jobs" in note.message
               for note in notes)  # fmt: skip


def test_a_module_that_hides_the_hook_is_refused_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nagfarm.py").touch()
    assert _own_packages() is None, "workers do not need the hook"
    write_foreign_packages(tmp_path)
    importlib.invalidate_caches()
    with pytest.raises(RefusedError, match=r"nagfarm\.py' hides nagfarm from its workers: rename"):
        _own_packages()


def test_a_job_with_a_hook_of_its_own_is_refused_only_if_ours_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = {"runtime_env": {"worker_process_setup_hook": "theirs.hook"}, "metadata": {}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    assert _own_packages() is None
    write_foreign_packages(tmp_path)
    importlib.invalidate_caches()
    with pytest.raises(RefusedError, match=r"__init__\.py' hides nagfarm's packages .* rename the"):
        _own_packages()


@pytest.mark.parametrize("way", ["program", "python -m nagfarm", "PYTHONPATH"])
def test_a_command_runs_where_packages_of_a_user_lie(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "mine"
    write_foreign_packages(folder)
    (folder / "spring.csv").write_text("prompt\na circle moving right\n")
    program = [str(write_program(tmp_path))]
    command = [sys.executable, "-m", "nagfarm"] if "-m" in way else program
    path = {"PYTHONPATH": str(folder)} if way == "PYTHONPATH" else {}
    finished = subprocess.run(
        [*command, "plan", "spring.csv", "--model=shapes-wan", f"--output={tmp_path.as_uri()}/out"],
        cwd=folder, env=os.environ | path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert "1 clip" in finished.stdout


@pytest.mark.cluster
def test_workers_find_our_packages_though_ray_puts_the_users_folder_first(
    ray_cluster: LocalRay, tmp_path: Path
) -> None:
    write_foreign_packages(tmp_path)
    finished = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True,
        env=ray_cluster.environment() | {"RAY_ADDRESS": ray_cluster.address}, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    own = [str(ROOT / name / "__init__.py") for name in PACKAGES]
    assert json.loads(finished.stdout.splitlines()[-1]) == [own, own]
