"""Picked clips as rows: the words that name them, their seeds, and the names of the rows."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from jobs.errors import RefusedError
from jobs.overview.clips import OutputClip
from jobs.overview.picks import Picks, Retakes, Seeds, word_of_file
from jobs.records.listing import ClipObjects
from tests.builders.records import failure_of, record_of
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore


def clip(prompt: str, seed: int = 0, name: str = "") -> OutputClip:
    of = spec(prompt, seed)
    record = replace(
        record_of(MemoryStore(), b"video", of.clip_id), name=name or of.name, request=of.request
    )
    objects = ClipObjects(of.clip_id, None, ())
    return OutputClip(of.clip_id, "committed", record, None, (), (record.name,), objects)


OWN_SEED = Seeds()
FOXES = [clip("fox", seed) for seed in range(4)]
FAILED = OutputClip(
    "2" * 32, "failed", None, None, (failure_of("2" * 32),), ("late",), ClipObjects("", None, ())
)


def picked(words: Iterable[str], output: Iterable[OutputClip]) -> list[OutputClip]:
    picks = Picks(tuple(words))
    for one in output:
        picks.offer(one)
    return picks.clips()


def rows(
    clips: Iterable[OutputClip],
    seeds: Seeds = OWN_SEED,
    output: Iterable[OutputClip] = FOXES,
    **changes: Any,
) -> list[dict[str, Any]]:
    retakes = Retakes(changes, seeds)
    for one in output:
        retakes.note(one)
    return list(retakes.rows(clips))


def test_words_are_names_or_ids_and_their_order_is_kept() -> None:
    words = ["fox-3", FOXES[1].clip_id, "fox-3", "fox-0", FOXES[0].clip_id]
    assert picked(words, FOXES) == [FOXES[3], FOXES[1], FOXES[0]]
    assert picked([], reversed(FOXES)) == FOXES


def test_a_word_that_names_no_clip_or_several_is_refused_with_the_remedy() -> None:
    with pytest.raises(
        RefusedError, match="no clip has the name or id 'fx-1'; did you mean 'fox-1'"
    ):
        picked(["fx-1"], FOXES)
    twins = [clip("fox", 0), clip("fox", 9, name="fox-0")]
    with pytest.raises(RefusedError, match=f"2 clips have the name 'fox-0'.*{twins[1].clip_id}"):
        picked(["fox-0"], twins)
    assert picked([twins[1].clip_id], twins) == [twins[1]]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("fox-0", "fox-0"),
        ("fox-0.mp4", "fox-0"),
        ("favourites/fox-0.mp4", "fox-0"),
        (f"a/fox-0-{'1' * 32}.mp4", "1" * 32),
        ("fox.mp4.json", "fox.mp4.json"),
    ],
)
def test_the_file_of_an_export_names_its_clip(word: str, expected: str) -> None:
    assert word_of_file(word) == expected


def test_a_row_without_changes_asks_for_the_same_clip() -> None:
    (row,) = rows([FOXES[2]])
    assert (row["name"], row["seed"], row["prompt"]) == ("fox-2", 2, "fox")


def test_new_seeds_are_the_lowest_above_the_clips_own_that_the_output_does_not_have() -> None:
    found = rows([FOXES[1]], Seeds(num_new=3), output=[*FOXES, clip("fox", 5), clip("cat", 6)])
    assert [row["seed"] for row in found] == [4, 6, 7]
    assert [row["name"] for row in found] == ["fox-1-s4", "fox-1-s6", "fox-1-s7"]


def test_two_picks_that_differ_in_their_seed_alone_get_different_new_seeds() -> None:
    found = rows(FOXES[:2], Seeds(num_new=2))
    assert [row["seed"] for row in found] == [4, 5, 6, 7]


def test_with_other_steps_no_seed_is_taken() -> None:
    found = rows([FOXES[0]], Seeds(num_new=2), num_inference_steps=25)
    assert [row["seed"] for row in found] == [1, 2]
    assert [row["name"] for row in found] == ["fox-0-s1-25steps", "fox-0-s2-25steps"]
    assert {row["num_inference_steps"] for row in found} == {25}


def test_given_seeds_are_those_and_no_row_comes_twice() -> None:
    found = rows(FOXES[:2], Seeds(given=((0, 1), (7, 7))))
    assert [row["seed"] for row in found] == [0, 1, 7]
    assert [row["name"] for row in found] == ["fox-0", "fox-0-s1", "fox-0-s7"]


def test_names_are_unique_and_not_too_long() -> None:
    long = [clip("fox", seed, name="x" * 128) for seed in (0, 1)]
    found = rows([*long, clip("cat", 0, name="x" * 128)], fps=24.0)
    names = [row["name"] for row in found]
    assert len(set(names)) == 3
    assert max(map(len, names)) == 128
    assert [row["name"] for row in rows([FOXES[0]], fps=24.0)] == ["fox-0-changed"]


def test_a_failed_clip_can_be_picked_unless_its_request_is_not_known() -> None:
    (row,) = rows([FAILED], width=64)
    assert (row["prompt"], row["name"], row["width"]) == ("circle", "late-changed", 64)
    unknown = replace(FAILED, failures=(replace(FAILED.failures[0], request=None),))
    with pytest.raises(RefusedError, match="'late' was never tried.*manifest"):
        rows([unknown])


def test_another_method_gets_a_guidance_scale_that_suits_it() -> None:
    fox = FOXES[0]
    assert fox.record is not None
    sampling = replace(fox.record.request.sampling, guidance_scale=3.0)
    request = replace(fox.record.request, method="cfg", sampling=sampling)
    guided = replace(fox, record=replace(fox.record, request=request))
    assert rows([guided], method="vsf")[0]["guidance_scale"] == 1.0
    assert rows([guided], method="cfg+nag")[0]["guidance_scale"] == 3.0
    assert rows([guided], method="cfg", guidance_scale=4.0)[0]["guidance_scale"] == 4.0
    assert "guidance_scale" not in rows([fox], method="cfg")[0], "the model's default"


def test_there_are_no_seeds_above_the_last_one() -> None:
    with pytest.raises(RefusedError, match="expected 3 seeds, there are fewer above"):
        rows([clip("fox", 2**63 - 2)], Seeds(num_new=3))
