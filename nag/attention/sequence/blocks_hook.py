"""The hook that puts the negative prompt's tokens behind the sequence of each guided block.

Between the blocks the model has its own sequence, as without guidance, so that the residuals of a
ControlNet and the last layers find what they expect. The negative prompt's tokens wait here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn import functional

from nag.attention.call_hook import CallHook
from nag.attention.denoising_calls import DenoisingCalls
from nag.attention.sequence.lanes import SequenceLane, SequenceLanes
from nag.attention.text.layout import GuidedSpan
from nag.attention.text.negative_text import NegativeText
from nag.errors import NagTextError
from nag.params import GuidanceParams

Arguments = dict[str, Any]
BlockInputs = tuple[tuple[Any, ...], Arguments]
SEQUENCE = "hidden_states"  # in blocks that are called by names


def append_tokens(
    args: tuple[Any, ...], kwargs: Arguments, tokens_BND: torch.Tensor
) -> BlockInputs:
    """Return a block's arguments with tokens behind the sequence, which is the first of them."""
    return (torch.cat([args[0], tokens_BND], dim=1), *args[1:]), kwargs


@dataclass(frozen=True, eq=False)
class EmbeddedText:
    """One text before the first block, as if the model had been called with it.

    Args:
        tokens: (1, N, D).
        num_image_tokens: tokens of the image, L.
        rotary: rotary embedding of the image and of this text behind it, (1, L + N, ...); None
            where the image's is the same beside every text, and the text's is none.
        texts: text that a cross-attention in a block reads besides, (1, T, C), by the `block` of
            its processor.
    """

    tokens: torch.Tensor
    num_image_tokens: int
    rotary: torch.Tensor | None = None
    texts: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class SequencePlan:
    """The way of the negative prompt through one family of single-stream models.

    Args:
        blocks: returns the blocks that take the sequence first of all their arguments.
        text: returns the prompts of a call, (B, T, D), with a filler behind the shorter ones.
        image_starts: returns the first image token in each row's sequence; takes the model and a
            call's arguments.
        embed: embeds one text, (T, D); takes the model and the call's arguments too.
        lengthen: returns the arguments of a block's call with tokens behind the sequence.
        token_axis: axis of the tokens in the sequence of a block, 1 or 0.
    """

    blocks: Callable[[Any], Iterable[torch.nn.Module]]
    text: Callable[[Arguments], torch.Tensor]
    image_starts: Callable[[Any, Arguments], list[int]]
    embed: Callable[[Any, Arguments, torch.Tensor], EmbeddedText]
    lengthen: Callable[[tuple[Any, ...], Arguments, torch.Tensor], BlockInputs] = append_tokens
    token_axis: int = 1


class SequenceLanesHook(CallHook):
    """Brings the negative prompt into every guided call, on the axis of tokens.

    Args:
        model: hooked until `remove`, and its blocks.
        lanes: negative prompt of the call, which the processors read.
        plan: way of the negative prompt through this family.
        calls: the calls of the pipeline, by which it knows the guided ones.
        component: name of the model in the pipeline, for error messages.
        check: called before each call while guidance is on; it may raise.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        lanes: SequenceLanes,
        plan: SequencePlan,
        calls: DenoisingCalls,
        component: str,
        check: Callable[[], None],
    ) -> None:
        self._lanes = lanes
        self._plan = plan
        self._embed: Callable[[torch.Tensor], tuple[SequenceLane, torch.Tensor]] | None = None
        self._tokens_BND: torch.Tensor | None = None  # between two blocks of a guided call
        super().__init__(model, calls, component, check)
        for block in plan.blocks(model):
            self._handles += [
                block.register_forward_pre_hook(self._as_hook(self._append), with_kwargs=True),
                block.register_forward_hook(self._as_hook(self._take_off)),
            ]

    def _use(self, params: GuidanceParams, *, has_negative: bool) -> None:
        self._lanes.use(params)
        self._lanes.is_guiding = has_negative and params.is_active

    def _num_rows(self, arguments: Arguments) -> int:
        return self._plan.text(arguments).shape[0]

    def _begin(self, arguments: Arguments) -> None:
        del arguments
        self._lanes.is_in_call = True

    def _guide(self, arguments: Arguments, negative: NegativeText, guided: GuidedSpan) -> None:
        defaults = {
            name: one.default
            for name, one in self._signature.parameters.items()
            if one.default is not one.empty
        }
        of_call = defaults | arguments
        text_BTD = self._plan.text(of_call)
        replace(negative, has_default_length=False).fit(text_BTD, guided)
        texts = [one.to(text_BTD) for one in _without_filler(negative)]
        index = guided.index(len(texts))[guided.start : guided.stop]
        starts = tuple(self._plan.image_starts(self._model, of_call)[guided.start : guided.stop])

        # Within the call, since offloading brings the model's layers in after this hook.
        def embed(sequence_BSD: torch.Tensor) -> tuple[SequenceLane, torch.Tensor]:
            embedded = [self._plan.embed(self._model, of_call, one) for one in texts]
            return _lane([embedded[row] for row in index], sequence_BSD, guided, starts)

        self._embed = embed

    def _forget(self) -> None:
        self._lanes.lane = self._embed = self._tokens_BND = None
        self._lanes.is_in_call = False

    def _append(
        self, _block: torch.nn.Module, args: tuple[Any, ...], kwargs: Arguments
    ) -> BlockInputs | None:
        if self._embed is not None:  # the first block of a guided call
            sequence = args[0] if args else kwargs[SEQUENCE]
            sequence_BSD = sequence if self._plan.token_axis else sequence.transpose(0, 1)
            self._lanes.lane, self._tokens_BND = self._embed(sequence_BSD)
            self._embed = None
        if self._tokens_BND is None:
            return None
        return self._plan.lengthen(args, kwargs, self._tokens_BND)

    def _take_off(self, _block: torch.nn.Module, _args: Any, output: Any) -> torch.Tensor | None:
        lane, axis = self._lanes.lane, self._plan.token_axis
        if lane is None:
            return None
        sequence, tokens = output.tensor_split([lane.length], dim=axis)
        self._tokens_BND = tokens if axis else tokens.transpose(0, 1)
        return sequence


def _without_filler(negative: NegativeText) -> list[torch.Tensor]:
    """Return the tokens (T, D) of each row that are text.

    Raises:
        NagTextError: a row has none.
    """
    if negative.attention_mask is None:
        return list(negative.embeds)
    texts = [
        tokens[mask.bool().to(tokens.device)]
        for tokens, mask in zip(negative.embeds, negative.attention_mask, strict=True)
    ]
    if not all(len(one) for one in texts):
        raise NagTextError(
            "each row of the negative prompt's attention mask must have a token that is text, got "
            f"{[len(one) for one in texts]} tokens"
        )
    return texts


def _lane(
    embedded: list[EmbeddedText],
    sequence_BSD: torch.Tensor,
    guided: GuidedSpan,
    image_starts: tuple[int, ...],
) -> tuple[SequenceLane, torch.Tensor]:
    """Return the layout of the sequence, and the negative prompts in it, (B, N, D).

    Shorter ones are filled up with zeros, and so are unguided rows.
    """
    lengths = [one.tokens.shape[1] for one in embedded]
    width, num_image_tokens = max(lengths), embedded[0].num_image_tokens
    tokens_GND = torch.cat([_filled(one.tokens, width) for one in embedded])
    rotaries = [one.rotary for one in embedded if one.rotary is not None]
    filled = [_filled(one, num_image_tokens + width) for one in rotaries]
    tokens_BND = sequence_BSD.new_zeros((guided.num_rows, *tokens_GND.shape[1:]))
    tokens_BND[guided.start : guided.stop] = tokens_GND
    ends = torch.tensor(lengths, device=sequence_BSD.device) + num_image_tokens
    positions = torch.arange(num_image_tokens + width, device=sequence_BSD.device)
    texts, text_mask = _block_texts([one.texts for one in embedded])
    lane = SequenceLane(
        guided,
        sequence_BSD.shape[1],
        image_starts,
        num_image_tokens,
        width,
        torch.cat(filled) if filled else None,
        None if min(lengths) == width else positions < ends[:, None],
        texts,
        text_mask,
    )
    return lane, tokens_BND


def _block_texts(
    of_rows: list[Mapping[str, torch.Tensor]],
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """Return the texts of cross-attentions, (G, T, C) each, and their mask, None if none is filled.

    All texts of a row have one length.
    """
    if not of_rows[0]:
        return {}, None
    firsts = [next(iter(one.values())) for one in of_rows]
    lengths = [one.shape[1] for one in firsts]
    width = max(lengths)
    texts = {
        block: torch.cat([_filled(one[block], width) for one in of_rows]) for block in of_rows[0]
    }
    if min(lengths) == width:
        return texts, None
    device = firsts[0].device
    ends = torch.tensor(lengths, device=device)
    return texts, torch.arange(width, device=device) < ends[:, None]


def _filled(tokens: torch.Tensor, length: int) -> torch.Tensor:
    """Return (1, tokens, ...) with zeros behind, so many tokens in all."""
    behind = (0, 0) * (tokens.ndim - 2)
    return functional.pad(tokens, (*behind, 0, length - tokens.shape[1]))
