"""Costs and gains of groups for the published models, as Markdown tables and as CSV.

Decides the columns; the numbers come from `pipelines.cost`.
"""

import csv
import io
from dataclasses import replace

from jobs.bench.reporting.tables import markdown_table
from pipelines.context_parallel.divisibility import find_indivisible
from pipelines.cost.prediction import (
    H100,
    INTERCONNECTS,
    NVLINK_H100,
    Interconnect,
    Work,
    best_speed_up,
    break_even_bytes_per_s,
    predict,
    speed_up,
    step_operations,
    step_sent_bytes,
)
from pipelines.cost.published import PUBLIC_FIGURES, SIZES, PublicFigure
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig

DEGREES = range(1, 9)
FEW_STEPS = 4
AGREEMENT = 0.1  # largest relative error of a prediction that agrees with a figure
NOTHING = "-"


def refusal(work: Work, parallel: ParallelConfig) -> str | None:
    """Return two words on why a group cannot render the clip; None if it can."""
    geometry = work.geometry
    match find_indivisible(parallel, geometry, work.shape):
        case "heads":
            return f"{geometry.num_heads} heads"
        case "tokens":
            return f"{geometry.num_tokens(work.shape):,} tokens"
        case None:
            return None


def size_table(work: Work) -> str:
    """Return the table of one model and size: a line per degree, for ulysses and for ring."""
    head = (
        "degree",
        "PFLOP",
        "ulysses: GB",
        "break-even GB/s",
        *(link.name for link in INTERCONNECTS),
        "at best",
    )
    head += ("ring: GB", "break-even GB/s", NVLINK_H100.name)
    return markdown_table(head, [_size_cells(work, degree) for degree in DEGREES])


def _size_cells(work: Work, degree: int) -> tuple[str, ...]:
    ring = ParallelConfig(ring=degree)
    computes = NOTHING if refusal(work, ring) else f"{step_operations(work, ring) / 1e15:.3f}"
    return (
        f"{degree}",
        computes,
        *_cut_cells(work, ParallelConfig(ulysses=degree), (*INTERCONNECTS, None)),
        *_cut_cells(work, ring, (NVLINK_H100,)),
    )


def _cut_cells(
    work: Work, cut: ParallelConfig, links: tuple[Interconnect | None, ...]
) -> tuple[str, ...]:
    """Return bytes, break-even bandwidth and speed-ups; the interconnect None has no delay."""
    if cut.degree == 1:
        return tuple(NOTHING for _ in range(2 + len(links)))
    if reason := refusal(work, cut):
        return f"no: {reason}", *(NOTHING for _ in range(1 + len(links)))
    break_even = break_even_bytes_per_s(work, cut, H100)
    return (
        f"{step_sent_bytes(work, cut) / 1e9:.2f}",
        "none" if break_even is None else f"{break_even / 1e9:.1f}",
        *(
            f"{speed_up(work, cut, H100, link) if link else best_speed_up(work, cut, H100):.2f}"
            for link in links
        ),
    )


def few_steps_table() -> str:
    """Return the best speed-up of a distilled model by size and degree."""
    degrees = (2, 4, 8)
    lines: list[tuple[str, ...]] = []
    for name, full in SIZES.items():
        work = replace(full, num_inference_steps=FEW_STEPS, method="nag")
        cuts = [ParallelConfig(ulysses=degree) for degree in degrees]
        gains = (
            NOTHING if refusal(work, cut) else f"{best_speed_up(work, cut, H100):.2f}"
            for cut in cuts
        )
        lines.append((name, *gains))
    return markdown_table(("", *(f"{degree} devices" for degree in degrees)), lines)


def public_table() -> str:
    """Return public figures beside their predictions."""
    head = (
        "figure", "taken to be", "public", "predicted", "of denoising alone", "a group's step", "",
    )  # fmt: skip
    return markdown_table(head, [_public_cells(figure) for figure in PUBLIC_FIGURES])


def _public_cells(figure: PublicFigure) -> tuple[str, ...]:
    work = figure.work
    group = predict(
        work, ParallelConfig(ulysses=figure.num_devices), figure.device, figure.interconnect
    )
    single = predict(work, ONE_DEVICE, figure.device, figure.interconnect)
    predicted = single.total_s / group.total_s
    is_near = abs(predicted / figure.speed_up - 1) <= AGREEMENT
    lost_s = (single.total_s / figure.speed_up - group.total_s) / work.num_inference_steps
    guidance = f"{'with' if work.method == 'cfg' else 'without'} CFG"
    step_ms = 1000 * group.denoise_s / work.num_inference_steps
    return (
        figure.setup,
        f"{work.shape}, {work.num_inference_steps} steps, {guidance}",
        f"{figure.speed_up:g}",
        f"{predicted:.2f}",
        f"{single.denoise_s / group.denoise_s:.2f}",
        f"{step_ms:.0f} ms, and {1000 * lost_s:.0f} ms not predicted",
        "; ".join(filter(None, ("agrees" if is_near else "**does not agree**", figure.remark))),
    )


def csv_text() -> str:
    """Return a line for each size and each possible group by ulysses or by ring."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [
            "size", "num_frames", "height", "width", "ulysses", "ring",
            "step_operations", "step_sent_bytes", "break_even_bytes_per_s",
            *(f"speed_up, {link.name}" for link in INTERCONNECTS), "speed_up, at best",
        ]
    )  # fmt: skip
    for name, work in SIZES.items():
        groups = [
            cut
            for degree in DEGREES[1:]
            for cut in (ParallelConfig(degree), ParallelConfig(ring=degree))
        ]
        for cut in [ONE_DEVICE, *groups]:
            if not refusal(work, cut):
                writer.writerow(_csv_cells(name, work, cut))
    return stream.getvalue()


def _csv_cells(name: str, work: Work, cut: ParallelConfig) -> list[str | int]:
    break_even = None if cut.degree == 1 else break_even_bytes_per_s(work, cut, H100)
    return [
        name,
        *(work.shape.num_frames, work.shape.height, work.shape.width, cut.ulysses, cut.ring),
        *(step_operations(work, cut), step_sent_bytes(work, cut)),
        "" if break_even is None else f"{break_even:.0f}",
        *(f"{speed_up(work, cut, H100, link):.3f}" for link in INTERCONNECTS),
        f"{best_speed_up(work, cut, H100):.3f}",
    ]
