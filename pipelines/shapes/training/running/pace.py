"""The progress of a stage, by its steps or by its budget of time, and the learning rate there."""

import math
import time
from collections.abc import Iterable, Iterator

import torch

WARM_UP = 0.05  # share of the stage
FIRST_FACTOR, LAST_FACTOR = 0.04, 0.01  # shares of the peak of the learning rate


class Pace:
    """The steps of a stage: so many, or as many as fit into a time.

    Args:
        seconds: time for the whole stage; None takes all steps.
        first_step: steps that were done before an interruption.
        seconds_before: time that they took.
    """

    def __init__(
        self,
        num_steps: int,
        seconds: float | None = None,
        first_step: int = 0,
        seconds_before: float = 0.0,
    ) -> None:
        self._num_steps, self._seconds = num_steps, seconds
        self.step = first_step
        self._started = time.monotonic() - seconds_before

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    @property
    def progress(self) -> float:
        """Return the finished part of the stage, 0 to 1."""
        if self._seconds is not None:
            return min(1.0, self.elapsed / self._seconds)
        return self.step / self._num_steps

    def __iter__(self) -> Iterator[int]:
        while self.progress < 1:
            yield self.step
            self.step += 1


def learning_rate_factor(progress: float) -> float:
    """Return the share of the peak: a short rise, then half a cosine down."""
    if progress < WARM_UP:
        return FIRST_FACTOR + (1 - FIRST_FACTOR) * progress / WARM_UP
    fall = (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2
    return LAST_FACTOR + (1 - LAST_FACTOR) * fall


def set_learning_rates(optimizers: Iterable[torch.optim.Optimizer], progress: float) -> None:
    """Set each group's rate; the first call keeps the rates that it finds as the peaks."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            peak = group.setdefault("peak_lr", group["lr"])
            group["lr"] = peak * learning_rate_factor(progress)


class Budget:
    """The time that is left, shared among the stages that are left.

    Args:
        minutes: time for all stages; None lets each take all its steps.
        weights: weight of each stage.
    """

    def __init__(self, minutes: float | None, weights: dict[str, float]) -> None:
        self._ends = None if minutes is None else time.monotonic() + 60 * minutes
        self._weights = dict(weights)

    def seconds_for(self, stage: str) -> float | None:
        """Return the time for the next stage, in seconds; the stages before it are over."""
        left = sum(self._weights.values())
        weight = self._weights.pop(stage)
        if self._ends is None:
            return None
        return max(1.0, (self._ends - time.monotonic()) * weight / left)
