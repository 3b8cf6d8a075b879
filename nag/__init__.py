"""Normalized Attention Guidance and its rivals for stock diffusers pipelines.

The public names are listed once, in `__init__.pyi`, which type checkers read too. Each is imported
at its first use: the parameters and the errors load without torch.
"""

import ast
from importlib import import_module, resources
from typing import Any

# As a resource of the package, the list is found in a zip file too. Without it the import fails.
_STUB = ast.parse(resources.files(__name__).joinpath("__init__.pyi").read_text(encoding="utf-8"))
_MODULES = {
    alias.name: node.module
    for node in _STUB.body
    if isinstance(node, ast.ImportFrom) and node.module
    for alias in node.names
}

_OWNER = "nagfarm"  # tells this file from that of the author's package, installed over it
__all__ = sorted(_MODULES)  # noqa: PLE0605  # pyright: ignore[reportUnsupportedDunderAll]


# The classes of the author's package, which is imported as `nag` too.
_AUTHORS = ("Pipeline", "Model", "Processor", "Processor2_0")


def __getattr__(name: str) -> Any:
    if name.startswith("NAG") and name.endswith(_AUTHORS):
        # As an AttributeError, `from nag import` would leave the reason out.
        raise ImportError(
            f"{name} belongs to the author's package, and this nag is another one "
            f"({__spec__.origin}): guide diffusers' own pipeline by nag.guide(), or remove "
            "nagfarm-nag or nagfarm to use the author's",
            name=name,
        )
    # No public name may be a module's name too: importing that module would replace the name.
    if name not in _MODULES:
        raise AttributeError(f"module 'nag' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
