"""The place of the texts in one transformer call: its arguments, its rows, its tokens."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TextInput:
    """The arguments of a transformer's call that hold one text, by their names.

    Args:
        embeds: its embeddings.
        mask: the mask of its tokens; empty for a model that takes none.
        positions: the positions of its tokens; None where the model needs none.
        num_shared_tokens: tokens at its end that belong to the negative prompt too.
        part: fields of `NegativeText` that hold it.
        drops_whole_mask: True if its pipeline drops the mask of a text without filler.
        max_tokens: tokens that the model has positions for; None without a limit.
    """

    embeds: str
    mask: str = ""
    positions: str | None = None
    num_shared_tokens: int = 0
    part: Literal["embeds", "audio_embeds", "second_embeds"] = "embeds"
    drops_whole_mask: bool = False
    max_tokens: int | None = None


VIDEO_TEXT = TextInput("encoder_hidden_states", "encoder_attention_mask")
AUDIO_TEXT = TextInput(
    "audio_encoder_hidden_states", "audio_encoder_attention_mask", part="audio_embeds"
)


@dataclass(frozen=True)
class GuidedSpan:
    """The guided rows of one call's batch: `start` up to `stop`, of `num_rows`.

    The others are the unconditional ones, where a pipeline batches the passes of a step.
    """

    start: int
    stop: int
    num_rows: int

    def within(self, num_rows: int) -> "GuidedSpan":
        """Return the same rows where a model has so many for each frame, one after another."""
        frames = num_rows // self.num_rows
        return GuidedSpan(self.start * frames, self.stop * frames, num_rows)

    def index(self, num_negatives: int) -> list[int]:
        """Return the row of the negative prompt for each row; an unguided one gets the first."""
        shared_by = (self.stop - self.start) // num_negatives
        guided = [row // shared_by for row in range(self.stop - self.start)]
        return [0] * self.start + guided + [0] * (self.num_rows - self.stop)


@dataclass(frozen=True)
class TextLayout:
    """The positions of the prompts in one call's text.

    Args:
        positive_length: tokens of the prompt.
        negative_length: tokens of the negative prompt behind it; 0 in a call without guidance.
        guided: rows of the batch that take guidance; None in a call without guidance.
    """

    positive_length: int
    negative_length: int = 0
    guided: GuidedSpan | None = None

    @property
    def length(self) -> int:
        return self.positive_length + self.negative_length
