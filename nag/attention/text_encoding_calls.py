"""The calls that a stock pipeline makes of its own `encode_prompt`.

Some pipelines decide about classifier-free guidance in a local variable of their call, which shows
in one place only: the argument of `encode_prompt`.
"""

from functools import wraps
from inspect import signature
from typing import Any

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
        self._pipeline, self._observed = pipeline, None
        encode = getattr(pipeline, "encode_prompt", None)
        if hasattr(type(pipeline), ARGUMENT) or encode is None:
            return
        its_signature = signature(encode)
        if ARGUMENT not in its_signature.parameters:
            return

        @wraps(encode)
        def observed(*args: Any, **kwargs: Any) -> Any:
            call = its_signature.bind(*args, **kwargs)
            call.apply_defaults()
            self.has_unconditional_text = bool(call.arguments[ARGUMENT])
            return encode(*args, **kwargs)

        self._replaced = vars(pipeline).get("encode_prompt")  # another extension's
        self._observed = pipeline.encode_prompt = observed

    def remove(self) -> None:
        """Take the observer off the pipeline."""
        if self._observed is not None:
            restore(self._pipeline, "encode_prompt", self._observed, self._replaced)


def restore(owner: Any, name: str, ours: Any, earlier: Any) -> None:
    """Take an attribute of ours off an object, unless another extension has replaced it since.

    Args:
        earlier: the object's own attribute of this name before; None without one.
    """
    if vars(owner).get(name) != ours:
        return
    if earlier is None:
        delattr(owner, name)
    else:
        setattr(owner, name, earlier)
