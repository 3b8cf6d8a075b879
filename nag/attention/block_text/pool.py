"""The parts of a model that make one vector of its whole text, such as for the time embedding.

They get the prompt alone: the vector means the same with and without guidance, as pooled text that
a pipeline computes itself does.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nag.attention.text_concat import TextConcat
from nag.errors import NagTextError
from nag.stand_ins import ModelHook


@dataclass(frozen=True)
class TextPool:
    """One such part.

    Args:
        module: its name in the model.
        text: argument of its call that holds the text, (B, T, D).
        mask: argument that holds the text's mask, with the tokens last; None without one.
    """

    module: str
    text: str
    mask: str | None = None


def keep_prompt_alone(model: Any, pool: TextPool, concat: TextConcat) -> Callable[[], None]:
    """Have a pool get the prompt's tokens alone; the function that is returned ends that.

    Args:
        model: model that has the pool.
        pool: the pool.
        concat: layout of the text that it gets.
    """
    module = model.get_submodule(pool.module)
    signature = inspect.signature(module.forward)

    def cut(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layout = concat.layout
        if not layout.negative_length:
            return None
        call = signature.bind(*args, **kwargs)
        text_BTD = call.arguments[pool.text]
        if text_BTD.shape[1] != layout.length:
            raise NagTextError(
                f"{pool.module}: the text must reach the model by a call of it and stay whole: "
                f"expected {layout.length} tokens, got {text_BTD.shape[1]}"
            )
        call.arguments[pool.text] = text_BTD[:, : layout.positive_length]
        if pool.mask is not None and (mask := call.arguments.get(pool.mask)) is not None:
            call.arguments[pool.mask] = mask[..., : layout.positive_length]
        return call.args, call.kwargs

    hook = ModelHook(cut, lambda: concat.is_guiding)
    return module.register_forward_pre_hook(hook, with_kwargs=True).remove
