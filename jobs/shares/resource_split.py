"""The split of one resource among runs, GPUs or CPUs, as it was a moment ago. Pure.

Each run may have kinds of node that do not suit another, so the split is one that can be placed.
"""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

from jobs.shares.fair_split import EPSILON, Bound, Want, fair_split
from jobs.shares.run_claims import RunClaim

# A device on its way from one run to another is neither held nor free for a moment.
TOTAL_WINDOW_S = 30.0
# A claim is up to two beats old; so a share must have been low for longer to be believed.
SHARE_WINDOW_S = 3.0
MAX_AREAS = 6  # for which the bounds of all unions are found


class Place(NamedTuple):
    """A machine: all its resources, and the free ones."""

    node: str
    has: Mapping[str, float]
    free: Mapping[str, float]


@dataclass
class WindowMax:
    """The largest of the latest values.

    Args:
        window_s: seconds for which a value counts.
    """

    window_s: float
    _values: deque[tuple[float, float]] = field(default_factory=deque[tuple[float, float]])

    def of(self, value: float, now: float) -> float:
        """Add a value and return the largest one."""
        while self._values and self._values[-1][1] <= value:
            self._values.pop()
        self._values.append((now, value))
        while self._values[0][0] < now - self.window_s:
            self._values.popleft()
        return self._values[0][1]

    def clear(self) -> None:
        self._values.clear()


@dataclass
class ResourceSplit:
    """The split of one resource, GPUs or CPUs, as it was a moment ago."""

    total: WindowMax = field(default_factory=lambda: WindowMax(TOTAL_WINDOW_S))
    share: WindowMax = field(default_factory=lambda: WindowMax(SHARE_WINDOW_S))

    def most(
        self,
        own: RunClaim,
        rivals: Sequence[RunClaim],
        places: Sequence[Place],
        now: float,
        *,
        may_ask_for_more: bool,
    ) -> tuple[float | None, frozenset[str] | None]:
        """Return the devices that a run may hold and ask for; None for as many as it wants.

        A run below its share, whose nodes others hold, does not keep those from devices that it
        could not use.

        Args:
            own, rivals: claims on this resource alone.
            places: machines on which kinds of these runs fit.
            may_ask_for_more: True if a run below its share asks for all that it wants.

        Returns:
            The devices, and the nodes as in `Limit.on`.
        """
        resource, claims = own.kinds[0].resource, (own, *rivals)
        held = {claim.run: _held(claim) for claim in claims}
        users = [frozenset(one.run for one in claims if fits(one, place)) for place in places]
        free = [place.free.get(resource, 0.0) for place in places]
        total = self.total.of(sum(held.values()) + sum(free), now)
        wants = {claim.run: _want(claim) for claim in claims}
        split = fair_split(wants, total, _bounds(places, users, resource))
        share = self.share.of(split[own.run], now)
        short = {one.run for one in rivals if held[one.run] < split[one.run] - EPSILON}
        if may_ask_for_more and held[own.run] <= share + EPSILON and not short:
            return None, None
        wanted = {place.node for place, runs in zip(places, users, strict=True) if runs & short}
        if len(wanted) == len(places):
            return share, None
        spare = sum(
            amount
            for amount, runs in zip(free, users, strict=True)
            if short and own.run in runs and not runs & short
        )
        return share + spare, frozenset(wanted)

    def clear(self) -> None:
        self.total.clear()
        self.share.clear()


def fits(claim: RunClaim, place: Place) -> bool:
    return any(kind.may_be_on(place.has) for kind in claim.kinds)


def _bounds(places: Sequence[Place], users: Sequence[frozenset[str]], resource: str) -> list[Bound]:
    """Return the devices of each area of the cluster beyond which some runs have no node.

    Args:
        users: the runs that each place suits.
    """
    devices = defaultdict[frozenset[str], float](float)  # by the runs that they suit
    for place, runs in zip(places, users, strict=True):
        devices[runs] += place.has.get(resource, 0.0)
    areas_of = {
        run: frozenset(runs for runs in devices if run in runs)
        for run in frozenset[str]().union(*users)
    }
    areas = list(set(areas_of.values()))
    sizes = range(1, len(areas) + 1) if len(areas) <= MAX_AREAS else (1, len(areas))
    unions = {
        frozenset[frozenset[str]]().union(*some)
        for size in sizes
        for some in combinations(areas, size)
    }
    return [
        Bound(
            frozenset(run for run, area in areas_of.items() if area <= union),
            sum(devices[runs] for runs in union),
        )
        for union in unions
    ]


def _held(claim: RunClaim) -> float:
    return sum(kind.unit * kind.num_held for kind in claim.kinds)


def _want(claim: RunClaim) -> Want:
    unit = min(kind.unit for kind in claim.kinds)
    return Want(claim.weight, unit, sum(kind.unit * kind.num_wanted for kind in claim.kinds))
