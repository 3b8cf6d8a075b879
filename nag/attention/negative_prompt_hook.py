"""The hook that appends the negative prompt to the text of each guided call of a transformer.

It decides by the calls of the pipeline and by the step range which calls are guided. Inside `guide`
it has the keys and values of the text kept (`kept_projections`).
"""

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from nag.attention.denoising_calls import DenoisingCalls, GuidedRows
from nag.attention.kept_projections import KeptProjections
from nag.attention.text_arguments import append_text, guided_span, text_of
from nag.attention.text_concat import (
    UNGUIDED,
    GuidedSpan,
    NegativeText,
    TextConcat,
    TextLayout,
)
from nag.attention.text_encoding_calls import restore
from nag.errors import NagTextError
from nag.params import GuidanceParams, NagParams


class NegativePromptHook:
    """Appends the negative prompt to the text of every guided call.

    It changes the text in a forward pre-hook of torch, not in a hook of diffusers: model offloading
    unwraps `forward` after every clip, and with it everything that diffusers has put there. It
    learns the name of each call from `cache_context`, which it replaces on the transformer.

    Args:
        transformer: hooked until `remove`.
        text_concats: layout and method of each text that the transformer takes, which its
            processors read.
        projections: the transformer's keys and values of text.
        calls: the calls of the pipeline, by which it knows the guided ones.
        component: name of the transformer in the pipeline, for error messages.
        check: called before each call while guidance is on; it may raise.
    """

    def __init__(
        self,
        transformer: torch.nn.Module,
        text_concats: Sequence[TextConcat],
        projections: KeptProjections,
        calls: DenoisingCalls,
        component: str,
        check: Callable[[], None],
    ) -> None:
        self.negative: NegativeText | None = None
        self.params: GuidanceParams = UNGUIDED
        self._text_concats = tuple(text_concats)
        self._projections = projections
        self._calls = calls
        self._component = component
        self._check = check
        self._transformer: Any = transformer
        self._signature = inspect.signature(transformer.forward)
        self._name: str | None = None
        self._replaced = vars(transformer).get("cache_context")  # another extension's
        self._cache_context = getattr(transformer, "cache_context", None)
        if self._cache_context is not None:  # a UNet has none, and no named calls
            self._transformer.cache_context = self._named
        self._handles = [
            transformer.register_forward_pre_hook(self._append, with_kwargs=True),
            transformer.register_forward_hook(self._forget, always_call=True),
        ]

    def set(self, negative: NegativeText | None, params: GuidanceParams) -> None:
        """Guide the calls from now on; None as the negative prompt switches guidance off."""
        for concat in self._text_concats:
            concat.use(params)
            concat.is_guiding = negative is not None and params.is_active
        self.negative, self.params = negative, params
        self._projections.forget()

    def end_loop(self) -> None:
        """Release what was kept for the denoising loop that has ended."""
        self._projections.forget()

    def remove(self) -> None:
        """Take the hook off the transformer."""
        self._projections.forget()
        for handle in self._handles:
            handle.remove()
        restore(self._transformer, "cache_context", self._named, self._replaced)

    @contextmanager
    def _named(self, name: str, **kwargs: Any) -> Generator[None]:
        outer = self._name
        self._name = name
        try:
            assert self._cache_context is not None
            with self._cache_context(name, **kwargs):
                yield
        finally:
            self._name = outer

    def _append(
        self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        call = self._signature.bind(*args, **kwargs)
        texts = [text_of(call.arguments[concat.text.embeds]) for concat in self._text_concats]
        for concat, text_BLD in zip(self._text_concats, texts, strict=True):
            concat.layout = TextLayout(text_BLD.shape[1])
        if self.negative is None:
            return args, kwargs
        self._check()
        guided_rows = self._guided_rows()
        if guided_rows == "none":
            self._keep_projections(tuple(texts), None)
            return args, kwargs
        guided = guided_span(guided_rows, texts[0].shape[0])
        negatives: list[torch.Tensor] = []
        try:
            for concat in self._text_concats:
                negative = self.negative.of(concat.text)
                negatives.append(negative.embeds)
                append_text(call.arguments, concat, negative, guided)
        except NagTextError as error:
            raise NagTextError(f"{self._component}: {error}") from error
        self._keep_projections((*texts, *negatives), guided)
        return (), dict(call.arguments)

    def _keep_projections(self, texts: tuple[torch.Tensor, ...], guided: GuidedSpan | None) -> None:
        projections = self._projections.of(texts, guided)
        for concat in self._text_concats:
            concat.projections = projections

    def _forget(self, *_: Any) -> None:
        """Clear the layouts, so that the processors refuse a call that bypasses the hooks."""
        for concat in self._text_concats:
            concat.layout = TextLayout(0)
            concat.negative_mask = None
            concat.projections = None

    def _guided_rows(self) -> GuidedRows:
        """Return the guided rows of the call under way: by its pass, and by its step."""
        params = self.params
        if not params.is_active:
            return "none"
        rows = self._calls.guided_rows(self._name)
        # Without a range all steps are the same, so the step is not asked for.
        if not isinstance(params, NagParams) or (params.nag_start, params.nag_end) == (0, 1):
            return rows
        step = self._calls.step()
        return rows if params.is_active_at(step.index, step.count) else "none"
