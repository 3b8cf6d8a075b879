"""The negative prompt as a transformer takes it, and its fit to a call.

Shapes: B batch, L text tokens, D text channels, G and T tokens of further texts.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from nag.attention.text.layout import GuidedSpan, TextInput
from nag.errors import NagTextError


@dataclass(frozen=True, eq=False)
class NegativeText:
    """The negative prompt as the transformer takes it.

    Args:
        embeds: text embeddings, (B or 1, L, D), or of the further shape that the model takes.
        attention_mask: (B or 1, L), nonzero where a token is text; None for a model without masks.
        has_default_length: True if L is the pipeline's default of `max_sequence_length`, so that
            only a call with that default takes this text.
        audio_embeds: embeddings of the same text for the sound, (B or 1, L, D), with the same mask;
            for LTX-2 alone. Its connectors make both.
        pooled: one embedding of the whole text, (B or 1, D), for a model that takes
            `pooled_projections` besides the embeddings.
        glyph_embeds: embeddings of the letters that the text quotes, (B or 1, G, E), for a model
            that takes those besides; None for a text that quotes nothing.
        glyph_mask: their mask, (B or 1, G).
        layer_embeds: embeddings of the same text by the layers of an encoder, (layers, B or 1, T,
            E), for a model that takes those besides.
        second_embeds: embeddings of the same text by a second encoder, (B or 1, L2, D2), for a
            model that takes two texts.
        second_mask: their mask, (B or 1, L2).

    Example:
        The second of two tokens is filler.

        >>> NegativeText(torch.ones(1, 2, 8), torch.tensor([[1, 0]])).embeds.shape
        torch.Size([1, 2, 8])
    """

    embeds: torch.Tensor
    attention_mask: torch.Tensor | None = None
    has_default_length: bool = False
    audio_embeds: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    glyph_embeds: torch.Tensor | None = None
    glyph_mask: torch.Tensor | None = None
    layer_embeds: torch.Tensor | None = None
    second_embeds: torch.Tensor | None = None
    second_mask: torch.Tensor | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            name, value = one.name, getattr(self, one.name)
            if name == "has_default_length":
                continue
            if not (torch.is_tensor(value) or (value is None and name != "embeds")):
                raise NagTextError(
                    f"NegativeText.{name} must be a tensor, got {type(value).__name__}; a text "
                    "goes to guide() as it is"
                )

    def of(self, text: TextInput) -> "NegativeText":
        """Return the negative prompt for one of the texts that a transformer takes.

        Raises:
            NagTextError: it has no embeddings for this text.
        """
        if text.part == "embeds":
            return self
        if text.part == "audio_embeds":
            embeds, mask = self.audio_embeds, self.attention_mask
        else:
            embeds, mask = self.second_embeds, self.second_mask
        if embeds is None:
            raise NagTextError(
                f"the model takes {text.embeds} too: give NegativeText the {text.part} that the "
                "pipeline makes of the text, or give guide() the text itself"
            )
        return NegativeText(embeds, mask, self.has_default_length)

    def token_mask(self) -> torch.Tensor:
        """Return True for each token that is text, (B or 1, L) bool.

        Without a mask, all tokens but the zero rows at the end are text. Wan's pipelines pad with
        zero rows and have no mask. The model projects these rows to values that are not zero and
        was trained with them, so they take part in attention if the method attends as in training.
        Value Sign Flip attends in another way, and leaves them out.
        """
        if self.attention_mask is not None:
            return self.attention_mask.bool()
        is_text_BL = self.embeds.any(dim=-1)
        return is_text_BL.flip(1).cumsum(1).flip(1) > 0  # a zero row before text is text

    def without_idle_mask(self) -> "NegativeText":
        """Return it without a mask that masks nothing: some backends of attention take no mask."""
        mask = self.attention_mask
        is_idle = mask is not None and bool(mask.all())
        return replace(self, attention_mask=None) if is_idle else self

    def fit(self, text_BLD: torch.Tensor, guided: GuidedSpan) -> "NegativeText":
        """Return the negative prompt with one row for each row of a call.

        Unguided rows get the first row as a filler, which the processors do not read. Several
        videos of one prompt (`num_videos_per_prompt`) share the row of that prompt.

        Args:
            text_BLD: text of the call.
            guided: rows of the call that take guidance.

        Raises:
            NagTextError: the embeddings or the mask have the wrong shape, or another number of
                tokens than the prompt though both should have the pipeline's default.
        """
        num_guided_rows = guided.stop - guided.start
        embeds, mask = self.embeds, self.attention_mask
        if embeds.shape[2:] != text_BLD.shape[2:] or not embeds.shape[1]:
            channels = ", ".join(map(str, text_BLD.shape[2:]))
            raise NagTextError(
                f"the negative prompt's embeddings must be (batch, tokens, {channels}) with one "
                f"token or more, got {tuple(embeds.shape)}"
            )
        if mask is not None and mask.shape != embeds.shape[:2]:
            raise NagTextError(
                f"the negative prompt's mask must be {tuple(embeds.shape[:2])}, "
                f"got {tuple(mask.shape)}"
            )
        self._check_besides()
        if self.has_default_length and embeds.shape[1] != text_BLD.shape[1]:
            raise NagTextError(
                f"the negative prompt has {embeds.shape[1]} tokens, the pipeline's default, and "
                f"the prompt has {text_BLD.shape[1]}: give guide() the max_sequence_length "
                f"{text_BLD.shape[1]}, also where it encodes the negative prompt beforehand"
            )
        num_videos, rest = divmod(num_guided_rows, embeds.shape[0] or num_guided_rows + 1)
        is_shared = embeds.shape[0] == 1
        guided_BLD = text_BLD[guided.start : guided.stop]
        if rest or not (is_shared or _repeats(guided_BLD, num_videos)):
            raise NagTextError(
                f"the negative prompt has {embeds.shape[0]} rows and the call guides "
                f"{num_guided_rows}: give 1 row, or one for each prompt"
            )
        index = torch.tensor(guided.index(embeds.shape[0]), device=embeds.device)

        def rows(one: torch.Tensor | None) -> torch.Tensor | None:
            return None if one is None else one[index].to(text_BLD.device)

        return NegativeText(
            embeds[index].to(text_BLD),
            rows(mask),
            pooled=rows(self.pooled),
            glyph_embeds=rows(self.glyph_embeds),
            glyph_mask=rows(self.glyph_mask),
            layer_embeds=None
            if self.layer_embeds is None
            else self.layer_embeds[:, index].to(text_BLD.device),
        )

    def _check_besides(self) -> None:
        """Check the parts beside the embeddings."""
        embeds = self.embeds
        if self.pooled is not None and len(self.pooled) != len(embeds):
            raise NagTextError(
                f"the negative prompt's pooled embeddings must have {len(embeds)} rows, as its "
                f"embeddings have, got {len(self.pooled)}"
            )
        layers = self.layer_embeds
        if layers is not None and (layers.ndim != 4 or layers.shape[1] != len(embeds)):
            raise NagTextError(
                f"the negative prompt's layer_embeds must be (layers, {len(embeds)}, tokens, "
                f"channels), got {tuple(layers.shape)}"
            )
        self._check_glyphs()

    def _check_glyphs(self) -> None:
        glyphs, mask = self.glyph_embeds, self.glyph_mask
        if glyphs is None and mask is None:
            return
        if glyphs is None or mask is None or glyphs.ndim != 3 or mask.shape != glyphs.shape[:2]:
            raise NagTextError(
                "the negative prompt's glyph_embeds must be (batch, tokens, channels) and its "
                "glyph_mask (batch, tokens), got "
                f"{None if glyphs is None else tuple(glyphs.shape)} and "
                f"{None if mask is None else tuple(mask.shape)}"
            )
        if len(glyphs) != len(self.embeds):
            raise NagTextError(
                f"the negative prompt's glyph_embeds must have {len(self.embeds)} rows, as its "
                f"embeddings have, got {len(glyphs)}"
            )

    def append_mask(self, mask_BL: torch.Tensor) -> torch.Tensor:
        """Return the prompt's mask with the negative prompt's behind it.

        Raises:
            NagTextError: the prompt's mask is not (batch, tokens).
        """
        if mask_BL.ndim != 2:
            raise NagTextError(
                f"the prompt's attention mask must be (batch, tokens), got {tuple(mask_BL.shape)}"
            )
        if self.attention_mask is None:
            return functional.pad(mask_BL, (0, self.embeds.shape[1]), value=1)
        return torch.cat([mask_BL, self.attention_mask.to(mask_BL.dtype)], dim=1)


def fill_up(texts: list[torch.Tensor]) -> NegativeText:
    """Return texts (T, D) of several lengths as one negative prompt, with a filler and a mask."""
    mask = pad_sequence([text.new_ones(len(text)) for text in texts], batch_first=True)
    return NegativeText(pad_sequence(texts, batch_first=True), mask)


def _repeats(text_BLD: torch.Tensor, times: int) -> bool:
    """Return True if the text holds each of its rows so many times, one after another."""
    if times == 1:
        return True
    groups = text_BLD.unflatten(0, (-1, times))
    return bool((groups == groups[:, :1]).all())
