"""Pipelines that share a model with another one are guided as that one, each rendered."""

from typing import Any

import pytest

from tests.nag.every_pipeline import ROWS, UNRENDERED
from tests.nag.variants import Variant, check_guidance

pytestmark = [
    # numpy's, of torch in diffusers' schedulers
    pytest.mark.filterwarnings("ignore:__array(_wrap)?__ (implementation|must)"),
    # diffusers' own, which Chroma uses
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),  # Kolors' import
]
# The dearest rows, whose forms of passes other rows have too.
SLOW = ("AnimateDiff", "StableDiffusionXLControlNet")


def row(variant: Variant) -> Any:
    marks = [pytest.mark.slow] if variant.name.startswith(SLOW) else []
    if variant.name in UNRENDERED:
        reason = UNRENDERED[variant.name]
        marks.append(pytest.mark.xfail(raises=TypeError, strict=True, reason=reason))
    return pytest.param(variant, id=f"{variant.name} {variant.note}".strip(), marks=marks)


@pytest.mark.parametrize("variant", [row(one) for one in ROWS])
def test_the_prompt_is_guided_in_each_variant(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_guidance(variant, monkeypatch)
