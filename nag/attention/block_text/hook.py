"""The hook that appends the negative prompt to the text of the blocks, not to that of the model.

Some models make the text of their blocks of all its tokens together: with a padding for each
position, with convolutions over tokens, with a pooled text. Tokens more would change all that. So
such a model is called with the negative prompt in place of the prompt, up to its first block; what
the block would get is put behind the prompt's text, in each block.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from nag.attention.call_hook import CallHook
from nag.attention.denoising_calls import DenoisingCalls
from nag.attention.text.layout import GuidedSpan, TextInput, TextLayout
from nag.attention.text.negative_text import NegativeText
from nag.attention.text_arguments import FILLER_WITHOUT_MASK
from nag.attention.text_concat import TextConcat
from nag.errors import NagTextError
from nag.params import GuidanceParams


@dataclass(frozen=True)
class BlockTextPlan:
    """The way of the text through one family of such models.

    Args:
        blocks: name of the model's list of blocks.
        text: argument of a block that holds the text, (B, T, D).
        mask: argument of a block that holds its mask, (B, T), True for a real token; None without.
        others: further arguments of a block with one entry a token, tensors or tuples of them, and
            the axis of tokens in each.
        has_one_length: True if every text must have as many tokens as the prompt.
    """

    blocks: str
    text: str = "encoder_hidden_states"
    mask: str | None = None
    others: Mapping[str, int] = field(default_factory=dict[str, int])
    has_one_length: bool = False

    def axes(self) -> dict[str, int]:
        """Return the axis of tokens in each argument of a block that is of the text."""
        masks = {} if self.mask is None else {self.mask: 1}
        return {self.text: 1, **masks, **self.others}


class _TextIsKnown(Exception):  # noqa: N818 - not an error
    """Ends the call with the negative prompt, once its first block is reached."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__("the call ends here")
        self.arguments = arguments


class _Noting(torch.nn.Module):
    """Stands in the place of a model's blocks, and ends the call with what the first one gets.

    Args:
        signature: the arguments of a block.
        names: the arguments to note.
    """

    def __init__(self, signature: inspect.Signature, names: tuple[str, ...]) -> None:
        super().__init__()
        self._signature, self._names = signature, names

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        arguments = self._signature.bind(*args, **kwargs).arguments
        raise _TextIsKnown({name: arguments.get(name) for name in self._names})


class BlockTextHook(CallHook):
    """Appends the negative prompt to the text of the blocks, in every guided call.

    Args:
        model: hooked until `remove`, and its blocks too.
        concat: layout and method of the text, which the processors read.
        texts: texts that the model takes.
        plan: way of the text through this family.
        calls: the calls of the pipeline, by which it knows the guided ones.
        component: name of the model in the pipeline, for error messages.
        check: called before each call while guidance is on; it may raise.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        concat: TextConcat,
        texts: Sequence[TextInput],
        plan: BlockTextPlan,
        calls: DenoisingCalls,
        component: str,
        check: Callable[[], None],
    ) -> None:
        self._concat = concat
        self._texts = tuple(texts)
        self._plan = plan
        self._forget()
        super().__init__(model, calls, component, check)
        self._handles += [
            block.register_forward_pre_hook(self._as_hook(self._before_block), with_kwargs=True)
            for block in getattr(model, plan.blocks)
        ]

    def _use(self, params: GuidanceParams, *, has_negative: bool) -> None:
        self._concat.use(params)
        self._concat.is_guiding = has_negative and params.is_active

    def _num_rows(self, arguments: dict[str, Any]) -> int:
        return arguments[self._texts[0].embeds].shape[0]

    def _begin(self, arguments: dict[str, Any]) -> None:
        del arguments
        self._is_in_call = True

    def _guide(self, arguments: dict[str, Any], negative: NegativeText, guided: GuidedSpan) -> None:
        other = dict(arguments)
        for text in self._texts:
            prompt_BTD, mask_BT = arguments[text.embeds], arguments.get(text.mask)
            fitted = negative.of(text).fit(prompt_BTD, guided)
            if self._plan.has_one_length and fitted.embeds.shape != prompt_BTD.shape:
                raise NagTextError(
                    f"the negative prompt must have {prompt_BTD.shape[1]} tokens in {text.embeds}, "
                    f"as the prompt has, got {fitted.embeds.shape[1]}"
                )
            other[text.embeds] = fitted.embeds
            if mask_BT is not None:
                other[text.mask] = fitted.append_mask(mask_BT)[:, mask_BT.shape[1] :]
            elif fitted.without_idle_mask().attention_mask is not None:
                raise NagTextError(FILLER_WITHOUT_MASK)
        self._negative = self._text_of_blocks(other)
        self._guided = guided
        text_BTD = self._negative[self._plan.text]
        mask = None if self._plan.mask is None else self._negative[self._plan.mask]
        is_text = text_BTD.new_ones(text_BTD.shape[:2]) if mask is None else mask
        self._concat.negative_mask = is_text.bool()

    def _text_of_blocks(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return what a block gets of the text in a call with these arguments.

        Another module notes it in the blocks' place: the blocks themselves may be compiled, and no
        exception leaves a compiled one.
        """
        blocks = getattr(self._model, self._plan.blocks)
        noting = _Noting(inspect.signature(blocks[0].forward), tuple(self._plan.axes()))
        setattr(self._model, self._plan.blocks, torch.nn.ModuleList([noting]))
        try:
            self._model.forward(**arguments)  # not a call of the pipeline
        except _TextIsKnown as known:
            return known.arguments
        finally:
            setattr(self._model, self._plan.blocks, blocks)
        raise NagTextError(f"{type(self._model).__name__} did not call its {self._plan.blocks}")

    def _before_block(
        self, block: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if not self._is_in_call:
            return None
        call = inspect.signature(block.forward).bind(*args, **kwargs)
        arguments, axes = call.arguments, self._plan.axes()
        length = arguments[self._plan.text].shape[1]
        if self._guided is None:
            self._concat.layout = TextLayout(length)
            return None
        num_negative_tokens = self._negative[self._plan.text].shape[1]
        self._concat.layout = TextLayout(length, num_negative_tokens, self._guided)
        for name, axis in axes.items():
            if arguments.get(name) is not None:
                arguments[name] = _joined(arguments[name], self._negative[name], axis)
        return call.args, call.kwargs

    def _forget(self) -> None:
        self._concat.layout = TextLayout(0)
        self._concat.negative_mask = None
        self._is_in_call = False
        self._guided: GuidedSpan | None = None
        self._negative: dict[str, Any] = {}


def _joined(one: Any, other: Any, axis: int) -> Any:
    if isinstance(one, tuple):
        return tuple(_joined(*parts, axis) for parts in zip(one, other, strict=True))
    return torch.cat([one, other], dim=axis)
