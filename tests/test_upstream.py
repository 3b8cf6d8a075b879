"""docs/explanation/upstream.md lists every private name of another library that the code uses."""

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("nag", "pipelines", "jobs", "infra", "benchmarks")
PAGE = (ROOT / "docs" / "explanation" / "upstream.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| `")]
NAMES = [name for row in ROWS for name in re.findall(r"`([\w.]+)`", row.split("|")[1])]
OWN_PACKAGES = {*FOLDERS, "tests", "__future__"}


def is_private(name: str) -> bool:
    """Return True for `_name`, but not for `__name__`, an enum's `_name_` or `os._exit`."""
    return name.startswith("_") and not name.endswith("_") and name != "_exit"


def private_imports(tree: ast.Module) -> Iterator[str]:
    """Yield each import of another library with a private part, as a dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] not in OWN_PACKAGES and any(map(is_private, parts)):
                yield name


def own_objects(tree: ast.Module) -> set[str]:
    """Return the names of objects whose private attributes are the project's own."""
    made = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) == "cls"
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return {"self", "cls", "super()", *made}


def private_attributes(tree: ast.Module) -> Iterator[str]:
    """Yield each private attribute of an object that the module did not define itself."""
    own = own_objects(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if ast.unparse(node.value) not in own:
                yield node.attr
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in {"getattr", "setattr", "hasattr", "delattr"}
            and isinstance(node.args[1], ast.Constant)
            and is_private(str(node.args[1].value))
        ):
            yield str(node.args[1].value)


@cache
def used_names() -> dict[str, set[str]]:
    """Return each private name with the files that use it: dotted if imported, else bare."""
    found: dict[str, set[str]] = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for name in (*private_imports(tree), *private_attributes(tree)):
                found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


def parts_of(name: str) -> set[str]:
    """Return a dotted name and each private part of it."""
    return {name, *(part for part in name.split(".") if is_private(part))}


def resolve(name: str) -> Any:
    """Return the object of a dotted name: import as much as is a module, then read attributes."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"no module of {name} can be imported")


def test_the_page_names_every_private_name_that_the_code_uses() -> None:
    named = {part for name in NAMES for part in parts_of(name)}
    assert {name: files for name, files in used_names().items() if name not in named} == {}


def test_the_code_uses_every_name_of_the_page() -> None:
    used = used_names()
    assert [name for name in NAMES if name not in used and name.split(".")[-1] not in used] == []


def test_the_page_names_the_files_that_use_a_name() -> None:
    for name, files in used_names().items():
        cells = [row.split("|")[2] for row in ROWS if re.search(rf"\b{re.escape(name)}`", row)]
        if not cells:  # a part of a longer name
            continue
        places = tuple(place for cell in cells for place in re.findall(r"`([^`]+)`", cell))
        assert {file for file in files if not file.startswith(places)} == set(), name


@pytest.mark.parametrize("name", NAMES)
def test_the_installed_version_has_the_name(name: str) -> None:
    owner, _, last = name.rpartition(".")
    try:
        resolve(name)
    except AttributeError:  # set on instances alone
        assert re.search(rf"\b{last}\b", inspect.getsource(resolve(owner)))


def test_the_page_is_about_the_pinned_versions() -> None:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    titles = re.findall(r"^## (\S+) (\S+)$", PAGE, re.MULTILINE)
    assert {library for library, _ in titles} == {name.split(".")[0] for name in NAMES}
    for library, number in titles:
        assert any(line.split(";")[0].strip() == f"{library}=={number}" for line in pinned)
        assert version(library).split("+")[0] == number
