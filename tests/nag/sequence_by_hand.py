"""The reference for single streams: each guided row by hand, in float64, on models left alone.

The stock model computes each row of a call as two rows, the prompt and the negative prompt in its
place, each with the positions and the filler that it gives to that text. The image tokens of the
first row serve both before the first block, and attention by hand guides them. Nothing here imports
from nag/.

Shapes: S tokens, D channels, H heads, K channels a head.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tests.nag.reference import guided, softmax_sums

Call = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """The rows of one family's calls.

    Args:
        texts: returns the text of each row, without filler.
        of: returns the arguments for one row of a call, by its index.
        two: returns the arguments for one row and, below it, the same with another text.
        image: returns the positions of the image tokens in the sequence, by the arguments and the
            length of the row's text.
        stack: makes the output of a call of those for each row.
    """

    texts: Callable[[Call], list[torch.Tensor]]
    of: Callable[[Call, int], Call]
    two: Callable[[Call, torch.Tensor], Call]
    image: Callable[[Call, int], slice]
    stack: Callable[[list[Any]], Any]
    attention: "Callable[[Forward], Any] | None" = None  # by hand; None for a sequence with a mask


@dataclass(frozen=True)
class ByHand:
    """The guidance by hand: texts without filler, one for each guided row or one for all."""

    negatives: list[torch.Tensor]
    unconditional: tuple[torch.Tensor, ...] = ()
    scale: float = 5.0
    tau: float = 1.5
    alpha: float = 0.5
    norm: int = 2


@contextmanager
def sequences_by_hand(pipeline: Any, rows: Rows, by_hand: ByHand) -> Generator[None]:
    """Guide a pipeline by hand: its transformer's processors and `forward` are replaced."""
    transformer = pipeline.transformer
    call = Forward(transformer.forward, rows, by_hand)
    parts = ("layers", "transformer_blocks", "single_transformer_blocks")
    attentions: list[Any] = [
        module
        for part in parts
        for module in getattr(transformer, part, torch.nn.Module()).modules()
        if hasattr(module, "processor")
    ]
    replaced = [one.processor for one in attentions]
    for one in attentions:
        one.processor = (rows.attention or _Attention)(call)
    transformer.forward = call
    # Elsewhere a text changes nothing of the image before the first block.
    first = [] if rows.attention else getattr(transformer, "layers", [])[:1]
    hooks = [block.register_forward_pre_hook(call.share_image) for block in first]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        del transformer.forward
        for one, stock in zip(attentions, replaced, strict=True):
            one.processor = stock


class Forward:
    """A transformer's `forward`, one row of the batch at a time."""

    def __init__(self, forward: Any, rows: Rows, by_hand: ByHand) -> None:
        self.forward, self.rows, self.by_hand = forward, rows, by_hand
        self.images: tuple[slice, ...] = ()  # both rows, in a guided call
        self.lengths: tuple[int, ...] = ()  # both texts

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any]:
        names = ("x", "t", "cap_feats")  # Z-Image's pipelines name none of these
        arguments = dict(zip(names, args, strict=False)) | kwargs
        outputs: list[Any] = []
        num_guided = 0
        for row, text in enumerate(self.rows.texts(arguments)):
            of_row = self.rows.of(arguments, row)
            self.images = ()
            if not any(torch.equal(text, one) for one in self.by_hand.unconditional):
                negatives = self.by_hand.negatives
                negative = negatives[num_guided if len(negatives) > 1 else 0]
                num_guided += 1
                of_row = self.rows.two(of_row, negative)
                self.lengths = len(text), len(negative)
                self.images = tuple(self.rows.image(of_row, one) for one in self.lengths)
            outputs.append(self.forward(**of_row)[0][0])
        return (self.rows.stack(outputs),)

    def share_image(self, _block: Any, args: Any) -> Any:
        if not self.images:
            return None
        sequence = args[0].clone()
        sequence[1, self.images[1]] = sequence[0, self.images[0]]
        return (sequence, *args[1:])

    def guide(self, rows: list[np.ndarray]) -> None:
        """Guide the image in the outputs of both rows, (S, D), of a guided call."""
        if self.images:
            of_prompt, of_negative = self.images
            strengths = (
                self.by_hand.scale,
                self.by_hand.tau,
                self.by_hand.alpha,
                self.by_hand.norm,
            )
            image = guided(rows[0][of_prompt], rows[1][of_negative], *strengths)
            rows[0][of_prompt] = rows[1][of_negative] = image


class _Attention:
    """An attention by hand over one row, or over a row and the same with the negative prompt."""

    def __init__(self, call: Forward) -> None:
        self.call = call

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: torch.Tensor | None = None,
        freqs_cis: Any = None,
        image_rotary_emb: Any = None,
    ) -> torch.Tensor:
        rotary = image_rotary_emb if freqs_cis is None else freqs_cis
        rows = [
            self._row(attn, hidden, positions, None if attention_mask is None else mask)
            for hidden, positions, mask in zip(
                hidden_states,
                rotary,
                rotary if attention_mask is None else attention_mask,
                strict=True,
            )
        ]
        self.call.guide(rows)
        return attn.to_out[0](torch.from_numpy(np.stack(rows)).to(hidden_states.dtype))

    def _row(
        self, attn: Any, hidden_SD: torch.Tensor, rotary: torch.Tensor, mask_S: torch.Tensor | None
    ) -> np.ndarray:
        query, key, value = (layer(hidden_SD) for layer in (attn.to_q, attn.to_k, attn.to_v))
        query = query.unflatten(1, (attn.heads, -1))
        key, value = (one.unflatten(1, (-1, query.shape[2])) for one in (key, value))
        query, key = _rotated(attn.norm_q(query), rotary), _rotated(attn.norm_k(key), rotary)
        shared = [head * key.shape[1] // attn.heads for head in range(attn.heads)]
        key, value = key[:, shared], value[:, shared]
        query, key, value = query.flatten(1), key.flatten(1), value.flatten(1)
        sums = softmax_sums(query, key, value, attn.heads, mask_S)
        return sums.mean().reshape(len(hidden_SD), -1)


def _rotated(tokens_SHK: torch.Tensor, rotary: torch.Tensor) -> torch.Tensor:
    pairs = torch.view_as_complex(tokens_SHK.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotary[:, None]).flatten(-2)
