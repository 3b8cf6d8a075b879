"""The memory that the pending clips of a plan need, and the refusal of those that cannot fit.

Loads without torch. `pipelines.cost.memory` counts; this module chooses the clips and the card.
"""

from dataclasses import dataclass, replace

from jobs.errors import RefusedError
from jobs.manifest.model_catalog import ModelCatalog
from jobs.memory.models_here import SMALL_BYTES
from jobs.plan.plan import Plan, PlanBucket
from jobs.settings.worker_config import WorkerConfig
from pipelines.cost.activations import Clip
from pipelines.cost.memory import MARGIN, MemoryNeed, describe_need, memory_need
from pipelines.cost.memory_advice import helpful
from pipelines.cost.prediction import MEMORY_GB, memory_of_card
from pipelines.errors import ModelFolderError

MAX_LINES = 4


@dataclass(frozen=True)
class ClipNeed:
    """The need of one kind of clip.

    Args:
        card: name of the card that renders it, of several the one with most memory; None if it is
            not known.
        remedies: lines of YAML that lower the need.
        others: names of further cards that may render it, since the cluster has them.
    """

    bucket: PlanBucket
    need: MemoryNeed
    card: str | None
    remedies: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """True unless the card is known and too small for the estimate."""
        return self._capacity is None or self.need.peak_bytes <= self._capacity

    @property
    def may_not_fit(self) -> bool:
        """True if the clip fits by the estimate and not by one that is too low by its margin."""
        return (
            self._capacity is not None and self.fits and (self.need.cautious_bytes > self._capacity)
        )

    @property
    def _capacity(self) -> int | None:
        return memory_of_card(self.card) if self.card else None

    @property
    def text(self) -> str:
        capacity = self._capacity
        of_card = f" of {capacity / 1e9:.0f} GB on {self.card}" if capacity else ""
        turn = f"; turn: {', '.join(self.remedies)}" if self.remedies else ""
        doubt = f"; it may not fit (within {MARGIN:.0%} of the card)" if self.may_not_fit else ""
        small = [name for name in self.others if self.need.peak_bytes > (memory_of_card(name) or 0)]
        elsewhere = f"; the cluster also has {', '.join(small)}, where it cannot fit: see "
        elsewhere += "workers.accelerator_type"
        return (
            f"{self.bucket.model} {self.bucket.shape}: memory{of_card}, "
            f"{describe_need(self.need)}{doubt}{turn}{elsewhere if small and self.fits else ''}"
        )


def memory_needs(
    plan: Plan, catalog: ModelCatalog, workers: WorkerConfig, card: str | None = None
) -> list[ClipNeed]:
    """Return the needs of a plan's pending clips on GPUs, the largest first.

    Args:
        workers: settings that may name the card of a model.
        card: name of the card that every model is planned for; None takes that of `workers`.

    Raises:
        RefusedError: the card is unknown.
    """
    if card is not None and memory_of_card(card) is None:
        raise RefusedError(
            f"--card {card!r}: expected one of {', '.join(MEMORY_GB)}, or a name with its memory, "
            "such as A100-40GB"
        )
    found = [
        need
        for bucket in plan.buckets
        if bucket.num_pending and (need := _need(bucket, catalog, workers, card)) is not None
    ]
    return sorted(found, key=lambda one: one.need.peak_bytes, reverse=True)


def on_cluster(needs: list[ClipNeed], cards: tuple[str, ...]) -> list[ClipNeed]:
    """Return the needs with the cards of a cluster, where no card is chosen.

    Args:
        cards: kinds of card, the largest memory first. A clip may go to any of them.
    """
    if not cards:
        return needs
    return [
        one if one.card is not None else replace(one, card=cards[0], others=cards[1:])
        for one in needs
    ]


def has_large(needs: list[ClipNeed]) -> bool:
    """Return True if the card decides about a clip, and is not known."""
    return any(one.card is None and one.need.peak_bytes >= SMALL_BYTES for one in needs)


def refuse_misfits(needs: list[ClipNeed]) -> None:
    """Refuse clips that need more memory than their card has.

    Raises:
        RefusedError: there are such clips.
    """
    if misfits := [one.text for one in needs if not one.fits]:
        raise RefusedError(
            f"{misfits[0]}; it cannot fit by this estimate (--force overrides)"
            + (f"; and {len(misfits) - 1} more kinds of clip" if len(misfits) > 1 else "")
        )


def memory_lines(needs: list[ClipNeed]) -> list[str]:
    """Return a line for each kind of clip that needs much memory, within limits."""
    large = [one.text for one in needs if one.need.peak_bytes >= SMALL_BYTES]
    num_more = len(large) - MAX_LINES
    return [*large[:MAX_LINES], *([f"and {num_more} more kinds, which need less"] * (num_more > 0))]


def _need(
    bucket: PlanBucket, catalog: ModelCatalog, workers: WorkerConfig, card: str | None
) -> ClipNeed | None:
    """Return the need of a bucket; None for a CPU, or where the configs cannot be counted."""
    model = catalog.get(bucket.model)
    if model.config.device == "cpu":
        return None
    clip = Clip(bucket.shape, bucket.method, bucket.parallel)
    try:
        need = memory_need(model.config, model.weights, clip)
        turns = helpful(need, model.config, model.weights, clip)
    except ModelFolderError:
        return None  # the load refuses a broken folder, and tells more
    asked = card or workers.placement_of(bucket.model).accelerator_type
    return replace(ClipNeed(bucket, need, asked, ()), remedies=tuple(turns))
