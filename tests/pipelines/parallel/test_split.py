"""Several ranks render what one process renders."""

from functools import cache
from itertools import product

import numpy as np
import pytest

from pipelines.parallel.config import ParallelConfig
from tests.pipelines.parallel.cases import MAKERS, Case, render_case, render_split
from tests.pipelines.parallel.ranks import Ranks

LAYOUTS = [ParallelConfig(2), ParallelConfig(4), ParallelConfig(1, 2), ParallelConfig(2, 2)]

reference = cache(render_case)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("model", list(MAKERS))
def test_explore(ranks: Ranks, model: str, layout: ParallelConfig) -> None:
    cases = [
        Case(model, method, has_cfg, batch_size, dtype)
        for dtype, method, has_cfg, batch_size in product(
            ("float32", "bfloat16"), ("none", "nag"), (False, True), (1, 2)
        )
    ]
    results = ranks.run(render_split, cases, layout, num_ranks=layout.degree)
    for i, case in enumerate(cases):
        alone = reference(case)
        d = max(np.abs(r[i] - alone).max() / np.abs(alone).max() for r in results)
        same = all(np.array_equal(r[i], results[0][i]) for r in results)
        f32 = reference(Case(model, case.method, case.has_cfg, case.batch_size))
        e = np.abs(f32 - alone).max() / np.abs(alone).max()
        print(layout, case, d, same, e)
