"""The real driver, whose workers load another family: `python -m tests.chaos.harness.driver FAMILY TOLD render ...`.

Decides nothing but that: TOLD is a step's seconds for the stand-in, and for ranks the folder that they write notes to.
The rest of the command line is nagfarm's own.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from jobs.cli.main import main
from jobs.worker.setup import LoadModel
from tests.chaos.harness.instrumented import LoadWatched
from tests.chaos.harness.shapes_nan import load_shapes_nan
from tests.chaos.harness.stand_in import LoadStandIn


def run(arguments: list[str]) -> int:
    family, told, *rest = arguments
    loads: dict[str, Callable[[], LoadModel]] = {
        "stand-in": lambda: LoadStandIn(float(told)),
        "shapes": lambda: load_shapes_nan,
        "ranks": lambda: LoadWatched(Path(told)),
    }
    return main(rest, load_model=loads[family]())


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
