"""The cards of a cluster, by the names that Ray gives its nodes' devices. Pure."""

from jobs.plan.group_capacity import LABEL, Machines
from jobs.settings.worker_config import ACCELERATOR_LABEL
from pipelines.cost.prediction import memory_of_card

RESOURCE = "accelerator_type:"  # Ray's resource of a node with such devices


def cards_of(machines: Machines) -> tuple[str, ...]:
    """Return the kinds of card whose memory is known, the largest memory first."""
    found: dict[str, int] = {}
    for machine in machines:
        if not machine.get("GPU"):
            continue
        for resource in machine:
            for prefix in (RESOURCE, f"{LABEL}{ACCELERATOR_LABEL}="):
                name = resource.removeprefix(prefix)
                if name != resource and (size := memory_of_card(name)) is not None:
                    found[name] = size
    return tuple(sorted(found, key=lambda name: (-found[name], name)))
