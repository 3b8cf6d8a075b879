"""What to say of a group before it renders, and to whoever would be helped by one. Loads without torch.

Decides which clips are worth a word. The figures are predictions for H100s; what they assume is said in `prediction`.
"""

from pipelines.context_parallel.divisibility import fitting_degrees
from pipelines.cost.operations import weight_bytes
from pipelines.cost.prediction import (
    H100,
    NVLINK_H100,
    Work,
    best_speed_up,
    break_even_bytes_per_s,
    predict,
    step_sent_bytes,
)
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig

SHORT_S = 1.0  # a shorter clip is mostly launches, of which nothing is predicted
LONG_S = 120.0  # for a longer one somebody may wait
MAX_DEGREE = 8  # devices of one machine, usually
ADVICE_FOOTNOTE = f"predicted for H100s at {H100.flops_per_s / 1e12:.0f} TFLOP/s, not measured: see docs/measurements/parallel-cost.md"


def advise(name: str, work: Work, parallel: ParallelConfig) -> list[str]:
    """A line on the group that a clip asks for; where it asks for none and takes long, one on the groups it could have.

    Args:
        name: what the line calls the clips, such as their model and size.
        work: one of the clips.
        parallel: what it asks for.

    Returns:
        Plain text; nothing where there is nothing to say.
    """
    single_s = predict(work, ONE_DEVICE, H100, NVLINK_H100).total_s
    if single_s < SHORT_S:
        return []
    if parallel.degree > 1:
        return [f"{name}: {_describe_group(work, parallel)}"]
    degrees = ulysses_degrees(work)
    if single_s < LONG_S or not degrees:
        return []
    best = best_speed_up(work, ParallelConfig(ulysses=degrees[-1]), H100)
    line = (
        f"{name}: {single_s / 60:.0f} minutes a clip on one device; sooner with parallel: {{ulysses: N}}, where N is "
        f"{_either(degrees)} ({degrees[-1]}: at best {best:.1f} x), but fewer clips an hour than single workers"
    )
    return [line]


def ulysses_degrees(work: Work) -> list[int]:
    """From 2 on, those that can share the clip."""
    choices = fitting_degrees(ParallelConfig(ulysses=2), work.geometry, work.shape)
    return [
        choice.ulysses
        for choice in choices
        if choice.ring == 1 and 2 <= choice.ulysses <= MAX_DEGREE
    ]


def _describe_group(work: Work, parallel: ParallelConfig) -> str:
    sends = f"{parallel} sends {_size(step_sent_bytes(work, parallel))} a step and rank"
    break_even = break_even_bytes_per_s(work, parallel, H100)
    if break_even is None:
        return f"{sends}, for so small a clip more than it gains at any bandwidth: single workers are better"
    best = best_speed_up(work, parallel, H100)
    return (
        f"{sends}; below {_size(break_even)}/s it is slower than one device, at best {best:.1f} x as fast: for a clip "
        f"sooner, or one whose activations do not fit on a device (each holds all "
        f"{_size(weight_bytes(work.geometry))} of weights); {parallel.degree} single workers finish at least "
        f"{parallel.degree / best:.2f} x as many clips an hour"
    )


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _either(numbers: list[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}" if first else last
