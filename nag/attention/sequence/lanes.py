"""The lane of the negative prompt behind one sequence of text and image, and guidance by it.

In single-stream models the layers treat each token by itself, and all tokens alike; attention alone
brings them together. So the image needs no second copy: a block gets the sequence with the negative
prompt's tokens behind it, and only attention is split. Prompt and image attend to one another, the
negative prompt and the same image do so too, and the image's two outputs are guided.

Some blocks also read a text by a cross-attention. Prompt and image read the prompt's there, and the
negative prompt and the same image read the negative prompt's.

Shapes: B rows of a call, G of them guided, S tokens of a row's sequence, N tokens of the negative
prompt, L image tokens, T tokens and C channels of a text, D channels, H heads, K channels a head.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from nag.attention.kept_projections import KeyValue
from nag.attention.text.layout import GuidedSpan
from nag.attention.text_lanes import Lanes, QueryKeyValue

Attend = Callable[[QueryKeyValue, Any, torch.Tensor | None], torch.Tensor]
"""The attention of a family: of queries, keys and values, of the rotary embedding of their tokens,
and of the mask of their tokens, True where one is a real one. Returns the output (rows, tokens, D)
before the projection. The rotary embedding is None where all tokens are rotated already."""


@dataclass(frozen=True, eq=False)
class SequenceLane:
    """The negative prompt beside the sequence of one call.

    Args:
        guided: rows that take guidance.
        length: tokens of a row's sequence, S.
        image_starts: position of the first image token in each guided row.
        num_image_tokens: tokens of the image, L.
        num_negative_tokens: tokens of the negative prompt behind the sequence, N.
        rotary: rotary embedding of the image and of the negative prompt behind it, at the positions
            that they have in one sequence, (G, L + N, K / 2); None where these are the same as
            beside the prompt.
        mask: (G, L + N), True where a token is a real one; None if all are.
        texts: negative prompt that a cross-attention in a block reads, (G, T, C), by the `block` of
            its processor.
        text_mask: (G, T), True where a token of these is a real one; None if all are.
    """

    guided: GuidedSpan
    length: int
    image_starts: tuple[int, ...]
    num_image_tokens: int
    num_negative_tokens: int
    rotary: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    texts: Mapping[str, torch.Tensor] = field(default_factory=dict)
    text_mask: torch.Tensor | None = None

    def image_in(self, sequence: torch.Tensor) -> list[torch.Tensor]:
        """Return the image tokens of each guided row, views of the sequence."""
        rows = sequence[self.guided.start : self.guided.stop]
        return [
            row[start : start + self.num_image_tokens]
            for row, start in zip(rows, self.image_starts, strict=True)
        ]

    def beside_image(self, sequence: torch.Tensor) -> torch.Tensor:
        """Return the image tokens and the negative prompt's, (G, L + N, ...)."""
        negative = sequence[self.guided.start : self.guided.stop, self.length :]
        return torch.cat([torch.stack(self.image_in(sequence)), negative], dim=1)


class SequenceLanes(Lanes):
    """The negative prompt of the call under way, and the guidance of the image tokens by it.

    The hook of a model writes it; the processors of that model read it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lane: SequenceLane | None = None  # None in an unguided call
        self.is_in_call = False

    def guide(
        self,
        attend: Attend,
        projected: QueryKeyValue,
        rotary: Any,
        mask_BS: torch.Tensor | None,
    ) -> torch.Tensor:
        """Attend in the sequence of each row, and guide the image tokens of the guided rows.

        Args:
            attend: attention of the family.
            projected: queries, keys and values of S + N tokens.
            rotary: rotary embedding of the S tokens, as the attention takes it for them; None if
                all are rotated already.
            mask_BS: True where one of the S tokens is a real one; None if all are.

        Returns:
            (B, S + N, D), heads merged, before the output projection.
        """
        lane = self.lane
        assert lane is not None
        query, key, value = projected
        sequence = query[:, : lane.length], key[:, : lane.length], value[:, : lane.length]
        output_BSD = attend(sequence, rotary, mask_BS)
        beside = lane.beside_image(query), lane.beside_image(key), lane.beside_image(value)
        return self._joined(output_BSD, attend(beside, lane.rotary, lane.mask))

    def guide_cross(
        self,
        attend: Attend,
        query: torch.Tensor,
        text: KeyValue,
        mask_BT: torch.Tensor | None,
        negative: KeyValue,
    ) -> torch.Tensor:
        """Attend from the sequence of each row to a text, and guide the image of the guided rows.

        Args:
            attend: attention of the family.
            query: queries of S + N tokens.
            text: keys and values of the prompt, B rows.
            mask_BT: True where one of its tokens is a real one; None if all are.
            negative: keys and values of the negative prompt, G rows.

        Returns:
            (B, S + N, D), heads merged, before the output projection.
        """
        lane = self.lane
        assert lane is not None
        output_BSD = attend((query[:, : lane.length], *text), None, mask_BT)
        of_lane = attend((lane.beside_image(query), *negative), None, lane.text_mask)
        return self._joined(output_BSD, of_lane)

    def _joined(self, output_BSD: torch.Tensor, of_lane: torch.Tensor) -> torch.Tensor:
        """Return the output of the sequence, its image guided, with the negative prompt's behind.

        Args:
            output_BSD: output of each row's sequence.
            of_lane: output of the image and of the negative prompt, (G, L + N, D).
        """
        lane = self.lane
        assert lane is not None
        image_GLD, negative_GND = of_lane.tensor_split([lane.num_image_tokens], dim=1)
        guided_GLD = self._method.combine(torch.stack(lane.image_in(output_BSD)), image_GLD)
        output = functional.pad(output_BSD, (0, 0, 0, negative_GND.shape[1]))
        for image, guided in zip(lane.image_in(output), guided_GLD, strict=True):
            image.copy_(guided)
        output[lane.guided.start : lane.guided.stop, lane.length :] = negative_GND
        return output
