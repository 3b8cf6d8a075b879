"""`python -m benchmarks.gpu.card [JSON]` prints a card's row for the cost model.

The row belongs into `CARDS` of pipelines/cost/prediction.py; commit the JSON with it. The speed is
that of the uncompiled case with most operations a step, without guidance, since the cost model
predicts long clips.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import MEASUREMENTS, ROOT, Result
from pipelines.cost.prediction import Device

MACHINE = re.compile(r"(?:one (?P<device>.+?), )?\d+ CPU cores")  # `describe_machine` writes it
WORD = re.compile(r"\b[A-Z]{1,2}\d{2,4}[A-Z]?\b")  # such as H200, A100, L40S


def card_in(result: Result, path: str) -> Device:
    """Return the card of a result of `benchmarks.gpu`.

    Args:
        path: path of its JSON, below the repository.

    Raises:
        ValueError: the result has no uncompiled case of a step.
    """
    steps = [
        case
        for name, case in result.cases.items()
        if "step_operations" in case and not name.endswith("compiled")
    ]
    if not steps:
        raise ValueError(f"{path} has no uncompiled case of a step yet")
    longest = max(steps, key=lambda case: case["step_operations"])
    found = MACHINE.match(result.machine)
    device = (found["device"] if found else None) or "cpu"
    word = WORD.search(device)
    name = word[0] if word else device.removeprefix("NVIDIA ")
    speed = longest["step_operations"] / longest["median_s"]["none"]
    return Device(name, float(f"{speed:.3g}"), path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.card",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("json", nargs="?", type=Path, default=MEASUREMENTS / "gpu.json")
    path: Path = parser.parse_args(arguments).json
    try:
        own = path.resolve()
        name = own.relative_to(ROOT).as_posix() if own.is_relative_to(ROOT) else path.name
        card = card_in(Result.read(path), name)
    except (OSError, ValueError) as error:
        sys.exit(f"{error}; python -m benchmarks.gpu measures it")
    print(f'Device("{card.name}", {card.flops_per_s:.3g}, "{card.measured_by}"),')


if __name__ == "__main__":
    main()
