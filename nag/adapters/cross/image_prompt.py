"""Guidance in the cross-attentions of an IP-Adapter, which attend to text and to an image.

Shapes: B batch, L image tokens, I tokens of an image prompt, D channels, H heads, K channels a
head.
"""

from typing import Any

import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

from nag.adapters.cross_attention import NagAttnProcessor, project_out, tokens_of
from nag.adapters.text_processor import split_heads
from nag.attention.text_concat import TextConcat


class NagIPAdapterAttnProcessor(NagAttnProcessor, IPAdapterAttnProcessor2_0):
    """Replaces `IPAdapterAttnProcessor2_0`: the text is guided, the image prompt added after it.

    It derives from the stock class because pipelines set the strength of image prompts on the
    instances of that class, and has its weights, so that they move with the model.
    """

    def __init__(
        self, stock: IPAdapterAttnProcessor2_0, text_concat: TextConcat, block: str
    ) -> None:
        torch.nn.Module.__init__(self)
        self.to_k_ip, self.to_v_ip = stock.to_k_ip, stock.to_v_ip
        object.__setattr__(self, "stock", stock)  # as a module of this one it would be saved twice
        self.text_concat = text_concat
        self.block = block

    @property
    def scale(self) -> list[Any]:
        """The strength of each image prompt, which the stock processor keeps."""
        return self.stock.scale

    @scale.setter
    def scale(self, scale: list[Any]) -> None:
        self.stock.scale = scale

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        scale: float = 1.0,
        ip_adapter_masks: Any = None,
    ) -> torch.Tensor:
        text_BTD, images = encoder_hidden_states
        if not self._is_guided(text_BTD):
            return self.stock(
                attn,
                hidden_states,
                encoder_hidden_states,
                attention_mask,
                temb,
                scale,
                ip_adapter_masks,
            )
        query_BLHK = self._query(attn, tokens_of(attn, hidden_states, temb))
        output_BLD = self._guide(attn, query_BLHK, text_BTD, attention_mask)
        output_BLD = self._add_images(attn, query_BLHK, output_BLD, images, ip_adapter_masks)
        return project_out(attn, output_BLD, hidden_states)

    def _add_images(
        self, attn: Any, query_BLHK: torch.Tensor, output_BLD: torch.Tensor, images: Any, masks: Any
    ) -> torch.Tensor:
        """Return the output with each image prompt's part added, by its strength and its mask."""
        if masks is None:
            masks = [None] * len(images)
        elif not isinstance(masks, list):
            masks = list(masks.unsqueeze(1))
        parts = zip(images, self.scale, self.to_k_ip, self.to_v_ip, masks, strict=True)
        for image, scale, to_key, to_value, mask in parts:
            scales: list[Any] = scale if isinstance(scale, list) else [scale]
            if all(one == 0 for one in scales):
                continue
            if mask is None:
                part = self._attend_to_image(attn, query_BLHK, image, to_key, to_value)
                output_BLD = output_BLD + scales[0] * part
                continue
            for index, one in enumerate(scales * (mask.shape[1] // len(scales))):
                part = self._attend_to_image(attn, query_BLHK, image[:, index], to_key, to_value)
                # (B, L, D), as the image of this resolution
                part_mask = IPAdapterMaskProcessor.downsample(mask[:, index], *part.shape)
                output_BLD = output_BLD + one * (part * part_mask.to(part))
        return output_BLD

    def _attend_to_image(
        self, attn: Any, query_BLHK: torch.Tensor, image: torch.Tensor, to_key: Any, to_value: Any
    ) -> torch.Tensor:
        image_BID = image.flatten(1, -2)  # the tokens of several images behind one another
        key, value = split_heads(attn, to_key(image_BID)), split_heads(attn, to_value(image_BID))
        return self._attend(query_BLHK, key, value)
