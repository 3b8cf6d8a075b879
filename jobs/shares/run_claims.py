"""The claims of runs on one cluster: the workers that each has and wants, as runs tell each other.

A claim comes from another program on the cluster, so each value is checked before it is used.
Loads without torch.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from jobs.errors import ConfigError
from jobs.plan.group_capacity import RankResources
from jobs.settings.worker_config import Placement

MAX_BYTES = 65_536
MAX_WORKERS = 10**6


@dataclass(frozen=True)
class KindClaim:
    """The workers of one kind.

    Args:
        reserved: resources of each worker, or of each rank of a group.
        degree: ranks of one worker.
        num_held: workers that have their devices.
        num_wanted: workers that could render now, those that have devices among them.
    """

    reserved: RankResources
    degree: int
    num_held: int
    num_wanted: int

    @property
    def resource(self) -> str:
        """Return the resource by which its devices are counted."""
        return "GPU" if self.reserved.num_gpus else "CPU"

    @property
    def unit(self) -> float:
        """Return the devices of one worker."""
        return self.degree * (self.reserved.num_gpus or self.reserved.num_cpus)

    def may_be_on(self, machine: Mapping[str, float]) -> bool:
        """Return True if a rank fits into a machine."""
        return self.reserved.fit_into(machine) > 0


@dataclass(frozen=True)
class RunClaim:
    """The workers of one run.

    Args:
        run: id of the run.
        weight: `workers.weight`.
        kinds: kinds that have begun and then those that are to come, in their order.
    """

    run: str
    weight: float
    kinds: tuple[KindClaim, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the claim as others read it; the run's id is the name of the note."""
        return {"weight": self.weight, "kinds": [asdict(kind) for kind in self.kinds]}

    @classmethod
    def read(cls, run: str, value: object) -> "RunClaim | None":
        """Return the claim that a parsed JSON holds; None if it is none."""
        match value:
            case {"weight": float() | int() as weight, "kinds": list(kinds)}:
                if not 0 < weight <= sys.float_info.max:
                    return None
            case _:
                return None
        found = [_read_kind(kind) for kind in kinds]
        known = tuple(kind for kind in found if kind is not None)
        return cls(run, float(weight), known) if len(known) == len(found) else None


class Board(Protocol):
    """The place on the cluster where runs see each other's claims."""

    def publish(self, claim: RunClaim) -> None:
        """Let other runs see the claim of this one, soon."""
        ...

    def others(self) -> Sequence[RunClaim]:
        """Return the claims of the other runs that live."""
        ...

    def free(self) -> Mapping[str, Mapping[str, float]]:
        """Return the resources of each node that no job holds, by the node's id."""
        ...


def parse_note(text: bytes) -> object:
    """Return the JSON of a note; None if it is none, or too large."""
    if len(text) > MAX_BYTES:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _read_kind(value: object) -> KindClaim | None:
    match value:
        case {
            "reserved": {
                "num_cpus": int(cpus),
                "num_gpus": float() | int() as gpus,
                "others": dict(others),
                "labels": dict(labels),
            },
            "degree": int(degree),
            "num_held": int(held),
            "num_wanted": int(wanted),
        }:
            numbers = (cpus, degree, held, wanted)
        case _:
            return None
    try:
        placement = Placement(gpus or None, None, dict(others), dict(labels))
    except (ConfigError, TypeError):
        return None
    if not all(0 <= number <= MAX_WORKERS for number in numbers) or not cpus or not degree:
        return None
    reserved = RankResources(cpus, gpus, placement.resources, placement.labels)
    return KindClaim(reserved, degree, held, wanted)
