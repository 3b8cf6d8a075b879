"""Seeds that are drawn: the same in each walk with one salt, and others for each row and salt."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import ManifestError
from jobs.manifest.manifest import open_manifest
from jobs.manifest.walk.random_seeds import SEED_BITS, RandomSeeds
from tests.builders.manifests import jsonl
from tests.fakes.catalog import FakeCatalog

Write = Callable[[str, str | bytes], Path]
R = {"seed": "random"}


def seeds(path: Path, catalog: FakeCatalog, salt: bytes = b"salt") -> list[int]:
    manifest = replace(open_manifest(path, catalog, model="tiny"), salt=salt)
    return [spec.request.sampling.seed for spec in manifest.specs()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", jsonl([{"prompt": "a", **R}, {"prompt": "b", **R}, {"prompt": "a", **R}])),
        ("a.csv", "prompt,seed\na,random\nb,random\na, random \n"),
        ("a.yaml", "defaults: {seed: random}\nclips: [{prompt: a}, {prompt: b}, {prompt: a}]"),
        ("a.yaml", "axes: {prompt: [a], seed: [random, 'random', random]}"),
        ("a.yaml", "axes: {prompt: [a], seed: {file: a.txt}}"),
        ("a.yaml", "defaults: {seed: random}\naxes: {prompt: [a], nag_scale: [2, 3, 4]}"),
    ],
)
def test_each_row_has_a_seed_of_its_own_which_is_the_same_in_each_walk(
    write: Write, catalog: FakeCatalog, name: str, content: str
) -> None:
    write("a.txt", "random\nrandom\nrandom\n")
    path = write(name, content)
    found = seeds(path, catalog)
    assert len(set(found)) == 3
    assert seeds(path, catalog) == found
    assert set(seeds(path, catalog, b"another salt")).isdisjoint(found)
    assert all(0 <= seed < 2**SEED_BITS for seed in found)


def test_a_row_without_a_name_keeps_its_seed_when_others_come_and_go(
    write: Write, catalog: FakeCatalog
) -> None:
    first = seeds(write("a.jsonl", jsonl([{"prompt": "a", **R}, {"prompt": "b", **R}])), catalog)
    others = [{"prompt": "c", **R}, {"prompt": "b", **R}, {"prompt": "a"}, {"prompt": "a", **R}]
    found = seeds(write("other.jsonl", jsonl(others)), catalog)
    assert (found[1], found[3]) == (first[1], first[0])
    assert found[2] == 0


def test_a_row_with_a_name_keeps_its_seed_whatever_else_changes(
    write: Write, catalog: FakeCatalog
) -> None:
    rows: list[Mapping[str, Any]] = [
        {"prompt": "a", "name": "x", **R},
        {"prompt": "a", "name": "y", **R},
    ]
    x, y = seeds(write("a.jsonl", jsonl(rows)), catalog)
    rows = [{"prompt": "new", "nag_scale": 3, "name": "y", **R}, {"prompt": "a", "name": "z", **R}]
    assert seeds(write("a.jsonl", jsonl(rows)), catalog)[0] == y
    assert x not in seeds(write("a.jsonl", jsonl(rows)), catalog)


def test_rows_with_random_seeds_are_told(write: Write, catalog: FakeCatalog) -> None:
    text = "defaults: {seed: random}\nclips: [{prompt: a}, {prompt: b, seed: 5}]"
    manifest = open_manifest(write("a.yaml", text), catalog, model="tiny")
    assert [row.is_random for row in manifest.rows()] == [True, False]


@pytest.mark.parametrize("word", ["Random", "rnd", "random seed", ""])
def test_another_word_is_refused_with_both_that_may_stand_there(
    write: Write, catalog: FakeCatalog, word: str
) -> None:
    path = write("a.jsonl", jsonl([{"prompt": "a", "seed": word}]))
    with pytest.raises(ManifestError, match="seed must be a whole number or random, not the text"):
        seeds(path, catalog)


def test_random_belongs_to_seed_alone(write: Write, catalog: FakeCatalog) -> None:
    path = write("a.jsonl", jsonl([{"prompt": "a", "num_inference_steps": "random"}]))
    with pytest.raises(ManifestError, match="num_inference_steps must be a whole number, not"):
        seeds(path, catalog)


@given(st.lists(st.sampled_from("abc"), max_size=60))
def test_rows_of_equal_content_get_other_seeds_whatever_stands_between(contents: list[str]) -> None:
    seeds = RandomSeeds(b"salt")
    in_turn = [(content, seeds.of_content(content)) for content in contents]
    for content in "abc":
        alone = RandomSeeds(b"salt")
        count = contents.count(content)
        expected = [alone.of_content(content) for _ in range(count)]
        assert [seed for found, seed in in_turn if found == content] == expected
        assert len(set(expected)) == count
