"""The text of one transformer call: the prompt with the negative prompt behind it.

Diffusers' pipelines hand one text tensor to the transformer (LTX-2's hand a second one, for the
sound), and `attention_kwargs` never reach the processors of Wan or LTX. So `NegativePromptHook`
appends the negative prompt to the prompt on the token axis, and `TextConcat` tells the processors
where the one ends and the other begins.

Shapes: B batch, L text tokens, D text channels, H heads, K channels a head, T tokens of both texts.
"""

from typing import Any

import torch

from nag.attention.kept_projections import KeyValue
from nag.attention.methods import build_methods
from nag.attention.text.layout import VIDEO_TEXT, TextInput, TextLayout
from nag.attention.text_attention import Attend, TextAttention
from nag.errors import NagParameterError
from nag.params import GuidanceParams, NagParams

UNGUIDED = NagParams(nag_scale=1)


class TextConcat:
    """The layout of one text in the call under way, and the method that guides by it.

    The hook of a transformer writes it; the processors of that transformer read it.
    """

    def __init__(self, text: TextInput = VIDEO_TEXT) -> None:
        self.text = text
        self.layout = TextLayout(0)
        self.is_guiding = False  # the clip under way is guided, if not in this call
        self.negative_mask: torch.Tensor | None = None  # (B, N) while a call is guided
        self.projections: dict[Any, KeyValue] | None = None  # kept of the call's text, if any are
        self._methods = build_methods()
        self.use(UNGUIDED)

    def use(self, params: GuidanceParams) -> None:
        """Choose the method that `params` belong to, with their strengths, for the calls to come.

        Raises:
            NagParameterError: `params` belong to no method.
        """
        method = self._methods.get(type(params))
        if method is None:
            known = ", ".join(kind.__name__ for kind in self._methods)
            raise NagParameterError(
                f"the parameters must be one of {known}, got {type(params).__name__}"
            )
        method.set(params)
        self.method = method

    def guide(
        self,
        attend: Attend,
        query_BLHK: torch.Tensor,
        key_BTHK: torch.Tensor,
        value_BTHK: torch.Tensor,
        bias_BH1T: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend to the prompt, and guide the rows of the batch that take guidance.

        Args:
            attend: attention of the architecture.
            query_BLHK: queries of the L video tokens.
            key_BTHK: keys of the T text tokens, the negative prompt's last.
            value_BTHK: values of the same tokens.
            bias_BH1T: the text's mask, True where a token is seen, or values that it adds to the
                logits; None without a mask.

        Returns:
            (B, L, D), heads merged, before the output projection.
        """
        layout, negative_mask, num_rows = self.layout, self.negative_mask, query_BLHK.shape[0]
        if negative_mask is not None and len(negative_mask) < num_rows:
            negative_mask = negative_mask.repeat_interleave(num_rows // len(negative_mask), dim=0)
        text = TextAttention(
            attend,
            query_BLHK,
            key_BTHK,
            value_BTHK,
            layout.positive_length,
            bias_BH1T,
            negative_mask,
        )
        if layout.guided is None:
            return text.positive()
        span = layout.guided.within(num_rows)
        if not span.start and span.stop == span.num_rows:
            return self.method.guide(text)
        parts = [self.method.guide(text.rows(slice(span.start, span.stop)))]
        if span.start:
            parts.insert(0, text.rows(slice(0, span.start)).positive())
        if span.stop < span.num_rows:
            parts.append(text.rows(slice(span.stop, None)).positive())
        return torch.cat(parts)
