"""The real driver, whose workers load another family: `python -m infra.chaos.driver FAMILY STEP_S render ...`.

Decides nothing but that; the rest of the command line is nagfarm's own.
"""

import sys

from infra.chaos.shapes_nan import load_shapes_nan
from infra.chaos.stand_in import LoadStandIn
from jobs.cli import main
from jobs.worker import LoadModel


def run(arguments: list[str]) -> int:
    family, step_s, *rest = arguments
    loads: dict[str, LoadModel] = {"stand-in": LoadStandIn(float(step_s)), "shapes": load_shapes_nan}
    return main(rest, load_model=loads[family])


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
