"""The parameters of each method of negative guidance. Loads without torch.

`NagParams` is Normalized Attention Guidance, the default; `VsfParams` and `NasaParams` are its
rivals. All have `is_active` and `is_active_at`. The formulas are in `nag/formulas`.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

from nag.errors import NagParameterError


@dataclass(frozen=True)
class NagParams:
    """The strength of Normalized Attention Guidance, and the bound on its result.

    Args:
        nag_scale: strength, at least 1; 1 switches guidance off. The paper's phi is
            `nag_scale - 1`; this is the convention of the author's code.
        nag_tau: largest allowed growth of a token's norm, above 0.
        nag_alpha: share of the guided features in the result, 0 to 1; the rest is the unguided
            features.
        nag_start: fraction of the denoising steps after which guidance begins, 0 to 1.
        nag_end: fraction of the denoising steps after which guidance ends, above `nag_start`, at
            most 1. The author's code compares noise levels instead;
            `nag.steps_from_noise` converts.
        nag_norm: norm that `nag_tau` bounds: "l1" as in the paper, or "l2" as in the author's Flux
            code.

    Raises:
        NagParameterError: a value is outside its range or not finite.

    Source: arXiv 2505.21179, section 3.3. The defaults are the author's for Wan at 25 steps.

    Example:
        >>> params = NagParams(nag_scale=11, nag_end=0.5)
        >>> [params.is_active_at(step, 4) for step in range(4)]
        [True, True, False, False]
    """

    nag_scale: float = 9.0
    nag_tau: float = 2.5
    nag_alpha: float = 0.25
    nag_start: float = 0.0
    nag_end: float = 1.0
    nag_norm: Literal["l1", "l2"] = "l1"

    def __post_init__(self) -> None:
        for name in ("nag_scale", "nag_tau", "nag_alpha", "nag_start", "nag_end"):
            _require_finite(name, getattr(self, name))
        if self.nag_scale < 1:
            raise NagParameterError.of(
                f"nag_scale must be at least 1 (1 switches guidance off), got {self.nag_scale}",
                "nag_scale",
            )
        if self.nag_tau <= 0:
            raise NagParameterError.of(f"nag_tau must be above 0, got {self.nag_tau}", "nag_tau")
        if not 0 <= self.nag_alpha <= 1:
            raise NagParameterError.of(
                f"nag_alpha must be between 0 and 1, got {self.nag_alpha}", "nag_alpha"
            )
        if not 0 <= self.nag_start < self.nag_end <= 1:
            raise NagParameterError.of(
                "nag_start and nag_end must satisfy 0 <= nag_start < nag_end <= 1, "
                f"got {self.nag_start}, {self.nag_end}",
                "nag_start",
                "nag_end",
            )
        if self.nag_norm not in ("l1", "l2"):
            raise NagParameterError.of(
                f"nag_norm must be 'l1' or 'l2', got {self.nag_norm!r}", "nag_norm"
            )

    @property
    def is_active(self) -> bool:
        """True if these parameters change anything at all."""
        return self.nag_scale > 1 and self.nag_alpha > 0

    def is_active_at(self, step_index: int, num_inference_steps: int) -> bool:
        """Return True if step `step_index` (from 0) of `num_inference_steps` is guided.

        A step is guided when its start, `step_index / num_inference_steps`, lies in
        [nag_start, nag_end).
        """
        return self.is_active and self.nag_start <= step_index / num_inference_steps < self.nag_end


@dataclass(frozen=True)
class VsfParams:
    """The strength of Value Sign Flip: one attention in which the negative values count against.

    Args:
        vsf_scale: factor on the negative prompt's flipped values, at least 0; 0 switches guidance
            off.
        vsf_bias: amount subtracted from the logits of the negative prompt's tokens, at least 0; a
            higher one prefers the prompt.

    Raises:
        NagParameterError: a value is outside its range or not finite.

    Source: arXiv 2508.10931. The bias is the author's for Wan, whose scale is a little higher.

    Example:
        >>> VsfParams(vsf_scale=1.5).vsf_bias, VsfParams(vsf_scale=0).is_active
        (0.2, False)
    """

    vsf_scale: float = 1.0
    vsf_bias: float = 0.2

    def __post_init__(self) -> None:
        _require_at_least_zero("vsf_scale", self.vsf_scale)
        _require_at_least_zero("vsf_bias", self.vsf_bias)

    @property
    def is_active(self) -> bool:
        """True if these parameters change anything at all."""
        return self.vsf_scale > 0

    def is_active_at(self, step_index: int, num_inference_steps: int) -> bool:
        """Return `is_active`: Value Sign Flip has no step range."""
        return self.is_active


@dataclass(frozen=True)
class NasaParams:
    """The strength of Negative-Away Steer Attention.

    Args:
        nasa_scale: factor on the negative prompt's attention output, which is subtracted, at least
            0; 0 switches guidance off.

    Raises:
        NagParameterError: the value is outside its range or not finite.

    Source: arXiv 2412.02687.

    Example:
        >>> NasaParams().nasa_scale, NasaParams(nasa_scale=0).is_active
        (0.3, False)
    """

    nasa_scale: float = 0.3

    def __post_init__(self) -> None:
        _require_at_least_zero("nasa_scale", self.nasa_scale)

    @property
    def is_active(self) -> bool:
        """True if these parameters change anything at all."""
        return self.nasa_scale > 0

    def is_active_at(self, step_index: int, num_inference_steps: int) -> bool:
        """Return `is_active`: Negative-Away Steer Attention has no step range."""
        return self.is_active


GuidanceParams = NagParams | VsfParams | NasaParams


class NagStrengths(TypedDict, total=False):
    """The fields of `NagParams` as keyword arguments."""

    nag_scale: float
    nag_tau: float
    nag_alpha: float
    nag_start: float
    nag_end: float
    nag_norm: Literal["l1", "l2"]


def chosen_params(
    params: GuidanceParams | None, strengths: NagStrengths, defaults: NagParams
) -> GuidanceParams:
    """Return `params`, or the defaults with the strengths in their places.

    Raises:
        NagParameterError: both are given, a strength is unknown, or its value is out of range.
    """
    if params is not None and strengths:
        raise NagParameterError.of(f"give params or {', '.join(strengths)}, not both", *strengths)
    if unknown := set(strengths) - NagStrengths.__annotations__.keys():
        raise NagParameterError.of(
            f"unknown strength {', '.join(sorted(unknown))}; known are "
            f"{', '.join(NagStrengths.__annotations__)}, and VsfParams and NasaParams as params",
            *sorted(unknown),
        )
    return replace(defaults, **strengths) if params is None else params


def steps_from_noise(noise_fraction: float, flow_shift: float) -> float:
    """Return the `nag_end` that the author's code would call `noise_fraction`.

    The author ends guidance when the timestep falls below `(1 - nag_end) * 1000`, this library
    after a share of the steps. A shifted schedule spends most of its steps at high noise: with
    `flow_shift` 5 and 25 steps, the author's 0.25 guides 16 steps, a `nag_end` of 0.25 guides 7.

    Args:
        noise_fraction: `nag_end` in the author's code, above 0, at most 1.
        flow_shift: shift of the flow schedule, above 0; 1 leaves it unshifted.

    Source: the flow schedule, sigma = shift s / (1 + (shift - 1) s), solved for the share s.

    Example:
        >>> steps_from_noise(0.25, flow_shift=5)
        0.625

    Raises:
        NagParameterError: a value is out of range.
    """
    if not 0 < noise_fraction <= 1:
        raise NagParameterError(f"noise_fraction must be above 0, at most 1, got {noise_fraction}")
    if not 0 < flow_shift < math.inf:
        raise NagParameterError(f"flow_shift must be finite and above 0, got {flow_shift}")
    noise = 1 - noise_fraction
    return 1 - noise / (flow_shift - (flow_shift - 1) * noise)


def _require_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise NagParameterError.of(f"{name} must be a finite number, got {value}", name)


def _require_at_least_zero(name: str, value: float) -> None:
    _require_finite(name, value)
    if value < 0:
        raise NagParameterError.of(
            f"{name} must be at least 0 (0 switches guidance off), got {value}", name
        )
