"""The calls that a stock pipeline makes of its own `encode_prompt`.

Some pipelines decide about classifier-free guidance in a local variable of their call, which shows
in one place only: the argument of `encode_prompt`.
"""

from inspect import signature
from typing import Any

from nag.stand_ins import ReplacedMethod

ARGUMENT = "do_classifier_free_guidance"


class TextEncodingCalls:
    """Observes `encode_prompt` of a pipeline that does not tell its guidance otherwise.

    Args:
        pipeline: `encode_prompt` is replaced on it until `remove`, unless it has the property
            `do_classifier_free_guidance`.

    Attributes:
        has_unconditional_text: True if the last call asked for the unconditional text too; None
            before the first, and where the pipeline does not tell.
    """

    def __init__(self, pipeline: Any) -> None:
        self.has_unconditional_text: bool | None = None
        self._observed: ReplacedMethod | None = None
        encode = getattr(pipeline, "encode_prompt", None)
        if hasattr(type(pipeline), ARGUMENT) or encode is None:
            return
        self._signature = signature(encode)
        if ARGUMENT in self._signature.parameters:
            self._observed = ReplacedMethod(pipeline, "encode_prompt", self._encode)

    def _encode(self, *args: Any, **kwargs: Any) -> Any:
        assert self._observed is not None
        call = self._signature.bind(*args, **kwargs)
        call.apply_defaults()
        self.has_unconditional_text = bool(call.arguments[ARGUMENT])
        return self._observed.own(*args, **kwargs)

    def remove(self) -> None:
        """Take the observer off the pipeline."""
        if self._observed is not None:
            self._observed.remove()
