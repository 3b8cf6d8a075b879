"""Divisibility: a clip's tokens and a model's heads over the ranks of a group, and near groups.

All ranks take equally many video tokens, and with ulysses equally many attention heads. diffusers
has ways around both rules (`ulysses_anything`), which cost gathers, do not compile and fail on
gloo: they are not used. The number of devices of a cluster is not known here. Loads without torch.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

from nag.params import VsfParams
from pipelines.catalog.keys.pipeline_classes import Family
from pipelines.catalog.model_config import ModelConfig, ShapeGrid
from pipelines.context_parallel.backends import backends_for
from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.errors import RequestError
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import MAX_FRAMES, MAX_SIDE_PX, GenerationRequest, VideoShape

BACKEND_VARIABLE = "DIFFUSERS_ATTN_BACKEND"  # diffusers reads it when it is imported
MAX_GRID_STEPS = 64  # the search for a near size ends here


def check_parallel(
    parallel: ParallelConfig, geometry: ModelGeometry, shape: VideoShape, config: ModelConfig
) -> None:
    """Refuse a group over which a clip cannot be sharded evenly.

    A group that fits costs two divisions, so that a million rows can be checked.

    Args:
        parallel: the group.
        geometry: the model's tokens and heads.
        shape: the clip's size, on the model's grid.
        config: the model, for its name and grid.

    Raises:
        RequestError: the message has the numbers, and the nearest groups and sizes that fit.
    """
    if parallel.degree > 1 and not config.pipeline_class.can_shard:
        raise RequestError.of(
            f"parallel is {parallel}, but {config.pipeline_class.name} renders a clip of "
            f"{config.name} on one device: leave parallel out",
            "parallel",
        )
    if parallel.degree > 1 and not config.can_be_sharded:
        raise RequestError.of(
            f"parallel is {parallel}, but {config.name} has offload: {config.offload}, which keeps "
            "its transformer off the device: leave one of them out, or use offload: text_encoder",
            "parallel",
        )
    indivisible = find_indivisible(parallel, geometry, shape)
    if indivisible is None:
        return
    num_tokens = geometry.num_tokens(shape)
    sizes_at_fault = () if indivisible == "heads" else ("height", "width", "num_frames")
    if num_tokens == 0:
        raise RequestError.of(
            f"parallel is {parallel}, but a clip of {shape} has no token of {config.name} to share"
            "; make it larger",
            "parallel",
            *sizes_at_fault,
        )
    if indivisible == "heads":
        fault = (
            f"parallel is {parallel}, but the {geometry.num_heads} attention heads of "
            f"{config.name} cannot be shared by {parallel.ulysses} ranks"
        )
        sizes: tuple[VideoShape, ...] = ()  # the heads do not depend on the size
    else:
        fault = (
            f"parallel is {parallel}, but the {num_tokens:,} tokens that a clip of {shape}"
            f"{_references(geometry)} has in {config.name} cannot be shared by "
            f"{parallel.degree} ranks"
        )
        sizes = fitting_shapes(parallel, geometry, shape, config.grid)
    degrees = fitting_degrees(parallel, geometry, shape)
    remedy = f"{describe_degrees(degrees)} can at this size"
    if parallel.across_hosts and ONE_DEVICE in degrees:
        remedy += " (1 without across_hosts)"
    as_many = as_many_ranks(parallel, geometry, shape)
    if as_many is not None:
        remedy += f", and {as_many} on as many devices"
    if sizes:
        remedy += (
            f", and {parallel.degree} ranks at {_either(_change(shape, size) for size in sizes)}"
        )
    raise RequestError.of(f"{fault}: {remedy}", "parallel", *sizes_at_fault)


def find_indivisible(
    parallel: ParallelConfig, geometry: ModelGeometry, shape: VideoShape
) -> Literal["heads", "tokens"] | None:
    """Return the part of a clip that the ranks do not divide evenly, or None if they divide all."""
    if parallel.degree == 1:
        return None
    if geometry.num_heads % parallel.ulysses:
        return "heads"
    num_tokens = geometry.num_tokens(shape)
    return "tokens" if num_tokens == 0 or num_tokens % parallel.degree else None


def is_text_biased(family: Family, request: GenerationRequest) -> bool:
    """Return True if the logits of the text get LTX's mask or the bias of Value Sign Flip."""
    return family in ("ltx", "ltx2") or isinstance(request.attention_params, VsfParams)


def check_backend(
    parallel: ParallelConfig, backend: str | None, *, has_text_bias: bool = False
) -> None:
    """Refuse a group whose attention backend cannot be sharded, or would ignore the text.

    Args:
        parallel: the group.
        backend: the value of `BACKEND_VARIABLE` in the environment; None if it is not set.
        has_text_bias: True if the clip's text has a mask or a bias.

    Raises:
        RequestError: the message names the backends that fit.
    """
    fit = backends_for(parallel.ring, has_text_bias=has_text_bias)
    if parallel.degree == 1 or backend is None or backend in fit:
        return
    is_shardable = backend in backends_for(parallel.ring)
    fault = (
        "takes no mask on the text, which LTX and the method vsf need"
        if is_shardable
        else "cannot render one clip on several devices"
    )
    raise RequestError.of(
        f"{BACKEND_VARIABLE} is {backend!r}, which {fault}; parallel asks for {parallel}: "
        f"unset it, or use one of {', '.join(sorted(fit))}",
        "parallel",
    )


def fitting_degrees(
    parallel: ParallelConfig, geometry: ModelGeometry, shape: VideoShape
) -> tuple[ParallelConfig, ...]:
    """Return groups that fit the clip and are near to one that does not, smallest first.

    If ulysses was requested: all numbers of ulysses ranks that fit the same ring. Else, or if none
    fits: the next smaller and the next larger ring. If neither fits: the pair nearest in ranks.

    Returns:
        At least one group.
    """
    heads, tokens = geometry.num_heads, geometry.num_tokens(shape)
    shared = [number for number in divisors(heads) if tokens % number == 0]
    if parallel.ulysses > 1:
        found = [number for number in shared if tokens % (number * parallel.ring) == 0]
        if found:
            return tuple(_sized(parallel, number, parallel.ring) for number in found)
    if parallel.ulysses in shared:
        rings = nearest_divisors(tokens // parallel.ulysses, parallel.ring)
        return tuple(_sized(parallel, parallel.ulysses, number) for number in rings)
    pairs = [
        (number, ring)
        for number in shared
        for ring in nearest_divisors(tokens // number, parallel.ring)
    ]
    return (
        _sized(parallel, *min(pairs, key=lambda pair: abs(pair[0] * pair[1] - parallel.degree))),
    )


def as_many_ranks(
    parallel: ParallelConfig, geometry: ModelGeometry, shape: VideoShape
) -> ParallelConfig | None:
    """Return a group with as many ranks, most of them ulysses, or None if none fits."""
    degree, num_tokens = parallel.degree, geometry.num_tokens(shape)
    shared = [number for number in divisors(geometry.num_heads) if degree % number == 0]
    return _sized(parallel, shared[-1], degree // shared[-1]) if num_tokens % degree == 0 else None


def fitting_shapes(
    parallel: ParallelConfig, geometry: ModelGeometry, shape: VideoShape, grid: ShapeGrid
) -> tuple[VideoShape, ...]:
    """Return the nearest sizes that fit the group: height, width and num_frames changed alone."""
    steps = {"height": grid.height, "width": grid.width, "num_frames": grid.num_frames}
    nearest = (
        next(
            (
                near
                for near in _neighbours(shape, name, step)
                if find_indivisible(parallel, geometry, near) is None
            ),
            None,
        )
        for name, step in steps.items()
    )
    return tuple(found for found in nearest if found is not None)


def describe_degrees(choices: tuple[ParallelConfig, ...]) -> str:
    """Return a text such as "ulysses 1, 2 or 4 with ring 2".

    Args:
        choices: groups from `fitting_degrees`, which have the same ulysses or the same ring.
    """
    ulysses, rings = {choice.ulysses for choice in choices}, {choice.ring for choice in choices}
    if rings == {1}:
        return f"ulysses {_either(str(choice.ulysses) for choice in choices)}"
    if ulysses == {1}:
        return f"ring {_either(str(choice.ring) for choice in choices)}"
    if len(rings) == 1:
        words = _either(str(choice.ulysses) for choice in choices)
        return f"ulysses {words} with ring {choices[0].ring}"
    words = _either(str(choice.ring) for choice in choices)
    return f"ring {words} with ulysses {choices[0].ulysses}"


def divisors(number: int) -> list[int]:
    """Return all divisors of a number, in ascending order."""
    low = [divisor for divisor in range(1, int(number**0.5) + 1) if number % divisor == 0]
    return sorted({*low, *(number // divisor for divisor in low)})


def nearest_divisors(number: int, wanted: int) -> list[int]:
    """Return the largest divisor up to `wanted`, and the smallest above it if there is one."""
    found = divisors(number)
    above = [divisor for divisor in found if divisor > wanted]
    return [max(divisor for divisor in found if divisor <= wanted), *above[:1]]


def _sized(parallel: ParallelConfig, ulysses: int, ring: int) -> ParallelConfig:
    return ONE_DEVICE if ulysses * ring == 1 else replace(parallel, ulysses=ulysses, ring=ring)


def _neighbours(shape: VideoShape, name: str, step: int) -> Iterator[VideoShape]:
    """Yield the valid sizes around `shape`, nearest first."""
    size, most = getattr(shape, name), MAX_FRAMES if name == "num_frames" else MAX_SIDE_PX
    for distance in range(1, MAX_GRID_STEPS + 1):
        for near in (size - distance * step, size + distance * step):
            if 1 <= near <= most and (name == "num_frames" or near % 2 == 0):
                yield replace(shape, **{name: near})


def _change(shape: VideoShape, other: VideoShape) -> str:
    return next(
        f"{name} {getattr(other, name)}"
        for name in ("height", "width", "num_frames")
        if getattr(other, name) != getattr(shape, name)
    )


def _references(geometry: ModelGeometry) -> str:
    count = geometry.num_references
    return f" with {count} reference image{'' if count == 1 else 's'}" if count else ""


def _either(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
