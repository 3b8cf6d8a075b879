"""The hook that tells which calls of a model are guided, and hands them on to be changed.

It decides by the calls of the pipeline and by the step range. Its kinds bring the negative prompt
in: `TextLanesHook` on the axis of rows, the others on the axis of tokens.
"""

import inspect
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from nag.attention.denoising_calls import DenoisingCalls, GuidedRows
from nag.attention.text.layout import GuidedSpan
from nag.attention.text.negative_text import NegativeText
from nag.attention.text_arguments import guided_span
from nag.attention.text_concat import UNGUIDED
from nag.block_caches import has_cache
from nag.errors import NagCoverageError, NagTextError
from nag.params import GuidanceParams, NagParams
from nag.stand_ins import ModelHook, ReplacedMethod


class CallHook:
    """Changes every guided call of a model.

    It does so in a forward pre-hook of torch, not in a hook of diffusers: model offloading unwraps
    `forward` after every clip, and with it everything that diffusers has put there. It learns the
    name of each call from `cache_context`, which it replaces on the model.

    Args:
        model: hooked until `remove`.
        calls: the calls of the pipeline, by which it knows the guided ones.
        component: name of the model in the pipeline, for error messages.
        check: called before each call while guidance is on; it may raise.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        calls: DenoisingCalls,
        component: str,
        check: Callable[[], None],
    ) -> None:
        self.negative: NegativeText | None = None
        self.params: GuidanceParams = UNGUIDED
        self._calls = calls
        self._component = component
        self._check = check
        self._model: Any = model
        self._signature = inspect.signature(model.forward)
        self._name: str | None = None
        self._enter_context: Callable[[], None] = _no_context
        self._had_guidance = dict[str | None, bool]()  # in the last call of each name
        self._cache_context: ReplacedMethod | None = None
        if hasattr(model, "cache_context"):  # a UNet has none, and no named calls
            self._cache_context = ReplacedMethod(model, "cache_context", self._named)
        self._handles = [
            model.register_forward_pre_hook(self._as_hook(self._before_call), with_kwargs=True),
            model.register_forward_hook(self._as_hook(self._after_call), always_call=True),
        ]

    def set(self, negative: NegativeText | None, params: GuidanceParams) -> None:
        """Guide the calls from now on; None as the negative prompt switches guidance off."""
        self._use(params, has_negative=negative is not None)
        self.negative, self.params = negative, params

    def end_call(self, output: Any) -> Any:
        """End a call whose hooks torch does not reach, and return its output."""
        edited = self._after_call(self._model, (), output)
        return output if edited is None else edited

    def end_loop(self) -> None:
        """Release what was kept for the denoising loop that has ended."""

    def remove(self) -> None:
        """Take the hook off the model."""
        for handle in self._handles:
            handle.remove()
        if self._cache_context is not None:
            self._cache_context.remove()

    def _as_hook(self, call: Callable[..., Any]) -> ModelHook:
        """Return a hook of the model, or of a part of it, in which no copy of it takes part."""
        return ModelHook(call, lambda: self.negative is not None)

    def _use(self, params: GuidanceParams, *, has_negative: bool) -> None:
        """Take the strengths for the calls to come, or raise if these parameters mean nothing."""
        raise NotImplementedError

    def _begin(self, arguments: dict[str, Any]) -> None:
        """Note the layout of a call, as long as it is unguided."""
        raise NotImplementedError

    def _leave(self, arguments: dict[str, Any]) -> None:
        """Note that a call stays unguided while others are guided."""

    def _guide(self, arguments: dict[str, Any], negative: NegativeText, guided: GuidedSpan) -> None:
        """Bring the negative prompt into the arguments of a call."""
        raise NotImplementedError

    def _forget(self) -> None:
        """Clear the layout, so that the processors refuse a call that bypasses the hooks."""
        raise NotImplementedError

    def _num_rows(self, arguments: dict[str, Any]) -> int:
        """Return the rows of a call's text."""
        raise NotImplementedError

    @contextmanager
    def _named(self, name: str, **kwargs: Any) -> Generator[None]:
        assert self._cache_context is not None
        enter, outer = self._cache_context.own, (self._name, self._enter_context)
        with ExitStack() as contexts:
            self._name = name
            self._enter_context = lambda: contexts.enter_context(enter(name, **kwargs))
            try:
                self._enter_context()
                yield
            finally:
                self._name, self._enter_context = outer

    def _before_call(
        self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.negative is not None and self._is_checkpointing():
            raise NagCoverageError(
                f"{self._component}: gradient checkpointing computes the blocks once more in "
                "backward(), outside the call that guidance follows; call "
                "disable_gradient_checkpointing() of the model, or render under torch.no_grad()"
            )
        call = self._signature.bind(*args, **kwargs)
        self._begin(call.arguments)
        if self.negative is None:
            self._reset_cache(has_guidance=False)
            return args, kwargs
        self._check()
        guided_rows = self._guided_rows()
        self._reset_cache(has_guidance=guided_rows != "none")
        if guided_rows == "none":
            self._leave(call.arguments)
            return args, kwargs
        guided = guided_span(guided_rows, self._num_rows(call.arguments))
        try:
            self._guide(call.arguments, self.negative, guided)
        except NagTextError as error:
            raise NagTextError(f"{self._component}: {error}") from error
        return (), dict(call.arguments)

    def _reset_cache(self, *, has_guidance: bool) -> None:
        """Let a cache of diffusers (`enable_cache`) make anew what it kept of guided blocks.

        It hands on what blocks added in an earlier step. A step without guidance must not get what
        guided blocks added, which may have further rows, and the other way round.
        """
        if not has_cache(self._model):
            return
        if has_guidance != self._had_guidance.get(self._name, False):
            self._model._reset_stateful_cache()
            self._enter_context()  # the reset has forgotten it
        self._had_guidance[self._name] = has_guidance

    def _after_call(self, _model: Any, _args: Any, _output: Any) -> Any:
        """Return another output of the call; None leaves it."""
        if self.negative is not None or not self._is_checkpointing():
            self._forget()

    def _is_checkpointing(self) -> bool:
        """Return True if the blocks of the call under way may be computed once more, backward."""
        return torch.is_grad_enabled() and getattr(self._model, "is_gradient_checkpointing", False)

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


def _no_context() -> None:
    """Enter no context of a cache: the call has no name."""
