"""The reference for joint attention: each guided row by hand, in float64, on models left alone.

Each row of a call is computed by the stock model as two rows, the prompt and the negative prompt,
with an attention by hand: the image tokens of the first row serve both texts. Nothing here imports
from nag/.

Shapes: L tokens, D channels, H heads, K channels a head.
"""

import inspect
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers.models.transformers.transformer_easyanimate import EasyAnimateAttnProcessor2_0
from torch.nn import functional

from tests.nag.further_joint_by_hand import JoyImageAttention, MotifVideoCrossAttention
from tests.nag.hidream_by_hand import HiDreamAttention, share_image
from tests.nag.reference import Guidance, Sums, combined, guided, softmax_sums

Rotate = Callable[[torch.Tensor, Any], torch.Tensor]  # (1, L, H, K) and the positions' embedding
IN = "joint_attention_kwargs"  # holds the mask of Bria's Fibo
LLAMA = "encoder_hidden_states_llama3"
IMAGE = ("to_q", "to_k", "to_v", "norm_q", "norm_k")
TEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k")
# By the class of the stock processor.
OF_THEIR_OWN: dict[str, Callable[[Any, Any], Any]] = {
    "HiDreamAttnProcessor": HiDreamAttention,
    "JoyImageAttnProcessor": JoyImageAttention,
    "JoyImageEditPlusAttnProcessor": JoyImageAttention,
    "MotifVideoCrossAttnProcessor2_0": MotifVideoCrossAttention,
}


@contextmanager
def joint_attention_by_hand(
    pipeline: Any, guidance: Guidance, pooled: torch.Tensor | None, rotate: Rotate | None = None
) -> Generator[None]:
    """Guide a pipeline by hand.

    Args:
        pipeline: its transformer's processors and `forward` are replaced until the end.
        guidance: negative prompts and strengths.
        pooled: pooled negative prompts; None for a model without.
        rotate: the rotary embedding of the family.
    """
    transformer = pipeline.transformer
    call = _Call(transformer, guidance, pooled)
    replaced = [
        (module, module.processor)
        for name, module in transformer.named_modules()
        if hasattr(module, "processor")
        and name.endswith((".attn", ".attn1", ".cross_attn"))
        and re.search(r"(transformer|stream|double)_blocks\.", name)
    ]
    is_hidream = hasattr(transformer, "single_stream_blocks")
    for module, processor in replaced:
        own = OF_THEIR_OWN.get(type(processor).__name__)
        module.processor = own(processor, call) if own else _Attention(processor, call, rotate)
    transformer.forward = call
    singles = getattr(transformer, "single_transformer_blocks", [])
    if is_hidream:
        singles = transformer.single_stream_blocks
    copy = partial(share_image, call=call) if is_hidream else _copy_image
    hooks = [block.register_forward_pre_hook(copy, with_kwargs=True) for block in singles[:1]]
    try:
        yield
    finally:
        del transformer.forward
        for hook in hooks:
            hook.remove()
        for module, processor in replaced:
            module.processor = processor


def _copy_image(_block: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    if not args and "encoder_hidden_states" not in kwargs:
        return args, kwargs  # text and image are one sequence before the block
    if args:
        return (args[0][:1].expand_as(args[0]), *args[1:]), kwargs
    image = kwargs["hidden_states"]
    return args, kwargs | {"hidden_states": image[:1].expand_as(image)}


class _Call:
    """A transformer's `forward`, one row of the batch at a time."""

    def __init__(self, transformer: Any, guidance: Guidance, pooled: torch.Tensor | None) -> None:
        self.forward, self.guidance, self.pooled = transformer.forward, guidance, pooled
        self.parameters = inspect.signature(transformer.forward).parameters
        names = ("encoder_hidden_states", "encoder_hidden_states_t5")
        self.text = next(name for name in names if name in self.parameters)
        self.mask = torch.empty(0, 0)  # both texts', in a guided call
        self.text_length = 0  # in the two-stream blocks, which single-stream blocks follow

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
        arguments = dict(zip(self.parameters, args, strict=False)) | kwargs
        texts = arguments[self.text]
        unconditional = self.guidance.unconditional
        outputs: list[torch.Tensor] = []
        num_guided = 0
        for row, text in enumerate(texts):
            of_row = {
                name: value if name.startswith("indices_") else _row(value, row, len(texts))
                for name, value in arguments.items()
            }
            if (arguments.get(IN) or {}).get("attention_mask") is not None:
                of_row[IN] = {"attention_mask": arguments[IN]["attention_mask"][row : row + 1]}
            if LLAMA in arguments:
                of_row[LLAMA] = arguments[LLAMA][:, row : row + 1]
            is_unguided = "skip_layers" in arguments or (
                unconditional is not None and any(torch.equal(text, one) for one in unconditional)
            )
            if not is_unguided:
                index = min(num_guided, len(self.guidance.negative) - 1)
                num_guided += 1
                of_row = self._with_negative(of_row, index)
            outputs.append(self.forward(**of_row)[0][:1])
        return (torch.cat(outputs),)

    def guide(self, positive: Any, negative: Any) -> np.ndarray:
        """Return the guided image, of the outputs of both lanes, (L, D)."""
        by = self.guidance
        return guided(positive, negative, by.scale, by.tau, by.alpha, by.norm)

    def _with_negative(self, one: dict[str, Any], index: int) -> dict[str, Any]:
        text, negative = one[self.text], self.guidance.negative[index : index + 1]
        mask_name = next((name for name in self.parameters if name.endswith("_mask")), None)
        two = {name: _twice(value) for name, value in one.items()}
        length = max(text.shape[1], negative.shape[1])
        mask = None if mask_name is None else one.get(mask_name)
        if "text_encoder_layers" in one:  # Fibo
            given = (two.pop(IN) or {}).get("attention_mask")
            mask = None if given is None else given[:, 0, 0, : text.shape[1]]
            two["txt_ids"] = one["txt_ids"].new_zeros(length, 3)
        masks = [
            torch.ones(text.shape[:2]) if mask is None else mask,
            torch.ones(negative.shape[:2])
            if self.guidance.negative_mask is None
            else self.guidance.negative_mask[index : index + 1],
        ]
        if masks[0].shape[1] > text.shape[1]:  # a mask of text and image
            length_of_both = masks[0].shape[1]
            masks[1] = functional.pad(masks[1].float(), (0, length_of_both - length), value=1)
        else:
            length_of_both = length
        self.mask = torch.cat(
            [functional.pad(each.float(), (0, length_of_both - each.shape[1])) for each in masks]
        )
        if mask_name is not None:
            two[mask_name] = self.mask.to(torch.bool if mask is None else mask.dtype)
        two[self.text] = torch.cat(
            [functional.pad(each, (0, 0, 0, length - each.shape[1])) for each in (text, negative)]
        )
        if self.guidance.glyphs is not None and self.guidance.glyph_mask is not None:
            for name, of_negative in (
                ("encoder_hidden_states_2", self.guidance.glyphs),
                ("encoder_attention_mask_2", self.guidance.glyph_mask),
            ):
                two[name] = torch.cat([one[name], of_negative[index : index + 1]])
        if self.pooled is not None:
            name = next(name for name in one if name.startswith("pooled_"))
            two[name] = torch.cat([one[name], self.pooled[index : index + 1]])
        layers = self.guidance.layers
        if layers is not None and LLAMA not in one:
            pairs = zip(one["text_encoder_layers"], layers[:, index : index + 1], strict=True)
            two["text_encoder_layers"] = [
                torch.cat(
                    [functional.pad(each, (0, 0, 0, length - each.shape[1])) for each in pair]
                )
                for pair in pairs
            ]
        elif layers is not None:
            two[LLAMA] = torch.cat([one[LLAMA], layers[:, index : index + 1]], 1)
        return two


def _row(value: Any, row: int, num_rows: int) -> Any:
    if torch.is_tensor(value):
        is_batch = value.ndim > 0 and value.shape[0] == num_rows
        return value[row : row + 1] if is_batch else value
    if isinstance(value, list):
        ones: list[Any] = value
        if ones and torch.is_tensor(ones[0]):
            return [_row(one, row, num_rows) for one in ones]
        return ones[row : row + 1] if len(ones) == num_rows else ones
    return value


def _twice(value: Any) -> Any:
    if torch.is_tensor(value):
        return torch.cat([value, value]) if value.ndim and value.shape[0] == 1 else value
    if isinstance(value, list):
        ones: list[Any] = value
        return [_twice(one) for one in ones] if torch.is_tensor(ones[0]) else ones * 2
    return value


class _Attention:
    """An attention by hand over two rows: the prompt's, and the negative prompt's."""

    def __init__(self, stock: Any, call: _Call, rotate: Rotate | None) -> None:
        self.stock, self.call, self.rotate = stock, call, rotate

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Any = None,
        encoder_hidden_states_mask: torch.Tensor | None = None,
    ) -> Any:
        if hidden_states.shape[0] == 1:
            given: dict[str, Any] = {
                "attention_mask": attention_mask,
                "encoder_hidden_states_mask": encoder_hidden_states_mask,
                "image_rotary_emb": image_rotary_emb,
            }
            given = {name: value for name, value in given.items() if value is not None}
            return self.stock(attn, hidden_states, encoder_hidden_states, **given)
        if encoder_hidden_states is not None:
            self.call.text_length = encoder_hidden_states.shape[1]
        length = self.call.text_length
        rows: list[np.ndarray] = []
        image_query, of_image, negative = torch.empty(0), None, None
        for row in range(2):
            queries = self._of_row(attn, hidden_states, encoder_hidden_states, row)
            if self.rotate is not None:
                queries[:2] = [self.rotate(one, image_rotary_emb) for one in queries[:2]]
            num_tokens, mask, bias = queries[0].shape[1], None, None
            of_text = encoder_hidden_states_mask
            if attention_mask is not None:  # the image's, then the text's
                of_text = attention_mask
                if of_text.ndim == 4:
                    of_text = of_text[:, 0, 0, num_tokens - length :]
            elif of_text is None and self.call.mask.shape[1] == length:
                of_text = self.call.mask
            if attention_mask is not None and attention_mask.shape[-2] == num_tokens:
                bias = attention_mask[row, 0].double().numpy()  # numbers, added as they are
            elif of_text is not None:
                mask = functional.pad(of_text[row], (0, num_tokens - length), value=True)
            queries = [one[0].flatten(1) for one in queries]
            sums = softmax_sums(*queries, attn.heads, mask, bias)
            rows.append(sums.mean().reshape(num_tokens, -1))
            if row == 0:
                image_query = queries[0][length:]
                of_image = Sums(sums.weighted[length:], sums.weights[length:])
            elif self.call.guidance.method == "vsf":
                # One softmax of the image over the prompt, itself and the negative prompt.
                text_mask = None if mask is None else mask[:length]
                key, value = (one[:length] for one in queries[1:])
                negative = softmax_sums(image_query, key, value, attn.heads, text_mask)
        if of_image is not None and negative is not None:
            image = combined(of_image, negative, self.call.guidance).reshape(len(image_query), -1)
        else:
            image = self.call.guide(rows[0][length:], rows[1][length:])
        whole = torch.from_numpy(
            np.stack([np.concatenate([row[:length], image]) for row in rows])
        ).to(hidden_states.dtype)
        if encoder_hidden_states is None:
            return whole if attn.pre_only else attn.to_out[0](whole)
        image_output, text_output = whole[:, length:], whole[:, :length]
        if attn.to_out is None:
            return image_output, text_output
        if attn.add_q_proj is None:
            # EasyAnimate projects no text where it has one set of weights.
            if not isinstance(self.stock, EasyAnimateAttnProcessor2_0):
                text_output = attn.to_out[0](text_output)
        elif getattr(attn, "context_pre_only", None) is not True:
            text_output = attn.to_add_out(text_output)
        return attn.to_out[0](image_output), text_output

    def _of_row(
        self, attn: Any, hidden: torch.Tensor, text: torch.Tensor | None, row: int
    ) -> list[torch.Tensor]:
        """Return queries, keys and values of one text and the image, each (1, tokens, H, K)."""
        if text is None:
            return self._project(attn, hidden[row : row + 1], IMAGE)
        is_shared = attn.add_q_proj is not None
        of_image = self._project(attn, hidden[:1] if is_shared else hidden[row : row + 1], IMAGE)
        of_text = self._project(attn, text[row : row + 1], TEXT if is_shared else IMAGE)
        return [torch.cat(pair, 1) for pair in zip(of_text, of_image, strict=True)]

    def _project(
        self, attn: Any, hidden_1LD: torch.Tensor, names: tuple[str, ...]
    ) -> list[torch.Tensor]:
        query, key, value = (
            getattr(attn, name)(hidden_1LD).unflatten(2, (attn.heads, -1)) for name in names[:3]
        )
        return [getattr(attn, names[3])(query), getattr(attn, names[4])(key), value]
