"""The real driver, whose workers load another family: `python -m tests.chaos.harness.driver FAMILY TOLD render ...`.

Decides nothing but that: TOLD is a step's seconds for the stand-in, and for ranks the folder that they write notes to.
The rest of the command line is nagfarm's own.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from jobs.cli.main import main
from jobs.worker.setup import ModelLoader
from tests.chaos.harness.instrumented import WatchedLoader
from tests.chaos.harness.shapes_nan import ShapesNanLoader
from tests.chaos.harness.stand_in import StandInLoader


def run(arguments: list[str]) -> int:
    family, told, *rest = arguments
    loaders: dict[str, Callable[[], ModelLoader]] = {
        "stand-in": lambda: StandInLoader(float(told)),
        "shapes": ShapesNanLoader,
        "ranks": lambda: WatchedLoader(Path(told)),
    }
    return main(rest, loader=loaders[family]())


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
