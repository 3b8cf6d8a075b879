"""The table of guided pipelines is that of the installed diffusers."""

import inspect
import re

import diffusers
import pytest

import nag
from docs.nag_pipelines import PAGE, page
from nag.attention.denoising_calls import BATCHED_CALL, GUIDED_ROWS
from nag.attention.pipeline_passes import PASSES
from nag.installation.support import prompt_pipelines


def test_the_page_lists_every_prompt_pipeline_of_the_installed_diffusers() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m docs.nag_pipelines"
    assert len(prompt_pipelines()) > 250


def test_every_pipeline_with_known_passes_is_guided() -> None:
    assert {one.name for one in nag.supported()} == set(PASSES)


@pytest.mark.parametrize("name", PASSES)
def test_the_source_of_a_pipeline_tells_its_passes_as_listed(name: str) -> None:
    source = inspect.getsource(inspect.unwrap(getattr(diffusers, name).__call__))
    names = set(re.findall(r"cache_context\(\"(\w+)\"", source))
    num_calls = len(re.findall(r"\b(?:self\.(?:transformer|unet)|current_model)\(\s", source))
    match PASSES[name]:
        case "named":
            assert names
            assert names <= {*GUIDED_ROWS, BATCHED_CALL}
        case "batched":
            assert names <= {BATCHED_CALL}
            assert num_calls == 1
        case "prompt first":
            assert not names
            assert num_calls == 2
