"""The options of a simulation on the command line.

`nagfarm plan` has them beside its own. Loads without torch.
"""

import argparse
import math
from dataclasses import dataclass

from jobs.errors import RefusedError
from jobs.simulation.conditions import MAX_DEVICES, Conditions
from jobs.text import shown

ONLY_SIMULATED = ("failures", "preemptions", "store_requests", "store_megabytes")
SIMULATION_HELP = """\
With --simulate the run is played through in virtual time, for each number of devices, on the
code that decides in a real run. The table shows its wall time, the share of the devices' time in
which they compute (busy), the cost, and the bottleneck: devices, start (of workers), encoding,
store, driver, or end (no clip was left for a device). Times are drawn from the records of
earlier runs; a model without records gets predicted ones.
"""


@dataclass(frozen=True)
class SimulationOptions:
    """The options of a simulation and of the estimate above it.

    Each field is named like the argument that sets it, but for `from_uri`, which --from sets.
    """

    simulate: str | None
    from_uri: str | None
    price: float | None
    failures: float
    preemptions: float
    store_requests: float | None
    store_megabytes: float | None

    def conditions(self) -> list[Conditions]:
        """Return the farms to simulate; none without --simulate.

        Raises:
            RefusedError: an option is outside its range.
        """
        if self.price is not None and not 0 <= self.price < math.inf:
            raise RefusedError(f"--price: expected a number of at least 0, got {self.price:g}")
        if self.simulate is None:
            self._check_alone()
            return []
        megabytes = self.store_megabytes
        return [
            Conditions(
                num_devices,
                failures=self.failures,
                preemptions=self.preemptions,
                store_requests_per_s=self.store_requests,
                store_bytes_per_s=None if megabytes is None else megabytes * 1e6,
            )
            for num_devices in numbers_of_devices(self.simulate)
        ]

    def _check_alone(self) -> None:
        """Refuse an option that has no effect, since nothing is simulated."""
        for name in ONLY_SIMULATED:
            if getattr(self, name) not in (None, 0.0):
                option = f"--{name.replace('_', '-')}"
                raise RefusedError(f"{option} needs --simulate, such as --simulate 8,64,512")


def add_simulation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of these options to a command's parser."""
    parser.add_argument(
        "--from",
        dest="from_uri",
        metavar="URI",
        help="an output of earlier runs whose records tell how long clips take, for device-hours, "
        "cost and --simulate (default: the manifest's own output)",
    )
    parser.add_argument(
        "--price",
        type=float,
        help="price of a device-hour of any device (default: the settings costs.prices and "
        "costs.price_per_device_hour)",
    )
    group = parser.add_argument_group("simulation", SIMULATION_HELP)
    group.add_argument(
        "--simulate",
        metavar="N[,N...]",
        help=f"numbers of devices, 1 to {MAX_DEVICES:,}, such as 8,64,512",
    )
    group.add_argument(
        "--failures",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the attempts in which the worker dies, such as 0.01 (default: 0)",
    )
    group.add_argument(
        "--preemptions",
        type=float,
        default=0.0,
        metavar="RATE",
        help="preemptions of each device an hour; another device replaces it at once (default: 0)",
    )
    group.add_argument(
        "--store-requests",
        type=float,
        metavar="RATE",
        help="requests that the store answers in a second (default: no limit)",
    )
    group.add_argument(
        "--store-megabytes",
        type=float,
        metavar="RATE",
        help="megabytes that the store takes in a second (default: no limit)",
    )


def numbers_of_devices(written: str) -> list[int]:
    """Return the numbers of devices that --simulate names."""
    words = [word.strip() for word in written.split(",")]
    if not all(word.isascii() and word.isdigit() and len(word) < 10 for word in words):
        raise RefusedError(
            f"--simulate: expected numbers of devices, such as 8,64,512, got {shown(written)}"
        )
    return [int(word) for word in words]
