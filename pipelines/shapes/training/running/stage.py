"""One stage that runs: the loop around its updates."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.shapes.training.running.checkpoints import Checkpoint, Learning
from pipelines.shapes.training.running.compute import ON_CPU, Compute
from pipelines.shapes.training.running.pace import Pace, set_learning_rates
from pipelines.shapes.training.running.training_log import LogStep


@dataclass(frozen=True)
class Running:
    """The device of a stage, and the time that it has.

    Args:
        seconds: time for the stage; None runs all its steps.
        checkpoints: folder of the checkpoints; None keeps none.
    """

    log_step: LogStep
    compute: Compute = ON_CPU
    seconds: float | None = None
    checkpoints: Path | None = None

    def steps(self, name: str, num_steps: int, learning: Learning) -> Iterator["Step"]:
        """Yield the steps that are left, at the learning rate of each, and keep checkpoints."""
        path = self.checkpoints / f"{name}.safetensors" if self.checkpoints else None
        checkpoint = Checkpoint(path, learning)
        pace = Pace(num_steps, self.seconds, *checkpoint.restore())
        for number in pace:
            set_learning_rates(learning.optimizers, pace.progress)
            yield Step(
                number, pace.progress, lambda loss, number=number: self.log_step(name, number, loss)
            )
            checkpoint.save_if_due(number + 1, pace.elapsed)
        checkpoint.remove()


@dataclass(frozen=True)
class Step:
    """One step.

    Args:
        number: from 0.
        progress: the finished part of the stage, 0 to 1.
        log: function that logs the loss of the step.
    """

    number: int
    progress: float
    log: Callable[[float], None]
