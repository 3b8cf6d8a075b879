"""The operators that torch runs, counted by its profiler."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def counted_operators() -> Generator[Counter[str]]:
    """Count the operators inside the block by their names; the counts are there at its end.

    The events are read as the profiler noted them. Its `key_averages` took ten times as long as a
    render.
    """
    counts = Counter[str]()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        yield counts
    recorded: Any = profiler.profiler
    counts.update(event.name() for event in recorded.kineto_results.events())
