"""The classes of pipelines in diffusers' sources, read and not imported.

Importing all of its pipelines takes minutes.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

BASE = "DiffusionPipeline"
DEPRECATED = "deprecated"  # a folder of diffusers
TEXT, COUNT = "prompt", "_per_prompt"  # ends of arguments' names


@dataclass(frozen=True)
class PipelineSource:
    """One class of pipelines, with what it inherits from other pipelines.

    Args:
        name: name of the class.
        folder: folder of diffusers' pipelines that holds it.
        parts: arguments of its constructor, with their annotations as text.
        texts: arguments of its call that take a prompt, such as `task_prompt`.
        is_deprecated: True if diffusers says so.
    """

    name: str
    folder: str
    parts: dict[str, str]
    texts: tuple[str, ...]
    is_deprecated: bool


@dataclass(frozen=True)
class _Class:
    """One class of the sources: the arguments of its methods, None for those that it inherits."""

    folder: str
    bases: list[str]
    call: dict[str, str] | None
    init: dict[str, str] | None
    deprecates_itself: bool


def read_pipelines() -> list[PipelineSource]:
    """Return all pipelines of the installed diffusers that are called with a prompt, by name."""
    spec = find_spec("diffusers")
    assert spec is not None
    assert spec.origin is not None
    classes = dict[str, _Class]()
    root = Path(spec.origin).parent / "pipelines"
    for path in sorted(root.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, _read_class(node, path.relative_to(root).parts[0]))
    found = (_source_of(name, classes) for name in sorted(classes))
    return [one for one in found if one is not None and one.texts]


def _read_class(node: ast.ClassDef, folder: str) -> _Class:
    methods = {one.name: one for one in node.body if isinstance(one, ast.FunctionDef)}
    call, init = methods.get("__call__"), methods.get("__init__")
    return _Class(
        folder,
        [ast.unparse(base) for base in node.bases],
        None if call is None else _arguments(call),
        None if init is None else _arguments(init),
        # Its constructor warns that its class will go.
        init is not None and f"deprecate('{node.name}'" in ast.unparse(init),
    )


def _source_of(name: str, classes: dict[str, _Class]) -> PipelineSource | None:
    """Return a class with what it inherits; None for a class that is not a pipeline."""
    lineage = list(_lineage(name, classes))
    if not any(BASE in one.bases for one in lineage):
        return None
    call = next((one.call for one in lineage if one.call is not None), {})
    parts = next((one.init for one in lineage if one.init is not None), {})
    own = lineage[0]
    return PipelineSource(
        name,
        own.folder,
        parts,
        tuple(one for one in call if one.endswith(TEXT) and COUNT not in one),
        own.folder == DEPRECATED or "DeprecatedPipelineMixin" in own.bases or own.deprecates_itself,
    )


def _lineage(name: str, classes: dict[str, _Class]) -> Iterator[_Class]:
    """Go through a class and its bases, where these are pipelines too."""
    if name in classes and name != BASE:
        yield classes[name]
        for base in classes[name].bases:
            yield from _lineage(base, classes)


def _arguments(function: ast.FunctionDef) -> dict[str, str]:
    """Return the arguments of a function with their annotations as text."""
    arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    return {one.arg: ast.unparse(one.annotation) if one.annotation else "" for one in arguments}
