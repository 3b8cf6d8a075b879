"""Captions of Shapes clips: they name some attributes and leave the rest open.

The open attributes vary freely in the training clips. So a model learns that an unnamed attribute
is undecided, and a negative prompt has something to decide.
"""

from collections.abc import Mapping

import torch

from pipelines.shapes.world import ATTRIBUTES, ShapesClip

EMPTY_SHARE = 0.1  # empty captions, for classifier-free guidance
TERSE_SHARE = 0.3  # bare lists of attributes, as people write negative prompts
CAPITAL_SHARE = 0.1  # captions that begin with a capital letter
NAMED_SHARE = 0.6  # probability that a caption names an attribute
NAMED_SHARES = dict.fromkeys(ATTRIBUTES, NAMED_SHARE)
# Captions of clips that begin with a given image mostly leave to it what it shows.
NAMED_SHARES_WITH_IMAGE = {"colour": 0.2, "shape": 0.2, "motion": 0.75, "background": 0.5}


def _choose(options: tuple[str, ...], generator: torch.Generator) -> str:
    return options[int(torch.randint(len(options), (), generator=generator))]


def phrase(attribute: str, value: str) -> str:
    """Return the words for one attribute, such as "moving left" or "black background"."""
    if attribute == "motion":
        if value == "still":
            return "standing still"
        return f"moving {value}"
    return f"{value} background" if attribute == "background" else value


def caption(
    clip: ShapesClip,
    generator: torch.Generator,
    named_shares: Mapping[str, float] = NAMED_SHARES,
) -> str:
    """Describe the clip in one of several wordings that name a random part of its attributes.

    Args:
        named_shares: the probability of each attribute to be named.
    """
    if torch.rand((), generator=generator) < EMPTY_SHARE:
        return ""
    words = _lower_caption(clip, generator, named_shares)
    is_capital = torch.rand((), generator=generator) < CAPITAL_SHARE
    return words[:1].upper() + words[1:] if is_capital else words


def _lower_caption(
    clip: ShapesClip, generator: torch.Generator, named_shares: Mapping[str, float]
) -> str:
    named = {
        name: getattr(clip, name)
        for name in ATTRIBUTES
        if torch.rand((), generator=generator) < named_shares[name]
    }
    if torch.rand((), generator=generator) < TERSE_SHARE:
        return terse_caption(named, generator)
    return sentence(named, generator)


def terse_caption(named: dict[str, str], generator: torch.Generator) -> str:
    """List the attributes in any order: "black background, red"."""
    names = list(named)
    order = torch.randperm(len(names), generator=generator).tolist()
    return ", ".join(phrase(names[index], named[names[index]]) for index in order)


def sentence(named: dict[str, str], generator: torch.Generator) -> str:
    """Build a noun phrase: "a red circle moving left on a black background"."""
    words = [_choose(("a", "one", "the", "a video of a"), generator)]
    if "colour" in named:
        words.append(named["colour"])
    words.append(named.get("shape") or _choose(("shape", "thing", "object"), generator))
    if "motion" in named:
        still = ("standing still", "at rest", "that does not move")
        moving = (
            f"moving {named['motion']}",
            f"that moves {named['motion']}",
            f"going {named['motion']}",
        )
        words.append(_choose(still if named["motion"] == "still" else moving, generator))
    if "background" in named:
        words.append(_choose(("on a", "in front of a", "on"), generator))
        words.append(named["background"])
        if words[-2] != "on" or torch.rand((), generator=generator) < 0.5:
            words.append("background")
    return " ".join(words)
