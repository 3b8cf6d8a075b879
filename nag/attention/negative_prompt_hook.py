"""The hook that appends the negative prompt to the text of each guided call of a transformer.

It decides by the calls of the pipeline and by the step range which calls are guided. Inside `guide`
it has the keys and values of the text kept (`kept_projections`).
"""

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch

from nag.attention.denoising_calls import DenoisingCalls, GuidedRows, restore
from nag.attention.kept_projections import KeptProjections
from nag.attention.text_concat import UNGUIDED, NegativeText, TextConcat, TextLayout
from nag.errors import NagTextError
from nag.params import GuidanceParams, NagParams


class NegativePromptHook:
    """Appends the negative prompt to the text of every guided call.

    It changes the text in a forward pre-hook of torch, not in a hook of diffusers: model offloading
    unwraps `forward` after every clip, and with it everything that diffusers has put there. It
    learns the name of each call from `cache_context`, which it replaces on the transformer.

    Args:
        transformer: hooked until `remove`.
        text_concat: layout and method, which the transformer's processors read.
        projections: the transformer's keys and values of text.
        calls: the calls of the pipeline, by which it knows the guided ones.
        component: name of the transformer in the pipeline, for error messages.
        check: called before each call while guidance is on; it may raise.
    """

    def __init__(
        self,
        transformer: torch.nn.Module,
        text_concat: TextConcat,
        projections: KeptProjections,
        calls: DenoisingCalls,
        component: str,
        check: Callable[[], None],
    ) -> None:
        self.negative: NegativeText | None = None
        self.params: GuidanceParams = UNGUIDED
        self._text_concat = text_concat
        self._projections = projections
        self._calls = calls
        self._component = component
        self._check = check
        self._transformer: Any = transformer
        self._signature = inspect.signature(transformer.forward)
        self._name: str | None = None
        self._replaced = vars(transformer).get("cache_context")  # another extension's
        self._cache_context = self._transformer.cache_context
        self._transformer.cache_context = self._named
        self._handles = [
            transformer.register_forward_pre_hook(self._append, with_kwargs=True),
            transformer.register_forward_hook(self._forget, always_call=True),
        ]

    def set(self, negative: NegativeText | None, params: GuidanceParams) -> None:
        """Guide the calls from now on; None as the negative prompt switches guidance off."""
        self._text_concat.use(params)
        self._text_concat.is_guiding = negative is not None and params.is_active
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
            with self._cache_context(name, **kwargs):
                yield
        finally:
            self._name = outer

    def _append(
        self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        call = self._signature.bind(*args, **kwargs)
        text_BLD = call.arguments["encoder_hidden_states"]
        self._text_concat.layout = TextLayout(text_BLD.shape[1])
        if self.negative is None:
            return args, kwargs
        self._check()
        guided_rows = self._guided_rows()
        if guided_rows == "none":
            self._text_concat.projections = self._projections.of((text_BLD,), None)
            return args, kwargs
        num_unguided_rows = text_BLD.shape[0] // 2 if guided_rows == "second half" else 0
        mask_BL = call.arguments.get("encoder_attention_mask")
        try:
            negative = self.negative.fit(text_BLD, num_unguided_rows)
            if mask_BL is not None:
                call.arguments["encoder_attention_mask"] = negative.append_mask(mask_BL)
            elif negative.attention_mask is not None:
                raise NagTextError(
                    "the negative prompt has an attention mask but the prompt has none"
                )
        except NagTextError as error:
            raise NagTextError(f"{self._component}: {error}") from error
        self._text_concat.layout = TextLayout(
            text_BLD.shape[1], negative.embeds.shape[1], num_unguided_rows
        )
        self._text_concat.negative_mask = negative.token_mask()
        self._text_concat.projections = self._projections.of(
            (text_BLD, self.negative.embeds), num_unguided_rows
        )
        call.arguments["encoder_hidden_states"] = torch.cat([text_BLD, negative.embeds], dim=1)
        return (), dict(call.arguments)

    def _forget(self, *_: Any) -> None:
        """Clear the layout, so that the processors refuse a call that bypasses the hooks."""
        self._text_concat.layout = TextLayout(0)
        self._text_concat.negative_mask = None
        self._text_concat.projections = None

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
