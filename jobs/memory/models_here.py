"""The memory of the models on one machine, as packaged, against that machine's cards. Pure."""

from collections.abc import Mapping

from jobs.manifest.model_catalog import CatalogEntry
from pipelines.cost.activations import Clip
from pipelines.cost.memory import MARGIN, MemoryNeed, memory_need
from pipelines.cost.memory_advice import helpful

NO_CARD = "no GPU here"
SMALL_BYTES = 2 * 10**9  # less fits on every card that is sold for this work


def model_memory(entry: CatalogEntry, cards: Mapping[str, int]) -> tuple[bool | None, str] | None:
    """Return if a model's default clip fits on every card here, and its need in words.

    Args:
        cards: bytes of memory of each kind of card on this machine, by its name.

    Returns:
        None in the place of True if it does not fit on a card, may not, or if there is none; the
        words then name the lines of the model's YAML that lower the need. Nothing at all for a
        small model that fits.

    Raises:
        ModelFolderError: the folder's configs or headers are broken.
    """
    config = entry.config
    clip = Clip(config.sampling.shape, config.method, config.parallel)
    need = memory_need(config, entry.weights, clip)
    fits = all(need.cautious_bytes <= size for size in cards.values())
    if fits and need.peak_bytes < SMALL_BYTES:
        return None
    least = "at least" if need.is_least else "about"
    text = f"{config.name} {clip.shape} needs {least} {need.peak_bytes / 1e9:.1f} GB"
    if not cards:
        return None, f"{text} at {need.peak_stage}; {NO_CARD}"
    places = [f"{size / 1e9:.1f} on {name}{_doubt(need, size)}" for name, size in cards.items()]
    text = f"{text} of {', '.join(places)}, at {need.peak_stage}"
    if fits:
        return True, text
    lines = helpful(need, config, entry.weights, clip)
    return None, f"{text}; turn: {', '.join(lines)}" if lines else text


def _doubt(need: MemoryNeed, num_bytes: int) -> str:
    if need.peak_bytes > num_bytes:
        return " (does not fit by estimate)"
    if need.cautious_bytes > num_bytes:
        return f" (may not fit: within {MARGIN:.0%})"
    return ""
