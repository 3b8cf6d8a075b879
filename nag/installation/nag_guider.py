"""Guidance as a guider of diffusers' modular pipelines: `negative_prompt` of the call, one pass.

Source: the protocol of `diffusers.guiders.BaseGuidance` (0.42), which the blocks of a modular
pipeline follow: `prepare_inputs_from_block_state`, then `prepare_models`, the model and
`cleanup_models` for each pass, then the guider itself.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, Literal

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.guiders.guider_utils import BaseGuidance, GuiderOutput

from nag.attention.denoising_calls import DenoisingStep, GuidedRows
from nag.installation.guider_fields import Fields, check_fields, negative_of
from nag.installation.installation import InstalledGuidance
from nag.params import NagParams, NagStrengths
from nag.stand_ins import restore

PROMPT = 0  # its position in a pair of input fields
InputFields = Mapping[str, str | tuple[str, str]]


class NagGuider(BaseGuidance):
    """Normalized Attention Guidance in place of classifier-free guidance: one pass a step.

    `pipe.update_components(guider=NagGuider(nag_scale=11))`, and from then on the `negative_prompt`
    of a call guides by attention. The model is restored after each pass. For both guidances at
    once, or a compiled model, keep `ClassifierFreeGuidance` and use `nag.guide` around the call.
    It reads the negative prompt by the names that the model's family gives, and refuses a pipeline
    in which that lies elsewhere (`UnsupportedPipelineError`).

    Args:
        nag_scale: as in `NagParams`, like the others; None takes the default of the model's family,
            as `nag.guide` does.
        enabled: False for the prompt alone.

    Attributes:
        strengths: the strengths that were given, by name; the family's defaults fill in the others.

    Raises:
        NagParameterError: a value is out of range.

    Example:
        >>> guider = NagGuider(nag_scale=5)
        >>> NagGuider.from_config(guider.config).strengths
        {'nag_scale': 5}
    """

    _input_predictions = ["pred_cond"]  # noqa: RUF012 - as diffusers declares it

    @register_to_config
    def __init__(
        self,
        nag_scale: float | None = None,
        nag_tau: float | None = None,
        nag_alpha: float | None = None,
        nag_start: float | None = None,
        nag_end: float | None = None,
        nag_norm: Literal["l1", "l2"] | None = None,
        enabled: bool = True,
    ) -> None:
        given = {
            "nag_scale": nag_scale,
            "nag_tau": nag_tau,
            "nag_alpha": nag_alpha,
            "nag_start": nag_start,
            "nag_end": nag_end,
            "nag_norm": nag_norm,
        }
        chosen: Any = {name: one for name, one in given.items() if one is not None}
        self.strengths: NagStrengths = chosen
        # Raises at once, not in a call; no family's defaults switch guidance off.
        self._is_active = NagParams(**self.strengths).is_active
        super().__init__(enabled=enabled)
        self._fields: Fields = {}

    @property
    def is_conditional(self) -> bool:
        return True

    @property
    def num_conditions(self) -> int:
        """The number of texts: a pipeline embeds the negative prompt if there are two."""
        return 2

    def prepare_inputs(self, data: Any) -> list[Any]:
        self._take(data)
        return [self._prepare_batch(data, PROMPT, "pred_cond")]

    def prepare_inputs_from_block_state(self, data: Any, input_fields: InputFields) -> list[Any]:
        self._take(
            {
                name: tuple(getattr(data, one, None) for one in names)
                if isinstance(names, tuple)
                else getattr(data, names, None)
                for name, names in input_fields.items()
            }
        )
        fields: Any = input_fields
        return [self._prepare_batch_from_block_state(fields, data, PROMPT, "pred_cond")]

    def prepare_models(self, denoiser: torch.nn.Module) -> None:
        super().prepare_models(denoiser)
        if isinstance(left := vars(denoiser).get("forward"), _GuidedForward):
            left.leave()
        if not (self._enabled and self._is_active):
            return
        negative = negative_of(denoiser, self._fields)
        model: Any = SimpleNamespace(transformer=denoiser)
        with ExitStack() as stack:
            installed = stack.enter_context(InstalledGuidance(model, _PromptCalls(self)))
            stack.enter_context(installed.guide(negative, **self.strengths))
            _GuidedForward(denoiser, installed, stack.pop_all())

    def __call__(self, data: list[Any]) -> GuiderOutput:
        (batch,) = data
        return self.forward(batch.noise_pred)

    def forward(self, pred_cond: torch.Tensor) -> GuiderOutput:
        return GuiderOutput(pred=pred_cond, pred_cond=pred_cond, pred_uncond=None)

    def _take(self, fields: Fields) -> None:
        """Take the fields of a step, before the model is known."""
        check_fields(fields)
        self._fields = fields


class _PromptCalls:
    """The calls of a pipeline whose guider makes the prompt's pass alone."""

    def __init__(self, guider: NagGuider) -> None:
        self._guider = guider

    def guided_rows(self, name: str | None) -> GuidedRows:
        del name
        return "all"

    def step(self) -> DenoisingStep:
        state = self._guider.get_state()
        return DenoisingStep(state["step"], state["num_inference_steps"])

    def remove(self) -> None:
        """Do nothing: nothing was observed."""


class _GuidedForward:
    """Stands in the place of a model's `forward` for one call, and undoes the guidance after it.

    It does so also if the call failed: a pipeline then cleans nothing up. Not by a hook of torch:
    hooks that remove hooks break its handling of a failed call.
    """

    def __init__(self, denoiser: Any, installed: InstalledGuidance, guidance: ExitStack) -> None:
        self._forward, earlier = denoiser.forward, vars(denoiser).get("forward")
        self._installed, self._guidance = installed, guidance
        denoiser.forward = self
        guidance.callback(restore, denoiser, "forward", self, earlier)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._guidance:
            return self._installed.end_call(self._forward(*args, **kwargs))

    def leave(self) -> None:
        """Undo the guidance without a call, which a pipeline that failed before it never made."""
        self._guidance.close()
