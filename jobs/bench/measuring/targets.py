"""The targets of the benchmark, as conditions on its rows. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isnan

from jobs.bench.measuring.results import POOLED, Row
from jobs.bench.measuring.statistics import Estimate

FEW_STEPS, MANY_STEPS = 4, 25
MIN_SUPPRESSION = 0.9
MAX_LOSS = 0.02
MAX_COST_TO_CFG = 0.60
# LTXPipeline makes one batched call of the two passes of classifier-free guidance
MAX_COST_TO_BATCHED_CFG = {"shapes-ltx": 0.65}


@dataclass(frozen=True)
class Target:
    """One condition and the value found. `is_met` is None if nothing was rendered for it."""

    model: str
    num_steps: int
    case: str
    name: str
    goal: str
    found: str
    is_met: bool | None


def check_targets(rows: Iterable[Row]) -> list[Target]:
    """Return the targets of each main cell and case, pooled over the attributes."""
    cells: dict[tuple[str, int, str], dict[str, Row]] = {}
    for row in rows:
        if row.is_main and row.attribute == POOLED:
            cells.setdefault((row.model, row.num_steps, row.case), {})[row.setting.method] = row
    return [target for key, methods in cells.items() for target in _targets(key, methods)]


def _targets(key: tuple[str, int, str], methods: dict[str, Row]) -> Iterator[Target]:
    nag, cfg = methods.get("nag"), methods.get("cfg")
    if nag is None:
        return
    figures, num_steps = nag.figures, key[1]
    if num_steps == FEW_STEPS:
        kept = figures.suppression
        yield _target(
            key, "NAG suppression", f">= {MIN_SUPPRESSION}", kept, kept.value >= MIN_SUPPRESSION
        )
        for name, lost in (
            ("fidelity", figures.fidelity_to_none),
            ("clean", figures.clean_to_none),
        ):
            yield _target(
                key, f"NAG {name} against none", f">= -{MAX_LOSS}", lost, lost.value >= -MAX_LOSS
            )
        if cfg is not None:
            fidelity, clean = cfg.to_nag.fidelity, cfg.to_nag.clean
            is_worse = fidelity.high < 0 or clean.high < 0
            found = f"fidelity {shown(fidelity)}, clean {shown(clean)}"
            is_met = is_worse if fidelity.is_defined else None
            yield Target(
                *key, "CFG against NAG", "fidelity or clean below 0, interval too", found, is_met
            )
    if num_steps == MANY_STEPS and cfg is not None:
        ours, theirs, cost = figures.suppression, cfg.figures.suppression, nag.to_cfg.cost
        is_level = ours.value >= theirs.value if ours.is_defined and theirs.is_defined else None
        found = f"{shown(ours)} against {shown(theirs)}"
        yield Target(*key, "NAG suppression", "at least CFG's", found, is_level)
        most = MAX_COST_TO_BATCHED_CFG.get(nag.model, MAX_COST_TO_CFG)
        yield _target(key, "NAG cost against CFG", f"< {most:.2f}", cost, cost.value < most)


def _target(
    key: tuple[str, int, str], name: str, goal: str, found: Estimate, is_met: bool
) -> Target:
    return Target(*key, name, goal, shown(found), is_met if found.is_defined else None)


def shown(estimate: Estimate) -> str:
    """Return an estimate as text, such as "0.93 [0.90, 0.96]"."""
    if not estimate.is_defined:
        return "-"
    if isnan(estimate.low):
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
