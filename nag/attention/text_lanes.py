"""The negative prompt as further rows of the text, for models that update the text in their blocks.

In joint attention, image tokens and text tokens attend to one another, so a negative prompt must
run through the blocks as the prompt does. `TextLanesHook` appends one row of text for each guided
row of a call: the negative lane. In two-stream blocks the image has no such rows; its tokens serve
both lanes. In single-stream blocks text and image are one sequence, so the image's rows are
repeated there.

Shapes: B rows of a call, G of them guided, N text rows (B + G), T text tokens, L image tokens,
S tokens of both, D channels, H heads, K channels a head.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from nag.attention.methods import NagMethod, VsfMethod, only_nag
from nag.attention.text.layout import GuidedSpan, TextInput
from nag.attention.text_attention import Attend
from nag.attention.text_concat import UNGUIDED
from nag.params import GuidanceParams, VsfParams

QueryKeyValue = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # each (rows, tokens, H, K)


@dataclass(frozen=True)
class LaneRows:
    """The rows of one call.

    Args:
        guided: rows of the call that take guidance; the lane has one more for each.
        text_length: tokens of the prompt.
        negative_length: tokens of the negative prompt; 0 in an unguided call.
    """

    guided: GuidedSpan
    text_length: int
    negative_length: int

    @property
    def is_guided(self) -> bool:
        return self.guided.start < self.guided.stop

    @property
    def count(self) -> int:
        """The rows of the call, without the negative lane."""
        return self.guided.num_rows

    @property
    def width(self) -> int:
        """The tokens of a text row, with those that fill up the shorter text."""
        return max(self.text_length, self.negative_length)

    def with_tokens(self, number: int) -> "LaneRows":
        """Return the same rows, so many tokens longer."""
        return replace(
            self,
            text_length=self.text_length + number,
            negative_length=self.negative_length + number,
        )

    def first(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the rows of the call, without those of the negative lane."""
        return tensor[: self.count]

    def with_lane(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the call with its guided rows repeated for the negative lane.

        One with another number of rows is returned unchanged: one row serves all.
        """
        if tensor.ndim == 0 or tensor.shape[0] != self.count:
            return tensor
        return torch.cat([tensor, self.guided_of(tensor)])

    def lane_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the rows of the negative lane."""
        return tensor[self.count :]

    def guided_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the guided rows of a tensor of the call."""
        return tensor[self.guided.start : self.guided.stop]

    def replace_guided(self, tensor: torch.Tensor, guided: torch.Tensor) -> torch.Tensor:
        """Return the rows of the call with others in place of the guided ones."""
        return torch.cat(
            [tensor[: self.guided.start], guided, tensor[self.guided.stop : self.count]]
        )


class Lanes:
    """The strengths of NAG for the calls of a model, whose negative prompt runs in a lane."""

    def __init__(self) -> None:
        self.is_guiding = False  # the call under way may be guided
        self._method = NagMethod()
        self.use(UNGUIDED)

    def use(self, params: GuidanceParams) -> None:
        """Take the strengths for the calls to come.

        Raises:
            NagParameterError: the method is another than Normalized Attention Guidance.
        """
        self._method.set(only_nag(params))


class TextLanes(Lanes):
    """The lanes of the call under way, and the guidance of the image tokens by both.

    The hook of a model writes it; the processors of that model read it.
    """

    def __init__(self, text: TextInput, *, can_flip: bool = False) -> None:
        self.text = text
        self.can_flip = can_flip  # Value Sign Flip may guide
        self.is_flipping = False
        self.negative_mask: torch.Tensor | None = None  # (G, T) of a guided call
        self._flip = VsfMethod()
        super().__init__()
        self.rows: LaneRows | None = None  # None outside a call

    def use(self, params: GuidanceParams) -> None:
        if self.can_flip and isinstance(params, VsfParams):
            self._flip.set(params)
            self.is_flipping = True
        else:
            super().use(params)
            self.is_flipping = False

    def guide(
        self,
        attend: Attend,
        image: QueryKeyValue,
        text: QueryKeyValue,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend jointly in each lane, and guide the image tokens of the guided rows.

        Args:
            attend: attention of the architecture.
            image: B rows of L tokens, or N where the model repeats them for the lane.
            text: N rows of T tokens.
            mask: (N, T), True where a token of the text is text; or what attention takes for a mask
                of text and image, (N, 1, S, S), of texts of one length; None without a mask.

        Returns:
            The image's output, in as many rows as it came, and the text's (N, T, D), heads merged,
            before the output projections.
        """
        rows = self._of_call()
        positive = slice(0, rows.count), slice(0, rows.text_length)
        negative = slice(rows.count, None), slice(0, rows.negative_length)
        if self.is_flipping:
            return self._guide_by_flip(attend, image, text, mask)
        is_repeated = len(image[0]) > rows.count
        of_lane = rows.lane_of if is_repeated else rows.guided_of
        image_BLD, text_BTD = _attend_jointly(
            attend, tuple(map(rows.first, image)), _cut(text, positive), _mask_of(mask, positive)
        )
        lane_GLD, text_GTD = _attend_jointly(
            attend, tuple(map(of_lane, image)), _cut(text, negative), _mask_of(mask, negative)
        )
        guided_GLD = self._method.combine(rows.guided_of(image_BLD), lane_GLD)
        filled = [
            functional.pad(one, (0, 0, 0, rows.width - one.shape[1]))
            for one in (text_BTD, text_GTD)
        ]
        guided_BLD = rows.replace_guided(image_BLD, guided_GLD)
        return torch.cat([guided_BLD, guided_GLD]) if is_repeated else guided_BLD, torch.cat(filled)

    def guide_cross(
        self,
        attend: Attend,
        query: torch.Tensor,
        text: tuple[torch.Tensor, torch.Tensor],
        mask_NT: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend from the image to the text of each lane, and guide the guided rows.

        Args:
            attend: attention of the architecture.
            query: B rows of L tokens, or N where the model repeats them for the lane.
            text: keys and values of N rows of T tokens.
            mask_NT: True where a token of the text is text; None without a mask.

        Returns:
            The image's output, in as many rows as it came, before the output projection.
        """
        rows, (key, value) = self._of_call(), text
        is_repeated = len(query) > rows.count

        def over(query: torch.Tensor, lane: slice) -> torch.Tensor:
            bias = None if mask_NT is None else mask_NT[lane].bool()[:, None, None]
            return attend(query, key[lane], value[lane], bias)

        of_lane = rows.lane_of(query) if is_repeated else rows.guided_of(query)
        output_BLD = over(rows.first(query), slice(0, rows.count))
        lane_GLD = over(of_lane, slice(rows.count, None))
        guided_GLD = self._method.combine(rows.guided_of(output_BLD), lane_GLD)
        guided_BLD = rows.replace_guided(output_BLD, guided_GLD)
        return torch.cat([guided_BLD, guided_GLD]) if is_repeated else guided_BLD

    def _guide_by_flip(
        self,
        attend: Attend,
        image: QueryKeyValue,
        text: QueryKeyValue,
        mask_NT: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend jointly in each lane; the guided image attends to the negative text too, flipped.

        The prompt's tokens see nothing of the negative prompt, nor the reverse.
        """
        rows, negative_mask = self._of_call(), self.negative_mask
        assert negative_mask is not None
        positive = slice(0, rows.count), slice(0, rows.text_length)
        of_lane = slice(rows.count, None), slice(0, rows.negative_length)
        mask_BT = _mask_of(mask_NT, positive)
        image_BLD, text_BTD = _attend_jointly(attend, image, _cut(text, positive), mask_BT)
        negative, guided = _cut(text, of_lane), tuple(map(rows.guided_of, image))
        _, text_GTD = _attend_jointly(attend, guided, negative, negative_mask)
        prompt = tuple(map(rows.guided_of, _cut(text, positive)))
        both = [torch.cat(ones, dim=1) for ones in zip(prompt, guided, negative, strict=True)]
        value, bias = self._flip.flip(both[2], negative_mask)
        if mask_BT is not None:
            num_further = value.shape[1] - rows.text_length
            of_prompt = functional.pad(rows.guided_of(mask_BT).bool(), (0, num_further), value=True)
            bias = bias.masked_fill(~of_prompt[:, None, None], -math.inf)
        guided_GLD = attend(guided[0], both[1], value, bias)
        filled = [
            functional.pad(one, (0, 0, 0, rows.width - one.shape[1]))
            for one in (text_BTD, text_GTD)
        ]
        return rows.replace_guided(image_BLD, guided_GLD), torch.cat(filled)

    def guide_sequence(self, output_NSD: torch.Tensor) -> torch.Tensor:
        """Guide the image tokens in the output of a single-stream attention, text before image.

        Both lanes get the guided output of the image; each keeps that of its own text.
        """
        rows = self._of_call()
        output_NTD, image_NLD = output_NSD.split_with_sizes(
            [rows.width, output_NSD.shape[1] - rows.width], dim=1
        )
        guided_GLD = self._method.combine(rows.guided_of(image_NLD), image_NLD[rows.count :])
        image = torch.cat([rows.replace_guided(image_NLD, guided_GLD), guided_GLD])
        return torch.cat([output_NTD, image], dim=1)

    def _of_call(self) -> LaneRows:
        assert self.rows is not None
        return self.rows


def _cut(text: QueryKeyValue, part: tuple[slice, slice]) -> QueryKeyValue:
    query, key, value = text
    return query[part], key[part], value[part]


def _mask_of(mask: torch.Tensor | None, part: tuple[slice, slice]) -> torch.Tensor | None:
    if mask is None:
        return None
    return mask[part] if mask.ndim == 2 else mask[part[0]]


def _attend_jointly(
    attend: Attend,
    image: tuple[torch.Tensor, ...],
    text: QueryKeyValue,
    mask: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the output of the image's tokens and of the text's, in one lane."""
    query, key, value = (torch.cat(pair, dim=1) for pair in zip(text, image, strict=True))
    text_length = text[0].shape[1]
    if mask is not None and mask.ndim == 2:
        of_all = functional.pad(mask.bool(), (0, query.shape[1] - text_length), value=True)
        mask = of_all[:, None, None]
    output = attend(query, key, value, mask)
    return output[:, text_length:], output[:, :text_length]
