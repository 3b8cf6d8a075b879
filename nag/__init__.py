"""Normalized Attention Guidance and its rivals for stock diffusers Wan and LTX pipelines.

The parameters (`NagParams`, `VsfParams`, `NasaParams`) and the errors load without torch.
"""

from typing import TYPE_CHECKING, Any

from nag.errors import NagCoverageError, NagError, NagParameterError, NagTextError
from nag.params import GuidanceParams, NagParams, NasaParams, VsfParams

if TYPE_CHECKING:
    from nag.attention.text_concat import NegativeText
    from nag.formulas.negative_away_steer_attention import negative_away_steer_attention
    from nag.formulas.normalized_attention_guidance import normalized_attention_guidance
    from nag.formulas.value_sign_flip import value_sign_flip
    from nag.installation.installation import (
        Coverage,
        InstalledNag,
        encode_negative_prompt,
        guide,
        install,
    )

_NEEDS_TORCH = {  # no name here may be a module's too: importing that module would put it in the name's place
    "Coverage": "nag.installation.installation",
    "InstalledNag": "nag.installation.installation",
    "NegativeText": "nag.attention.text_concat",
    "encode_negative_prompt": "nag.installation.installation",
    "guide": "nag.installation.installation",
    "install": "nag.installation.installation",
    "negative_away_steer_attention": "nag.formulas.negative_away_steer_attention",
    "normalized_attention_guidance": "nag.formulas.normalized_attention_guidance",
    "value_sign_flip": "nag.formulas.value_sign_flip",
}

__all__ = [
    "Coverage",
    "GuidanceParams",
    "InstalledNag",
    "NagCoverageError",
    "NagError",
    "NagParameterError",
    "NagParams",
    "NagTextError",
    "NasaParams",
    "NegativeText",
    "VsfParams",
    "encode_negative_prompt",
    "guide",
    "install",
    "negative_away_steer_attention",
    "normalized_attention_guidance",
    "value_sign_flip",
]


def __getattr__(name: str) -> Any:
    """Imports what needs torch when it is first asked for."""
    import importlib

    if name in _NEEDS_TORCH:
        return getattr(importlib.import_module(_NEEDS_TORCH[name]), name)
    raise AttributeError(f"module 'nag' has no attribute {name!r}")
