import shutil
import unicodedata
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.catalog import tokenizer as module
from pipelines.catalog.files.sources import PACKAGED_CONFIGS, PACKAGED_WEIGHTS
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_yaml import load_model_config
from pipelines.catalog.tokenizer import (
    MAX_VOCABULARY_BYTES,
    ModelTokenizer,
    clean_for_wan,
    digest_of,
    load_tokenizer,
)
from pipelines.errors import ModelFolderError

FAMILIES = ("wan", "ltx")
# Each pair has equal tokens in the families named.
EQUAL: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "blanks at the end": ("a red circle", "a red circle \t\n", FAMILIES),
    "doubled blanks": ("a red circle", " a  red\u00a0circle", FAMILIES),
    "letters that the vocabulary lacks": ("a 緑 circle", "a 紫 circle", FAMILIES),
    "forms of a letter": (
        unicodedata.normalize("NFC", "a café"),
        unicodedata.normalize("NFD", "a café"),
        ("wan",),
    ),
    "curly quotes": ('a "red" circle', "a “red” circle", ("wan",)),
    "entities": ("red (&) blue", "red (&amp;amp;) blue", ("wan",)),
    "the end beyond the limit": ("a " * 47 + "red", "a " * 47 + "blue", FAMILIES),
}


def config_of(family: str) -> ModelConfig:
    return load_model_config(PACKAGED_CONFIGS / "models" / f"shapes-{family}.yaml")


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request: pytest.FixtureRequest) -> ModelTokenizer:
    return load(request.param)


def load(family: str) -> ModelTokenizer:
    return load_tokenizer(PACKAGED_WEIGHTS / f"shapes-{family}", config_of(family))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", EQUAL)
def test_texts_that_the_pipeline_reads_alike_have_equal_tokens(family: str, case: str) -> None:
    one, other, families = EQUAL[case]
    read = load(family)
    is_equal = read.tokens(one).digest == read.tokens(other).digest
    assert is_equal == (family in families)


def test_the_tokens_are_counted_with_the_last_one_and_beyond_the_limit(
    tokenizer: ModelTokenizer,
) -> None:
    for num_words in (1, 46, 47, 48, 1000):
        assert tokenizer.tokens("red " * num_words).count == num_words + 1


def test_one_token_beyond_the_limit_is_cut_as_the_pipeline_cuts_it(
    tokenizer: ModelTokenizer,
) -> None:
    whole, cut = tokenizer.tokens("red " * 47), tokenizer.tokens("red " * 48)
    assert (whole.count, cut.count) == (48, 49)
    assert whole.digest == cut.digest  # 47 words and the end, in both


@given(st.lists(st.text(max_size=80), max_size=8))
def test_texts_that_are_read_together_have_the_tokens_that_each_has_alone(texts: list[str]) -> None:
    for family in FAMILIES:
        together, alone = _loaded(family), _loaded_alone(family)
        together.read(texts)
        assert [together.tokens(text) for text in texts] == [alone.tokens(text) for text in texts]


@cache
def _loaded(family: str) -> ModelTokenizer:
    return load(family)


@cache
def _loaded_alone(family: str) -> ModelTokenizer:
    """Return a tokenizer that only ever reads one text at a time."""
    return load(family)


def test_a_text_is_tokenized_once_until_too_many_are_kept(
    tokenizer: ModelTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Counting:
        def __call__(self, texts: list[str], **_: object) -> object:
            seen.extend(texts)
            return type("Encoding", (), {"input_ids": [[1] for _ in texts]})

    monkeypatch.setattr(module, "MAX_KEPT", 3)
    counting = ModelTokenizer(Counting(), str, 48)
    counting.read(["a", "b", "a"])
    counting.read(["b", "c"])
    assert counting.tokens("a").digest == digest_of([1])
    assert seen == ["a", "b", "c"]
    counting.read(["d"])
    counting.tokens("a")
    assert seen == ["a", "b", "c", "d", "a"]
    monkeypatch.setattr(module, "MAX_KEPT_CHARACTERS", 5)
    counting.read(["long"])
    counting.read(["a", "long"])
    assert seen[5:] == ["long", "a"]


@given(
    st.text(max_size=60)
    | st.text(st.characters(max_codepoint=127), max_size=30)
    | st.lists(
        st.sampled_from(
            ["&amp;", "&lt;", "&#0;", "é", "e\u0301", "“", "ﬁ", "\r\n", "\x85", " ", "a"]
        ),
        max_size=12,
    ).map("".join)
)
def test_wan_texts_are_cleaned_as_diffusers_cleans_them(text: str) -> None:
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    assert clean_for_wan(text) == prompt_clean(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "cannot be loaded"),
        (b'{"model": {"type": "Unigram", "vocab": []}}', "cannot be loaded"),
        (b" " * (MAX_VOCABULARY_BYTES + 1), "is larger than 40,000,000 bytes"),
    ],
)
def test_a_broken_tokenizer_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    folder = tmp_path / "weights"
    source = PACKAGED_WEIGHTS / "shapes-wan"
    shutil.copytree(source / "tokenizer", folder / "tokenizer")
    shutil.copy(source / "model_index.json", folder)
    (folder / "tokenizer" / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelFolderError, match=message):
        load_tokenizer(folder, config_of("wan"))
