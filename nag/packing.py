"""How the negative prompt reaches the attention processors: packed behind the prompt on the token axis.

Diffusers' pipelines hand one text tensor to the transformer, and `attention_kwargs` never reaches Wan's or LTX's
processors. So a hook on each transformer appends the negative prompt's tokens to the prompt's in every guided call,
and tells the processors where to cut. No projected text outlives a call: a LoRA change cannot leave stale text behind.

Decides which calls are guided: not the unconditional one of classifier-free guidance, not those outside the step range.
Shapes: B batch, L text tokens, D text channels.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.hooks import ModelHook
from diffusers.hooks.hooks import BaseState, StateManager
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from nag.errors import NagCoverageError, NagTextError
from nag.guidance import normalized_attention_guidance
from nag.params import NagParams

UNCONDITIONAL_CONTEXT = "uncond"  # the name diffusers' pipelines give to the unconditional call


@dataclass(frozen=True)
class TextLayout:
    """Where the prompts lie in one call's text.

    Args:
        positive_length: tokens of the prompt.
        negative_length: tokens of the negative prompt behind it; 0 in a call that is not guided.
        num_unguided_rows: leading rows of the batch that are left alone (the unconditional half, where a pipeline
            batches both halves of classifier-free guidance).
    """

    positive_length: int
    negative_length: int = 0
    num_unguided_rows: int = 0

    @property
    def length(self) -> int:
        return self.positive_length + self.negative_length


@dataclass(frozen=True, eq=False)
class NegativeText:
    """The negative prompt as the transformer takes it: `embeds` (B or 1, L, D), `attention_mask` (B or 1, L) if any."""

    embeds: torch.Tensor
    attention_mask: torch.Tensor | None = None


class Strength:
    """The parameters as 0-dim tensors, which a compiled graph takes as inputs instead of baking them in."""

    def __init__(self) -> None:
        self.nag_scale = torch.ones(())
        self.nag_tau = torch.ones(())
        self.nag_alpha = torch.zeros(())

    def set(self, params: NagParams) -> None:
        self.nag_scale.fill_(params.nag_scale)
        self.nag_tau.fill_(params.nag_tau)
        self.nag_alpha.fill_(params.nag_alpha)


class Packing:
    """What the hook tells the processors of one transformer about the call under way."""

    def __init__(self) -> None:
        self.layout = TextLayout(0)
        self.strength = Strength()

    def guide(self, positive_BLD: torch.Tensor, attend_negative: Callable[[slice], torch.Tensor]) -> torch.Tensor:
        """Guides the rows of the batch that are to be guided.

        Args:
            positive_BLD: attention output for the prompt, (B, L, D) with L video tokens.
            attend_negative: gives the output for the negative prompt, for those rows of the batch.
        """
        if not self.layout.negative_length:
            return positive_BLD
        rows = slice(self.layout.num_unguided_rows, None)
        strength = self.strength
        guided_BLD = normalized_attention_guidance(
            positive_BLD[rows], attend_negative(rows), strength.nag_scale, strength.nag_tau, strength.nag_alpha
        )
        if not self.layout.num_unguided_rows:
            return guided_BLD
        return torch.cat([positive_BLD[: self.layout.num_unguided_rows], guided_BLD])


class _NoState(BaseState):
    def reset(self, *_args: object, **_kwargs: object) -> None:
        """Nothing is kept between calls."""


class PackingHook(ModelHook):
    """Appends the negative prompt to the text of every call that is to be guided.

    Diffusers' registry tells it the name of each call. It packs in a forward pre-hook of torch, not in `pre_forward`:
    model offloading takes `forward` apart after every clip, and what diffusers' registry has put there goes with it.

    Args:
        packing: read by the processors of the transformer that this hook sits on.
        pipeline: asked for the position in the denoising loop.
    """

    _is_stateful = True  # diffusers then hands the name of the call to the StateManager

    def __init__(self, packing: Packing, pipeline: Any) -> None:
        super().__init__()
        self.packing = packing
        self.calls = StateManager(_NoState)  # pyright: ignore[reportArgumentType] - annotated as an instance
        self.negative: NegativeText | None = None
        self.params = NagParams(nag_scale=1)
        self._pipeline = pipeline
        self._signature: inspect.Signature | None = None
        self._handles: list[RemovableHandle] = []

    def set(self, negative: NegativeText | None, params: NagParams) -> None:
        """What guides the calls from now on; None as the negative prompt is no guidance."""
        self.packing.strength.set(params)
        self.negative, self.params = negative, params

    def initialize_hook(self, module: torch.nn.Module) -> torch.nn.Module:
        self._signature = inspect.signature(module.forward)
        self._handles = [
            module.register_forward_pre_hook(self._pack, with_kwargs=True),
            module.register_forward_hook(self._forget, always_call=True),
        ]
        return module

    def deinitalize_hook(self, module: torch.nn.Module) -> torch.nn.Module:  # diffusers spells it so
        for handle in self._handles:
            handle.remove()
        return module

    def reset_state(self, module: torch.nn.Module) -> torch.nn.Module:
        return module

    def _pack(
        self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        assert self._signature is not None
        call = self._signature.bind(*args, **kwargs)
        text_BLD = call.arguments["encoder_hidden_states"]
        if self.negative is None or not self._is_guided_call():
            self.packing.layout = TextLayout(text_BLD.shape[1])
            return args, kwargs
        num_unguided_rows = text_BLD.shape[0] // 2 if self._is_batched_cfg() else 0
        negative = _fit(self.negative, text_BLD, num_unguided_rows)
        self.packing.layout = TextLayout(text_BLD.shape[1], negative.embeds.shape[1], num_unguided_rows)
        call.arguments["encoder_hidden_states"] = torch.cat([text_BLD, negative.embeds], dim=1)
        mask_BL = call.arguments.get("encoder_attention_mask")
        if mask_BL is not None:
            call.arguments["encoder_attention_mask"] = _append_mask(mask_BL, negative)
        elif negative.attention_mask is not None:
            raise NagTextError("the negative prompt has an attention mask but the prompt has none")
        return (), dict(call.arguments)

    def _forget(self, *_: Any) -> None:
        """Leaves no layout behind: a call that passes the hooks by is refused by the processors."""
        self.packing.layout = TextLayout(0)

    def _call_name(self) -> str | None:
        context = self.calls._context
        return context.name if context is not None else None

    def _is_batched_cfg(self) -> bool:
        return self._call_name() == "cond_uncond" and bool(self._pipeline.do_classifier_free_guidance)

    def _is_guided_call(self) -> bool:
        name = self._call_name()
        if name == UNCONDITIONAL_CONTEXT:
            return False
        if name is None and getattr(self._pipeline, "do_classifier_free_guidance", False):
            raise NagCoverageError(
                f"{type(self._pipeline).__name__} does not name its transformer's calls (cache_context), so NAG cannot "
                "tell the unconditional one; switch classifier-free guidance off with guidance_scale=1"
            )
        if self.params.nag_start == 0 and self.params.nag_end == 1:
            return self.params.is_active
        step_index = self._pipeline.scheduler.step_index or 0
        return self.params.is_active_at(step_index, self._pipeline.num_timesteps)


def _fit(negative: NegativeText, text_BLD: torch.Tensor, num_unguided_rows: int) -> NegativeText:
    """The negative prompt for each row of the call; unguided rows get its first row as a filler that nobody reads."""
    num_rows = text_BLD.shape[0]
    embeds, mask = negative.embeds, negative.attention_mask
    if embeds.ndim != 3 or not embeds.shape[1] or embeds.shape[2] != text_BLD.shape[2]:
        raise NagTextError(
            f"the negative prompt's embeddings must be (batch, tokens, {text_BLD.shape[2]}) with a token or more, "
            f"not {tuple(embeds.shape)}"
        )
    if mask is not None and mask.shape != embeds.shape[:2]:
        raise NagTextError(f"the negative prompt's mask must be {tuple(embeds.shape[:2])}, not {tuple(mask.shape)}")
    if embeds.shape[0] not in (1, num_rows - num_unguided_rows):
        raise NagTextError(
            f"the negative prompt has {embeds.shape[0]} rows; the call guides {num_rows - num_unguided_rows}: give 1 "
            "or as many"
        )
    is_shared = embeds.shape[0] == 1
    rows = [0] * num_unguided_rows + [0 if is_shared else row for row in range(num_rows - num_unguided_rows)]
    index = torch.tensor(rows, device=embeds.device)
    return NegativeText(embeds[index].to(text_BLD), None if mask is None else mask[index].to(text_BLD.device))


def _append_mask(mask_BL: torch.Tensor, negative: NegativeText) -> torch.Tensor:
    if mask_BL.ndim != 2:
        raise NagTextError(f"the prompt's attention mask must be (batch, tokens), not {tuple(mask_BL.shape)}")
    if negative.attention_mask is None:
        return functional.pad(mask_BL, (0, negative.embeds.shape[1]), value=1)
    return torch.cat([mask_BL, negative.attention_mask.to(mask_BL.dtype)], dim=1)
