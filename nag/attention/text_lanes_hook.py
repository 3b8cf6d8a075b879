"""The hook that gives each guided call of a model a negative lane of text.

The model's own front end embeds the lane. Hooks of the model's parts give each part the rows that
it takes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from nag.attention.call_hook import CallHook
from nag.attention.denoising_calls import DenoisingCalls
from nag.attention.text.glyphs import append_glyphs
from nag.attention.text.layout import GuidedSpan, TextInput
from nag.attention.text.negative_text import NegativeText
from nag.attention.text_lanes import LaneRows, TextLanes
from nag.attention.text_layers import append_layers
from nag.block_caches import check_cache
from nag.errors import NagTextError
from nag.params import GuidanceParams

Edit = Callable[[LaneRows, torch.Tensor], torch.Tensor]
"""A change of each tensor that a part takes: `LaneRows.first` or `LaneRows.with_lane`."""


def _no_parts(_model: Any) -> Iterable[tuple[torch.nn.Module, Edit]]:
    return ()


def _no_refusal(_arguments: dict[str, Any]) -> str | None:
    return None


def _no_further_tokens(_model: Any, _arguments: dict[str, Any]) -> int:
    return 0


@dataclass(frozen=True)
class LanePlan:
    """The way of the negative lane through one family of models.

    Args:
        parts: returns the parts of a model whose tensors are cut to the rows of the call, or are
            repeated for the lane, each with its edit.
        outputs: returns the parts of a model whose output is changed, each with its edit.
        pooled: argument that holds the pooled text; None without one.
        repeated: arguments that are combined with the text, and so are repeated for the lane:
            tensors, lists of tensors, or lists with a value for each row. If `hidden_states` are,
            the output is cut to the call.
        has_own_lengths: True if the texts may have two lengths, since no attention of the model
            takes both as one tensor; else both must have one length.
        glyphs: arguments of the letters that the prompt quotes; None without them.
        layers: argument that holds the text by all layers of an encoder; None without one.
        can_flip: True if Value Sign Flip may guide: all attentions are of two streams, and the
            image has no rows of its own in the negative lane.
        positions: argument that holds the positions of the text, (T, axes) or (B, T, axes), all
            zero; None where both prompts have one length.
        mask_in: argument, a mapping, that holds the mask of text and image by the name
            `attention_mask`, (B, 1, 1, S); the processors get that of the text, (N, T). None if the
            mask is an argument of its own.
        further: returns the number of tokens that a model joins to those of the text, of the model
            and the call's arguments.
        refusal: returns the reason why a call cannot be guided, of its arguments; None if it can.
    """

    parts: Callable[[Any], Iterable[tuple[torch.nn.Module, Edit]]] = _no_parts
    outputs: Callable[[Any], Iterable[tuple[torch.nn.Module, Edit]]] = _no_parts
    pooled: str | None = None
    repeated: tuple[str, ...] = ()
    has_own_lengths: bool = False
    glyphs: TextInput | None = None
    layers: str | None = None
    can_flip: bool = False
    positions: str | None = None
    mask_in: str | None = None
    further: Callable[[Any, dict[str, Any]], int] = _no_further_tokens
    refusal: Callable[[dict[str, Any]], str | None] = _no_refusal


class TextLanesHook(CallHook):
    """Appends the negative prompt to the text of every guided call, on the axis of rows.

    Args:
        model: hooked until `remove`, and its parts.
        lanes: lanes of the call, which the processors read.
        plan: way of the lane through this family.
        calls: the calls of the pipeline, by which it knows the guided ones.
        component: name of the model in the pipeline, for error messages.
        check: called before each call while guidance is on; it may raise.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        lanes: TextLanes,
        plan: LanePlan,
        calls: DenoisingCalls,
        component: str,
        check: Callable[[], None],
    ) -> None:
        self._lanes = lanes
        self._plan = plan
        super().__init__(model, calls, component, check)
        self._handles += [
            part.register_forward_pre_hook(self._as_hook(_PartHook(lanes, edit)), with_kwargs=True)
            for part, edit in plan.parts(model)
        ] + [
            part.register_forward_hook(self._as_hook(_OutputHook(lanes, edit)))
            for part, edit in plan.outputs(model)
        ]

        self._repeating = [part for part, edit in plan.parts(model) if edit is LaneRows.with_lane]

    def _use(self, params: GuidanceParams, *, has_negative: bool) -> None:
        self._lanes.use(params)
        self._lanes.is_guiding = has_negative and params.is_active

    def _num_rows(self, arguments: dict[str, Any]) -> int:
        return arguments[self._lanes.text.embeds].shape[0]

    def _begin(self, arguments: dict[str, Any]) -> None:
        count, length = arguments[self._lanes.text.embeds].shape[:2]
        self._lanes.rows = LaneRows(GuidedSpan(0, 0, count), length, 0)

    def _guide(self, arguments: dict[str, Any], negative: NegativeText, guided: GuidedSpan) -> None:
        text, plan = self._lanes.text, self._plan
        if reason := plan.refusal(arguments):
            raise NagTextError(reason)
        embeds_BTD = arguments[text.embeds]
        check_cache(self._model, self._repeating, len(embeds_BTD))
        num_guided = guided.stop - guided.start
        negative = replace(negative, has_default_length=False).fit(
            embeds_BTD[guided.start : guided.stop], GuidedSpan(0, num_guided, num_guided)
        )
        length, negative_length = embeds_BTD.shape[1], negative.embeds.shape[1]
        may_differ = plan.has_own_lengths or self._lanes.is_flipping
        if length != negative_length and not may_differ:
            raise NagTextError(
                f"the prompt has {length} tokens and the negative prompt has {negative_length}; in "
                "this family both must have the same: give guide() the max_sequence_length of the "
                "call, or embeddings of the same length"
            )
        rows = LaneRows(guided, length, negative_length)
        arguments[text.embeds] = _stack(rows, embeds_BTD, negative.embeds)
        if plan.mask_in is None:
            self._append_mask(arguments, rows, negative)
        else:
            arguments[plan.mask_in] = self._with_mask(arguments.get(plan.mask_in), rows, negative)
        if plan.positions is not None:
            filler = (0, 0, 0, rows.width - length)
            arguments[plan.positions] = functional.pad(arguments[plan.positions], filler)
        if self._lanes.is_flipping:
            self._lanes.negative_mask = self._mask_of_flip(negative)
        self._append_pooled(arguments, rows, negative)
        for name in plan.repeated:
            if arguments.get(name) is not None:
                arguments[name] = _repeat(rows, arguments[name])
        if plan.glyphs is not None and arguments.get(plan.glyphs.embeds) is not None:
            append_glyphs(arguments, plan.glyphs, negative, guided)
        if plan.layers is not None:
            append_layers(arguments, plan.layers, negative, rows)
        self._lanes.rows = rows.with_tokens(plan.further(self._model, arguments))

    def _append_pooled(
        self, arguments: dict[str, Any], rows: LaneRows, negative: NegativeText
    ) -> None:
        name = self._plan.pooled
        if name is None:
            return
        if self._lanes.is_flipping:
            # Its authors have one row of text, which the prompt's pooled text modulates.
            arguments[name] = rows.with_lane(arguments[name])
        else:
            arguments[name] = _with_pooled(arguments[name], negative, name)

    def _with_mask(
        self, given: dict[str, Any] | None, rows: LaneRows, negative: NegativeText
    ) -> dict[str, Any]:
        """Return a mapping with the mask of both texts in the place of that of text and image."""
        given = dict(given or {})
        mask, of_lane = given.pop("attention_mask", None), negative.attention_mask
        if mask is None and negative.without_idle_mask().attention_mask is None:
            return given
        device = negative.embeds.device
        of_call = torch.ones((rows.count, rows.text_length), dtype=torch.bool, device=device)
        if mask is not None:
            of_call = mask[:, 0, 0, : rows.text_length].bool().expand_as(of_call)
        if of_lane is None:
            of_lane = of_call.new_ones(negative.embeds.shape[:2])
        return given | {"attention_mask": _stack(rows, of_call, of_lane.to(of_call))}

    def _append_mask(
        self, arguments: dict[str, Any], rows: LaneRows, negative: NegativeText
    ) -> None:
        """Put the negative prompt's mask below the prompt's, if one of both has a mask.

        A mask that goes on over the image stays so.
        """
        name = self._lanes.text.mask
        if self._lanes.is_flipping and name not in self._signature.parameters:
            return  # the mask is for the flipped values
        mask_BT, negative_mask_GT = arguments.get(name), negative.attention_mask
        if mask_BT is None and negative_mask_GT is None:
            return
        if name not in self._signature.parameters:
            raise NagTextError(
                "the negative prompt has an attention mask, and this model takes none: leave "
                "NegativeText's attention_mask out"
            )
        if mask_BT is None:
            negative_mask_GT = negative.without_idle_mask().attention_mask
            if negative_mask_GT is None:
                return
            embeds = arguments[self._lanes.text.embeds]
            mask_BT = embeds.new_ones((rows.count, rows.text_length), dtype=torch.bool)
        if negative_mask_GT is None:
            negative_mask_GT = mask_BT.new_ones(negative.embeds.shape[:2])
        num_further = mask_BT.shape[1] - rows.text_length
        if num_further > 0:
            negative_mask_GT = functional.pad(negative_mask_GT, (0, num_further), value=1)
            rows = rows.with_tokens(num_further)
        arguments[name] = _stack(rows, mask_BT, negative_mask_GT.to(mask_BT))

    def _mask_of_flip(self, negative: NegativeText) -> torch.Tensor:
        """Return True for each token of the negative prompt that is text, (G, T)."""
        if negative.attention_mask is not None:
            return negative.attention_mask.bool()
        if self._lanes.text.mask in self._signature.parameters:  # a text without filler
            return torch.ones(negative.embeds.shape[:2], dtype=torch.bool).to(
                negative.embeds.device
            )
        raise NagTextError(
            "Value Sign Flip must know which tokens of the negative prompt are text, since each of "
            "the others would take a share of attention away from the prompt: give NegativeText an "
            "attention_mask, (batch, tokens)"
        )

    def _forget(self) -> None:
        self._lanes.rows = self._lanes.negative_mask = None

    def _after_call(self, _model: Any, _args: Any, _output: Any) -> Any:
        rows, output = self._lanes.rows, _output
        super()._after_call(_model, _args, _output)
        if rows is None or not rows.is_guided or "hidden_states" not in self._plan.repeated:
            return None
        if isinstance(output, tuple):
            return tuple(map(rows.first, output))
        if output is not None:  # None after an exception
            output.sample = rows.first(output.sample)
        return output


class _PartHook:
    """Edits the tensors that one part of a model takes, in guided calls."""

    def __init__(self, lanes: TextLanes, edit: Edit) -> None:
        self._lanes, self._edit = lanes, edit

    def __call__(
        self, _part: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        rows = self._lanes.rows
        if rows is None or not rows.is_guided:
            return None
        edit = self._edit
        return tuple(edit(rows, one) if torch.is_tensor(one) else one for one in args), {
            name: edit(rows, one) if torch.is_tensor(one) else one for name, one in kwargs.items()
        }


class _OutputHook:
    """Edits the tensors that one part of a model returns, in guided calls."""

    def __init__(self, lanes: TextLanes, edit: Edit) -> None:
        self._lanes, self._edit = lanes, edit

    def __call__(self, _part: torch.nn.Module, _args: Any, output: Any) -> Any:
        rows = self._lanes.rows
        if rows is None or not rows.is_guided:
            return output
        if torch.is_tensor(output):
            return self._edit(rows, output)
        return tuple(self._edit(rows, one) for one in output)


def _stack(rows: LaneRows, of_call: torch.Tensor, of_lane: torch.Tensor) -> torch.Tensor:
    """Return the rows of both lanes, the shorter ones filled up with zeros behind their tokens."""
    filler = (0, 0) * (of_call.ndim - 2)
    return torch.cat(
        [functional.pad(one, (*filler, 0, rows.width - one.shape[1])) for one in (of_call, of_lane)]
    )


def _with_pooled(pooled_BD: torch.Tensor, negative: NegativeText, name: str) -> torch.Tensor:
    if negative.pooled is None:
        raise NagTextError(
            f"the model takes {name} too: give NegativeText the pooled embeddings that the "
            "pipeline's encode_prompt makes, or give guide() the text itself"
        )
    if negative.pooled.shape[1:] != pooled_BD.shape[1:]:
        raise NagTextError(
            f"the negative prompt's pooled embeddings must be (batch, {pooled_BD.shape[1]}), got "
            f"{tuple(negative.pooled.shape)}"
        )
    return torch.cat([pooled_BD, negative.pooled.to(pooled_BD)])


def _repeat(rows: LaneRows, argument: Any) -> Any:
    if torch.is_tensor(argument):
        return rows.with_lane(argument)
    if torch.is_tensor(argument[0]):
        return [rows.with_lane(one) for one in argument]
    return [*argument, *argument[rows.guided.start : rows.guided.stop]]
