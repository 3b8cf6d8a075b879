"""A user's folder whose packages have the names of ours, and the program as pip installs it."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOREIGN = 'raise ImportError("a package of the user")\n'
FILES = ("jobs/__init__.py", "nag/__init__.py", "pipelines.py", "configs/__init__.py", "infra.py")


def write_foreign_packages(folder: Path) -> None:
    """Write packages that cannot be imported; a file `jobs.py` lies beside the folder `jobs`."""
    for name in (*FILES, "jobs.py"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FOREIGN)
    (folder / "benchmarks").mkdir()  # a namespace to Python


def write_program(folder: Path) -> Path:
    """Write the program `nagfarm` of pyproject.toml, as pip does, and return its path."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["nagfarm"].partition(":")
    path = folder / "nagfarm"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\n"
        f'if __name__ == "__main__":\n    sys.exit({function}())\n'
    )
    path.chmod(0o755)
    return path
