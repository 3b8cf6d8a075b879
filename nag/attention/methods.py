"""Which parameters mean which method, and what each method makes of one cross-attention.

The one place that knows all methods: processors and hooks see a `Method`. Strengths are 0-dim tensors, which a compiled
graph takes as inputs instead of baking them in; each method has a graph of its own.
"""

from typing import Any, Literal, Protocol

import torch

from nag.attention.text_attention import TextAttention
from nag.errors import NagParameterError
from nag.formulas.negative_away_steer_attention import negative_away_steer_attention
from nag.formulas.normalized_attention_guidance import normalized_attention_guidance
from nag.formulas.value_sign_flip import value_sign_flip
from nag.params import GuidanceParams, NagParams, NasaParams, VsfParams


class Method(Protocol):
    """A way to guide away from the negative prompt."""

    def set(self, params: Any) -> None:
        """Takes over the strengths, in place."""
        ...

    def guide(self, text: TextAttention) -> torch.Tensor:
        """The guided attention output, (B, L, D)."""
        ...


class Nag:
    """Normalized Attention Guidance: two attentions, extrapolated within a bound."""

    def __init__(self) -> None:
        self.nag_scale = torch.ones(())
        self.nag_tau = torch.ones(())
        self.nag_alpha = torch.zeros(())
        self.nag_norm: Literal["l1", "l2"] = NagParams.nag_norm

    def set(self, params: NagParams) -> None:
        self.nag_scale.fill_(params.nag_scale)
        self.nag_tau.fill_(params.nag_tau)
        self.nag_alpha.fill_(params.nag_alpha)
        self.nag_norm = params.nag_norm  # a graph for each norm

    def guide(self, text: TextAttention) -> torch.Tensor:
        return normalized_attention_guidance(
            text.positive(),
            text.negative(),
            self.nag_scale,
            self.nag_tau,
            self.nag_alpha,
            self.nag_norm,
        )


class Vsf:
    """Value Sign Flip: one attention over both prompts. It needs an attention backend that takes a mask."""

    def __init__(self) -> None:
        self.vsf_scale = torch.zeros(())
        self.vsf_bias = torch.zeros(())

    def set(self, params: VsfParams) -> None:
        self.vsf_scale.fill_(params.vsf_scale)
        self.vsf_bias.fill_(params.vsf_bias)

    def guide(self, text: TextAttention) -> torch.Tensor:
        assert text.negative_mask is not None
        value, bias = value_sign_flip(text.value, text.negative_mask, self.vsf_scale, self.vsf_bias)
        return text.attend(
            text.query, text.key, value, bias if text.bias is None else bias + text.bias
        )


class Nasa:
    """Negative-Away Steer Attention: two attentions, a share of the second subtracted from the first."""

    def __init__(self) -> None:
        self.nasa_scale = torch.zeros(())

    def set(self, params: NasaParams) -> None:
        self.nasa_scale.fill_(params.nasa_scale)

    def guide(self, text: TextAttention) -> torch.Tensor:
        return negative_away_steer_attention(text.positive(), text.negative(), self.nasa_scale)


class Methods:
    """One of each method, for one transformer. They are kept, so that a graph compiled for one serves it again."""

    def __init__(self) -> None:
        self._by_params: dict[type, Method] = {
            NagParams: Nag(),
            VsfParams: Vsf(),
            NasaParams: Nasa(),
        }

    def of(self, params: GuidanceParams) -> Method:
        """The method that the parameters are of, set to them.

        Raises:
            NagParameterError: they are no method's.
        """
        method = self._by_params.get(type(params))
        if method is None:
            known = ", ".join(kind.__name__ for kind in self._by_params)
            raise NagParameterError(
                f"the parameters must be one of {known}, not {type(params).__name__}"
            )
        method.set(params)
        return method
