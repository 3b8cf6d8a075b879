"""The examples in the docstrings of `nag` run, and every public function has one."""

import doctest
import inspect
from importlib import import_module
from typing import Any

import pytest

import nag as library
from tests.builders import tiny

nag: Any = library


def public_functions() -> list[str]:
    return [name for name in nag.__all__ if inspect.isfunction(getattr(nag, name))]


@pytest.mark.parametrize("name", public_functions())
def test_every_public_function_has_an_example(name: str) -> None:
    text = getattr(nag, name).__doc__
    assert doctest.DocTestParser().get_examples(text), f"nag.{name} has no example"


def test_the_examples_run() -> None:
    """In their order in a module, each with a tiny pipeline of Wan as `pipe`."""
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    pipe: Any = tiny.wan_pipeline()
    for module in sorted(set(nag._MODULES.values())):
        for test in finder.find(import_module(module), extraglobs={"pipe": pipe}):
            runner.run(test)
    failed, attempted = runner.summarize(verbose=False)
    assert failed == 0
    assert attempted > 10
