"""The hook that appends the negative prompt to the text of each guided call of a transformer.

It decides which calls are guided: not the unconditional call of classifier-free guidance, and no
call outside the step range. Projected text is never kept after a call, so a LoRA change cannot
leave stale text behind.
"""

import inspect
from typing import Any

import torch
from diffusers.hooks import ModelHook
from diffusers.hooks.hooks import BaseState, StateManager
from torch.utils.hooks import RemovableHandle

from nag.attention.text_concat import UNGUIDED, NegativeText, TextConcat, TextLayout
from nag.errors import NagTextError, UnnamedCallError
from nag.params import GuidanceParams, NagParams

# The names that diffusers' pipelines give to calls of the transformer (`cache_context`).
UNCONDITIONAL_CALL = "uncond"
BATCHED_CALL = "cond_uncond"  # both halves of classifier-free guidance in one batch


class _NoState(BaseState):
    def reset(self, *_args: object, **_kwargs: object) -> None:
        """Do nothing: the hook keeps nothing between calls."""


class NegativePromptHook(ModelHook):
    """Appends the negative prompt to the text of every guided call.

    Diffusers' registry passes it the name of each call. It changes the text in a forward pre-hook
    of torch, not in `pre_forward`: model offloading unwraps `forward` after every clip, and with
    it everything that diffusers' registry has put there.

    Args:
        text_concat: layout and method, which the transformer's processors read.
        pipeline: pipeline of the transformer; asked for the position in the denoising loop.
        component: name of the transformer in the pipeline, for error messages.
    """

    _is_stateful = True  # diffusers then hands the name of the call to the StateManager

    def __init__(self, text_concat: TextConcat, pipeline: Any, component: str) -> None:
        super().__init__()
        self.text_concat = text_concat
        # Diffusers annotates the parameter as an instance and calls it.
        self.calls = StateManager(_NoState)  # pyright: ignore[reportArgumentType]
        self.negative: NegativeText | None = None
        self.params: GuidanceParams = UNGUIDED
        self._pipeline = pipeline
        self._component = component
        self._signature: inspect.Signature | None = None
        self._handles: list[RemovableHandle] = []

    def set(self, negative: NegativeText | None, params: GuidanceParams) -> None:
        """Guide the calls from now on; None as the negative prompt switches guidance off."""
        self.text_concat.use(params)
        self.negative, self.params = negative, params

    def initialize_hook(self, module: torch.nn.Module) -> torch.nn.Module:
        self._signature = inspect.signature(module.forward)
        self._handles = [
            module.register_forward_pre_hook(self._append, with_kwargs=True),
            module.register_forward_hook(self._forget, always_call=True),
        ]
        return module

    # "deinitalize" is the spelling of diffusers.
    def deinitalize_hook(self, module: torch.nn.Module) -> torch.nn.Module:
        for handle in self._handles:
            handle.remove()
        return module

    def reset_state(self, module: torch.nn.Module) -> torch.nn.Module:
        return module

    def _append(
        self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        assert self._signature is not None
        call = self._signature.bind(*args, **kwargs)
        text_BLD = call.arguments["encoder_hidden_states"]
        if self.negative is None or not self._is_guided_call():
            self.text_concat.layout = TextLayout(text_BLD.shape[1])
            return args, kwargs
        num_unguided_rows = text_BLD.shape[0] // 2 if self._is_batched_cfg() else 0
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
        self.text_concat.layout = TextLayout(
            text_BLD.shape[1], negative.embeds.shape[1], num_unguided_rows
        )
        self.text_concat.negative_mask = negative.token_mask()
        call.arguments["encoder_hidden_states"] = torch.cat([text_BLD, negative.embeds], dim=1)
        return (), dict(call.arguments)

    def _forget(self, *_: Any) -> None:
        """Clear the layout, so that the processors refuse a call that bypasses the hooks."""
        self.text_concat.layout = TextLayout(0)
        self.text_concat.negative_mask = None

    def _call_name(self) -> str | None:
        context = self.calls._context
        return context.name if context is not None else None

    def _is_batched_cfg(self) -> bool:
        return self._call_name() == BATCHED_CALL and bool(
            self._pipeline.do_classifier_free_guidance
        )

    def _is_guided_call(self) -> bool:
        name = self._call_name()
        if name == UNCONDITIONAL_CALL:
            return False
        if name is None and getattr(self._pipeline, "do_classifier_free_guidance", False):
            raise UnnamedCallError(
                f"{type(self._pipeline).__name__} does not name the calls of its {self._component} "
                "(cache_context), so guidance cannot tell the unconditional one; switch "
                "classifier-free guidance off with guidance_scale=1"
            )
        params = self.params
        if not isinstance(params, NagParams) or (params.nag_start, params.nag_end) == (0, 1):
            return params.is_active  # the same at every step, so the step is not asked for
        scheduler, num_steps = self._pipeline.scheduler, self._pipeline.num_timesteps
        # A pipeline may enter the schedule late, as video to video does by its strength.
        num_skipped = len(scheduler.timesteps) - num_steps
        step = 0 if scheduler.step_index is None else scheduler.step_index - num_skipped
        return params.is_active_at(step, num_steps)
