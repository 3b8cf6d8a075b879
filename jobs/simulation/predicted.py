"""The times of clips for which no record exists, from other records or from counted operations.

Decides, for each kind of clip, which of the three is taken. Loads without torch.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from jobs.errors import RefusedError
from jobs.manifest.rows import Catalog
from jobs.plan.buckets import PlanBucket
from jobs.simulation.conditions import ClipKind, ClipTimes, Timings
from jobs.simulation.measured import Measured
from jobs.text import counted, duration
from pipelines.cost.prediction import (
    DEFAULT_CARD,
    H100,
    NVLINK_H100,
    Device,
    Work,
    card_of,
    predict,
)
from pipelines.errors import ModelFolderError
from pipelines.request import VideoShape

START_S = 60.0  # without a record: imports, and the weights from a local disk
BITS_PER_PIXEL = 1.0  # without a record: more than most clips have
RENDER_FIRST = (
    "render a few of them first (--limit 10), or name an output that has some with --from URI"
)


Source = Literal["records", "scaled", "predicted"]
NO_CARDS: Mapping[str, Device] = {}


class FoundTimes(NamedTuple):
    """The times of clips of one kind, and where they come from.

    Args:
        source: `records` of such clips, records of another size (`scaled`), or the cost model.
    """

    clips: Sequence[ClipTimes]
    source: Source


def card_for(model: str, measured: Measured, accelerator_type: str | None = None) -> Device:
    """Return the card for which the times of a model without records are predicted.

    That is the kind of GPU that its workers ask for, or the one that rendered clips before.
    """
    return card_of(accelerator_type or measured.device_of(model))


def times_of(
    bucket: PlanBucket, measured: Measured, catalog: Catalog, card: Device = DEFAULT_CARD
) -> FoundTimes | None:
    """Return the times of the clips of a bucket from the best source that there is.

    Args:
        card: the card for which they are predicted without records.

    Returns:
        None if its model has no record, and the prediction does not hold for it.
    """
    kind = ClipKind.of(bucket)
    if kind in measured.clips:
        return FoundTimes(measured.clips[kind], "records")
    if (scaled := _scaled(bucket, measured, catalog)) is not None:
        return FoundTimes(scaled, "scaled")
    predicted = _predicted(bucket, catalog, card)
    return None if predicted is None else FoundTimes([predicted], "predicted")


def timings_of(
    buckets: Sequence[PlanBucket],
    measured: Measured,
    catalog: Catalog,
    source: str,
    cards: Mapping[str, Device] = NO_CARDS,
) -> Timings:
    """Return the times of all buckets, each from the best source that there is.

    Args:
        measured: times in the records of `source`.
        source: URI of the output with the records.
        cards: the card for which a model's times are predicted; H100 for those left out.

    Raises:
        RefusedError: a model has no record, and the prediction does not hold for it.
    """
    clips: dict[ClipKind, Sequence[ClipTimes]] = {}
    found: list[Source] = []
    predicted_for = dict[str, Device]()
    for bucket in buckets:
        card = cards.get(bucket.model, DEFAULT_CARD)
        times = times_of(bucket, measured, catalog, card)
        if times is None:
            raise RefusedError(
                f"--simulate: {source} has no record of {bucket.model}, and the time of its clips "
                f"cannot be predicted: {RENDER_FIRST}"
            )
        clips[ClipKind.of(bucket)] = times.clips
        found.append(times.source)
        if times.source == "predicted":
            predicted_for[card.name] = card
    models = dict.fromkeys(bucket.model for bucket in buckets)
    starts_s = {model: measured.starts_s.get(model) or [START_S] for model in models}
    sources = _sources(found, measured.num_records, source, list(predicted_for.values()))
    return Timings(clips, starts_s, (*sources, *_starts(starts_s, measured)))


def _sources(
    found: Sequence[Source], num_records: int, uri: str, cards: Sequence[Device]
) -> list[str]:
    """Say how many kinds of clip have times from each source.

    Args:
        found: source of each kind of clip.
        cards: cards for which times are predicted.
    """
    ends: dict[Source, str] = {
        "records": f"{counted(num_records, 'record')} of {uri}",
        "scaled": "scaled from records of another size by the counted operations",
        "predicted": (
            f"no records, so predicted for {' and '.join(map(card_text, cards))}, as if encoding "
            "and upload took no time; --from URI names an output with records"
        ),
    }
    return [
        f"times of {counted(found.count(source), 'kind')} of clip: {end}"
        for source, end in ends.items()
        if source in found
    ]


def card_text(card: Device) -> str:
    """Return a card with its speed and the source of that speed."""
    source = f"measured by {card.measured_by}" if card.measured_by else "not measured"
    return f"{card.name}s at {card.flops_per_s / 1e12:.0f} TFLOP/s ({source})"


def _starts(starts_s: dict[str, list[float]], measured: Measured) -> list[str]:
    """Say how long a worker of each model takes to start."""
    return [
        f"a worker of {model} starts in {duration(statistics.median(found))} "
        + ("(median of the records)" if model in measured.starts_s else "(assumed)")
        for model, found in starts_s.items()
    ]


def _scaled(bucket: PlanBucket, measured: Measured, catalog: Catalog) -> list[ClipTimes] | None:
    """Return the times of the most similar clips of the model, scaled; None without a record."""
    alike = [
        kind
        for kind in measured.clips
        if (kind.model, kind.parallel) == (bucket.model, bucket.parallel)
    ]
    if not alike:
        return None
    steps = bucket.num_inference_steps

    def difference(kind: ClipKind) -> float:
        more = _pixels(kind.shape) * kind.num_inference_steps / (_pixels(bucket.shape) * steps)
        return max(more, 1 / more)

    nearest = min(alike, key=difference)
    pixels = _pixels(bucket.shape) / _pixels(nearest.shape)
    factor = pixels * steps / nearest.num_inference_steps
    this, other = (
        _work(bucket, catalog, shape, num_steps)
        for shape, num_steps in (
            (bucket.shape, steps),
            (nearest.shape, nearest.num_inference_steps),
        )
    )
    if this is not None and other is not None:
        factor = (
            predict(this, bucket.parallel, H100, NVLINK_H100).total_s
            / predict(other, bucket.parallel, H100, NVLINK_H100).total_s
        )
    return [
        ClipTimes(
            times.device_s * factor,
            times.host_s * pixels,
            times.upload_s * pixels,
            int(times.num_bytes * pixels),
        )
        for times in measured.clips[nearest]
    ]


def _predicted(bucket: PlanBucket, catalog: Catalog, card: Device) -> ClipTimes | None:
    """Return the predicted times of a clip on GPUs; None if the prediction does not hold for it."""
    config = catalog.get(bucket.model).config
    work = _work(bucket, catalog, bucket.shape, bucket.num_inference_steps)
    if work is None or config.device == "cpu" or config.dtype == "float32":
        return None
    device_s = predict(work, bucket.parallel, card, NVLINK_H100).total_s
    return ClipTimes(device_s, num_bytes=int(_pixels(bucket.shape) * BITS_PER_PIXEL / 8))


def _work(bucket: PlanBucket, catalog: Catalog, shape: VideoShape, num_steps: int) -> Work | None:
    """Return the work of a clip of the bucket's model; None if its sizes cannot be read."""
    entry = catalog.get(bucket.model)
    try:
        geometry = entry.geometry
    except ModelFolderError:
        return None
    if entry.config.pipeline_class.has_forcing:
        num_steps = entry.config.diffusion_forcing.num_rows(
            shape.num_frames, num_steps, geometry.frames_per_token
        )
    return Work(geometry, entry.config.at_once(shape), num_steps, bucket.method)


def _pixels(shape: VideoShape) -> int:
    return shape.num_frames * shape.height * shape.width
