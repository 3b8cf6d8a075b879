"""Prompts about objects, in the form of GenEval: six tasks, made from lists of words.

GenEval (Ghosh et al., arXiv 2310.11513) asks for one object, two objects, a number, a colour, a
place and the colours of two objects. These prompts have its form and words of their own, so that
figures compare with each other and not with its published ones. What a prompt asks for is noted, so
that a detector can check it.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from jobs.prompt_sets.prompt_rows import FORM, SetPrompt

OBJECTS: Mapping[str, str] = {
    "apple": "apples", "bicycle": "bicycles", "boat": "boats", "book": "books",
    "bottle": "bottles", "bowl": "bowls", "bus": "buses", "cake": "cakes", "candle": "candles",
    "cat": "cats", "chair": "chairs", "clock": "clocks", "cow": "cows", "cup": "cups",
    "dog": "dogs", "drum": "drums", "elephant": "elephants", "guitar": "guitars", "hat": "hats",
    "horse": "horses", "kite": "kites", "lamp": "lamps", "lemon": "lemons", "orange": "oranges",
    "owl": "owls", "pear": "pears", "shoe": "shoes", "spoon": "spoons", "suitcase": "suitcases",
    "table": "tables", "teapot": "teapots", "train": "trains", "tree": "trees",
    "umbrella": "umbrellas", "vase": "vases", "violin": "violins",
}  # fmt: skip
COLOURS = ("black", "blue", "brown", "green", "orange", "pink", "purple", "red", "white", "yellow")
PLACES = ("left of", "right of", "above", "below")
NUMBERS = {2: "two", 3: "three", 4: "four"}
VOWELS = "aeiou"


@dataclass(frozen=True)
class Words:
    """The words of a set, and the opening of its prompts.

    Args:
        objects: plural of each object.
        opening: begins each prompt, such as "a video of"; may be empty.
    """

    objects: Mapping[str, str]
    opening: str

    def opened(self, text: str) -> str:
        return f"{self.opening} {text}".strip()


Draw = Callable[[random.Random, Words], tuple[str, dict[str, str]]]


def _article(word: str) -> str:
    return f"{'an' if word[0] in VOWELS else 'a'} {word}"


def _pair(chance: random.Random, words: Words) -> tuple[str, str]:
    first, second = chance.sample(sorted(words.objects), 2)
    return first, second


def _single(chance: random.Random, words: Words) -> tuple[str, dict[str, str]]:
    one = chance.choice(sorted(words.objects))
    return _article(one), {"object": one}


def _two(chance: random.Random, words: Words) -> tuple[str, dict[str, str]]:
    first, second = _pair(chance, words)
    return f"{_article(first)} and {_article(second)}", {"object": first, "object_2": second}


def _counting(chance: random.Random, words: Words) -> tuple[str, dict[str, str]]:
    one, number = chance.choice(sorted(words.objects)), chance.choice(sorted(NUMBERS))
    return f"{NUMBERS[number]} {words.objects[one]}", {"object": one, "count": str(number)}


def _colour(chance: random.Random, words: Words) -> tuple[str, dict[str, str]]:
    one = chance.choice(sorted(words.objects))
    colour = chance.choice([name for name in COLOURS if name != one])  # no orange orange
    return _article(f"{colour} {one}"), {"object": one, "colour": colour}


def _position(chance: random.Random, words: Words) -> tuple[str, dict[str, str]]:
    (first, second), place = _pair(chance, words), chance.choice(PLACES)
    text = f"{_article(first)} {place} {_article(second)}"
    return text, {"object": first, "object_2": second, "position": place}


def _binding(chance: random.Random, words: Words) -> tuple[str, dict[str, str]]:
    first, second = _pair(chance, words)
    colours = chance.sample([name for name in COLOURS if name not in (first, second)], 2)
    text = f"{_article(f'{colours[0]} {first}')} and {_article(f'{colours[1]} {second}')}"
    notes = {"object": first, "colour": colours[0], "object_2": second, "colour_2": colours[1]}
    return text, notes


TASKS: dict[str, Draw] = {
    "single_object": _single,
    "two_objects": _two,
    "counting": _counting,
    "colours": _colour,
    "position": _position,
    "attribute_binding": _binding,
}


def object_prompts(
    num_each: int, words: Words, negative: str, draw_seed: int = 0
) -> Iterator[SetPrompt]:
    """Yield prompts of every task, the same for the same arguments; no prompt comes twice.

    A task with fewer different prompts than asked for gives those that a hundred draws find.

    Args:
        num_each: prompts of each task.
        negative: negative prompt of each.
    """
    for task, draw in TASKS.items():
        chance, seen = random.Random(f"{draw_seed} {task}"), set[str]()
        for _ in range(100 * num_each):
            if len(seen) == num_each:
                break
            text, notes = draw(chance, words)
            if text not in seen:
                name = f"{task.replace('_', '-')}-{len(seen):04}"
                seen.add(text)
                yield SetPrompt(
                    name, words.opened(text), negative, {FORM: "objects", "task": task, **notes}
                )
