"""The fair split of devices among runs, by their weights. Pure.

Every run gets a worker first, as far as there are devices. Then each further worker goes to the run
that has least for its weight. No device is left that a run could use, and no run gets more than it
wants, or than its kinds of node have.

Source: the divisor method of Sainte-Lague, which has no bias for runs of high weight.
"""

from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class Bound:
    """The devices that some runs may have together, since no others suit any of them."""

    runs: frozenset[str]
    devices: float


def fair_split(
    wants: Mapping[str, Want], total: float, bounds: Sequence[Bound] = ()
) -> dict[str, float]:
    """Return the devices of each run; every driver that knows the same finds the same.

    Args:
        wants: the wants of each run, by its name.
        total: devices to split.
        bounds: further limits. With one for each set of nodes that suits some runs, the split can
            be placed.
    """
    found = dict.fromkeys(wants, 0.0)
    limits = (Bound(frozenset(wants), total), *bounds)
    left = [limit.devices + EPSILON for limit in limits]
    limits_of = {run: [i for i, one in enumerate(limits) if run in one.runs] for run in wants}

    def can_grow(run: str) -> bool:
        want = wants[run]
        has_room = all(want.unit <= left[index] for index in limits_of[run])
        return has_room and found[run] + want.unit <= want.devices + EPSILON

    def grow(run: str) -> None:
        found[run] += wants[run].unit
        for index in limits_of[run]:
            left[index] -= wants[run].unit

    for run in sorted(wants):
        if can_grow(run):
            grow(run)
    queue = [(_rank(wants[run], found[run]), run) for run in wants]
    heapify(queue)
    while queue:
        run = queue[0][1]
        if not can_grow(run):
            heappop(queue)  # nor later, since the rest only shrinks
            continue
        grow(run)
        heapreplace(queue, (_rank(wants[run], found[run]), run))
    return found


def _rank(want: Want, devices: float) -> float:
    """Return the devices for each weight that a run would have with half a worker more."""
    return (devices + want.unit / 2) / want.weight
