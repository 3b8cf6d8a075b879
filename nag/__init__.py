"""Normalized Attention Guidance and its rivals for stock diffusers Wan and LTX pipelines.

The parameters (`NagParams`, `VsfParams`, `NasaParams`) and the errors load without torch.
"""

from typing import TYPE_CHECKING, Any

from nag.errors import NagCoverageError, NagError, NagParameterError, NagTextError
from nag.params import GuidanceParams, NagParams, NasaParams, VsfParams

if TYPE_CHECKING:
    from nag.guidance import normalized_attention_guidance
    from nag.installation import Coverage, InstalledNag, encode_negative_prompt, guide, install
    from nag.nasa import negative_away_steer_attention
    from nag.packing import NegativeText
    from nag.vsf import value_sign_flip

_NEEDS_TORCH = {  # no name here may be a module's too: importing that module would put it in the name's place
    "Coverage": "nag.installation",
    "InstalledNag": "nag.installation",
    "NegativeText": "nag.packing",
    "encode_negative_prompt": "nag.installation",
    "guide": "nag.installation",
    "install": "nag.installation",
    "negative_away_steer_attention": "nag.nasa",
    "normalized_attention_guidance": "nag.guidance",
    "value_sign_flip": "nag.vsf",
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
