"""The exchanges of a rank in one forward of a tiny model.

The model has two layers and four heads, the group two ranks or four.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore

from benchmarks.parallel_cost.counting import Collective, CollectiveCounter
from pipelines.parallel_config import ParallelConfig
from tests.builders.accelerated import NAG, THRESHOLD, denoise, tiny_model
from tests.pipelines.context_parallel import cases
from tests.pipelines.context_parallel.cases import Exchanged
from tests.pipelines.context_parallel.ranks import Ranks

NUM_LAYERS, WIDTH, OUT_CHANNELS, FLOAT_BYTES = 2, 4 * 12, 8, 4
WAN_TOKENS, WAN_PATCH = 3 * 4 * 4, 4
TOKEN_BYTES = WIDTH * FLOAT_BYTES


def exchanged(ranks: Ranks, model: str, method: str, layout: ParallelConfig) -> Exchanged:
    first, *others = ranks.run(cases.count, model, method, layout, num_ranks=layout.degree)
    assert all(other == first for other in others)
    return first


@pytest.mark.parametrize("layout", [ParallelConfig(2), ParallelConfig(4)], ids=str)
def test_wan_by_ulysses_exchanges_four_tensors_a_layer_and_gathers_once(
    ranks: Ranks, layout: ParallelConfig
) -> None:
    """Its cross-attention exchanges nothing, with diffusers' own processor or with NAG's."""
    tokens = WAN_TOKENS // layout.degree
    to_others = tokens * TOKEN_BYTES * (layout.degree - 1) // layout.degree
    output = tokens * OUT_CHANNELS * WAN_PATCH * FLOAT_BYTES * (layout.degree - 1)
    expected = Exchanged(
        {"all_to_all": 4 * NUM_LAYERS, "all_gather": 1},
        {"all_to_all": 4 * NUM_LAYERS * to_others, "all_gather": output},
    )
    assert exchanged(ranks, "wan2.1", "none", layout) == expected


def test_a_ring_gathers_keys_and_values_once_a_layer(ranks: Ranks) -> None:
    found = exchanged(ranks, "wan2.1", "none", ParallelConfig(1, 2))
    keys_and_values = 2 * (WAN_TOKENS // 2) * TOKEN_BYTES
    output = (WAN_TOKENS // 2) * OUT_CHANNELS * WAN_PATCH * FLOAT_BYTES
    assert found == Exchanged(
        {"all_gather": NUM_LAYERS + 1}, {"all_gather": NUM_LAYERS * keys_and_values + output}
    )


@pytest.mark.parametrize(
    "layout", [ParallelConfig(2), ParallelConfig(1, 2), ParallelConfig(2, 2)], ids=str
)
@pytest.mark.parametrize("model", ["wan2.1", "wan2.1-i2v", "ltx"])
def test_guidance_exchanges_nothing(ranks: Ranks, model: str, layout: ParallelConfig) -> None:
    plain = exchanged(ranks, model, "none", layout)
    for method in ("nag", "vsf", "nasa"):
        assert exchanged(ranks, model, method, layout) == plain


@pytest.mark.parametrize(
    ("layout", "ours", "stock"),
    [
        (
            ParallelConfig(2),
            {"all_to_all": 8, "all_gather": 1},
            {"all_to_all": 16, "all_gather": 1},
        ),
        (ParallelConfig(1, 2), {"all_gather": 3}, {"all_gather": 5}),
        (
            ParallelConfig(2, 2),
            {"all_to_all": 8, "all_gather": 3},
            {"all_to_all": 16, "all_gather": 5},
        ),
    ],
    ids=str,
)
def test_ltx_exchanges_less_than_by_diffusers_plan(
    ranks: Ranks, layout: ParallelConfig, ours: dict[str, int], stock: dict[str, int]
) -> None:
    """Without a mask, as diffusers' plan needs it."""
    for is_stock, expected in ((False, ours), (True, stock)):
        for found in ranks.run(
            cases.count_ltx_without_a_mask, layout, is_stock, num_ranks=layout.degree
        ):
            assert found.num_calls == expected


@pytest.fixture
def four_ranks() -> Iterator[None]:
    """Make a fake group of four ranks, of which only this process exists."""
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    yield
    distributed.destroy_process_group()


THREE, FOUR = torch.zeros(3), torch.zeros(4)  # float32
DIRECT: list[tuple[Callable[[], Any], Collective]] = [
    (lambda: distributed.all_reduce(THREE.clone()), Collective("all_reduce", 12, 4)),
    (lambda: distributed.broadcast(THREE.clone(), src=0), Collective("broadcast", 12, 4)),
    (
        lambda: distributed.all_gather([torch.zeros(3) for _ in range(4)], THREE),
        Collective("all_gather", 12, 4),
    ),
    (lambda: distributed.all_to_all_single(torch.zeros(4), FOUR), Collective("all_to_all", 16, 4)),
    (
        lambda: distributed.all_to_all([*torch.zeros(4, 1)], [*FOUR.split(1)]),
        Collective("all_to_all", 16, 4),
    ),
]


@pytest.mark.usefixtures("four_ranks")
@pytest.mark.parametrize(("call", "expected"), DIRECT)
def test_a_collective_that_is_called_directly_is_counted_with_its_input(
    call: Callable[[], Any], expected: Collective
) -> None:
    with CollectiveCounter() as counter:
        call()
    assert counter.collectives == [expected]


@pytest.mark.usefixtures("four_ranks")
def test_the_first_block_cache_exchanges_three_numbers_from_the_second_step_on() -> None:
    family = tiny_model("wan2.1", first_block_cache=THRESHOLD)
    family.shard(ParallelConfig(ring=4))
    with CollectiveCounter() as counter:
        denoise(family, NAG)
    family.unshard()
    found = [collective for collective in counter.collectives if collective.kind == "all_reduce"]
    assert found == [Collective("all_reduce", 12, 4)] * (NAG.sampling.num_inference_steps - 1)


def test_a_rank_sends_all_but_its_own_share() -> None:
    assert Collective("all_to_all", input_bytes=800, group_size=4).sent_bytes == 600
    assert Collective("all_gather", input_bytes=800, group_size=4).sent_bytes == 2400
    assert Collective("all_reduce", input_bytes=800, group_size=4).sent_bytes == 1200
