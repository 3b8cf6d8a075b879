"""The devices that a run may hold beside other runs on the cluster.

Each run tells the others what it has and wants, and finds the same fair split by itself, so that no
service decides. A run above its share gives workers back after their clip, on nodes that suit a run
below its share; one at or below it keeps what it has. Devices that other jobs hold take no part in
the split. Pure: the caller passes the claims and the time. Loads without torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.plan.demand import Demand
from jobs.plan.group_capacity import Machines
from jobs.schedule.sharing import Share
from jobs.shares.fair_split import EPSILON
from jobs.shares.resource_split import Place, ResourceSplit, fits
from jobs.shares.run_claims import Board, KindClaim, RunClaim


@dataclass(frozen=True)
class Limit:
    """The most workers of one kind beside other runs.

    Args:
        most: workers above which some are given to other runs; None without such runs.
        on: nodes on which a run below its share could use their places; None for every node.
    """

    most: int | None = None
    on: frozenset[str] | None = None


NO_LIMIT = Limit()


class RunShares:
    """The share of one run, beside the others that the board shows.

    Args:
        board: the claims of other runs.
        run: id of the run.
        weight: its weight.
        count: `workers.count`; None if the run follows the cluster.
    """

    def __init__(self, board: Board, run: str, weight: float, count: int | None) -> None:
        self._board = board
        self._run, self._weight, self._count = run, weight, count
        self._splits: dict[str, ResourceSplit] = {}

    def limits(
        self,
        begun: Sequence[Share],
        coming: Sequence[Demand],
        nodes: Mapping[str, Mapping[str, float]],
        now: float,
    ) -> list[Limit]:
        """Publish the claim of this run, and return the most workers of each of its kinds.

        Args:
            begun: kinds that have begun.
            coming: kinds that are to come; their limits stand behind those of the others.
            nodes: all resources of each node on which workers may start, by id.
            now: seconds of a clock that is never set back.
        """
        kinds = claims_of(begun, coming, list(nodes.values()), self._count)
        self._board.publish(RunClaim(self._run, self._weight, kinds))
        others = self._board.others()
        if not others:
            self._splits.clear()
            return [NO_LIMIT] * len(kinds)
        free = self._board.free()
        places = [Place(node, machine, free.get(node, {})) for node, machine in nodes.items()]
        found = [NO_LIMIT] * len(kinds)
        for resource in {kind.resource for kind in kinds}:
            chosen = [index for index, kind in enumerate(kinds) if kind.resource == resource]
            own = RunClaim(self._run, self._weight, tuple(kinds[index] for index in chosen))
            limits = self._limits_of(resource, own, others, places, now)
            for index, limit in zip(chosen, limits, strict=True):
                found[index] = limit
        return found

    def _limits_of(
        self,
        resource: str,
        own: RunClaim,
        others: Sequence[RunClaim],
        places: Sequence[Place],
        now: float,
    ) -> list[Limit]:
        rivals, here = _sharers(own, others, places)
        split = self._splits.setdefault(resource, ResourceSplit())
        if not rivals:
            split.clear()
            return [NO_LIMIT] * len(own.kinds)
        may_ask_for_more = self._count is not None
        most, nodes = split.most(own, rivals, here, now, may_ask_for_more=may_ask_for_more)
        if most is None:
            return [NO_LIMIT] * len(own.kinds)
        return [Limit(number, nodes) for number in _by_kind(own.kinds, most)]


def claims_of(
    begun: Sequence[Share], coming: Sequence[Demand], machines: Machines, count: int | None
) -> tuple[KindClaim, ...]:
    """Return the claims of a run's kinds; `count` bounds all kinds together."""
    claims = [
        _claim(share.demand, share.schedule.num_placed, share.schedule.num_usable, machines)
        for share in begun
    ]
    claims += [_claim(demand, 0, demand.num_clips, machines) for demand in coming]
    if count is None:
        return tuple(claims)
    found = list[KindClaim]()
    for claim in claims:
        num_wanted = min(claim.num_wanted, count)
        count -= num_wanted
        found.append(KindClaim(claim.reserved, claim.degree, claim.num_held, num_wanted))
    return tuple(found)


def _claim(demand: Demand, num_held: int, num_usable: int, machines: Machines) -> KindClaim:
    num_wanted = min(demand.num_wanted(machines), num_usable) if demand.room(machines) else 0
    return KindClaim(demand.reserved, demand.parallel.degree, num_held, num_wanted)


def _sharers(
    own: RunClaim, others: Sequence[RunClaim], places: Sequence[Place]
) -> tuple[list[RunClaim], list[Place]]:
    """Return the claims of other runs that this one shares machines with, and these machines.

    A run that shares machines with such a run is one of them, so that all find the same.
    """
    resource, rivals = own.kinds[0].resource, list[RunClaim]()
    while True:
        here = [place for place in places if any(fits(one, place) for one in (own, *rivals))]
        found = [claim for one in others if (claim := _rival(one, resource, here)) is not None]
        if len(found) == len(rivals):
            return found, here
        rivals = found


def _rival(claim: RunClaim, resource: str, places: Sequence[Place]) -> RunClaim | None:
    """Return the part of a claim that is on some of these machines, if any is."""
    kinds = tuple(
        kind
        for kind in claim.kinds
        if kind.resource == resource
        and (kind.num_held or kind.num_wanted)
        and any(kind.may_be_on(place.has) for place in places)
    )
    return RunClaim(claim.run, claim.weight, kinds) if kinds else None


def _by_kind(kinds: Sequence[KindClaim], most: float) -> list[int]:
    """Return the most workers of each kind; the first kinds come first, and one has a worker."""
    found = list[int]()
    for kind in kinds:
        number = min(kind.num_wanted, int((most + EPSILON) // kind.unit))
        most -= number * kind.unit
        found.append(number)
    if not any(found):
        found[0] = 1
    return found
