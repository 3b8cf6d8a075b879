"""The texts of a request: the rules for each, and those of them that the model reads.

Loads without torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from pipelines.errors import RequestError

if TYPE_CHECKING:
    from pipelines.request import GenerationRequest

MAX_PROMPT_CHARACTERS = 20_000
MAX_DIGITS = 640  # a longer whole number may not be read: Python's own limit can be this low
LongText = Literal["refuse", "truncate"]
_CONTROL_CHARACTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class EncodedTexts(NamedTuple):
    """The texts that the text encoder of a model gets.

    Args:
        prompt: text of the guided pass.
        negative_prompt: text that guides the attention; None if it is unguided.
        unconditional: text of the unconditional pass; None without classifier-free guidance.
    """

    prompt: str
    negative_prompt: str | None
    unconditional: str | None

    @classmethod
    def of(cls, request: GenerationRequest) -> EncodedTexts:
        """Return the texts of a request; its guidance decides what its negative prompt is for."""
        negative_prompt = request.negative_prompt if request.attention_params else None
        return cls(request.prompt, negative_prompt, request.unconditional_prompt)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one text.

    Args:
        count: number of tokens of the whole text, with the one that ends it.
        digest: digest of the tokens that the text encoder reads, in hexadecimal.
    """

    count: int
    digest: str


@dataclass(frozen=True)
class RequestTokens:
    """The tokens of the texts of a request, named as in `EncodedTexts`."""

    prompt: Tokens
    negative_prompt: Tokens | None = None
    unconditional: Tokens | None = None

    @classmethod
    def of(cls, request: GenerationRequest, read: Callable[[str], Tokens]) -> RequestTokens:
        """Return the tokens of a request; `read` returns those of one text."""
        prompt, *others = EncodedTexts.of(request)
        return cls(read(prompt), *(None if text is None else read(text) for text in others))

    def has_more_than(self, count: int) -> bool:
        """Return True if one of the texts has more tokens than `count`."""
        negative_prompt, unconditional = self.negative_prompt, self.unconditional
        return (
            self.prompt.count > count
            or (negative_prompt is not None and negative_prompt.count > count)
            or (unconditional is not None and unconditional.count > count)
        )

    def by_field(self) -> dict[str, Tokens]:
        """Return the tokens by the fields of a manifest that give the texts."""
        named = {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt or self.unconditional,
        }
        return {field: tokens for field, tokens in named.items() if tokens is not None}


def check_text(name: str, text: str) -> None:
    """Refuse a text that is unsafe in a tokenizer, a log line or an MP4 tag.

    Raises:
        RequestError: the text is too long, or holds half of a surrogate pair or a control character
            other than tab and newline.
    """
    if len(text) <= MAX_PROMPT_CHARACTERS and text.isprintable():
        return
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise RequestError.of(
            f"{name} has {len(text):,} characters; at most {MAX_PROMPT_CHARACTERS:,} are allowed",
            name,
        )
    if found := _CONTROL_CHARACTER.search(text):
        raise RequestError.of(
            f"{name} holds the control character U+{ord(found[0]):04X} "
            f"at position {found.start() + 1}",
            name,
        )
