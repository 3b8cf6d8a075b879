"""The times of clips for which no record exists, from other records or from counted operations.

Decides, for each kind of clip, which of the three is taken. Loads without torch.
"""

import statistics
from collections.abc import Sequence

from jobs.errors import RefusedError
from jobs.manifest.rows import Catalog
from jobs.plan.buckets import PlanBucket
from jobs.simulation.conditions import ClipKind, ClipTimes, Timings
from jobs.simulation.measured import Measured
from jobs.text import counted, duration
from pipelines.cost.prediction import H100, NVLINK_H100, Work, predict
from pipelines.errors import ModelFolderError
from pipelines.request import VideoShape

START_S = 60.0  # without a record: imports, and the weights from a local disk
BITS_PER_PIXEL = 1.0  # without a record: more than most clips have


def timings_of(
    buckets: Sequence[PlanBucket], measured: Measured, catalog: Catalog, source: str
) -> Timings:
    """Return the times of all buckets, each from the best source that there is.

    Args:
        measured: times in the records of `source`.
        source: URI of the output with the records.

    Raises:
        RefusedError: a model has no record, and the prediction does not hold for it.
    """
    clips: dict[ClipKind, Sequence[ClipTimes]] = {}
    num_scaled = num_predicted = 0
    for bucket in buckets:
        kind = ClipKind.of(bucket)
        if kind in measured.clips:
            clips[kind] = measured.clips[kind]
        elif (scaled := _scaled(bucket, measured, catalog)) is not None:
            clips[kind] = scaled
            num_scaled += 1
        else:
            clips[kind] = [_predicted(bucket, catalog, source)]
            num_predicted += 1
    models = dict.fromkeys(bucket.model for bucket in buckets)
    starts_s = {model: measured.starts_s.get(model) or [START_S] for model in models}
    return Timings(clips, starts_s, (*_sources(
        len(buckets), num_scaled, num_predicted, measured.num_records, source
    ), *_starts(starts_s, measured)))  # fmt: skip


def _sources(
    num_kinds: int, num_scaled: int, num_predicted: int, num_records: int, source: str
) -> list[str]:
    """Say how many kinds of clip have times from each source."""
    num_measured = num_kinds - num_scaled - num_predicted
    lines: list[str] = []
    if num_measured:
        records = counted(num_records, "record")
        lines.append(f"times of {counted(num_measured, 'kind')} of clip: {records} of {source}")
    if num_scaled:
        lines.append(
            f"times of {counted(num_scaled, 'kind')} of clip: scaled from records of another size "
            "by the counted operations"
        )
    if num_predicted:
        lines.append(
            f"times of {counted(num_predicted, 'kind')} of clip: no records, so predicted for "
            f"{H100.name}s at {H100.flops_per_s / 1e12:.0f} TFLOP/s, as if encoding and upload "
            "took no time; --timings URI names an output with records"
        )
    return lines


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


def _predicted(bucket: PlanBucket, catalog: Catalog, source: str) -> ClipTimes:
    """Return the predicted times of a clip on GPUs."""
    config = catalog.get(bucket.model).config
    work = _work(bucket, catalog, bucket.shape, bucket.num_inference_steps)
    if work is None or config.device == "cpu" or config.dtype == "float32":
        raise RefusedError(
            f"--simulate: {source} has no record of {bucket.model}, and the time of its clips "
            "cannot be predicted: render a few of them first (--limit 10), or name an output that "
            "has some with --timings URI"
        )
    device_s = predict(work, bucket.parallel, H100, NVLINK_H100).total_s
    return ClipTimes(device_s, num_bytes=int(_pixels(bucket.shape) * BITS_PER_PIXEL / 8))


def _work(bucket: PlanBucket, catalog: Catalog, shape: VideoShape, num_steps: int) -> Work | None:
    """Return the work of a clip of the bucket's model; None if its sizes cannot be read."""
    try:
        geometry = catalog.get(bucket.model).geometry
    except ModelFolderError:
        return None
    return Work(geometry, shape, num_steps, bucket.method)


def _pixels(shape: VideoShape) -> int:
    return shape.num_frames * shape.height * shape.width
