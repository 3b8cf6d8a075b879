"""The author's package, which has the same import name, is not taken for this one in silence."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nag
import nagfarm
from jobs.checks import machine
from jobs.cluster.connection import _own_packages
from jobs.errors import RefusedError
from nagfarm import foreign_packages


def test_a_class_of_the_authors_package_is_missed_with_the_reason() -> None:
    with pytest.raises(ImportError, match="NAGFluxPipeline belongs to the author's package"):
        exec("from nag import NAGFluxPipeline")
    with pytest.raises(ImportError, match="nag.guide()"):
        _ = nag.NAGWanTransformer3DModel  # pyright: ignore[reportAttributeAccessIssue]
    assert not hasattr(nag, "NAGGING")


def test_a_foreign_package_on_the_path_is_reported_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nag").mkdir()
    (tmp_path / "nag" / "__init__.py").write_text("class NAGFluxPipeline: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert foreign_packages()["nag"] == str(tmp_path / "nag" / "__init__.py")


def test_a_foreign_package_before_this_one_hides_it_and_not_its_farm(tmp_path: Path) -> None:
    (tmp_path / "nag").mkdir()
    (tmp_path / "nag" / "__init__.py").write_text("class NAGFluxPipeline: pass\n")
    root = Path(nag.__file__).parents[1]
    program = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(root)!r}]\n"
        "import nagfarm, nag; print(nag.__file__); print(nagfarm.foreign_packages()['nag'])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    ours, theirs = ran.stdout.split()
    assert ours == nag.__file__
    assert theirs == str(tmp_path / "nag" / "__init__.py")


def test_a_foreign_package_that_was_installed_over_this_one_is_reported_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(Path(nag.__file__).parent, tmp_path / "nag")  # as both installs left it
    monkeypatch.setattr(nagfarm, "ROOT", tmp_path)
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setattr(nagfarm, "PACKAGES", ("nag",))
    monkeypatch.setattr(nagfarm, "__file__", str(tmp_path / "nag.py"))
    monkeypatch.chdir(tmp_path)
    assert not nagfarm.is_nag_overwritten()
    assert all(one.is_ok for one in machine.check_packages())
    place = tmp_path / "nag" / "__init__.py"
    for source in ("class NAGFluxPipeline: pass\n", None):  # removing it leaves no file
        place.write_text(source) if source else place.unlink()
        importlib.invalidate_caches()
        assert nagfarm.is_nag_overwritten()
        *_, last = machine.check_packages()
        assert last.is_ok is False
        assert "pip uninstall that one" in last.message
        with pytest.raises(RefusedError, match="pip install --force-reinstall"):
            _own_packages()
