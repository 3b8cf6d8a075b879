"""The models that a plan finds missing or broken, with the number of their clips."""

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass

from jobs.types import BrokenClip


@dataclass(frozen=True)
class BrokenModel:
    """A model that is missing or broken here.

    Args:
        message: fault of the model, and the first line of the manifest that asks for it.
        num_clips: clips of the model that are not quarantined yet.
    """

    name: str
    message: str
    num_clips: int


class BrokenModels:
    """The models that are found broken while a plan is made, with their clips."""

    def __init__(self, quarantined: Container[str]) -> None:
        self.messages: dict[str, str] = {}
        self._quarantined = quarantined
        self._num_clips: Counter[str] = Counter()

    def add(self, clip: BrokenClip) -> bool:
        """Take in a clip; return True if it is quarantined already."""
        self.messages.setdefault(clip.model, clip.message)
        is_quarantined = clip.clip_id in self._quarantined
        self._num_clips[clip.model] += not is_quarantined
        return is_quarantined

    def models(self) -> tuple[BrokenModel, ...]:
        return tuple(
            BrokenModel(name, message, self._num_clips[name])
            for name, message in self.messages.items()
        )
