"""The counts of the cost model against the real classes, at full size on the meta device."""

from dataclasses import replace

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel, WanTransformer3DModel

from benchmarks.parallel_cost.cost_check import count_forward
from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.cost.operations import Forward, exchanges, forwards_of_step, operations, weight_bytes
from pipelines.cost.published import LTX_2B, WAN_1_3B, WAN_14B
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import GuidanceMethod, VideoShape

SMALL_WAN = replace(WAN_1_3B, num_layers=2)
SMALL_LTX = replace(LTX_2B, num_layers=3)
TINY_WAN = replace(WAN_1_3B, num_layers=2, num_heads=4, head_dim=12, ffn_dim=80, num_text_tokens=7)
# The feed-forward network of diffusers is 4 times as wide as a token.
TINY_LTX = replace(
    LTX_2B, num_layers=2, num_heads=4, head_dim=12, ffn_dim=4 * 48, num_text_tokens=7
)
# Wan 2.1's image encoder, whose tokens stand before 512 of text; VACE, with two reference images
TINY_IMAGES = replace(TINY_WAN, num_text_tokens=512, num_image_tokens=257)
TINY_VACE = replace(TINY_WAN, num_layers=5, num_control_layers=2, num_references=2)
P480, P720 = VideoShape(81, 480, 832), VideoShape(81, 720, 1280)
CUTS = (ParallelConfig(ulysses=4), ParallelConfig(ring=2), ParallelConfig(2, 2))
# each call of the transformer that any method makes, in either family
CALLS: list[tuple[ModelGeometry, VideoShape, GuidanceMethod]] = [
    (SMALL_WAN, P480, "none"),
    (SMALL_WAN, P480, "cfg+nag"),
    (SMALL_LTX, VideoShape(161, 512, 768), "nag"),
    (SMALL_LTX, VideoShape(161, 512, 768), "cfg"),
    (SMALL_LTX, VideoShape(161, 512, 768), "cfg+nag"),
    (TINY_WAN, VideoShape(9, 64, 64), "nag"),
    (TINY_LTX, VideoShape(25, 64, 64), "cfg+nag"),
    (TINY_IMAGES, VideoShape(13, 64, 64), "cfg+nag"),
    (TINY_VACE, VideoShape(13, 64, 64), "cfg+nag"),
]


def expected(
    forward: Forward, parallel: ParallelConfig
) -> tuple[int, dict[str, int], dict[str, int]]:
    found = exchanges(forward, parallel)
    return (
        operations(forward, parallel).total,
        {exchange.kind: exchange.num_calls for exchange in found},
        {exchange.kind: exchange.sent_bytes for exchange in found},
    )


@pytest.mark.parametrize("parallel", [ONE_DEVICE, *CUTS], ids=str)
@pytest.mark.parametrize(("geometry", "shape", "method"), CALLS)
def test_operations_of_the_layers_collectives_and_bytes_are_counted_exactly(
    geometry: ModelGeometry, shape: VideoShape, method: GuidanceMethod, parallel: ParallelConfig
) -> None:
    for forward in forwards_of_step(geometry, shape, method):
        counted = count_forward(forward, parallel)
        assert (counted.layer_operations, counted.num_calls, counted.sent_bytes) == expected(
            forward, parallel
        )


@pytest.mark.parametrize(
    ("geometry", "shape", "parallel"),
    [
        (WAN_1_3B, P480, ONE_DEVICE),
        (WAN_14B, P720, ParallelConfig(8)),
        (LTX_2B, P480, ParallelConfig(ring=6)),  # the fewest tokens on a rank
    ],
)
def test_at_full_size_less_than_three_thousandths_of_the_operations_are_left_out(
    geometry: ModelGeometry, shape: VideoShape, parallel: ParallelConfig
) -> None:
    forward = Forward(geometry, shape, num_guided_rows=1)
    counted, of_model = count_forward(forward, parallel), operations(forward, parallel).total
    assert counted.layer_operations == of_model
    assert of_model < counted.operations < 1.003 * of_model


@pytest.mark.parametrize("geometry", [SMALL_WAN, SMALL_LTX], ids=["wan", "ltx"])
def test_guidance_in_the_attention_sends_nothing_more(geometry: ModelGeometry) -> None:
    shape = VideoShape(161, 512, 768)
    plain, guided = (
        count_forward(Forward(geometry, shape, num_guided_rows=num_guided), ParallelConfig(2))
        for num_guided in (0, 1)
    )
    assert guided.operations > plain.operations
    assert (guided.num_calls, guided.sent_bytes) == (plain.num_calls, plain.sent_bytes)


def test_all_ranks_together_compute_as_much_as_one_device_except_for_the_text() -> None:
    forward = Forward(WAN_14B, P720, num_guided_rows=1)
    one, rank = operations(forward), operations(forward, ParallelConfig(8))
    assert 8 * (rank.total - rank.text) == one.total - one.text
    assert rank.text == one.text


def test_a_ring_of_four_sends_twice_as_much_as_ulysses_of_four() -> None:
    forward = Forward(WAN_14B, P480)
    (ring,) = exchanges(forward, ParallelConfig(ring=4))
    ulysses, _ = exchanges(forward, ParallelConfig(ulysses=4))
    assert ring.sent_bytes == pytest.approx(2 * ulysses.sent_bytes, rel=1e-3)


def test_one_device_sends_nothing() -> None:
    assert exchanges(Forward(WAN_14B, P480), ONE_DEVICE) == ()


@pytest.mark.parametrize(
    ("geometry", "build"),
    [
        (
            WAN_1_3B,
            lambda: WanTransformer3DModel(num_attention_heads=12, ffn_dim=8960, num_layers=30),
        ),
        (WAN_14B, WanTransformer3DModel),
        (LTX_2B, LTXVideoTransformer3DModel),
    ],
)
def test_the_weights_of_the_layers_are_nearly_all_of_the_published_models(
    geometry: ModelGeometry, build: type[torch.nn.Module]
) -> None:
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in build().parameters())
    assert weight_bytes(geometry, dtype_bytes=1) == pytest.approx(parameters, rel=0.025)


def test_a_model_with_two_transformers_holds_both_and_runs_one() -> None:
    two = replace(WAN_14B, num_transformers=2)
    assert weight_bytes(two) == 2 * weight_bytes(WAN_14B)
    assert operations(Forward(two, P480)) == operations(Forward(WAN_14B, P480))
