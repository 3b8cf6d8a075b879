"""Advice under a plan: the cost of its groups, and groups that would speed up a long clip.

Chooses the clips of a plan that get advice; `pipelines.cost.advice` words it. Loads without torch.
"""

from collections.abc import Callable

from jobs.manifest.rows import Catalog
from jobs.plan.plan import Plan, PlanBucket
from jobs.text import counted
from pipelines.cost.advice import advice_footnote, advise
from pipelines.cost.prediction import Device, Work, card_of
from pipelines.errors import ModelFolderError

MAX_ADVICE = 4  # lines, since a plan is read at a glance


def advise_on_plan(
    plan: Plan, catalog: Catalog, device_used: Callable[[], str | None] = lambda: None
) -> list[str]:
    """Return lines of advice on the pending clips, and a footnote; no line without any advice.

    Args:
        device_used: reads the name of the device that rendered clips of this output; None before
            the first one. Called only if there is a clip to advise on.
    """
    works = [
        (bucket, work)
        for bucket in plan.buckets
        if bucket.num_pending and (work := _work(bucket, catalog)) is not None
    ]
    card = card_of(device_used() if works else None)
    advice = [line for bucket, work in works for line in _advise(bucket, work, card)]
    if not advice:
        return []
    num_more = len(advice) - MAX_ADVICE
    more = [f"and {counted(num_more, 'more kind')} of clip"] if num_more > 0 else []
    return [*advice[:MAX_ADVICE], *more, advice_footnote(card)]


def _work(bucket: PlanBucket, catalog: Catalog) -> Work | None:
    """Return one of a bucket's clips; None if ranks cannot share it or the model is for CPUs."""
    model = catalog.get(bucket.model)
    if model.config.device == "cpu" or model.config.dtype == "float32":
        return None  # the predictions are for GPUs in 16 bits
    try:
        geometry = model.geometry
    except ModelFolderError:
        return None  # one device can render such a clip
    return Work(geometry, bucket.shape, bucket.num_inference_steps, bucket.method)


def _advise(bucket: PlanBucket, work: Work, card: Device) -> list[str]:
    subject = f"{bucket.model} {bucket.shape}, {bucket.num_inference_steps} steps"
    return advise(subject, work, bucket.parallel, card)
