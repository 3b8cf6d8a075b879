"""A wheel installed elsewhere works from any folder, with configurations and the Shapes weights."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.builders.foreign import write_foreign_packages

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
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of this repository's files, which a build may write into."""
    source = tmp_path_factory.mktemp("source")
    tracked = run(
        "git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY
    ).splitlines()
    for name in tracked:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (REPOSITORY / name).is_file():
            target.write_bytes((REPOSITORY / name).read_bytes())
    return source


@pytest.fixture(scope="module")
def installed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that a wheel of this repository was unpacked into."""
    return install(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def alone(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that a wheel of the library alone was unpacked into."""
    return install(source / "nag", tmp_path_factory.mktemp("alone"))


def install(source: Path, site: Path) -> Path:
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(
        *pip, "install", "--no-deps", "--no-index", "--no-build-isolation",
        "--target", site, ".", cwd=source,
    )  # fmt: skip
    return site


@pytest.fixture(scope="module")
def imported(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the answers of one process that imports the wheel, since torch loads for seconds.

    It imports nag, then every module of the judge, and loads the Shapes model.
    """
    modules = sorted(path.stem for path in installed.glob("pipelines/shapes/evaluation/*.py"))
    judge = [f"pipelines.shapes.evaluation.{name}" for name in modules if name != "__init__"]
    program = (
        "import gc; gc.disable()\n"  # a fifth of the imports' time
        "import json, nag\n"
        "answers = {'install': nag.install.__module__, 'nag': nag.__file__}\n"
        f"import {', '.join(judge)}, jobs.bench.measuring.judging as judging\n"
        "answers['judging'] = judging.__file__\n"
        "from pipelines.catalog.model_yaml import load_model_config\n"
        "from pipelines.catalog.model_folder import inspect_model\n"
        "from pipelines.catalog.files.sources import model_paths\n"
        "from pipelines.families.registry import load_model\n"
        "path = model_paths()['shapes-wan']\n"
        "config = load_model_config(path)\n"
        "answers['coverage'] = load_model(config, inspect_model(config, path), 1).nag_coverage\n"
        "print(json.dumps(answers, default=str))\n"
    )
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    command = (sys.executable, "-W", "ignore", "-c", program)
    return json.loads(run(*command, cwd=elsewhere, PYTHONPATH=str(installed)))


def test_the_wheel_holds_no_tests_and_no_infrastructure(installed: Path) -> None:
    names = {
        path.name
        for path in installed.iterdir()
        if path.is_dir() and not path.name.endswith((".dist-info", "__pycache__"))
    }
    assert names == {"nag", "pipelines", "jobs", "configs", "bin"}
    assert [path.name for path in installed.glob("*.py")] == ["nagfarm.py"]


def test_the_wheel_holds_the_page_of_the_gallery(installed: Path) -> None:
    own = REPOSITORY / "jobs" / "report" / "page"
    files = {path.relative_to(own) for path in own.rglob("*") if path.is_file()}
    page = installed / "jobs" / "report" / "page"
    assert {path.relative_to(page) for path in page.rglob("*") if path.is_file()} == files
    assert Path("assets", "uplot", "LICENSE") in files


def test_the_wheel_is_typed_and_lists_the_public_names_of_nag(
    installed: Path, imported: dict[str, str]
) -> None:
    for package in ("nag", "pipelines", "jobs", "configs"):
        assert (installed / package / "py.typed").is_file(), package
    assert (installed / "nag" / "__init__.pyi").is_file()
    assert imported["install"] == "nag.installation.installation"
    assert Path(imported["nag"]).is_relative_to(installed)


def test_the_library_alone_is_the_one_of_the_farm(installed: Path, alone: Path) -> None:
    def files(site: Path) -> dict[Path, bytes]:
        found = [path for path in (site / "nag").rglob("*") if path.is_file()]
        return {
            path.relative_to(site): path.read_bytes() for path in found if path.suffix != ".pyc"
        }

    assert files(alone) == files(installed)
    assert {path.name.split("-")[0] for path in alone.iterdir()} == {"nag", "nagfarm_nag"}
    versions = {
        tomllib.loads((REPOSITORY / name).read_text())["project"]["version"]
        for name in ("pyproject.toml", "nag/pyproject.toml")
    }
    assert len(versions) == 1


def test_the_library_alone_guides_without_the_farm_and_its_libraries(
    alone: Path, tmp_path: Path
) -> None:
    program = (
        "import sys\n"
        f"sys.path.append({str(REPOSITORY)!r})\n"
        "sys.modules |= dict.fromkeys(('jobs', 'pipelines', 'ray', 'boto3', 'omegaconf', 'peft'))\n"
        "import nag, torch\n"
        "from tests.builders import tiny\n"
        "negative = nag.NegativeText(torch.ones(1, 7, 32))\n"
        "with nag.guide(tiny.wan_pipeline(), negative) as installed:\n"
        "    print(nag.__file__, installed.coverage)\n"
    )
    answer = run(sys.executable, "-W", "ignore", "-c", program, cwd=tmp_path, PYTHONPATH=str(alone))
    place, coverage = answer.strip().split(" ", 1)
    assert Path(place).is_relative_to(alone)
    assert coverage == "2 of 2"


def test_the_wheel_holds_the_judge_of_the_benchmark_and_no_training(
    installed: Path, imported: dict[str, str]
) -> None:
    shapes = installed / "pipelines" / "shapes"
    folders = {path.name for path in shapes.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == {"evaluation", "weights"}
    assert Path(imported["judging"]).is_relative_to(installed)


def test_an_installed_wheel_plans_from_any_folder(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "spring.yaml").write_text(MANIFEST)
    where = (
        "import jobs.cli.main as m, pipelines.catalog.files.sources as c\n"
        "print(m.__file__, c.PACKAGED_WEIGHTS, c.PACKAGED_CONFIGS)"
    )
    for place in run(sys.executable, "-c", where, cwd=tmp_path, PYTHONPATH=str(installed)).split():
        assert Path(place).is_relative_to(installed)
    program = installed / "bin" / "nagfarm"
    command = (program, "plan", "spring.yaml", "--output", (tmp_path / "out").as_uri())
    write_foreign_packages(tmp_path)
    path = f"{tmp_path}{os.pathsep}{installed}"  # as a job of Ray has it
    assert "spring: 1 clip" in run(*command, cwd=tmp_path, PYTHONPATH=path)


def test_an_installed_wheel_loads_the_shapes_model(imported: dict[str, str]) -> None:
    assert "5 of 5" in imported["coverage"]


def make_install(folder: Path, programs: dict[str, str], *variables: str) -> str:
    """Return the commands of `make install` where only `programs` are installed, by shell text."""
    (folder / "Makefile").write_bytes((REPOSITORY / "Makefile").read_bytes())
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    programs = {"python3.13": "exit 127", "python3.12": "exit 127", "python3.11": "exit 127"} | {
        "uv": "exit 127",
        **programs,
    }
    for name, text in programs.items():
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "MAKEFLAGS": "", "MAKELEVEL": ""}
    cleared = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    command = ["make", "--dry-run", "install", *variables]
    return subprocess.run(
        command, cwd=folder, env={**cleared, **environment}, capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip


@pytest.mark.parametrize(
    ("running", "chosen"),
    [
        (("3.11", "3.12", "3.13"), "python3.13"),
        (("3.11", "3.12"), "python3.12"),
        (("3.11",), "python3.11"),
    ],
)
def test_make_takes_the_newest_python_that_runs(
    running: tuple[str, ...], chosen: str, tmp_path: Path
) -> None:
    programs = {f"python{number}": f"echo python{number}" for number in running}
    assert f"{chosen} -m venv" in make_install(tmp_path, programs)
    assert "python3.11 -m venv" in make_install(tmp_path, programs, "PYTHON=python3.11")


def test_make_uses_uv_where_it_is_installed_and_pip_where_asked(tmp_path: Path) -> None:
    programs = {"python3.12": "echo python3.12", "uv": "echo uv 1.0"}
    with_uv = make_install(tmp_path, programs)
    assert "uv venv" in with_uv
    assert "--python python3.12" in with_uv
    assert "uv pip install" in with_uv
    assert "python3.12 -m venv" in make_install(tmp_path, programs, "UV=")
