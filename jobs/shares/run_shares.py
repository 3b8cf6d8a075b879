"""The devices that a run may hold beside other runs on the cluster.

Each run tells the others what it has and wants, and finds the same fair split by itself, so that no
service decides. A run above its share gives workers back after their clip; one at or below it keeps
what it has. Devices that other jobs hold take no part in the split. Pure: the caller passes the
claims and the time. Loads without torch.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobs.plan.demand import Demand
from jobs.plan.group_capacity import Machines
from jobs.schedule.sharing import Share
from jobs.shares.fair_split import EPSILON, Want, fair_split
from jobs.shares.run_claims import Board, KindClaim, RunClaim

# A device on its way from one run to another is neither held nor free for a moment.
TOTAL_WINDOW_S = 30.0
# A claim is up to two beats old; so a share must have been low for longer to be believed.
SHARE_WINDOW_S = 3.0

Place = tuple[Mapping[str, float], Mapping[str, float]]  # all resources of a machine, the free ones


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
    ) -> float | None:
        """Return the devices that a run may hold and ask for; None for as many as it wants.

        Args:
            own, rivals: claims on this resource alone.
            places: machines on which kinds of this run fit.
            may_ask_for_more: True if a run below its share asks for all that it wants.
        """
        resource = own.kinds[0].resource
        held = {claim.run: _held(claim) for claim in (own, *rivals)}
        capacity = sum(machine.get(resource, 0.0) for machine, _ in places)
        free = sum(have.get(resource, 0.0) for _, have in places)
        total = min(capacity, self.total.of(sum(held.values()) + free, now))
        wants = {claim.run: _want(claim) for claim in (own, *rivals)}
        split = fair_split(wants, total)
        share = self.share.of(split[own.run], now)
        is_rival_short = any(held[one.run] < split[one.run] - EPSILON for one in rivals)
        if may_ask_for_more and held[own.run] <= share + EPSILON and not is_rival_short:
            return None
        return share

    def clear(self) -> None:
        self.total.clear()
        self.share.clear()


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
    ) -> list[int | None]:
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
            return [None] * len(kinds)
        free = self._board.free()
        places = [(machine, free.get(node, {})) for node, machine in nodes.items()]
        found: list[int | None] = [None] * len(kinds)
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
    ) -> list[int | None]:
        here = [place for place in places if any(one.may_be_on(place[0]) for one in own.kinds)]
        rivals = [claim for one in others if (claim := _rival(one, resource, here)) is not None]
        split = self._splits.setdefault(resource, ResourceSplit())
        if not rivals:
            split.clear()
            return [None] * len(own.kinds)
        may_ask_for_more = self._count is not None
        most = split.most(own, rivals, here, now, may_ask_for_more=may_ask_for_more)
        return [None] * len(own.kinds) if most is None else _by_kind(own.kinds, most)


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


def _rival(claim: RunClaim, resource: str, places: Sequence[Place]) -> RunClaim | None:
    """Return the part of a claim that is on some of these machines, if any is."""
    kinds = tuple(
        kind
        for kind in claim.kinds
        if kind.resource == resource
        and (kind.num_held or kind.num_wanted)
        and any(kind.may_be_on(machine) for machine, _ in places)
    )
    return RunClaim(claim.run, claim.weight, kinds) if kinds else None


def _held(claim: RunClaim) -> float:
    return sum(kind.unit * kind.num_held for kind in claim.kinds)


def _want(claim: RunClaim) -> Want:
    unit = min(kind.unit for kind in claim.kinds)
    return Want(claim.weight, unit, sum(kind.unit * kind.num_wanted for kind in claim.kinds))


def _by_kind(kinds: Sequence[KindClaim], most: float) -> list[int | None]:
    """Return the most workers of each kind; the first kinds come first, and one has a worker."""
    found = list[int | None]()
    for kind in kinds:
        number = min(kind.num_wanted, int((most + EPSILON) // kind.unit))
        most -= number * kind.unit
        found.append(number)
    if not any(found):
        found[0] = 1
    return found
