"""The transformer's calls in a modular pipeline, whose guiders name the pass of each.

A guider prepares the passes of a step, then the model for each call. Both are observed, so that a
call that no observed guider has prepared is known as foreign, also after a clip that failed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from nag.attention.denoising_calls import GUIDED_ROWS, DenoisingStep, GuidedRows
from nag.errors import ForeignCallError, UnnamedCallError
from nag.stand_ins import ReplacedMethod

# LTX-2's weak predictions of the prompt, which its guider pushes away from.
WEAK_PASSES = frozenset({"pred_cond_stg", "pred_cond_modality"})
PERTURBED_PASSES = "pred_cond_"  # such as pred_cond_skip: conditional, with another model


class GuiderCalls:
    """The calls of a modular pipeline, whose guiders name the pass that each call belongs to.

    Args:
        pipeline: modular pipeline; its guiders are observed until `remove`.
        check: called before each call; it may raise.
    """

    def __init__(self, pipeline: Any, check: Callable[[], None]) -> None:
        self._check = check
        self._guider: Any = None  # makes the call under way; taken by `guided_rows`
        self._passes: list[str] = []  # the step's, in the order of their calls
        self._num_calls = 0  # in this step
        self._step: DenoisingStep | None = None
        found = (getattr(pipeline, name, None) for name in ("guider", "guider_2"))
        guiders = {id(guider): guider for guider in found if guider is not None}
        self._observed = [_ObservedGuider(guider, self) for guider in guiders.values()]

    def guided_rows(self, name: str | None) -> GuidedRows:
        del name  # Wan's blocks name no call, and the guider names each
        guider, self._guider = self._guider, None
        if guider is None:
            raise ForeignCallError(
                "the transformer was called without the guider of the modular pipeline that "
                "guidance was installed on; install it on the pipeline that renders, and again "
                "after an update of its guider"
            )
        state = guider.get_state()
        self._step = DenoisingStep(state["step"], state["num_inference_steps"])
        index = self._num_calls - 1
        this_pass = self._passes[index] if index < len(self._passes) else None
        if this_pass in WEAK_PASSES:
            return "none"
        if this_pass in GUIDED_ROWS:
            return GUIDED_ROWS[this_pass]
        if this_pass is not None and this_pass.startswith(PERTURBED_PASSES):
            return "all"
        raise UnnamedCallError(
            f"{type(guider).__name__} makes a pass of the unknown name {this_pass!r}, so guidance "
            f"cannot tell whether it is unconditional; its passes are {self._passes}: use a guider "
            "of diffusers that names each, such as ClassifierFreeGuidance"
        )

    def step(self) -> DenoisingStep:
        assert self._step is not None, "asked after `guided_rows`"
        return self._step

    def remove(self) -> None:
        for observed in self._observed:
            observed.remove()
        self._observed.clear()

    def begin_step(self, passes: list[str]) -> None:
        """Note the passes of the step that begins."""
        self._guider, self._passes, self._num_calls = None, passes, 0

    def begin_call(self, guider: Any) -> None:
        """Note that a guider makes the next call."""
        self._check()
        self._guider = guider
        self._num_calls += 1


class _ObservedGuider:
    """A guider that tells which passes a step has, and when it makes a call.

    Three of its methods are replaced until `remove`: blocks call one of two for the passes, and
    one of these may call the other.
    """

    def __init__(self, guider: Any, calls: GuiderCalls) -> None:
        self._guider, self._calls = guider, calls
        self._inputs = [
            ReplacedMethod(guider, name, partial(self._inputs_of_step, index))
            for index, name in enumerate(("prepare_inputs", "prepare_inputs_from_block_state"))
        ]
        self._prepare = ReplacedMethod(guider, "prepare_models", self._before_call)

    def remove(self) -> None:
        for inputs in self._inputs:
            inputs.remove()
        self._prepare.remove()

    def _inputs_of_step(self, index: int, /, *args: Any, **kwargs: Any) -> Any:
        passes = self._inputs[index].own(*args, **kwargs)
        self._calls.begin_step([getattr(one, self._guider._identifier_key) for one in passes])
        return passes

    def _before_call(self, denoiser: Any) -> None:
        self._calls.begin_call(self._guider)
        self._prepare.own(denoiser)
