"""A wheel installed elsewhere works from any folder, with configurations and the Shapes weights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
MANIFEST = "name: spring\nmodel: shapes-wan\nclips: [{prompt: a circle}]\n"


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    environment = {**os.environ, **variables}
    finished = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a wheel of this repository was unpacked into."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = run(
        "git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY
    ).splitlines()
    source = folder / "source"
    for name in tracked:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (REPOSITORY / name).is_file():
            target.write_bytes((REPOSITORY / name).read_bytes())
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ".", cwd=source)
    (wheel,) = folder.glob("nagfarm-*.whl")
    run(*pip, "install", "--no-deps", "--no-index", "--target", folder / "site", wheel, cwd=folder)
    return folder / "site"


def test_the_wheel_holds_no_tests_and_no_infrastructure(installed: Path) -> None:
    names = {
        path.name
        for path in installed.iterdir()
        if path.is_dir() and not path.name.endswith(".dist-info")
    }
    assert names == {"nag", "pipelines", "jobs", "configs", "bin"}


def test_an_installed_wheel_plans_from_any_folder(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "spring.yaml").write_text(MANIFEST)
    where = (
        "import jobs.cli.main as m, pipelines.catalog.model_config as c\n"
        "print(m.__file__, c.PACKAGED_WEIGHTS, c.PACKAGED_CONFIGS)"
    )
    for place in run(sys.executable, "-c", where, cwd=tmp_path, PYTHONPATH=str(installed)).split():
        assert Path(place).is_relative_to(installed)
    command = (
        sys.executable,
        "-m",
        "jobs",
        "plan",
        "spring.yaml",
        "--output",
        (tmp_path / "out").as_uri(),
    )
    assert "spring: 1 clip" in run(*command, cwd=tmp_path, PYTHONPATH=str(installed))


def test_an_installed_wheel_renders_the_shapes_model(installed: Path, tmp_path: Path) -> None:
    program = (
        "from pipelines.catalog.model_config import load_model_config, model_paths\n"
        "from pipelines.catalog.model_folder import inspect_model\n"
        "from pipelines.families.registry import load_model\n"
        "path = model_paths()['shapes-wan']\n"
        "config = load_model_config(path)\n"
        "print(load_model(config, inspect_model(config, path), 1).nag_coverage)\n"
    )
    printed = run(
        sys.executable, "-W", "ignore", "-c", program, cwd=tmp_path, PYTHONPATH=str(installed)
    )
    assert "5 of 5" in printed
