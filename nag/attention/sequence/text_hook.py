"""The hook that puts the negative prompt's tokens behind the prompt's, in a text that is updated.

It serves models that keep text and image apart before they join them, and that change neither by
the length of the text: their own layers carry the longer text, and only attention is split.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from nag.attention.call_hook import CallHook
from nag.attention.denoising_calls import DenoisingCalls
from nag.attention.sequence.lanes import SequenceLane, SequenceLanes
from nag.attention.text.layout import VIDEO_TEXT, GuidedSpan
from nag.attention.text.negative_text import NegativeText
from nag.errors import NagTextError
from nag.params import GuidanceParams

TEXT, IMAGE = VIDEO_TEXT.embeds, "hidden_states"


@dataclass(frozen=True)
class TextStreamPlan:
    """The way of the negative prompt through one family of such models.

    Args:
        ids: argument that holds the positions of the text, (T, axes) or (B, T, axes).
        ids_of: returns the positions of a text of so many tokens, by those of the prompt.
        refusal: returns the reason why a call cannot be guided, of the model and the call's
            arguments; None if it can.
        num_references: returns the tokens before the image that see no text, of the arguments.
    """

    ids: str
    ids_of: Callable[[torch.Tensor, int], torch.Tensor]
    refusal: Callable[[Any, dict[str, Any]], str | None]
    num_references: Callable[[dict[str, Any]], int]


class TextStreamHook(CallHook):
    """Appends the negative prompt to the text of every guided call, on the axis of tokens.

    Args:
        model: hooked until `remove`.
        lanes: layout of the call, which the processors read.
        plan: way of the negative prompt through this family.
        calls: the calls of the pipeline, by which it knows the guided ones.
        component: name of the model in the pipeline, for error messages.
        check: called before each call while guidance is on; it may raise.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        lanes: SequenceLanes,
        plan: TextStreamPlan,
        calls: DenoisingCalls,
        component: str,
        check: Callable[[], None],
    ) -> None:
        self._lanes = lanes
        self._plan = plan
        super().__init__(model, calls, component, check)

    def _use(self, params: GuidanceParams, *, has_negative: bool) -> None:
        self._lanes.use(params)
        self._lanes.is_guiding = has_negative and params.is_active

    def _num_rows(self, arguments: dict[str, Any]) -> int:
        return arguments[TEXT].shape[0]

    def _begin(self, arguments: dict[str, Any]) -> None:
        del arguments
        self._lanes.is_in_call = True

    def _guide(self, arguments: dict[str, Any], negative: NegativeText, guided: GuidedSpan) -> None:
        if reason := self._plan.refusal(self._model, arguments):
            raise NagTextError(reason)
        if negative.attention_mask is not None:
            raise NagTextError(
                "the negative prompt has an attention mask, and this model takes none: leave "
                "NegativeText's attention_mask out"
            )
        text_BTD = arguments[TEXT]
        negative = replace(negative, has_default_length=False).fit(text_BTD, guided)
        length, num_negative_tokens = text_BTD.shape[1], negative.embeds.shape[1]
        num_image_tokens = arguments[IMAGE].shape[1] - self._plan.num_references(arguments)
        arguments[TEXT] = torch.cat([text_BTD, negative.embeds], dim=1)
        ids = arguments[self._plan.ids]
        arguments[self._plan.ids] = torch.cat(
            [ids, self._plan.ids_of(ids, num_negative_tokens)], dim=-2
        )
        starts = (length,) * (guided.stop - guided.start)
        self._lanes.lane = SequenceLane(
            guided, length + num_image_tokens, starts, num_image_tokens, num_negative_tokens
        )

    def _forget(self) -> None:
        self._lanes.lane = None
        self._lanes.is_in_call = False
