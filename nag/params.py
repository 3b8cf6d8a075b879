"""The parameters of Normalized Attention Guidance. Loads without torch."""

import math
from dataclasses import dataclass

from nag.errors import NagParameterError


@dataclass(frozen=True)
class NagParams:
    """How strongly the negative prompt pushes, and how far the result may move.

    Args:
        nag_scale: strength, at least 1; 1 switches guidance off. The paper's phi is `nag_scale - 1`; this is the
            convention of the author's code.
        nag_tau: largest allowed growth of a token's L1 norm, above 0.
        nag_alpha: share of the guided features in the result, 0 to 1; the rest is the unguided features.
        nag_start: fraction of the denoising steps after which guidance begins, 0 to 1.
        nag_end: fraction of the denoising steps after which guidance ends, above `nag_start`, at most 1.

    Raises:
        NagParameterError: a value is outside its range or not finite.

    Source: arXiv 2505.21179, section 3.3. The defaults are the author's for Wan at 25 steps.
    """

    nag_scale: float = 9.0
    nag_tau: float = 2.5
    nag_alpha: float = 0.25
    nag_start: float = 0.0
    nag_end: float = 1.0

    def __post_init__(self) -> None:
        for name in ("nag_scale", "nag_tau", "nag_alpha", "nag_start", "nag_end"):
            if not math.isfinite(getattr(self, name)):
                raise NagParameterError(f"{name} must be a finite number, not {getattr(self, name)}")
        if self.nag_scale < 1:
            raise NagParameterError(f"nag_scale must be at least 1 (1 is no guidance), not {self.nag_scale}")
        if self.nag_tau <= 0:
            raise NagParameterError(f"nag_tau must be above 0, not {self.nag_tau}")
        if not 0 <= self.nag_alpha <= 1:
            raise NagParameterError(f"nag_alpha must be between 0 and 1, not {self.nag_alpha}")
        if not 0 <= self.nag_start < self.nag_end <= 1:
            raise NagParameterError(
                "nag_start and nag_end must satisfy 0 <= nag_start < nag_end <= 1, "
                f"not {self.nag_start}, {self.nag_end}"
            )

    @property
    def is_active(self) -> bool:
        """Whether these parameters change anything at all."""
        return self.nag_scale > 1 and self.nag_alpha > 0

    def is_active_at(self, step_index: int, num_inference_steps: int) -> bool:
        """Whether step `step_index` (from 0) of `num_inference_steps` is guided.

        A step is guided when the point at which it starts, `step_index / num_inference_steps`, lies in
        [nag_start, nag_end).
        """
        return self.is_active and self.nag_start <= step_index / num_inference_steps < self.nag_end
