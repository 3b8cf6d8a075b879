"""Each guided pipeline of diffusers is rendered by a test, so that a new release shows new ones."""

import re
from pathlib import Path

import pytest

import nag
from tests.nag import cross_families
from tests.nag.every_family import FURTHER, OF_BUILDERS, classes_of_cases
from tests.nag.every_pipeline import BY_HAND, ROWS, UNRENDERED

pytestmark = [
    *OF_BUILDERS,
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),  # Kolors' import
]
TESTS = Path(__file__).parents[1]


def test_every_guided_pipeline_is_rendered_or_has_a_reason() -> None:
    guided = {one.name for one in nag.supported()}
    of_families = [kind for kind, _ in classes_of_cases()]
    of_families += [type(cross_families.FAMILIES[name].build()) for name in FURTHER]
    rendered = {
        *(row.name for row in ROWS if row.name not in UNRENDERED),
        *(stock_name(kind, guided) for kind in of_families),
        *BY_HAND,
    }
    assert guided - rendered == set(UNRENDERED), "give a new pipeline a row in a module of variants"
    assert rendered <= guided


def stock_name(kind: type, guided: set[str]) -> str:
    """Return the name of a pipeline's class in diffusers; some builders derive one from it."""
    return next(one.__name__ for one in kind.__mro__ if one.__name__ in guided)


def test_each_pipeline_of_no_row_stands_in_the_module_that_renders_it() -> None:
    assert not set(BY_HAND) & {row.name for row in ROWS}
    for module, word in BY_HAND.values():
        assert re.search(rf"\b{word}\b", (TESTS / module).read_text(encoding="utf-8")), module
