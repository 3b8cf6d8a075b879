"""The choice among the clips of an output."""

import argparse
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import RefusedError
from jobs.overview.clip_filter import ClipFilter, read_seeds
from jobs.overview.clips import OutputClip
from jobs.records.listing import ClipObjects
from jobs.records.schema import FailureRecord
from tests.builders.records import RUN_ID, failure_of, record_of
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore


def committed(prompt: str = "A red Fox", negative_prompt: str = "", seed: int = 7) -> OutputClip:
    of = spec("fox")
    sampling = replace(of.request.sampling, seed=seed)
    request = replace(of.request, prompt=prompt, negative_prompt=negative_prompt, sampling=sampling)
    record = replace(record_of(MemoryStore(), b"video", of.clip_id), request=request)
    objects = ClipObjects(of.clip_id, None, ())
    return OutputClip(of.clip_id, "committed", record, None, (), ("fox", "vixen"), objects)


def failed_with(failure: FailureRecord) -> OutputClip:
    objects = ClipObjects("2" * 32, None, ())
    return OutputClip("2" * 32, "failed", None, None, (failure,), ("late",), objects)


FAILED = failed_with(failure_of("2" * 32))  # a clip of the prompt "circle" and the seed 0


def chosen_by(*arguments: str) -> ClipFilter:
    parser = argparse.ArgumentParser()
    ClipFilter.add_arguments(parser)
    return ClipFilter.read(parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("arguments", "is_chosen"),
    [
        ((), (True, True)),
        (("--clip", "vix*"), (True, False)),
        (("--clip", "FOX"), (False, False)),
        (("--clip", "2" * 32), (False, True)),
        (("--clip", "fox", "--clip", "late"), (True, True)),
        (("--clip", "fox", "--state", "failed"), (False, False)),
        (("--prompt", "*fox*"), (True, False)),
        (("--prompt", "circle"), (False, True)),
        (("--prompt", "fox"), (False, False)),
        (("--prompt", "a ?ed fox"), (True, False)),
        (("--negative-prompt", ""), (True, True)),
        (("--negative-prompt", "?*"), (False, False)),
        (("--model", "fak?"), (True, True)),
        (("--method", "nag"), (True, True)),
        (("--method", "cfg*"), (False, False)),
        (("--seed", "1..6,8", "--seed", "7"), (True, False)),
        (("--seed", "8..9"), (False, False)),
        (("--state", "committed", "--state", "damaged"), (True, False)),
        (("--run", RUN_ID), (True, True)),
        (("--run", "2025*"), (False, False)),
    ],
)
def test_options_choose_clips(arguments: tuple[str, ...], is_chosen: tuple[bool, bool]) -> None:
    chosen = chosen_by(*arguments)
    assert (chosen.matches(committed()), chosen.matches(FAILED)) == is_chosen
    assert chosen.is_all == (not arguments)


@pytest.mark.parametrize("text", ["", "x", "8..5", "1,", "1...3", "-1", "9" * 19, "9" * 30])
def test_a_wrong_seed_is_refused_with_its_form(text: str) -> None:
    with pytest.raises(RefusedError, match="--seed: expected"):
        read_seeds("--seed", text)


def test_a_clip_whose_request_is_not_known_is_chosen_by_its_model_and_state_alone() -> None:
    clip = failed_with(replace(failure_of("2" * 32), request=None, model="gone"))
    assert ClipFilter(models=("gone",), states=("failed",)).matches(clip)
    assert not ClipFilter(prompts=("*",)).matches(clip)
    assert not ClipFilter(seeds=((0, 9),)).matches(clip)


def test_brackets_and_dots_in_a_pattern_are_characters_like_others() -> None:
    clip = committed(prompt="[anime] a.b (c)")
    assert ClipFilter(prompts=("[anime] a.b*",)).matches(clip)
    assert not ClipFilter(prompts=("[anime] a.b (d)",)).matches(clip)
    assert not ClipFilter(prompts=("[anime] aXb (c)",)).matches(clip)


def test_a_hostile_pattern_ends_at_once() -> None:
    clip = committed(prompt="a" * 20_000)
    assert not ClipFilter(prompts=("*a" * 200 + "*b",)).matches(clip)


@given(
    st.lists(st.sampled_from(["a", "b", "*", "?", ".", "\n"]), max_size=8),
    st.text("ab.\n", max_size=8),
)
def test_a_pattern_means_the_same_as_the_plain_expression(parts: list[str], text: str) -> None:
    plain = "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts)
    chosen = ClipFilter(prompts=("".join(parts),))
    is_expected = re.fullmatch(plain, text, re.DOTALL) is not None
    if text.strip():
        assert chosen.matches(committed(prompt=text)) == is_expected
