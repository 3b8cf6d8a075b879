from collections.abc import Callable

import torch

from pipelines.families.diffusers_model import EncodedText, cache_texts


def counting() -> tuple[Callable[[str], EncodedText], list[str]]:
    asked: list[str] = []

    def encode(text: str) -> EncodedText:
        asked.append(text)
        return torch.full((1, 1, 1), float(len(asked))), None

    return cache_texts(encode, max_texts=2), asked


def test_each_distinct_text_is_encoded_once() -> None:
    embed, asked = counting()
    first = embed("red")
    assert embed("red")[0] is first[0]
    assert embed("Red")[0] is not first[0]
    assert asked == ["red", "Red"]


def test_the_least_recently_used_text_is_forgotten() -> None:
    embed, asked = counting()
    for text in ("a", "b", "a", "c", "a", "b"):
        embed(text)
    assert asked == ["a", "b", "c", "b"]
