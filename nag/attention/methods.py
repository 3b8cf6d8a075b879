"""The guidance methods: each turns its parameters and one text attention into a guided output.

This is the only module that knows all methods. Strengths are 0-dim tensors: a compiled graph takes
them as inputs, so a new strength needs no new graph. Each method has a graph of its own.
"""

from typing import Any, Literal, Protocol

import torch

from nag.attention.text_attention import TextAttention, additive_bias
from nag.errors import NagParameterError
from nag.formulas.fused_guidance import fused_guidance
from nag.formulas.negative_away_steer_attention import negative_away_steer_attention
from nag.formulas.value_sign_flip import value_sign_flip
from nag.params import GuidanceParams, NagParams, NasaParams, VsfParams


class Method(Protocol):
    """A way to guide away from the negative prompt, with strengths that it keeps."""

    def set(self, params: Any) -> None:
        """Copy the strengths from `params`, in place."""
        ...

    def guide(self, text: TextAttention) -> torch.Tensor:
        """Return the guided attention output, (B, L, D)."""
        ...


class NagMethod:
    """Normalized Attention Guidance: two attentions, extrapolated within a bound."""

    def __init__(self) -> None:
        self.nag_scale = _strength()
        self.nag_tau = _strength()
        self.nag_alpha = _strength()
        self.nag_norm: Literal["l1", "l2"] = NagParams.nag_norm

    def set(self, params: NagParams) -> None:
        self.nag_scale.fill_(params.nag_scale)
        self.nag_tau.fill_(params.nag_tau)
        self.nag_alpha.fill_(params.nag_alpha)
        self.nag_norm = params.nag_norm  # each norm has a graph of its own

    def guide(self, text: TextAttention) -> torch.Tensor:
        return self.combine(text.positive(), text.negative())

    def combine(self, positive_BLD: torch.Tensor, negative_BLD: torch.Tensor) -> torch.Tensor:
        """Return the guided output of two attentions, (B, L, D)."""
        return fused_guidance(
            positive_BLD,
            negative_BLD,
            self.nag_scale,
            self.nag_tau,
            self.nag_alpha,
            self.nag_norm,
        )


def only_nag(params: GuidanceParams) -> NagParams:
    """Return the strengths for a model in which text and image attend to one another.

    Raises:
        NagParameterError: the method is another than Normalized Attention Guidance.
    """
    if isinstance(params, NagParams):
        return params
    reason = {
        VsfParams: (
            "Value Sign Flip is defined for Stable Diffusion 3 and Qwen-Image alone; its authors' "
            "code for Flux flips no values in single-stream blocks, which attend to both prompts"
        ),
        NasaParams: "NASA is defined for cross-attention alone, whose output is the text's",
    }
    raise NagParameterError(
        "this model with joint attention of text and image is guided by NagParams alone, got "
        f"{type(params).__name__}: {reason.get(type(params), 'no method has them')}"
    )


class VsfMethod:
    """Value Sign Flip: one attention over both prompts. Needs an attention backend with masks."""

    def __init__(self) -> None:
        self.vsf_scale = _strength()
        self.vsf_bias = _strength()

    def set(self, params: VsfParams) -> None:
        self.vsf_scale.fill_(params.vsf_scale)
        self.vsf_bias.fill_(params.vsf_bias)

    def flip(
        self, value_BTHK: torch.Tensor, negative_mask_BN: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the values with those of the last N tokens flipped, and a bias (B, 1, 1, T)."""
        return value_sign_flip(value_BTHK, negative_mask_BN, self.vsf_scale, self.vsf_bias)

    def guide(self, text: TextAttention) -> torch.Tensor:
        assert text.negative_mask is not None
        value, bias = self.flip(text.value, text.negative_mask)
        of_text = additive_bias(text.bias, text.query)
        return text.attend(text.query, text.key, value, bias if of_text is None else bias + of_text)


class NasaMethod:
    """Negative-Away Steer Attention: two attentions, a share of the second subtracted."""

    def __init__(self) -> None:
        self.nasa_scale = _strength()

    def set(self, params: NasaParams) -> None:
        self.nasa_scale.fill_(params.nasa_scale)

    def guide(self, text: TextAttention) -> torch.Tensor:
        return negative_away_steer_attention(text.positive(), text.negative(), self.nasa_scale)


def _strength() -> torch.Tensor:
    """Return a strength: on the CPU and in float32, without regard to torch's defaults.

    An inference tensor could not be set outside `torch.inference_mode()`.
    """
    with torch.inference_mode(False):
        return torch.zeros((), dtype=torch.float32, device="cpu")


def build_methods() -> dict[type, Method]:
    """Return one of each method, by the class of its parameters.

    A transformer keeps its methods, so that a graph compiled for one of them serves it again.
    """
    return {NagParams: NagMethod(), VsfParams: VsfMethod(), NasaParams: NasaMethod()}
