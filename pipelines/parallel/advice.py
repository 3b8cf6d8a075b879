"""What to say of a group before it renders, and to whoever would be helped by one. Loads without torch.

Decides which clips are worth a word. The figures are predictions for H100s; `prediction` says what they assume.
"""

from pipelines.parallel.config import ONE_DEVICE, ParallelConfig
from pipelines.parallel.cost import weight_bytes
from pipelines.parallel.prediction import (
    H100,
    INTERCONNECTS,
    Work,
    best_speed_up,
    break_even_bytes_per_s,
    predict,
    step_sent_bytes,
)

SHORT_S = 1.0  # a shorter clip is all start-up and launches, which the model knows nothing of
LONG_S = 120.0  # somebody waits for a longer one
MAX_DEGREE = 8  # devices of one machine, usually


def advise(name: str, work: Work, parallel: ParallelConfig) -> list[str]:
    """A line on the group that a clip asks for, or, where a clip asks for none and takes long, on those that work.

    Args:
        name: what the clips are called in the line, such as their model and size.
        work: one clip.
        parallel: what it asks for.

    Returns:
        Plain text, no more than two lines; none where there is nothing to say.
    """
    single_s = predict(work, ONE_DEVICE, H100, INTERCONNECTS[0]).total_s
    if single_s < SHORT_S:
        return []
    if parallel.degree > 1:
        return _on_a_group(name, work, parallel)
    degrees = fitting_degrees(work)
    if single_s < LONG_S or not degrees:
        return []
    listed = f"{degrees[0]}" if len(degrees) == 1 else f"{', '.join(map(str, degrees[:-1]))} or {degrees[-1]}"
    best = best_speed_up(work, ParallelConfig(ulysses=degrees[-1]), H100)
    return [
        f"{name}: about {_duration(single_s)} a clip on one H100; parallel: {{ulysses: {listed}}} would render it on as "
        f"many devices, with {degrees[-1]} at best {best:.1f} times as fast; single workers finish more clips an hour"
    ]


def fitting_degrees(work: Work) -> list[int]:
    """Degrees of ulysses, 2 and more, that divide the model's heads and the clip's tokens."""
    num_heads, num_tokens = work.geometry.num_heads, work.geometry.num_tokens(work.shape)
    return [degree for degree in range(2, MAX_DEGREE + 1) if num_heads % degree == 0 and num_tokens % degree == 0]


def _on_a_group(name: str, work: Work, parallel: ParallelConfig) -> list[str]:
    best = best_speed_up(work, parallel, H100)
    break_even = break_even_bytes_per_s(work, parallel, H100)
    head = f"{name}: {parallel} sends {_bytes(step_sent_bytes(work, parallel))} a step out of each rank"
    if break_even is None:
        return [f"{head}; the clip is too small: at no bandwidth is a group of H100s faster than one"]
    return [
        f"{head}; below {_bytes(break_even)}/s a group of H100s is slower than one, at best it is {best:.1f} times as fast",
        f"  for a clip sooner, or one whose activations are too large for one device (each still holds all "
        f"{_bytes(weight_bytes(work.geometry))} of weights); {parallel.degree} single workers finish at least "
        f"{parallel.degree / best:.2f} times as many clips an hour",
    ]


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
