"""The manual builds as a site without a warning, and its table of contents is whole.

Lies here since the reference of `nag` is made from its modules, which import torch.
"""

from pathlib import Path

import pytest
from sphinx.cmd.build import main

from tests.structure import ROOT


def build(root: Path, tmp_path: Path, builder: str) -> int:
    options = ["-q", "-W", "--keep-going", "-d", str(tmp_path / "trees"), "-b", builder]
    return main([*options, "-c", str(ROOT / "docs"), str(root), str(tmp_path / "site")])


# Sphinx and MyST warn about each other's next versions, which constraints.txt keeps away
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_the_site_builds_without_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without writing HTML, which takes as long again; `make docs` writes it, as strictly."""
    code = build(ROOT, tmp_path, "dummy")
    assert (code, capfd.readouterr().err) == (0, "")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_the_site_is_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = build(ROOT, tmp_path, "html")
    assert (code, capfd.readouterr().err) == (0, "")
    site = tmp_path / "site"
    assert (site / "index.html").read_bytes() == (site / "README.html").read_bytes()
    assert (site / "docs" / "how-to" / "operating.html").stat().st_size > 50_000
