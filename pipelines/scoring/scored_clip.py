"""The view of a clip that a measure gets, and the figures that it gives back.

Shape suffixes: N stills, T frames, H and W pixels, C = 3 channels, D features. Loads without torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class ScoredClip:
    """A finished clip, as far as measures look at it.

    Args:
        prompt: its prompt.
        negatives: the texts that it must not show, each a word or a phrase.
        stills: evenly spaced frames in their own pixels, (N, H, W, C) uint8.
        frames: all frames, made small, (T, H, W, C) uint8; empty if no measure looks at them.
    """

    prompt: str
    negatives: tuple[str, ...]
    stills: "np.ndarray"
    frames: "np.ndarray"


@dataclass(frozen=True, eq=False)
class Scores:
    """The figures of one clip by one measure.

    Args:
        figures: numbers by name, as `MeasureKind.figures` explains them; one that does not apply to
            the clip is left out.
        words: texts that a measure read besides numbers, such as the colour of a shape.
        vectors: a point in feature space for each still, (N, D) float32; None for most measures.
    """

    figures: Mapping[str, float]
    words: Mapping[str, str] = field(default_factory=dict[str, str])
    vectors: "np.ndarray | None" = None


class Measure(Protocol):
    """A loaded measure."""

    def score(self, clip: ScoredClip) -> Scores:
        """Return the figures of a clip.

        Raises:
            ScoringError: the measure does not apply to such a clip.
        """
        ...


class FeatureMeasure(Measure, Protocol):
    """A loaded measure of a set, which places any picture in feature space."""

    def vector(self, picture_HWC: "np.ndarray") -> "np.ndarray":
        """Return the point of a picture, (D,) float32."""
        ...


MAX_NEGATIVES = 16
MAX_NEGATIVE_CHARACTERS = 200


def negatives_of(text: str) -> tuple[str, ...]:
    """Return the parts of a negative prompt, which commas separate; at most `MAX_NEGATIVES`.

    A longer one than a phrase, and those beyond the limit, are left out: no model is asked about
    them, and the clip's record says how many texts it was asked about.
    """
    parts = (part.strip(" .\n\t") for part in text.split(","))
    phrases = (part for part in parts if part and len(part) <= MAX_NEGATIVE_CHARACTERS)
    return tuple(dict.fromkeys(phrases))[:MAX_NEGATIVES]
