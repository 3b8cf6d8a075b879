"""Advice under a plan: the cost of its groups, and groups that would speed up a long clip.

Chooses the clips of a plan that get advice; `pipelines.cost.advice` words it. Loads without torch.
"""

from jobs.manifest.rows import Catalog
from jobs.plan.plan import Plan, PlanBucket
from jobs.text import counted
from pipelines.cost.advice import ADVICE_FOOTNOTE, advise
from pipelines.cost.prediction import Work
from pipelines.errors import ModelFolderError

MAX_ADVICE = 4  # lines, since a plan is read at a glance


def advise_on_plan(plan: Plan, catalog: Catalog) -> list[str]:
    """Return lines of advice on the pending clips, and a footnote; no line without any advice."""
    advice = [
        line for bucket in plan.buckets if bucket.num_pending for line in _advise(bucket, catalog)
    ]
    if not advice:
        return []
    num_more = len(advice) - MAX_ADVICE
    more = [f"and {counted(num_more, 'more kind')} of clip"] if num_more > 0 else []
    return [*advice[:MAX_ADVICE], *more, ADVICE_FOOTNOTE]


def _advise(bucket: PlanBucket, catalog: Catalog) -> list[str]:
    model = catalog.get(bucket.model)
    if model.config.device == "cpu" or model.config.dtype == "float32":
        return []  # the predictions are for GPUs in 16 bits
    try:
        geometry = model.geometry
    except ModelFolderError:
        return []  # ranks cannot share such a clip, but one device can render it
    work = Work(geometry, bucket.shape, bucket.num_inference_steps, bucket.method)
    subject = f"{bucket.model} {bucket.shape}, {bucket.num_inference_steps} steps"
    return advise(subject, work, bucket.parallel)
