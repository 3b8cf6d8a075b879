"""Tokens from words are those that transformers gives for the whole text."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import T5Tokenizer

from pipelines.catalog import word_tokens as module
from pipelines.catalog.files.sources import PACKAGED_WEIGHTS
from pipelines.catalog.word_tokens import WordTokens

PIECES = [
    "ab",
    "abc",
    "b",
    "re",
    "red",
    "circle",
    "mov",
    "ing",
    "▁a",
    "▁red",
    "▁un",
    "</",
    "&",
    "▁",
]


def shapes() -> T5Tokenizer:
    return T5Tokenizer.from_pretrained(PACKAGED_WEIGHTS / "shapes-wan" / "tokenizer")


def with_sentinels() -> T5Tokenizer:
    """A tokenizer with 100 further special tokens, as T5's and UMT5's, and with ASCII as pieces."""
    scores = random.Random(7)
    letters = [chr(code) for code in range(33, 127)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = [(piece, -scores.uniform(1, 9)) for piece in (*PIECES, *letters)]
    return T5Tokenizer(vocab=[*special, *pieces])


TOKENIZERS = {"shapes": shapes(), "with sentinels": with_sentinels()}
texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60) | st.lists(
    st.sampled_from(
        ["red", "unred", "circle,", "a  b", "<extra_id_1>", "</s>", "<pad>x", "ab" * 30, "é", "\t"]
    ),
    max_size=30,
).map(" ".join)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(st.lists(texts, min_size=1, max_size=6))
def test_words_have_the_tokens_that_they_have_in_their_text(kind: str, several: list[str]) -> None:
    tokenizer = TOKENIZERS[kind]
    words = WordTokens.of(tokenizer.backend_tokenizer)
    assert words
    for _ in range(2):  # the second time from memory
        found = words.read(several)
        whole = tokenizer(several, return_attention_mask=False).input_ids
        for text, joined, ids in zip(several, found, whole, strict=True):
            assert joined in (None, " ".join(map(str, ids))), text


def test_plain_texts_are_read_by_their_words() -> None:
    words = WordTokens.of(TOKENIZERS["shapes"].backend_tokenizer)
    assert words
    assert None not in words.read(["a red circle, moving  right", "9:16!", " ~ "])


def test_words_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WORDS", 3)
    words = WordTokens.of(TOKENIZERS["shapes"].backend_tokenizer)
    assert words
    first = words.read(["a red circle"])
    assert words.read(["b c", "d e f a red circle"])[1] is not None
    assert words.read(["a red circle"]) == first


def _lower(backend: Any) -> None:
    backend.normalizer = normalizers.Lowercase()


def _whole_text(backend: Any) -> None:
    backend.pre_tokenizer = pre_tokenizers.Metaspace()


def _unsplit(backend: Any) -> None:
    backend.pre_tokenizer = None


def _endless(backend: Any) -> None:
    backend.post_processor = processors.TemplateProcessing(single="$A")


def _of_letters(backend: Any) -> None:
    """Change it to a model that gives a word without known letters no token."""
    backend.model = models.BPE({"▁": 3, "a": 4}, [])


@pytest.mark.parametrize("change", [_lower, _whole_text, _unsplit, _endless, _of_letters])
def test_a_tokenizer_that_is_built_in_another_way_is_not_read_by_words(
    change: Callable[[Any], None],
) -> None:
    backend = Tokenizer.from_str(TOKENIZERS["shapes"].backend_tokenizer.to_str())
    change(backend)
    assert WordTokens.of(backend) is None


def test_an_added_token_of_two_words_is_seen() -> None:
    backend = Tokenizer.from_str(TOKENIZERS["shapes"].backend_tokenizer.to_str())
    backend.add_tokens([AddedToken("red circle")])
    words = WordTokens.of(backend)
    assert words
    assert words.read(["a red circle", "a big box"])[0] is None
