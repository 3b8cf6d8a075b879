"""What is said under a plan of groups of devices: what those cost that are asked for, and which would help a long clip.

Decides for which clips of a plan there is advice at all; what it is, is decided in `pipelines.cost.advice`. Loads
without torch.
"""

from jobs.manifest.manifest import Catalog
from jobs.plan.plan import Plan, PlanGroup
from pipelines.cost.advice import ADVICE_FOOTNOTE, advise
from pipelines.cost.prediction import Work
from pipelines.errors import ModelFolderError

MAX_ADVICE = 4  # lines: a plan is a glance


def advise_on_plan(plan: Plan, catalog: Catalog) -> list[str]:
    """Lines for the kinds of clip that are still to be rendered, and a footnote; none where there is nothing to say."""
    advice = [
        line for group in plan.groups if group.num_pending for line in _advise(group, catalog)
    ]
    if not advice:
        return []
    more = (
        [f"and {len(advice) - MAX_ADVICE:,} more kinds of clip"] if len(advice) > MAX_ADVICE else []
    )
    return [*advice[:MAX_ADVICE], *more, ADVICE_FOOTNOTE]


def _advise(group: PlanGroup, catalog: Catalog) -> list[str]:
    model = catalog.get(group.model)
    if model.config.device == "cpu" or model.config.dtype == "float32":
        return []  # predicted is what GPUs reach in 16 bits
    try:
        geometry = model.geometry
    except ModelFolderError:
        return []  # it cannot be cut, which stops nobody from rendering it on one device
    work = Work(geometry, group.shape, group.num_inference_steps, group.method)
    return advise(
        f"{group.model} {group.shape}, {group.num_inference_steps} steps", work, group.parallel
    )
