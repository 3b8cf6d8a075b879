"""The real driver of nagfarm, with a model loader of the chaos suite.

`python -m tests.chaos.harness.driver FAMILY ARGUMENT render ...`

ARGUMENT is the seconds of a step for the stand-in, and the folder of notes for ranks. The rest of
the command line is nagfarm's own.
"""

import sys
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


LOADERS: dict[str, Callable[[str], ModelLoader]] = {
    "stand-in": stand_in,
    "shapes": shapes,
    "ranks": ranks,
}


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
