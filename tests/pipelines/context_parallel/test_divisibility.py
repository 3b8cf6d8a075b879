"""A clip that does not divide over a group is refused, and each suggested group is accepted."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipelines.catalog.keys.pipeline_classes import PIPELINE_CLASSES
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.context_parallel.backends import SHARDABLE_BACKENDS
from pipelines.context_parallel.divisibility import (
    as_many_ranks,
    check_backend,
    check_parallel,
    describe_degrees,
    divisors,
    fitting_degrees,
    fitting_shapes,
    is_text_biased,
    nearest_divisors,
)
from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.context_parallel.sharding import PIPELINES
from pipelines.errors import ModelConfigError, RequestError
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import MAX_FRAMES, MAX_SIDE_PX, GenerationRequest, VideoShape
from tests.builders.accelerated import NAG

DOCUMENT = (
    Path(__file__).parents[3] / "docs" / "explanation" / "context-parallelism.md"
).read_text()
WAN_1_3B = ModelGeometry("wan", 30, 12, 128, 8960, 512, 4, 16, 16)
WAN_14B = ModelGeometry("wan", 40, 40, 128, 13824, 512, 4, 16, 16)
WAN_480P, WAN_720P = VideoShape(81, 480, 832), VideoShape(81, 720, 1280)
LTX = ModelGeometry("ltx", 28, 32, 64, 8192, 128, 8, 32, 32)


def model(name: str, num_frames: int = 4, height: int = 16, width: int = 16) -> ModelConfig:
    return ModelConfig(
        name,
        "wan",
        "a/b",
        ShapeGrid(num_frames, height, width),
        SamplingDefaults(2, 1.0, 5, 32, 32, 8.0),
    )


def test_for_heads_that_do_not_divide_another_group_on_as_many_devices_is_suggested() -> None:
    with pytest.raises(
        RequestError,
        match=r"ulysses 1, 2, 3, 4, 6 or 12 can .* ulysses 4 x ring 2 on as many devices",
    ):
        check_parallel(ParallelConfig(8), WAN_1_3B, WAN_480P, model("m"))


@pytest.mark.parametrize(
    "name", [one.name for one in PIPELINE_CLASSES.values() if not one.can_shard]
)
def test_a_pipeline_without_a_plan_for_ranks_is_refused_before_anything_is_counted(
    name: str,
) -> None:
    config = replace(model("m"), family=PIPELINE_CLASSES[name].family, pipeline=name)
    with pytest.raises(RequestError) as refused:
        check_parallel(ParallelConfig(2), WAN_14B, WAN_480P, config)
    assert str(refused.value) == (
        f"parallel is ulysses 2, but {name} renders a clip of m on one device: leave parallel out"
    )
    check_parallel(ONE_DEVICE, WAN_14B, WAN_480P, config)


def test_the_pipelines_that_plans_admit_are_those_that_ranks_can_shard() -> None:
    """LTX with conditions and LTX-2 are left out: their tokens are not those of a plan."""
    assert {one.name for one in PIPELINE_CLASSES.values() if one.can_shard} == {*PIPELINES}


def test_reference_images_count_as_frames_of_tokens() -> None:
    """21 frames of latents divide by 3 and 7; with two images before them there are 23."""
    config, ring, size = model("m"), ParallelConfig(ring=7), VideoShape(81, 16, 16)
    check_parallel(ring, WAN_1_3B, size, config)
    with pytest.raises(RequestError, match="23 tokens that a clip of .* with 2 reference images"):
        check_parallel(ring, replace(WAN_1_3B, num_references=2), size, config)


@pytest.mark.parametrize("number", [0, -1, -(10**5000), 10**19 + 1, 10**5000], ids=range(5))
def test_an_impossible_number_of_ranks_is_refused(number: int) -> None:
    with pytest.raises(
        ModelConfigError, match=r"parallel\.ring must be at (least 1|most 10+), not"
    ):
        ParallelConfig(ring=number)


def is_accepted(parallel: ParallelConfig, geometry: ModelGeometry, shape: VideoShape) -> bool:
    try:
        check_parallel(parallel, geometry, shape, model("m"))
    except RequestError:
        return False
    return True


@pytest.mark.parametrize(
    ("geometry", "shape", "ulysses"),
    [
        (WAN_1_3B, WAN_480P, [1, 2, 3, 4, 6]),
        (WAN_14B, WAN_480P, [1, 2, 4, 5, 8]),
        (WAN_14B, WAN_720P, [1, 2, 4, 5, 8]),
        (LTX, VideoShape(161, 512, 768), [1, 2, 4, 8]),
    ],
)
def test_degrees_up_to_8_that_divide_heads_and_tokens_are_accepted(
    geometry: ModelGeometry, shape: VideoShape, ulysses: list[int]
) -> None:
    accepted = [
        degree for degree in range(1, 9) if is_accepted(ParallelConfig(degree), geometry, shape)
    ]
    assert accepted == ulysses


@pytest.mark.parametrize(
    ("geometry", "shape", "num_tokens"),
    [
        (WAN_1_3B, WAN_480P, 32_760),
        (WAN_14B, WAN_480P, 32_760),
        (WAN_14B, WAN_720P, 75_600),
        (LTX, VideoShape(161, 512, 768), 8_064),
        (ModelGeometry("wan", 5, 4, 32, 512, 48, 4, 16, 16), VideoShape(17, 64, 64), 80),
    ],
)
def test_the_tokens_of_the_models_are_as_documented(
    geometry: ModelGeometry, shape: VideoShape, num_tokens: int
) -> None:
    assert geometry.num_tokens(shape) == num_tokens
    rows = [line for line in DOCUMENT.splitlines() if f"{num_tokens:,} at {shape}" in line]
    assert any(f"| {geometry.num_heads} |" in row for row in rows)


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        (ParallelConfig(8), "the 12 attention heads of wan cannot be shared by 8 ranks"),
        (ParallelConfig(8), "8 ranks: ulysses 1, 2, 3, 4, 6 or 12 can at this size"),
        (ParallelConfig(1, 16), "16 ranks: ring 15 or 18 can at this size, and 16 ranks"),
        (ParallelConfig(1, 16), "and 16 ranks at height 448, width 768 or num_frames 77"),
        (
            ParallelConfig(4, 4),
            "ulysses 1, 2, 3 or 6 with ring 4 can at this size, and 16 ranks at height 448",
        ),
        (
            ParallelConfig(4, 11),
            "44 ranks: ring 10 or 13 with ulysses 4 can at this size, and 44 ranks at height 528",
        ),
        (
            ParallelConfig(5, 11),
            "the 12 attention heads of wan cannot be shared by 5 ranks: ulysses 4 with ring 13 can",
        ),
        (
            ParallelConfig(1, 16),
            "ring 16, but the 32,760 tokens that a clip of 832x480x81 has in wan cannot be",
        ),
        (ParallelConfig(10**18, 10**18), "ranks: "),
    ],
)
def test_a_group_that_does_not_fit_is_refused_with_the_numbers_and_groups_that_do(
    parallel: ParallelConfig, message: str
) -> None:
    with pytest.raises(RequestError) as caught:
        check_parallel(parallel, WAN_1_3B, WAN_480P, model("wan"))
    assert message in str(caught.value)


def test_a_size_without_a_whole_token_is_refused() -> None:
    with pytest.raises(
        RequestError, match="a clip of 16x16x5 has no token of m to share; make it larger$"
    ):
        check_parallel(ParallelConfig(2), LTX, VideoShape(5, 16, 16), model("m"))


def test_one_device_is_never_refused() -> None:
    check_parallel(ONE_DEVICE, LTX, VideoShape(5, 16, 16), model("m"))


def test_for_a_ring_alone_other_rings_are_suggested() -> None:
    choices = fitting_degrees(ParallelConfig(1, 11), WAN_14B, WAN_720P)
    assert choices == (ParallelConfig(1, 10), ParallelConfig(1, 12))
    assert describe_degrees(choices) == "ring 10 or 12"


def test_for_a_group_across_hosts_groups_across_hosts_are_suggested() -> None:
    choices = fitting_degrees(ParallelConfig(8, across_hosts=True), WAN_1_3B, WAN_480P)
    assert choices == (
        ONE_DEVICE,
        *(ParallelConfig(number, across_hosts=True) for number in (2, 3, 4, 6, 12)),
    )


@pytest.mark.parametrize(
    ("parallel", "is_shown"),
    [
        (ParallelConfig(8, across_hosts=True), True),
        (ParallelConfig(8), False),
        (ParallelConfig(1, 16, across_hosts=True), False),
    ],
)
def test_the_suggestion_of_one_device_leaves_out_across_hosts(
    parallel: ParallelConfig, is_shown: bool
) -> None:
    with pytest.raises(RequestError) as caught:
        check_parallel(parallel, WAN_1_3B, WAN_480P, model("m"))
    assert (" can at this size (1 without across_hosts)" in str(caught.value)) == is_shown


def test_one_device_across_hosts_is_refused() -> None:
    with pytest.raises(ModelConfigError, match="give ulysses or ring above 1"):
        ParallelConfig(across_hosts=True)


@pytest.mark.parametrize(
    ("parallel", "backend"),
    [
        (ONE_DEVICE, "flex"),
        (ParallelConfig(2), None),
        (ParallelConfig(2), "native"),
        (ParallelConfig(2), "_native_npu"),
        (ParallelConfig(1, 2), "native"),
        (ParallelConfig(2, 2), "_native_flash"),
    ],
)
def test_a_backend_that_can_be_sharded_is_accepted(
    parallel: ParallelConfig, backend: str | None
) -> None:
    check_backend(parallel, backend)


@pytest.mark.parametrize(
    ("parallel", "backend"),
    [
        (ParallelConfig(2), "flex"),
        (ParallelConfig(2), "xformers"),
        (ParallelConfig(2), "Native"),
        (ParallelConfig(2), ""),
        (ParallelConfig(1, 2), "_native_npu"),
        (ParallelConfig(2, 2), "_native_npu"),
    ],
)
def test_a_backend_that_cannot_be_sharded_is_refused_and_each_suggested_one_is_accepted(
    parallel: ParallelConfig, backend: str
) -> None:
    with pytest.raises(
        RequestError, match=f"DIFFUSERS_ATTN_BACKEND is '{backend}', .* unset it, or use"
    ) as caught:
        check_backend(parallel, backend)
    named = str(caught.value).rpartition("use one of ")[2].split(", ")
    assert "native" in named
    for other in named:
        check_backend(parallel, other)


@pytest.mark.parametrize("backend", sorted(SHARDABLE_BACKENDS))
def test_a_backend_that_adds_nothing_to_the_logits_of_text_is_refused_for_text_with_a_bias(
    backend: str,
) -> None:
    if backend in ("native", "_native_cudnn"):
        check_backend(ParallelConfig(2), backend, has_text_bias=True)
        return
    with pytest.raises(
        RequestError,
        match=f"DIFFUSERS_ATTN_BACKEND is '{backend}', .* use one of _native_cudnn, native$",
    ):
        check_backend(ParallelConfig(2), backend, has_text_bias=True)


@pytest.mark.parametrize(
    ("family", "request_", "is_added"),
    [
        ("ltx", NAG, True),
        ("wan", NAG, False),
        ("wan", replace(NAG, method="vsf"), True),
        ("wan", replace(NAG, method="vsf", negative_prompt=""), False),
        ("wan", replace(NAG, method="nasa"), False),
    ],
)
def test_ltx_and_value_sign_flip_add_to_the_logits_of_text(
    family: Literal["wan", "ltx"], request_: GenerationRequest, is_added: bool
) -> None:
    assert is_text_biased(family, request_) == is_added


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ([(1, 1)], "ulysses 1"),
        ([(1, 1), (2, 1), (4, 1)], "ulysses 1, 2 or 4"),
        ([(1, 4), (2, 4)], "ulysses 1 or 2 with ring 4"),
        ([(1, 4), (1, 6)], "ring 4 or 6"),
        ([(2, 4), (2, 6)], "ring 4 or 6 with ulysses 2"),
        ([(2, 1), (2, 6)], "ring 1 or 6 with ulysses 2"),
    ],
)
def test_the_text_about_groups_that_fit_names_each_of_them(
    choices: list[tuple[int, int]], text: str
) -> None:
    assert describe_degrees(tuple(ParallelConfig(*choice) for choice in choices)) == text


@given(st.integers(1, 5000))
def test_divisors_are_all_numbers_that_divide(number: int) -> None:
    assert divisors(number) == [
        divisor for divisor in range(1, number + 1) if number % divisor == 0
    ]


@given(st.integers(1, 5000), st.integers(1, 6000))
def test_nearest_divisors_are_the_ones_next_to_a_number(number: int, wanted: int) -> None:
    found = nearest_divisors(number, wanted)
    all_of_them = divisors(number)
    assert found[0] == max(divisor for divisor in all_of_them if divisor <= wanted)
    assert found[1:] == [divisor for divisor in all_of_them if divisor > wanted][:1]


geometries = st.builds(
    ModelGeometry,
    family=st.just("wan"),
    num_layers=st.just(2),
    num_heads=st.integers(1, 64),
    head_dim=st.just(64),
    ffn_dim=st.just(256),
    num_text_tokens=st.just(512),
    frames_per_token=st.sampled_from([1, 4, 8]),
    height_per_token=st.sampled_from([1, 16, 32]),
    width_per_token=st.sampled_from([16, 32]),
)
parallels = st.builds(ParallelConfig, st.integers(1, 40), st.integers(1, 40)) | st.builds(
    ParallelConfig, st.integers(2, 10**19), st.integers(1, 10**19), st.booleans()
)
shapes = st.builds(
    VideoShape,
    st.integers(0, 40).map(lambda k: 8 * k + 1),
    *[st.integers(1, 256).map(lambda k: 32 * k)] * 2,
)
GRID = ShapeGrid(8, 32, 32)


@given(geometries, parallels, shapes)
def test_a_group_is_accepted_exactly_where_heads_and_tokens_divide(
    geometry: ModelGeometry, parallel: ParallelConfig, shape: VideoShape
) -> None:
    divides = (
        geometry.num_heads % parallel.ulysses == 0
        and geometry.num_tokens(shape) % parallel.degree == 0
    )
    assert is_accepted(parallel, geometry, shape) == divides


@given(geometries, parallels, shapes)
def test_each_suggestion_is_accepted_and_is_in_the_message(
    geometry: ModelGeometry, parallel: ParallelConfig, shape: VideoShape
) -> None:
    config = model("m", GRID.num_frames, GRID.height, GRID.width)
    assume(not is_accepted(parallel, geometry, shape))
    with pytest.raises(RequestError) as caught:
        check_parallel(parallel, geometry, shape, config)
    degrees = fitting_degrees(parallel, geometry, shape)
    assert degrees
    for degree in degrees:
        check_parallel(degree, geometry, shape, config)
    assert describe_degrees(degrees) in str(caught.value)
    as_many = as_many_ranks(parallel, geometry, shape)
    if as_many is not None:
        check_parallel(as_many, geometry, shape, config)
        assert as_many.degree == parallel.degree
        assert f"{as_many} on as many devices" in str(caught.value)
    if geometry.num_heads % parallel.ulysses:
        return
    for size in fitting_shapes(parallel, geometry, shape, GRID):
        check_parallel(parallel, geometry, size, config)
        changed = [
            name
            for name in ("num_frames", "height", "width")
            if getattr(size, name) != getattr(shape, name)
        ]
        assert len(changed) == 1
        assert f"{changed[0]} {getattr(size, changed[0])}" in str(caught.value)
        assert (size.num_frames % 8, size.height % 32, size.width % 32) == (1, 0, 0)


@given(geometries, st.integers(2, 30), shapes)
def test_the_suggested_size_is_the_nearest_of_its_kind(
    geometry: ModelGeometry, ring: int, shape: VideoShape
) -> None:
    parallel = ParallelConfig(1, ring)
    assume(not is_accepted(parallel, geometry, shape))
    for size in fitting_shapes(parallel, geometry, shape, GRID):
        (name,) = (
            name
            for name in ("num_frames", "height", "width")
            if getattr(size, name) != getattr(shape, name)
        )
        step, wanted, found = getattr(GRID, name), getattr(shape, name), getattr(size, name)
        for nearer in range(step, abs(found - wanted), step):
            for side in (wanted - nearer, wanted + nearer):
                most = MAX_FRAMES if name == "num_frames" else MAX_SIDE_PX
                if 1 <= side <= most:
                    assert geometry.num_tokens(replace(shape, **{name: side})) % ring


def test_on_a_grid_of_single_pixels_even_sizes_alone_are_suggested() -> None:
    geometry = replace(LTX, height_per_token=1, width_per_token=1)
    sizes = fitting_shapes(
        ParallelConfig(1, 7), geometry, VideoShape(1, 32, 32), ShapeGrid(8, 1, 1)
    )
    assert [(size.num_frames, size.height, size.width) for size in sizes] == [
        (1, 28, 32),
        (1, 32, 28),
        (49, 32, 32),
    ]
