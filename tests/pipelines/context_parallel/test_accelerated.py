"""Cached and compiled models on several ranks render the clip of one device."""

from functools import cache

import numpy as np
import pytest

from pipelines.parallel_config import ParallelConfig
from tests.pipelines.context_parallel.accelerated_ranks import (
    Denoised,
    denoise_alone,
    denoise_cached,
    denoise_compiled,
    denoise_contested,
    means_of_parts,
    whole_tensors,
)
from tests.pipelines.context_parallel.ranks import Ranks

ULYSSES, RING, BOTH = ParallelConfig(2), ParallelConfig(1, 2), ParallelConfig(2, 2)
METHODS = ["nag", "cfg+nag", "nag"]


@cache
def on_one_device(name: str) -> list[Denoised]:
    return denoise_cached(name, METHODS, None)


def difference(found: Denoised, truth: Denoised) -> float:
    return float(np.abs(found.latents - truth.latents).max() / np.abs(truth.latents).max())


@pytest.mark.parametrize("layout", [ULYSSES, RING, BOTH], ids=str)
@pytest.mark.parametrize("name", ["wan2.1", "wan2.2", "ltx"])
def test_ranks_skip_the_blocks_that_one_device_skips(
    ranks: Ranks, name: str, layout: ParallelConfig
) -> None:
    truths = on_one_device(name)
    assert all(0 < sum(truth.decisions) < len(truth.decisions) for truth in truths)
    for of_rank in ranks.run(denoise_cached, name, METHODS, layout, num_ranks=layout.degree):
        assert [found.decisions for found in of_rank] == [truth.decisions for truth in truths]
        # The methods between them left nothing.
        assert np.array_equal(of_rank[0].latents, of_rank[2].latents)
        assert max(map(difference, of_rank, truths)) <= (
            0 if layout == ULYSSES and name != "ltx" else 1e-6
        )


@pytest.mark.parametrize("name", ["wan2.1", "ltx"])
def test_ranks_whose_own_parts_would_decide_differently_decide_by_the_whole_sequence(
    ranks: Ranks, name: str
) -> None:
    found = ranks.run(denoise_contested, name, ULYSSES, num_ranks=2)
    assert found[0].alone != found[1].alone
    assert found[0].together.decisions == found[1].together.decisions
    truth = denoise_alone(name, found[0].threshold)
    assert found[0].together.decisions == truth.decisions
    assert max(difference(contested.together, truth) for contested in found) <= 1e-6


# One rounding to the dtype.
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2**-8)])
def test_the_mean_of_parts_of_unequal_size_is_the_mean_of_the_whole(
    ranks: Ranks, dtype: str, tolerance: float
) -> None:
    truth = [whole.abs().mean().item() for whole in whole_tensors(dtype, 90)]
    found = ranks.run(means_of_parts, dtype, [30, 60], num_ranks=2)
    assert found[0] == found[1]
    assert found[0] == pytest.approx(truth, rel=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layout"), [("wan2.1", ULYSSES), ("wan2.2", RING), ("ltx", ULYSSES)], ids=str
)
def test_one_group_after_another_shards_compiled_blocks(
    ranks: Ranks, name: str, layout: ParallelConfig
) -> None:
    truths = on_one_device(name)[:1]
    for _generation in range(2):
        for of_rank in ranks.run(denoise_compiled, name, METHODS[:1], layout, num_ranks=2):
            assert [found.decisions for found in of_rank] == [truth.decisions for truth in truths]
            assert max(map(difference, of_rank, truths)) <= 1e-5
