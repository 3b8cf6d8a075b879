"""Keys and values of the text, kept from one denoise step to the next.

A clip's text is the same in every step, and so are its keys and values, as long as no weight that
makes them changes. They are kept only inside `guide` and only for the texts of the last two calls:
the conditional and the unconditional one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

KeyValue = tuple[torch.Tensor, torch.Tensor]  # each (B, T, H, K)
EMBEDDINGS = (
    "condition_embedder",
    "caption_projection",
    "audio_caption_projection",
    "caption_norm",
    "cross_attention_proj",
    "crossattn_proj",
    "encoder_hid_proj",
    "text_encoder_hid_proj",
    "txt_in",
)
PROJECTIONS = (
    "to_k",
    "to_v",
    "to_kv",
    "add_k_proj",
    "add_v_proj",
    "txt_kv_proj",
    "norm_k",
    "norm_added_k",
    "norm_cross",
)
MAX_TEXTS = 2
# The video tokens for each text token up to which keys and values are kept. With more, they are
# less than a 200th of a block's operations, and keeping them would take memory for little.
MAX_VIDEO_TOKENS = 25


class KeptProjections:
    """The keys and values of the texts of the last calls of one transformer.

    Args:
        transformer: its text embedding is the first part of the way to the keys and values.
        attentions: its text cross-attentions.
    """

    def __init__(self, transformer: torch.nn.Module, attentions: Iterable[torch.nn.Module]) -> None:
        self._transformer = transformer
        self._attentions = tuple(attentions)
        # LTX-2.3 and Kandinsky change the text by the timestep before they make keys and values,
        # and Stable Audio 3 has a weight of its own for padding.
        self._has_fixed_text = not (
            getattr(transformer, "prompt_modulation", False)
            or hasattr(transformer, "text_transformer_blocks")
            or hasattr(transformer, "video_text_transformer_blocks")
            or hasattr(transformer, "prompt_padding_embedding")
        )
        self._texts: list[_KeptText] = []

    def of(
        self, texts: tuple[torch.Tensor | None, ...], layout: object
    ) -> "dict[Any, KeyValue] | None":
        """Return the keys and values of a call's text, by attention; the caller adds to them.

        None if the text is another one in each step.

        They are new and empty if the text or a weight differs from what it was, or if a change
        could go unnoticed: under a LoRA that is not fused, an offloaded or quantized layer, or with
        gradients. Of changes in place, that of `tensor.data` alone goes unnoticed.

        Args:
            texts: the tensors that the text is made of.
            layout: the way in which they are put together.
        """
        if not self._has_fixed_text:
            return None
        if torch.compiler.is_compiling():  # the whole transformer is compiled, with its hook
            return {}
        weights = self._weights()
        if weights is None or not all(text is None or _is_dated(text) for text in texts):
            self.forget()
            return {}
        versions = tuple(None if text is None else text._version for text in texts)
        stamp = (versions, layout, weights)
        for kept in self._texts:
            if kept.stamp == stamp and all(map(_is, kept.texts, texts)):
                return kept.projections
        self._texts = [*self._texts[1 - MAX_TEXTS :], _KeptText(texts, stamp)]
        return self._texts[-1].projections

    def forget(self) -> None:
        """Release all tensors."""
        self._texts = []

    def _weights(self) -> tuple[tuple[int, int, int], ...] | None:
        """Return the identity, place and version of each weight; None if changes do not show."""
        if torch.is_grad_enabled():
            return None
        found: list[tuple[int, int, int]] = []
        for part in self._parts():
            if not _is_plain(part):
                return None
            for weight in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                if not _is_dated(weight):
                    return None
                found.append((id(weight), weight.data_ptr(), weight._version))
        return tuple(found)

    def _parts(self) -> Iterator[torch.nn.Module]:
        """Yield the modules from the text to its keys and values, as they are now."""
        for name in EMBEDDINGS:
            embedding = getattr(self._transformer, name, None)
            if embedding is not None:
                yield from embedding.modules()
        for attention in self._attentions:
            yield attention
            for name in PROJECTIONS:
                projection = getattr(attention, name, None)
                if projection is not None:
                    yield projection


@dataclass(frozen=True, eq=False)
class _KeptText:
    """One text, which is held so that its identity stays its own, and what was made of it."""

    texts: tuple[torch.Tensor | None, ...]
    stamp: object
    projections: dict[Any, KeyValue] = field(default_factory=dict[Any, KeyValue])


def project(
    kept: dict[Any, KeyValue] | None,
    attention: Any,
    num_video_tokens: int,
    text: torch.Tensor,
    make: Callable[[torch.Tensor], KeyValue],
) -> KeyValue:
    """Return the kept keys and values of a text, or make them.

    A compiled block makes them always: it would need a graph more for each state of `kept`.

    Args:
        kept: keys and values of the call's text, by attention; None outside `guide`.
        attention: the attention that they belong to.
        text: (B, T, D).
        make: the projections of the attention.
    """
    is_small = num_video_tokens <= MAX_VIDEO_TOKENS * text.shape[1]
    if kept is None or torch.compiler.is_compiling() or not is_small:
        return make(text)
    if attention not in kept:
        kept[attention] = make(text)
    return kept[attention]


def _is_plain(module: torch.nn.Module) -> bool:
    """Return True if a module is a layer of torch or diffusers without any extension's hook."""
    return (
        _is_stock(type(module))
        and "forward" not in module.__dict__
        and not module._forward_hooks
        and not module._forward_pre_hooks
    )


@cache
def _is_stock(kind: type) -> bool:
    return kind.__module__.startswith(("torch.nn.", "diffusers.models."))


def _is_dated(tensor: torch.Tensor) -> bool:
    """Return True if a change of a tensor in place shows in its version."""
    return type(tensor) in (torch.Tensor, torch.nn.Parameter) and not tensor.is_inference()


def _is(one: object, other: object) -> bool:
    return one is other
