"""The calls that a stock pipeline makes of its own `encode_prompt`.

Some pipelines decide about classifier-free guidance in a local variable of their call, which shows
in one place only: an argument of `encode_prompt`, the decision itself or the scale.
"""

from inspect import signature
from typing import Any

from nag.stand_ins import ReplacedMethod

ARGUMENT, SCALE = "do_classifier_free_guidance", "guidance_scale"
TEXTS = "prompts"  # the unconditional texts and the prompt behind them, which DreamLite encodes


class TextEncodingCalls:
    """Observes `encode_prompt` of a pipeline that does not tell its guidance otherwise.

    Args:
        pipeline: `encode_prompt` is replaced on it until `remove`, unless it has the property
            `do_classifier_free_guidance`.

    Attributes:
        has_unconditional_text: True if the last call asked for the unconditional text too; None
            before the first, and where the pipeline does not tell.
        num_texts: texts of the last call, where the pipeline encodes all of a step together.
    """

    def __init__(self, pipeline: Any) -> None:
        self.has_unconditional_text: bool | None = None
        self.num_texts: int | None = None
        self._observed: ReplacedMethod | None = None
        encode = getattr(pipeline, "encode_prompt", None)
        if hasattr(type(pipeline), ARGUMENT) or encode is None:
            return
        self._signature = signature(encode)
        if {ARGUMENT, SCALE, TEXTS} & self._signature.parameters.keys():
            self._observed = ReplacedMethod(pipeline, "encode_prompt", self._encode)

    def _encode(self, *args: Any, **kwargs: Any) -> Any:
        assert self._observed is not None
        call = self._signature.bind(*args, **kwargs)
        call.apply_defaults()
        if TEXTS in call.arguments:
            self.num_texts = len(call.arguments[TEXTS])
            return self._observed.own(*args, **kwargs)
        asked = call.arguments.get(ARGUMENT)
        self.has_unconditional_text = call.arguments[SCALE] > 1 if asked is None else bool(asked)
        return self._observed.own(*args, **kwargs)

    def remove(self) -> None:
        """Take the observer off the pipeline."""
        if self._observed is not None:
            self._observed.remove()
