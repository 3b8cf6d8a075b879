"""The tokens that a model's text encoder reads of a text, and the limit on their number.

A text goes the road that it goes in the model's pipeline: cleaned as the family's pipeline cleans
it, then cut into tokens by the class that the pipeline loads, with its files. No other reading of
these files is sure to give the same tokens. Loads without torch, and transformers with the first
tokenizer: that takes 2 s.
"""

import hashlib
import html
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipelines.catalog.files.weight_files import read_json
from pipelines.catalog.keys.pipeline_classes import Family
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.word_tokens import WordTokens
from pipelines.errors import ModelFolderError
from pipelines.texts import Tokens

MAX_VOCABULARY_BYTES = 40_000_000  # a file; UMT5's has 17 MB, which take 0.4 GB, Gemma 3's 33 MB
MAX_KEPT, MAX_KEPT_CHARACTERS = 2**16, 2**23  # texts whose tokens are kept, about 30 MB
DIGEST_BYTES = 16


class Tokenizer(Protocol):
    """The part of `ModelTokenizer` that a plan needs."""

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text. Many together take less time than one at a time."""
        ...

    def tokens(self, text: str) -> Tokens:
        """Return the tokens of one text."""
        ...


class ModelTokenizer:
    """The tokenizer of one model, which keeps the tokens of the texts that it has seen last.

    Args:
        tokenizer: tokenizer of transformers.
        clean: cleaning of the family's pipeline.
        max_tokens: number of tokens that the model reads of a text.
        words: the tokens of words, if these are the same in every text.
    """

    def __init__(
        self,
        tokenizer: Any,
        clean: Callable[[str], str],
        max_tokens: int,
        words: WordTokens | None = None,
    ) -> None:
        self._max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._clean = clean
        self._words = words
        self._kept: dict[str, Tokens] = {}
        self._num_kept_characters = 0

    def read(self, texts: Sequence[str]) -> list[Tokens]:
        kept = self._kept
        missing = list(dict.fromkeys([text for text in texts if text not in kept]))
        if not missing:
            return [kept[text] for text in texts]
        new = dict(zip(missing, self._tokenize(missing), strict=True))
        found = [new[text] if text in new else kept[text] for text in texts]
        num_characters = sum(map(len, missing))
        self._num_kept_characters += num_characters
        if len(kept) + len(new) > MAX_KEPT or self._num_kept_characters > MAX_KEPT_CHARACTERS:
            kept.clear()
            self._num_kept_characters = num_characters
        kept.update(new)
        return found

    def tokens(self, text: str) -> Tokens:
        return self.read([text])[0]

    def _tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        cleaned = [self._clean(text) for text in texts]
        joined = self._words.read(cleaned) if self._words else [None] * len(cleaned)
        found = [self._tokens_of_words(ids) if ids else None for ids in joined]
        others = [text for text, tokens in zip(cleaned, found, strict=True) if not tokens]
        further = iter(self._tokenize_whole(others))
        return [tokens or next(further) for tokens in found]

    def _tokens_of_words(self, joined: str) -> Tokens | None:
        count = joined.count(" ") + 1
        return Tokens(count, _digest(joined)) if count <= self._max_tokens else None

    def _tokenize_whole(self, cleaned: Sequence[str]) -> list[Tokens]:
        whole = self._ids(cleaned)
        cut = self._ids(
            [text for text, ids in zip(cleaned, whole, strict=True) if len(ids) > self._max_tokens],
            truncation=True,
            max_length=self._max_tokens,
        )
        read = iter(cut)
        return [
            Tokens(len(ids), digest_of(ids if len(ids) <= self._max_tokens else next(read)))
            for ids in whole
        ]

    def _ids(self, texts: Sequence[str], **options: Any) -> list[list[int]]:
        """Return the tokens as the pipelines make them, but for the padding behind them."""
        if not texts:
            return []
        return self._tokenizer(
            texts, return_attention_mask=False, verbose=False, **options
        ).input_ids


def digest_of(ids: Sequence[int]) -> str:
    """Return the digest of a sequence of tokens."""
    return _digest(" ".join(map(str, ids)))


def _digest(joined: str) -> str:
    return hashlib.blake2b(joined.encode(), digest_size=DIGEST_BYTES).hexdigest()


def load_tokenizer(folder: Path, config: ModelConfig) -> ModelTokenizer:
    """Load the tokenizer of a model whose folder was inspected.

    Raises:
        ModelFolderError: a file is too large, or transformers cannot load them.
    """
    import transformers

    files = folder / "tokenizer"
    name = read_json(folder / "model_index.json")["tokenizer"][1]
    for path in sorted(files.glob("*")):
        if path.is_file() and path.stat().st_size > MAX_VOCABULARY_BYTES:
            raise ModelFolderError(f"{path} is larger than {MAX_VOCABULARY_BYTES:,} bytes")
    try:
        tokenizer = getattr(transformers, name).from_pretrained(files, local_files_only=True)
        words = WordTokens.of(tokenizer.backend_tokenizer) if tokenizer.is_fast else None
    except Exception as error:  # tokenizers raises Exception itself
        raise ModelFolderError(f"{files} cannot be loaded: {error}") from error
    clean = CLEANINGS[config.family]
    return ModelTokenizer(tokenizer, clean, config.max_sequence_length, words)


def clean_for_wan(text: str) -> str:
    """Clean a text as `prompt_clean` of diffusers' Wan pipelines does, which loads torch.

    Source: diffusers 0.42, pipelines/wan/pipeline_wan.py.
    """
    if text.isascii() and text.isprintable() and "&" not in text:
        return " ".join(text.split())  # ftfy, a hundred times slower, changes nothing of it
    import ftfy

    unescaped = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", unescaped.strip()).strip()


def _unchanged(text: str) -> str:
    return text


CLEANINGS: dict[Family, Callable[[str], str]] = {
    "wan": clean_for_wan,
    "ltx": _unchanged,
    "ltx2": str.strip,  # source: diffusers 0.42, pipelines/ltx2/pipeline_ltx2.py
}
