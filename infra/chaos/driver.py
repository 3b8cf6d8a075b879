"""The real driver, whose workers load another family: `python -m infra.chaos.driver FAMILY TOLD render ...`.

Decides nothing but that: TOLD is a step's seconds for the stand-in, and for ranks the folder that they write notes to.
The rest of the command line is nagfarm's own.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from infra.chaos.shapes_nan import load_shapes_nan
from infra.chaos.stand_in import LoadStandIn
from infra.chaos.watched import LoadWatched
from jobs.cli import main
from jobs.worker_setup import LoadModel


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
