"""Several ranks render the clip of one process: tiny models of every kind, and the Shapes models.

With ulysses a rank computes the same sums as a single process, but for fewer tokens at once. The
CPU's kernels compute fewer than four rows, and the last rows of a block, in another order. Then
float32 differs by rounding, and also in a ring, which adds up parts of a softmax: by less than 1e-6
of the largest value.
"""

from functools import cache

import numpy as np
import pytest

from pipelines.attention.exact_attention import exact_attention
from pipelines.lora_choice import LoraChoice
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GuidanceMethod
from tests.pipelines.context_parallel import cases
from tests.pipelines.context_parallel.cases import Case, render_case, render_shapes
from tests.pipelines.context_parallel.ranks import EXCHANGE_TIMEOUT, Ranks

ULYSSES = [ParallelConfig(2), ParallelConfig(4)]
RINGS = [ParallelConfig(1, 2), ParallelConfig(2, 2)]
LAYOUTS = [*ULYSSES, *RINGS]
ROUNDING = 1e-6
# NAG off and on, CFG off and on, one clip and two: each pair of these occurs
FOUR = [("none", False, 1), ("nag", False, 2), ("none", True, 2), ("nag", True, 1)]
WAN = {"wan2.1": FOUR, "wan2.2": FOUR, "wan2.2-5b": FOUR[2:], "wan2.1-i2v": FOUR}
SHAPES: list[tuple[str, GuidanceMethod, ParallelConfig]] = [
    ("shapes-wan", "cfg+nag", ParallelConfig(4)),
    ("shapes-wan", "cfg+nag", ParallelConfig(2, 2)),
    ("shapes-wan-4step", "nag", ParallelConfig(2)),  # with its LoRA
    ("shapes-wan-4step", "nag", ParallelConfig(1, 2)),
    ("shapes-wan-4step", "vsf", ParallelConfig(2)),
    ("shapes-wan-4step", "nasa", ParallelConfig(1, 2)),
    ("shapes-ltx", "cfg+nag", ParallelConfig(4)),
    ("shapes-ltx", "cfg+nag", ParallelConfig(2, 2)),
]

alone = cache(render_case)
shapes_alone = cache(render_shapes)


@cache
def shapes_by_another_kernel(name: str, method: GuidanceMethod, num_steps: int = 3) -> np.ndarray:
    with exact_attention():
        return render_shapes(name, method, None, num_steps)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference, relative to the largest value."""
    return float(np.abs(one - other).max() / np.abs(other).max())


def on_every_rank(ranks: Ranks, rendered: list[Case], layout: ParallelConfig) -> list[np.ndarray]:
    """Return the latents of each case, after a check that all ranks have the very same."""
    first, *others = ranks.run(cases.render_sharded, rendered, layout, num_ranks=layout.degree)
    assert all(np.array_equal(a, b) for other in others for a, b in zip(first, other, strict=True))
    return first


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", ULYSSES, ids=str)
def test_wan_by_ulysses_is_bit_equal(ranks: Ranks, layout: ParallelConfig, dtype: str) -> None:
    rendered = [Case(model, *how, dtype) for model, ways in WAN.items() for how in ways]
    found = on_every_rank(ranks, rendered, layout)
    assert [
        case
        for case, latents in zip(rendered, found, strict=True)
        if difference(latents, alone(case))
    ] == []


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_ltx_differs_by_rounding_also_with_padded_masks(
    ranks: Ranks, layout: ParallelConfig
) -> None:
    rendered = [Case("ltx", *how, size_px=32) for how in FOUR]
    for case, latents in zip(rendered, on_every_rank(ranks, rendered, layout), strict=True):
        assert difference(latents, alone(case)) < ROUNDING, case


@pytest.mark.parametrize("layout", RINGS, ids=str)
def test_wan_by_a_ring_differs_by_rounding(ranks: Ranks, layout: ParallelConfig) -> None:
    rendered = [Case(model, *how) for model, ways in WAN.items() for how in ways]
    for case, latents in zip(rendered, on_every_rank(ranks, rendered, layout), strict=True):
        assert difference(latents, alone(case)) < ROUNDING, case


@pytest.mark.parametrize("layout", [ParallelConfig(2), ParallelConfig(1, 2)], ids=str)
def test_clips_that_begin_with_images_or_videos_are_those_of_one_process(
    ranks: Ranks, layout: ParallelConfig
) -> None:
    """With ulysses bit for bit. The control video of VACE is split with the clip."""
    size_px = {"wan2.2-5b-i2v": 128}  # a token is 32 px wide
    rendered = [
        Case(model, "nag", has_cfg=True, size_px=size_px.get(model, 64))
        for model in cases.WITH_INPUTS
    ]
    for case, latents in zip(rendered, on_every_rank(ranks, rendered, layout), strict=True):
        assert difference(latents, alone(case)) <= (0 if layout.ring == 1 else ROUNDING), case


def test_wan_by_ulysses_differs_by_rounding_where_a_rank_has_three_tokens(ranks: Ranks) -> None:
    rendered = [Case("wan2.1", *how, size_px=32) for how in FOUR]
    for case, latents in zip(
        rendered, on_every_rank(ranks, rendered, ParallelConfig(4)), strict=True
    ):
        assert difference(latents, alone(case)) < ROUNDING, case


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_in_bfloat16_sharding_changes_about_as_much_as_bfloat16_itself(
    ranks: Ranks, layout: ParallelConfig
) -> None:
    """Another rounding in float32 can change one in bfloat16, and the next layers carry it on."""
    # Wan by ulysses is bit-equal.
    models = ["ltx"] if layout.ring == 1 else ["ltx", "wan2.1", "wan2.2"]
    rendered = [Case(model, *how, "bfloat16", size_px=32) for model in models for how in FOUR]
    for case, latents in zip(rendered, on_every_rank(ranks, rendered, layout), strict=True):
        exact = alone(Case(case.model, case.method, case.has_cfg, case.batch_size, size_px=32))
        assert difference(latents, alone(case)) < 2 * difference(alone(case), exact), case
        assert difference(latents, exact) < 2 * difference(alone(case), exact), case


@pytest.mark.models
@pytest.mark.parametrize(("name", "method", "layout"), SHAPES, ids=str)
def test_a_trained_model_renders_the_same_clip(
    ranks: Ranks, name: str, method: GuidanceMethod, layout: ParallelConfig
) -> None:
    """The family loads the model, with every guidance method and with a LoRA.

    Guidance carries rounding on from step to step. A ring changes a clip about as much as another
    attention kernel on one process does.
    """
    expected = shapes_alone(name, method, None)
    by_another_kernel = difference(shapes_by_another_kernel(name, method), expected)
    for latents in ranks.run(render_shapes, name, method, layout, num_ranks=layout.degree):
        if layout.ring == 1:
            assert difference(latents, expected) <= (
                0 if name.startswith("shapes-wan") else ROUNDING
            )
        else:
            assert difference(latents, expected) < 3 * by_another_kernel < 2e-5


@pytest.mark.models
def test_every_rank_switches_to_the_loras_of_a_clip(ranks: Ranks) -> None:
    """The LoRA is fused, so that each rank reads its weights again."""
    choices: list[tuple[LoraChoice, ...] | None] = [(), (LoraChoice("few-step", 0.5),), None]
    rendered: list[np.ndarray] = []
    for choice in choices:
        call = ("shapes-wan-4step", "nag", ParallelConfig(2), 2, choice)
        expected = shapes_alone("shapes-wan-4step", "nag", None, 2, choice)
        for latents in ranks.run(render_shapes, *call, num_ranks=2):
            assert np.array_equal(latents, expected), choice
        rendered.append(expected)
    assert min(difference(one, rendered[-1]) for one in rendered[:-1]) > 0.01


@pytest.mark.models
@pytest.mark.parametrize("name", ["shapes-wan", "shapes-ltx"])
def test_one_step_of_a_trained_model_in_a_ring_differs_by_rounding(ranks: Ranks, name: str) -> None:
    """Another kernel on one process differs as much: about 1e-6, depending on the processor."""
    expected = shapes_alone(name, "cfg+nag", None, 1)
    by_another_kernel = difference(shapes_by_another_kernel(name, "cfg+nag", 1), expected)
    for latents in ranks.run(render_shapes, name, "cfg+nag", ParallelConfig(2, 2), 1, num_ranks=4):
        assert difference(latents, expected) < 1.5 * by_another_kernel < 3e-6


@pytest.mark.parametrize("layout", [ParallelConfig(2), ParallelConfig(1, 2)], ids=str)
@pytest.mark.parametrize("model", ["wan2.1", "ltx"])
def test_nag_may_be_installed_before_sharding_and_removed_after_it_or_before(
    ranks: Ranks, model: str, layout: ParallelConfig
) -> None:
    case = Case(model, "nag")
    for guided, unshard, unguided in ranks.run(
        cases.render_sharded_with_nag_installed_before, case, layout, num_ranks=2
    ):
        assert difference(guided, alone(case)) < ROUNDING
        assert np.array_equal(unshard, alone(case))
        assert difference(unguided, alone(Case(model))) < ROUNDING


@pytest.mark.parametrize("layout", [ParallelConfig(2, 2), ParallelConfig(4)], ids=str)
@pytest.mark.parametrize("model", ["wan2.2", "ltx"])
def test_an_unsharded_pipeline_renders_bit_for_bit_the_same_as_before_sharding(
    ranks: Ranks, model: str, layout: ParallelConfig
) -> None:
    """It does so without a process group too, and the next group shards the same pipeline again."""
    case = Case(model, "nag", has_cfg=True)
    for rendered, left in ranks.run(
        cases.render_alone_after_sharding, case, layout, num_ranks=layout.degree
    ):
        assert np.array_equal(rendered, alone(case))
        assert left == []
    again = on_every_rank(ranks, [case], layout)
    assert difference(again[0], alone(case)) < ROUNDING


@pytest.mark.parametrize("layout", RINGS, ids=str)
@pytest.mark.parametrize("model", ["wan2.1", "ltx"])
def test_exact_attention_acts_in_a_ring_too(
    ranks: Ranks, model: str, layout: ParallelConfig
) -> None:
    case = Case(model, "nag", size_px=32)
    for rendered, num_fused in ranks.run(
        cases.render_exactly, case, layout, num_ranks=layout.degree
    ):
        assert difference(rendered, alone(case)) < ROUNDING
        assert num_fused == 0


@pytest.mark.parametrize("layout", [ParallelConfig(2), ParallelConfig(2, 2)], ids=str)
def test_a_rank_that_destroys_its_process_group_frees_the_others_at_once(
    ranks: Ranks, layout: ParallelConfig
) -> None:
    """Every pipeline is still sharded then: a sharded pipeline keeps no connection open."""
    waited_s = ranks.run(cases.fail_on_the_last_rank, layout, num_ranks=layout.degree)
    assert max(waited_s) < EXCHANGE_TIMEOUT.total_seconds() / 4


@pytest.mark.parametrize("layout", [ParallelConfig(2), ParallelConfig(2, 2)], ids=str)
def test_no_exchange_waits_longer_than_the_default_group_does(
    ranks: Ranks, layout: ParallelConfig
) -> None:
    """By default torch gives a further group its own time-out of 30 minutes."""
    for found in ranks.run(cases.timeouts, layout, num_ranks=layout.degree):
        assert found == [EXCHANGE_TIMEOUT] * 3


def test_a_pipeline_that_cannot_be_sharded_is_refused(ranks: Ranks) -> None:
    layout = ParallelConfig(2)
    for size, heads, twice, backend in ranks.run(cases.refusals, "wan2.1", layout, num_ranks=2):
        assert size == "ulysses 8 is for 8 ranks, but the process group has 2"
        assert heads == "ulysses must divide the 3 attention heads (1, 3), got 2"
        assert twice == (
            "this pipeline is sharded already; call remove() of its ShardedPipeline first"
        )
        assert "the attention backend flex cannot be sharded as ulysses 2: use one of" in backend
