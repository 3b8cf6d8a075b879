"""Advice on groups of devices, printed under a plan. Loads without torch.

Decides which clips get advice. The figures are predictions for one kind of card; `prediction` has
the speeds of cards.
"""

from pipelines.context_parallel.divisibility import fitting_degrees
from pipelines.cost.operations import weight_bytes
from pipelines.cost.prediction import (
    DEFAULT_CARD,
    NVLINK_H100,
    Device,
    Work,
    best_speed_up,
    break_even_bytes_per_s,
    predict,
    step_sent_bytes,
)
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig

SHORT_S = 1.0  # a shorter clip is mostly kernel launches, which the model leaves out
LONG_S = 120.0  # people may wait for a longer clip
MAX_DEGREE = 8  # usual number of devices in one machine


def advice_footnote(card: Device = DEFAULT_CARD) -> str:
    """Return the card that the advice is for, its speed, and the source of that speed."""
    source = f"measured by {card.measured_by}" if card.measured_by else "not measured"
    return (
        f"predicted for {card.name}s at {card.flops_per_s / 1e12:.0f} TFLOP/s, {source}: "
        "see docs/measurements/parallel-cost.md"
    )


def advise(
    name: str, work: Work, parallel: ParallelConfig, card: Device = DEFAULT_CARD
) -> list[str]:
    """Describe the group that a clip asks for, or the groups that a long clip could use.

    Args:
        name: name of the clips in the line, such as their model and size.
        work: one of the clips.
        parallel: the group that the clip asks for.
        card: the card of each device.

    Returns:
        Lines of plain text; none if no advice applies.
    """
    single_s = predict(work, ONE_DEVICE, card, NVLINK_H100).total_s
    if single_s < SHORT_S:
        return []
    if parallel.degree > 1:
        return [f"{name}: {_describe_group(work, parallel, card)}"]
    degrees = ulysses_degrees(work)
    if single_s < LONG_S or not degrees:
        return []
    best = best_speed_up(work, ParallelConfig(ulysses=degrees[-1]), card)
    line = (
        f"{name}: {single_s / 60:.0f} minutes a clip on one device; sooner with parallel: "
        f"{{ulysses: N}}, where N is {_either(degrees)} ({degrees[-1]}: at best {best:.1f} x), "
        "but fewer clips an hour than single workers"
    )
    return [line]


def ulysses_degrees(work: Work) -> list[int]:
    """Return the ulysses degrees from 2 on that divide the clip."""
    choices = fitting_degrees(ParallelConfig(ulysses=2), work.geometry, work.shape)
    return [
        choice.ulysses
        for choice in choices
        if choice.ring == 1 and 2 <= choice.ulysses <= MAX_DEGREE
    ]


def _describe_group(work: Work, parallel: ParallelConfig, card: Device) -> str:
    sends = f"{parallel} sends {_size(step_sent_bytes(work, parallel))} a step and rank"
    break_even = break_even_bytes_per_s(work, parallel, card)
    if break_even is None:
        return (
            f"{sends}, more than it gains at any bandwidth: for so small a clip use single workers"
        )
    best = best_speed_up(work, parallel, card)
    return (
        f"{sends}; below {_size(break_even)}/s it is slower than one device, at best {best:.1f} x "
        "as fast. Use it to finish a clip sooner, or if the activations do not fit on a device "
        f"(each holds all {_size(weight_bytes(work.geometry))} of weights); {parallel.degree} "
        f"single workers finish at least {parallel.degree / best:.2f} x as many clips an hour"
    )


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _either(numbers: list[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}" if first else last
