"""The tokens of texts from the tokens of their words, which most texts share.

T5's tokenizer splits a text at its blanks before its model reads the words, so that a word has the
same tokens in every text. A text that holds anything but printable ASCII, a very long word or the
first character of a special token goes the other road, as does every text of a tokenizer that is
built in another way. Loads without torch.
"""

import json
from collections.abc import Sequence
from typing import Any, Self

MAX_WORDS = 2**16  # words whose tokens are kept, at most 15 MB
MAX_WORD_CHARACTERS = 40
# As transformers' T5Tokenizer is built, which reads the files of UMT5 too.
_SPLIT_AT_BLANKS = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "WhitespaceSplit"},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    ],
}
_OF_PIECES = "Unigram"  # the model, which gives every word a token
_OF_CHARACTERS = "Precompiled"  # SentencePiece's map of characters, which keeps ASCII


class WordTokens:
    """The tokens of the words that were seen last.

    Args:
        backend: tokenizer of the library `tokenizers`.
        end: the tokens behind each text.
        special: the first characters of the special tokens.
    """

    def __init__(self, backend: Any, end: Sequence[int], special: str) -> None:
        self._model = backend.model
        self._normalizer = backend.normalizer
        self._end = _joined(end)
        self._special = special
        self._kept: dict[str, str] = {}

    @classmethod
    def of(cls, backend: Any) -> Self | None:
        """Return those of a tokenizer; None if its words may have other tokens in another text."""
        if type(backend.model).__name__ != _OF_PIECES:
            return None
        if _built(backend.pre_tokenizer) != _SPLIT_AT_BLANKS:
            return None
        if _built(backend.normalizer).get("type", _OF_CHARACTERS) != _OF_CHARACTERS:
            return None
        backend.no_padding()
        backend.no_truncation()
        alone, whole = (backend.encode("a", add_special_tokens=adds).ids for adds in (False, True))
        end = whole[len(alone) :]
        if not (alone and end) or whole[: len(alone)] != alone:
            return None
        added = (one.content for one in backend.get_added_tokens_decoder().values())
        return cls(backend, end, "".join({text[0] for text in added if text}))

    def read(self, texts: Sequence[str]) -> list[str | None]:
        """Return the tokens of each text with blanks between; None for one on the other road."""
        words = [self._words(text) for text in texts]
        kept, end = self._kept, self._end
        missing = {word for of_text in words for word in of_text if word not in kept}
        if missing:
            if len(kept) + len(missing) > MAX_WORDS:
                kept.clear()
                missing = {word for of_text in words for word in of_text}
            kept.update((word, self._encode(word)) for word in missing)
        return [
            f"{' '.join([kept[word] for word in of_text])} {end}" if of_text else None
            for of_text in words
        ]

    def _words(self, text: str) -> list[str]:
        """Return the words of a text; none for one on the other road."""
        if not (text.isascii() and text.isprintable()):
            return []
        for character in self._special:
            if character in text:
                return []
        words = text.split()
        return words if max(map(len, words), default=0) <= MAX_WORD_CHARACTERS else []

    def _encode(self, word: str) -> str:
        """Return the tokens of a word, as the whole tokenizer gives them in a third of its time."""
        if self._normalizer is not None:
            word = self._normalizer.normalize_str(word)
        return _joined([token.id for token in self._model.tokenize(f"▁{word}")])


def _joined(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


def _built(part: Any) -> dict[str, Any]:
    """Return the settings of a part of a tokenizer; none if it has no such part."""
    return {} if part is None else json.loads(part.__getstate__())
