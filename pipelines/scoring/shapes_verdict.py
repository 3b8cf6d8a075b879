"""The exact judge of the Shapes world as a measure: it needs no weights and makes no guess."""

import re
from collections.abc import Iterable

from pipelines.errors import ScoringError
from pipelines.scoring.scored_clip import ScoredClip, Scores
from pipelines.shapes.judge import judge
from pipelines.shapes.world import ATTRIBUTES, SIZE_PX

REST = ("rest", "not move")  # other words for a shape that stands still


class ShapesVerdict:
    """The judge's verdict, beside what the prompt and the negative prompt name."""

    def score(self, clip: ScoredClip) -> Scores:
        """Return the figures of a clip of 64x64 pixels.

        Raises:
            ScoringError: the clip has another size.
        """
        height, width = clip.frames.shape[1:3]
        if (height, width) != (SIZE_PX, SIZE_PX):
            raise ScoringError(
                f"the judge of the Shapes world takes clips of {SIZE_PX}x{SIZE_PX} pixels, got "
                f"{width}x{height}"
            )
        verdict = judge(clip.frames)
        shown = {name: getattr(verdict, name) for name in ATTRIBUTES}
        figures = {"clean": float(verdict.is_clean)}
        if wanted := named_attributes(clip.prompt):
            figures["prompt_kept"] = _share(shown[name] == value for name, value in wanted)
        if unwanted := named_attributes(", ".join(clip.negatives)):
            figures["negative_seen"] = _share(shown[name] == value for name, value in unwanted)
        return Scores(figures, {name: str(value) for name, value in shown.items() if value})


def named_attributes(text: str) -> list[tuple[str, str]]:
    """Return the attributes of the Shapes world that a text names, each with its value."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    found = [
        (name, value) for name, values in ATTRIBUTES.items() for value in values if value in words
    ]
    if any(rest in text.lower() for rest in REST) and ("motion", "still") not in found:
        found.append(("motion", "still"))
    return found


def _share(flags: Iterable[bool]) -> float:
    given = list(flags)
    return sum(given) / len(given)
