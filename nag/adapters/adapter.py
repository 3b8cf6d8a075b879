"""The value by which one family of models says how it is guided.

Installation knows no family; `registry` lists the adapters, and finds that of a model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nag.adapters.processor import NagProcessor
from nag.attention.block_text.hook import BlockTextPlan
from nag.attention.block_text.pool import TextPool
from nag.attention.sequence.blocks_hook import SequencePlan
from nag.attention.sequence.text_hook import TextStreamPlan
from nag.attention.text.layout import VIDEO_TEXT, TextInput
from nag.attention.text.negative_text import NegativeText
from nag.attention.text_lanes_hook import LanePlan
from nag.params import NagParams

# From the author's Flux pipeline. Families of joint attention without published values take it too.
AUTHORS_FOR_FLUX = NagParams(nag_scale=5, nag_tau=2.5, nag_alpha=0.25, nag_norm="l2")


def first_output(_pipeline: Any, encoded: Any) -> NegativeText:
    """Return the embeddings where `encode_prompt` returns them first and the model has no mask."""
    return NegativeText(encoded[0])


def embeds_and_mask(_pipeline: Any, encoded: Any) -> NegativeText:
    """Return the embeddings where `encode_prompt` returns them first and their mask second."""
    return NegativeText(encoded[0], encoded[1])


def no_pool(_model: Any) -> tuple[TextPool, ...]:
    """Return nothing: no model of the classes makes one vector of its text."""
    return ()


def no_refusal(_model: Any) -> str | None:
    """Return None: every model of the classes can be guided."""
    return None


@dataclass(frozen=True)
class Adapter:
    """The way in which one family of models is guided.

    Args:
        models: classes of the transformers or UNets of this family.
        processors: our processor by the stock one that it replaces; made of the stock one, of what
            tells it the layout of the text (`TextConcat`, or `TextLanes` with `lanes`, or
            `SequenceLanes` with `sequence`), and of the attention's name.
        is_text_attention: returns True for a module that attends to text, by its name in the model
            and by itself.
        texts: texts that the model takes, each with its mask.
        text_of: returns the text that reaches an attention, by the attention's name; None where
            the first text reaches all.
        encodings: arguments of the pipeline's `encode_prompt` beside the usual ones, for each call
            that it makes for one text.
        negative_text: makes the negative prompt of all that the pipeline's `encode_prompt` returned
            for it; of a tuple of that, where it makes several calls.
        pads_text: True if every text is padded to `max_sequence_length`.
        needs_no_image: True if the pipeline encodes the texts of a call without images by
            themselves, though its `encode_prompt` takes images.
        takes_one_text: True if the pipeline's `encode_prompt` takes one text and no list of them.
        defaults: strengths of NAG where a call names none, with their source beside them.
        refusal: returns the reason why a model of these classes cannot be guided; None if it can.
        pools: returns the parts of a model that make one vector of its first text.
        lanes: way of the negative prompt through a model that updates its text, where it is further
            rows of the text; None elsewhere.
        sequence: way of the negative prompt through a model that has text and image in one
            sequence, where it is further tokens of that; None elsewhere.
        block_text: way of the text through a model that makes that of its blocks of all tokens
            together; None elsewhere. Without these three ways, the negative prompt is further
            tokens of a text that stays the same.
    """

    models: tuple[type, ...]
    processors: Mapping[type, Callable[[Any, Any, str], NagProcessor]]
    is_text_attention: Callable[[str, Any], bool]
    texts: tuple[TextInput, ...] = (VIDEO_TEXT,)
    text_of: Callable[[str], TextInput] | None = None
    encodings: tuple[Mapping[str, Any], ...] = ({},)
    negative_text: Callable[[Any, Any], NegativeText] = first_output
    pads_text: bool = True
    needs_no_image: bool = False
    takes_one_text: bool = False
    defaults: NagParams = field(default_factory=NagParams)
    refusal: Callable[[Any], str | None] = no_refusal
    pools: Callable[[Any], tuple[TextPool, ...]] = no_pool
    lanes: LanePlan | None = None
    sequence: SequencePlan | TextStreamPlan | None = None
    block_text: BlockTextPlan | None = None

    def text_attentions(self, model: Any) -> list[tuple[str, Any]]:
        """Return every attention of a model to its text, with its name."""
        return [one for one in model.named_modules() if self.is_text_attention(*one)]

    def text_at(self, attention: str) -> TextInput:
        """Return the text that reaches an attention, by the attention's name."""
        return self.text_of(attention) if self.text_of else self.texts[0]
