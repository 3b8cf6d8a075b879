"""The real driver of nagfarm, with a model loader of the chaos suite.

`python -m tests.chaos.harness.driver FAMILY ARGUMENT render ...`

ARGUMENT is the seconds of a step for the stand-in, the folder of notes for ranks, and for `clock`
the seconds by which the clock of this process is ahead. The rest of the command line is nagfarm's
own.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from jobs.cli.main import main
from jobs.worker.setup import ModelLoader
from tests.chaos.harness.stand_in import StandInLoader


def run(arguments: list[str]) -> int:
    family, argument, *rest = arguments
    return main(rest, loader=LOADERS[family](argument))


def stand_in(argument: str) -> ModelLoader:
    return StandInLoader(float(argument))


def shapes(_argument: str) -> ModelLoader:
    from tests.chaos.harness.shapes_nan import ShapesNanLoader  # imports diffusers for seconds

    return ShapesNanLoader()


def ranks(argument: str) -> ModelLoader:
    from tests.chaos.harness.instrumented import InstrumentedLoader

    return InstrumentedLoader(Path(argument))


def clock(argument: str) -> ModelLoader:
    right, ahead_s = time.time, float(argument)
    time.time = lambda: right() + ahead_s
    return StandInLoader(0.0)


LOADERS: dict[str, Callable[[str], ModelLoader]] = {
    "stand-in": stand_in,
    "shapes": shapes,
    "ranks": ranks,
    "clock": clock,
}


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
