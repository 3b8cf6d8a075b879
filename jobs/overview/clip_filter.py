"""The choice among the clips of an output: patterns of names and texts, models, seeds, states.

Several values of one option widen the choice, and each further option narrows it. The request of a
clip whose model was missing is not known, so that no option about texts, method or seed chooses it.
"""

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self, get_args

from jobs.errors import RefusedError
from jobs.overview.clips import STATES, OutputClip
from jobs.text import shown
from pipelines.request import MAX_SEED, GenerationRequest, GuidanceMethod

_SEEDS = re.compile(r"\s*(?P<first>[0-9]{1,19})(\s*\.\.\s*(?P<last>[0-9]{1,19}))?\s*")
MAX_SEED_PARTS = 10_000  # in one option
FILTER_HELP = """\
A pattern may hold * for any text and ? for any character, and must cover the whole text:
--prompt '*fox*' is a prompt with a fox in it. An option may be given again, for one more value;
several options narrow the choice.
"""


@dataclass(frozen=True)
class ClipFilter:
    """A choice of clips. An empty tuple chooses all.

    Args:
        clips: patterns of names and ids.
        prompts, negative_prompts: patterns, in which upper and lower case are equal.
        models, methods, runs: patterns of a model's name, a guidance method and a run's id.
        seeds: ranges of seeds, each with its end.
        states: states of clips.
    """

    clips: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    negative_prompts: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    seeds: tuple[tuple[int, int], ...] = ()
    states: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()

    @property
    def is_all(self) -> bool:
        """Return True if every clip is chosen."""
        return not any(getattr(self, one.name) for one in fields(self))

    def matches(self, clip: OutputClip) -> bool:
        """Return True if a clip is chosen."""
        return all(test(clip) for test in self._tests)

    @cached_property
    def _tests(self) -> tuple[Callable[[OutputClip], bool], ...]:
        tests: list[Callable[[OutputClip], bool]] = []
        if self.states:
            tests.append(lambda clip: clip.state in self.states)
        if self.clips:
            is_clip = _matcher(self.clips)
            tests.append(lambda clip: any(map(is_clip, (*clip.names, clip.clip_id))))
        if self.runs:
            is_run = _matcher(self.runs)
            tests.append(lambda clip: any(map(is_run, _runs_of(clip))))
        if self.models:
            is_model = _matcher(self.models)
            tests.append(lambda clip: is_model(clip.model_name))
        if self.prompts or self.negative_prompts or self.methods or self.seeds:
            is_request = self._request_test()
            tests.append(lambda clip: clip.request is not None and is_request(clip.request))
        return tuple(tests)

    def _request_test(self) -> Callable[[GenerationRequest], bool]:
        is_prompt = _matcher(self.prompts, re.IGNORECASE)
        is_negative_prompt = _matcher(self.negative_prompts, re.IGNORECASE)
        is_method = _matcher(self.methods)

        def matches(request: GenerationRequest) -> bool:
            seed = request.sampling.seed
            return (
                is_method(request.method)
                and (not self.seeds or any(first <= seed <= last for first, last in self.seeds))
                and is_prompt(request.prompt)
                and is_negative_prompt(request.negative_prompt)
            )

        return matches

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser, *, with_states: bool = True) -> None:
        """Add the options to a command's parser.

        Args:
            with_states: offer `--state`; without it the command is about one state alone.
        """
        group = parser.add_argument_group("which clips")

        def add(
            option: str, metavar: str, text: str, choices: tuple[str, ...] | None = None
        ) -> None:
            group.add_argument(
                option, action="append", default=[], metavar=metavar, help=text, choices=choices
            )

        add("--clip", "PATTERN", "clips with this name or id")
        add("--prompt", "PATTERN", "clips with this prompt; upper and lower case are equal")
        add("--negative-prompt", "PATTERN", "clips with this negative prompt; '' for none")
        add("--model", "PATTERN", "clips of this model")
        methods = ", ".join(get_args(GuidanceMethod))
        add("--method", "PATTERN", f"clips with this guidance method: {methods}")
        add("--seed", "SEEDS", "clips with these seeds: 7, 5..8 or 1,3,5..8")
        if with_states:
            add("--state", "STATE", f"clips in this state: {', '.join(STATES)}", choices=STATES)
        add("--run", "PATTERN", "clips that this run committed, quarantined or failed at")

    @classmethod
    def read(cls, namespace: argparse.Namespace) -> Self:
        """Make the choice from parsed arguments.

        Raises:
            RefusedError: a value of --seed is not a seed or a range of seeds.
        """
        return cls(
            clips=tuple(namespace.clip),
            prompts=tuple(namespace.prompt),
            negative_prompts=tuple(namespace.negative_prompt),
            models=tuple(namespace.model),
            methods=tuple(namespace.method),
            seeds=tuple(part for text in namespace.seed for part in read_seeds("--seed", text)),
            states=tuple(getattr(namespace, "state", ())),
            runs=tuple(namespace.run),
        )


def read_seeds(option: str, text: str) -> list[tuple[int, int]]:
    """Return the ranges of seeds, each with its end, of a text such as 7, 5..8 or 1,3,5..8.

    Raises:
        RefusedError: the text has another form, or a range is empty.
    """
    parts: list[tuple[int, int]] = []
    for part in text.split(",", MAX_SEED_PARTS):
        if not (found := _SEEDS.fullmatch(part)):
            raise RefusedError(
                f"{option}: expected seeds such as 7, 5..8 or 1,3,5..8, got {shown(text)}"
            )
        first = int(found["first"])
        last = first if found["last"] is None else int(found["last"])
        if not first <= last <= MAX_SEED:
            raise RefusedError(
                f"{option}: expected a range from low to high, at most {MAX_SEED}, got "
                f"{shown(part.strip())}"
            )
        parts.append((first, last))
    return parts


def _matcher(patterns: tuple[str, ...], flags: int = 0) -> Callable[[str], bool]:
    """Return a test of a whole text by any of several patterns; no pattern takes every text."""
    if not patterns:
        return lambda _text: True
    compiled = [re.compile(_expression(pattern), flags | re.DOTALL) for pattern in patterns]
    return lambda text: any(one.fullmatch(text) for one in compiled)


def _expression(pattern: str) -> str:
    """Return the regular expression of a pattern, which takes time by the length of a text.

    A shortest run of characters before each part is enough: if the rest does not follow there, it
    does not follow a longer run either. An atomic group keeps it, so that nothing is tried twice.
    """
    first, *others = [
        "".join("." if character == "?" else re.escape(character) for character in part)
        for part in re.split(r"\*+", pattern)
    ]
    if not others:
        return first
    *middle, last = others
    return first + "".join(f"(?>.*?{part})" for part in middle) + ".*" + last


def _runs_of(clip: OutputClip) -> tuple[str, ...]:
    if clip.record is not None:
        return (clip.record.run_id,)
    quarantine = () if clip.quarantine is None else (clip.quarantine.run_id,)
    return (*quarantine, *(failure.run_id for failure in clip.failures))
