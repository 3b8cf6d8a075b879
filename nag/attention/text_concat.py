"""How the negative prompt reaches the attention processors: packed behind the prompt on the token axis.

Diffusers' pipelines hand one text tensor to the transformer, and `attention_kwargs` never reaches Wan's or LTX's
processors. So a hook on each transformer appends the negative prompt's tokens to the prompt's in every guided call,
and tells the processors where to cut. No projected text outlives a call: a LoRA change cannot leave stale text behind.

Decides which calls are guided: not the unconditional one of classifier-free guidance, not those outside the step range.
Shapes: B batch, L text tokens, D text channels.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.hooks import ModelHook
from diffusers.hooks.hooks import BaseState, StateManager
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from nag.attention.methods import Methods
from nag.attention.text_attention import Attend, TextAttention
from nag.errors import NagCoverageError, NagTextError
from nag.params import GuidanceParams, NagParams

UNCONDITIONAL_CONTEXT = "uncond"  # the name diffusers' pipelines give to the unconditional call
UNGUIDED = NagParams(nag_scale=1)


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

    def token_mask(self) -> torch.Tensor:
        """Which tokens are text, (B or 1, L) bool: as the mask says, or else all but the zero rows at the end.

        Wan's pipelines pad with zero rows and have no mask. The model projects them to something that is not zero and
        was trained with it, so they count wherever the model attends as it was trained to; Value Sign Flip does not.
        """
        if self.attention_mask is not None:
            return self.attention_mask.bool()
        is_text_BL = self.embeds.any(dim=-1)
        return is_text_BL.flip(1).cumsum(1).flip(1) > 0  # a zero row before text is text


class Packing:
    """What the hook tells the processors of one transformer about the call under way."""

    def __init__(self) -> None:
        self.layout = TextLayout(0)
        self.negative_mask: torch.Tensor | None = None  # (B, N) while a call is guided
        self.methods = Methods()
        self.method = self.methods.of(UNGUIDED)

    def set(self, params: GuidanceParams) -> None:
        self.method = self.methods.of(params)

    def guide(
        self,
        attend: Attend,
        query_BLHK: torch.Tensor,
        key_BTHK: torch.Tensor,
        value_BTHK: torch.Tensor,
        bias_BH1T: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attends to the prompt, and guides those rows of the batch that are to be guided.

        Args:
            attend: the family's attention.
            query_BLHK: of L video tokens.
            key_BTHK: of the T text tokens, as packed.
            value_BTHK: likewise.
            bias_BH1T: what the text's mask adds to the logits.
        """
        text = TextAttention(
            attend, query_BLHK, key_BTHK, value_BTHK, bias_BH1T, self.negative_mask
        )
        num_unguided_rows = self.layout.num_unguided_rows
        if not self.layout.negative_length:
            return text.positive()
        if not num_unguided_rows:
            return self.method.guide(text)
        unguided_BLD = text.rows(slice(0, num_unguided_rows)).positive()
        return torch.cat(
            [unguided_BLD, self.method.guide(text.rows(slice(num_unguided_rows, None)))]
        )


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
        self.params: GuidanceParams = UNGUIDED
        self._pipeline = pipeline
        self._signature: inspect.Signature | None = None
        self._handles: list[RemovableHandle] = []

    def set(self, negative: NegativeText | None, params: GuidanceParams) -> None:
        """What guides the calls from now on; None as the negative prompt is no guidance."""
        self.packing.set(params)
        self.negative, self.params = negative, params

    def initialize_hook(self, module: torch.nn.Module) -> torch.nn.Module:
        self._signature = inspect.signature(module.forward)
        self._handles = [
            module.register_forward_pre_hook(self._pack, with_kwargs=True),
            module.register_forward_hook(self._forget, always_call=True),
        ]
        return module

    def deinitalize_hook(
        self, module: torch.nn.Module
    ) -> torch.nn.Module:  # diffusers spells it so
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
        self.packing.layout = TextLayout(
            text_BLD.shape[1], negative.embeds.shape[1], num_unguided_rows
        )
        self.packing.negative_mask = negative.token_mask()
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
        self.packing.negative_mask = None

    def _call_name(self) -> str | None:
        context = self.calls._context
        return context.name if context is not None else None

    def _is_batched_cfg(self) -> bool:
        return self._call_name() == "cond_uncond" and bool(
            self._pipeline.do_classifier_free_guidance
        )

    def _is_guided_call(self) -> bool:
        name = self._call_name()
        if name == UNCONDITIONAL_CONTEXT:
            return False
        if name is None and getattr(self._pipeline, "do_classifier_free_guidance", False):
            raise NagCoverageError(
                f"{type(self._pipeline).__name__} does not name its transformer's calls (cache_context), so NAG cannot "
                "tell the unconditional one; switch classifier-free guidance off with guidance_scale=1"
            )
        params = self.params
        if not isinstance(params, NagParams) or (params.nag_start, params.nag_end) == (0, 1):
            return params.is_active  # at every step: which one it is need not be asked
        scheduler, num_steps = self._pipeline.scheduler, self._pipeline.num_timesteps
        # a pipeline may enter the schedule late, as video to video does by its strength
        num_skipped = len(scheduler.timesteps) - num_steps
        step = 0 if scheduler.step_index is None else scheduler.step_index - num_skipped
        return params.is_active_at(step, num_steps)


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
        raise NagTextError(
            f"the negative prompt's mask must be {tuple(embeds.shape[:2])}, not {tuple(mask.shape)}"
        )
    if embeds.shape[0] not in (1, num_rows - num_unguided_rows):
        raise NagTextError(
            f"the negative prompt has {embeds.shape[0]} rows; the call guides {num_rows - num_unguided_rows}: give 1 "
            "or as many"
        )
    is_shared = embeds.shape[0] == 1
    rows = [0] * num_unguided_rows + [
        0 if is_shared else row for row in range(num_rows - num_unguided_rows)
    ]
    index = torch.tensor(rows, device=embeds.device)
    return NegativeText(
        embeds[index].to(text_BLD), None if mask is None else mask[index].to(text_BLD.device)
    )


def _append_mask(mask_BL: torch.Tensor, negative: NegativeText) -> torch.Tensor:
    if mask_BL.ndim != 2:
        raise NagTextError(
            f"the prompt's attention mask must be (batch, tokens), not {tuple(mask_BL.shape)}"
        )
    if negative.attention_mask is None:
        return functional.pad(mask_BL, (0, negative.embeds.shape[1]), value=1)
    return torch.cat([mask_BL, negative.attention_mask.to(mask_BL.dtype)], dim=1)
