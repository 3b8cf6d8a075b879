"""Print the structure of the code: `python -m tests.structure [PATH ...]`.

Shows modules per folder, upward imports, sizes, and the prose rules with each line that breaks one.
Exits with 1 if a rule is broken. Paths limit the list of broken prose rules.
"""

import argparse
import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median

from tests.prose import FIRST_WORDS, check_prose, docstrings, first_word

ROOT = Path(__file__).parents[1]
PACKAGES = ("nag", "pipelines", "jobs")
MAX_MODULES = 16
MAX_MODULE_LINES = 250
MAX_FUNCTION_LINES = 60

# Folders of each package, lowest first. "" stands for the modules beside the folders.
# Imports point down.
ORDER = {
    "nag": (
        "", "formulas", "attention/text", "attention", "attention/block_text", "attention/sequence",
        "adapters", "adapters/beside_image", "adapters/cross", "adapters/joint", "adapters/video",
        "adapters/sequence", "installation"),
    "pipelines": (
        "", "frame_checks", "attention", "catalog/files", "catalog/keys", "catalog/loras",
        "catalog", "context_parallel", "weights", "families", "cost", "shapes", "shapes/evaluation",
        "shapes/training/running", "shapes/training/paths", "shapes/training",
        "shapes/training/distillation", "shapes/training/images", "shapes/measuring",
        "scoring",
    ),
    "jobs": (
        "", "settings", "costs", "timetable", "media", "inputs", "manifest/tables",
        "manifest/walk", "manifest", "prompt_sets", "plan", "memory", "store", "records",
        "records/scores", "overview", "schemas", "tables", "report", "upkeep", "export", "notify",
        "schedule", "shares", "simulation", "metrics", "worker", "group", "scoring", "cluster",
        "cluster/nodes", "cluster/scoring", "run/progress", "run", "watch",
        "description", "checks", "bench/design", "bench/measuring", "bench/reporting",
        "bench/paper", "bench",
        "cli/pattern", "cli/outputs", "cli",
    ),
}  # fmt: skip
# A program and the interface of a library reach up to the highest folder.
ENTRIES = {"jobs/__main__.py", "nag/__init__.py"}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def modules(package: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), tree_of(path)


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield each imported module; `from package import module` yields the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = (ROOT / full.replace(".", "/")).with_suffix(".py").is_file()
                yield full if is_module else node.module


def every_module() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        yield from modules(package)


def folder_of(package: str, path: str) -> str:
    return Path(path).parent.relative_to(package).as_posix().removeprefix(".")


def path_of(module: str) -> str:
    path = ROOT / module.replace(".", "/")
    file = path.with_suffix(".py")
    return (file if file.is_file() else path / "__init__.py").relative_to(ROOT).as_posix()


def upward_imports(package: str) -> list[str]:
    """Return the imports of a folder from a higher one, as `path imports module`."""
    order = ORDER[package]
    return [
        f"{path} imports {name}"
        for path, tree in modules(package)
        for name in imports(tree)
        if name.startswith(f"{package}.")
        and path not in ENTRIES
        and order.index(folder_of(package, path_of(name))) > order.index(folder_of(package, path))
    ]


def modules_per_folder(package: str) -> dict[str, int]:
    """Return the number of modules in each folder, `__init__.py` left out."""
    return {
        folder: len(
            [path for path in (ROOT / package / folder).glob("*.py") if path.name != "__init__.py"]
        )
        for folder in ORDER[package]
    }


def tracked(*suffixes: str) -> list[str]:
    """Return the files that git tracks or would add, by suffix."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    return sorted({name for name in names if name.endswith(suffixes) and (ROOT / name).is_file()})


def print_sizes() -> None:
    """Print module and function sizes, with those above the house limits."""
    lines: dict[str, int] = {}
    functions: dict[str, int] = {}
    for path, tree in every_module():
        lines[path] = len((ROOT / path).read_text(encoding="utf-8").splitlines())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                functions[f"{path}:{node.lineno} {node.name}"] = size
    for kind, sizes, limit in (
        ("modules", lines, MAX_MODULE_LINES),
        ("functions", functions, MAX_FUNCTION_LINES),
    ):
        large = {name: size for name, size in sizes.items() if size > limit}
        print(f"{kind}: {len(sizes)}, median {median(sizes.values()):.0f} lines, "
              f"{len(large)} above {limit}")  # fmt: skip
        for name, size in sorted(large.items(), key=lambda item: -item[1]):
            print(f"  {size:>4} {name}")


def print_first_words() -> None:
    """Print the share of docstrings by first word."""
    words = Counter(
        first_word(text) for path, _ in every_module() for _, text in docstrings(ROOT / path)
    )
    total, bad = sum(words.values()), sum(words[word] for word in FIRST_WORDS)
    print(f"docstrings: {total}; first word what, which, of, ...: {bad / total:.1%}")
    print("  " + ", ".join(f"{word} {n / total:.1%}" for word, n in words.most_common(12)))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "paths", nargs="*", help="files or folders to check for broken prose rules (default: all)"
    )
    paths = tuple(parser.parse_args().paths)
    is_broken = False
    for package in PACKAGES:
        for folder, count in modules_per_folder(package).items():
            print(f"{'/'.join(filter(None, (package, folder))):<36}{count:>3}")
            is_broken |= count > MAX_MODULES
        for line in upward_imports(package):
            print(f"upward: {line}")
            is_broken = True
    print_sizes()
    print_first_words()
    findings = check_prose(
        ROOT, [name for name in tracked(".py", ".md") if not paths or name.startswith(paths)]
    )
    for finding in findings:
        print(finding)
    print(f"broken prose rules: {len(findings)}")
    return int(is_broken or bool(findings))


if __name__ == "__main__":
    sys.exit(main())
