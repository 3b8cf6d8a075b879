"""The fair split of devices among runs, by their weights. Pure.

Every run gets a worker first, as far as there are devices. Then each further worker goes to the run
that has least for its weight. No device is left that a run could use, and no run gets more than it
wants.

Source: the divisor method of Sainte-Lague, which has no bias for runs of high weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

EPSILON = 1e-6  # devices may be shares of a GPU


@dataclass(frozen=True)
class Want:
    """The devices that one run could use.

    Args:
        weight: weight of the run, above 0.
        unit: devices of one of its workers.
        devices: devices that it could use now, those that it holds among them.
    """

    weight: float
    unit: float
    devices: float


def fair_split(wants: Mapping[str, Want], total: float) -> dict[str, float]:
    """Return the devices of each run; every driver that knows the same finds the same.

    Args:
        wants: the wants of each run, by its name.
        total: devices to split.
    """
    found, left = dict.fromkeys(wants, 0.0), total + EPSILON

    def can_grow(run: str) -> bool:
        want = wants[run]
        return want.unit <= left and found[run] + want.unit <= want.devices + EPSILON

    for run in sorted(wants):
        if can_grow(run):
            found[run] = wants[run].unit
            left -= wants[run].unit
    queue = [(_rank(wants[run], found[run]), run) for run in wants]
    heapify(queue)
    while queue:
        run = queue[0][1]
        if not can_grow(run):
            heappop(queue)  # nor later, since the rest only shrinks
            continue
        found[run] += wants[run].unit
        left -= wants[run].unit
        heapreplace(queue, (_rank(wants[run], found[run]), run))
    return found


def _rank(want: Want, devices: float) -> float:
    """Return the devices for each weight that a run would have with half a worker more."""
    return (devices + want.unit / 2) / want.weight
