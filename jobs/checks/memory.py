"""The check of memory: does the default clip of each model here fit on this machine's cards."""

from collections.abc import Mapping

from jobs.checks.machine import Check
from jobs.manifest.model_catalog import ModelCatalog
from jobs.memory.models_here import model_memory
from pipelines.errors import PipelineError


def check_memory(catalog: ModelCatalog, cards: Mapping[str, int]) -> list[Check]:
    """Count the memory of each model whose weights are here and that is not for a CPU alone.

    Args:
        cards: bytes of memory of each kind of card here, by its name.
    """
    found: list[Check] = []
    for name in catalog.names():
        try:
            entry = catalog.get(name)
            if entry.config.device == "cpu" or entry.weights.described is not None:
                continue
            if memory := model_memory(entry, cards):
                found.append(Check("memory", *memory))
        except (PipelineError, OSError):
            continue  # the check of weights says why
    return found


def cards_here() -> dict[str, int]:
    """Return the bytes of memory of each kind of card that torch sees, the smallest of each."""
    import torch

    found: dict[str, int] = {}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        name, size = str(properties.name), int(properties.total_memory)
        found[name] = min(size, found.get(name, size))
    return found
