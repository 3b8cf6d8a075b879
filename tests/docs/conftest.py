"""The parser of the command line is made once for all commands of the manual."""

from collections.abc import Iterator
from functools import cache

import pytest

from jobs.cli import main


@pytest.fixture(autouse=True, scope="package")
def one_parser() -> Iterator[None]:
    """Save the time in which each of some hundred commands would make it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "make_parser", cache(main.make_parser))
        yield
