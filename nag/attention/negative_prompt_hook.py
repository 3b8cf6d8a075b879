"""The hook that appends the negative prompt to the text of each guided call of a model.

Inside `guide` it has the keys and values of the text kept (`kept_projections`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from nag.attention.call_hook import CallHook
from nag.attention.denoising_calls import DenoisingCalls
from nag.attention.kept_projections import KeptProjections
from nag.attention.text.layout import GuidedSpan, TextLayout
from nag.attention.text.negative_text import NegativeText
from nag.attention.text_arguments import append_text, text_of
from nag.attention.text_concat import TextConcat
from nag.params import GuidanceParams


class NegativePromptHook(CallHook):
    """Appends the negative prompt to the text of every guided call, on the axis of tokens.

    Args:
        model: hooked until `remove`.
        text_concats: layout and method of each text that the model takes, which its processors
            read.
        projections: the model's keys and values of text.
        undo: called when the hook is removed.
        calls: the calls of the pipeline, by which it knows the guided ones.
        component: name of the model in the pipeline, for error messages.
        check: called before each call while guidance is on; it may raise.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        text_concats: Sequence[TextConcat],
        projections: KeptProjections,
        undo: Sequence[Callable[[], None]],
        calls: DenoisingCalls,
        component: str,
        check: Callable[[], None],
    ) -> None:
        self._text_concats = tuple(text_concats)
        self._projections = projections
        self._undo = tuple(undo)
        super().__init__(model, calls, component, check)

    def set(self, negative: NegativeText | None, params: GuidanceParams) -> None:
        super().set(negative, params)
        self._projections.forget()

    def end_loop(self) -> None:
        self._projections.forget()

    def remove(self) -> None:
        self._projections.forget()
        for undo in self._undo:
            undo()
        super().remove()

    def _use(self, params: GuidanceParams, *, has_negative: bool) -> None:
        for concat in self._text_concats:
            concat.use(params)
            concat.is_guiding = has_negative and params.is_active

    def _texts(self, arguments: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        return tuple(text_of(arguments[concat.text.embeds]) for concat in self._text_concats)

    def _num_rows(self, arguments: dict[str, Any]) -> int:
        return self._texts(arguments)[0].shape[0]

    def _begin(self, arguments: dict[str, Any]) -> None:
        for concat, text_BLD in zip(self._text_concats, self._texts(arguments), strict=True):
            concat.layout = TextLayout(text_BLD.shape[1])

    def _leave(self, arguments: dict[str, Any]) -> None:
        self._keep_projections(self._texts(arguments), None)

    def _guide(self, arguments: dict[str, Any], negative: NegativeText, guided: GuidedSpan) -> None:
        texts = self._texts(arguments)
        negatives: list[torch.Tensor] = []
        for concat in self._text_concats:
            negative_of_text = negative.of(concat.text)
            negatives.append(negative_of_text.embeds)
            append_text(arguments, concat, negative_of_text, guided)
        self._keep_projections((*texts, *negatives), guided)

    def _keep_projections(self, texts: tuple[torch.Tensor, ...], guided: GuidedSpan | None) -> None:
        projections = self._projections.of(texts, guided)
        for concat in self._text_concats:
            concat.projections = projections

    def _forget(self) -> None:
        for concat in self._text_concats:
            concat.layout = TextLayout(0)
            concat.negative_mask = None
            concat.projections = None
