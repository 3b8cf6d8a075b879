"""The places of a cluster, shared by the kinds of worker of a run.

A kind is a model with its group of devices. The kinds begin in the order of the plan. A kind keeps
its places until its plan has no further clip; from then on each worker that has none is released,
and a worker of the next kind starts in its place while the others still render. Pure, and without
torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.plan.demand import Demand
from jobs.plan.group_capacity import Machines
from jobs.schedule.events import RoomSeen
from jobs.schedule.schedule import Schedule


@dataclass(frozen=True, eq=False)
class Share:
    """The part of the cluster that one kind of worker holds."""

    demand: Demand
    schedule: Schedule

    def could_grow(self, machines: Machines) -> bool:
        """Return True if the kind has clips for more workers than it has places."""
        most = self.demand.num_wanted(machines)
        return self.schedule.has_more_clips and self.schedule.num_workers < most


def left_by(others: Sequence[Share], machines: Machines) -> Machines:
    """Return the machines without the places that other kinds hold."""
    for other in others:
        machines = other.demand.left(machines, other.schedule.num_workers)
    return machines


def num_wanted(demand: Demand, others: Sequence[Share], machines: Machines) -> int:
    """Return the number of workers that a kind may keep beside those of the others.

    The first kind gets at least one, so that a cluster may grow for it; a later one gets none
    before a place is free. `workers.count` bounds all kinds together.
    """
    if not others:
        return demand.num_wanted(machines)
    room = demand.room(left_by(others, machines))
    if demand.count is not None:
        left = demand.count - sum(other.schedule.num_workers for other in others)
        room = left if room else 0
    return max(0, min(room, demand.num_clips))


def first_with_room(
    demands: Sequence[Demand], shares: Sequence[Share], machines: Machines
) -> tuple[int, int] | None:
    """Return the first kind that may begin beside others, and its number of workers, if any may.

    A later kind begins before an earlier one only in places that the earlier one cannot use, such
    as those of a machine with too few devices for its groups.
    """
    for index, demand in enumerate(demands):
        if num_workers := num_wanted(demand, shares, machines):
            return index, num_workers
    return None


def room_seen(
    share: Share,
    others: Sequence[Share],
    machines: Machines,
    *,
    are_places_wanted: bool,
    most: int | None = None,
    wanted_on: frozenset[str] | None = None,
) -> RoomSeen:
    """Return the event with the room that a kind has now.

    Args:
        are_places_wanted: True if idle workers should give their places back: kinds that have not
            begun wait for one, or the cluster has other users or gets smaller.
        most, wanted_on: see `RoomSeen`.
    """
    others_wait = are_places_wanted or any(other.could_grow(machines) for other in others)
    wanted = num_wanted(share.demand, others, machines)
    return RoomSeen(wanted, share.demand.lacking(machines), others_wait, most, wanted_on)
