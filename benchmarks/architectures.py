"""`python -m benchmarks.architectures` compares negative prompts over architectures of images.

A UNet, a joint transformer and one of double and single streams draw the same tasks under each
method, in 4 steps with a LoRA and in 25 without. The exact judge reads each image.
"""

import argparse
import functools
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nag
from benchmarks.command import Benchmark, Measure, Options, main
from benchmarks.report import Cases, Figure, markdown_table
from jobs.bench.measuring.judging import JudgedClip
from jobs.bench.measuring.measures import column, is_clean, is_faithful, is_negated
from jobs.bench.measuring.statistics import Estimate, difference, share, suppression
from pipelines.shapes.evaluation.negation import CASES, NegationTask
from pipelines.shapes.images import IMAGE_ATTRIBUTES
from pipelines.shapes.measuring.images import (
    FEW_STEPS,
    FULL_STEPS,
    Method,
    draw_answers,
    image_tasks,
    load_image_pipeline,
)
from pipelines.shapes.training.images.models import MODELS

NONE = Method("none")
CFG_SCALE = 3.0
SUPPRESSED, NAMED_LOSS = 0.8, 0.03  # goals of NAG: the share removed; what prompts may lose by it
FOLLOWED, CLEAN = 0.95, 0.90  # goals of each model in 25 steps without a negative prompt
ABOUT = {
    "shapes-sdxl": "UNet, cross-attention (Stable Diffusion XL)",
    "shapes-sd3": "joint transformer (Stable Diffusion 3)",
    "shapes-flux": "double and single streams (Flux)",
}
AUTHORS = {  # the author's strengths for the real models
    "shapes-sdxl": nag.NagParams(nag_scale=3, nag_tau=2.5, nag_alpha=0.5),
    "shapes-sd3": nag.NagParams(nag_scale=5, nag_tau=2.5, nag_alpha=0.125),
    "shapes-flux": nag.NagParams(nag_scale=5, nag_tau=2.5, nag_alpha=0.25, nag_norm="l2"),
}
STRONG = nag.NagParams(nag_scale=11, nag_tau=2.5, nag_alpha=0.5)
POOLED = "all"


def methods_of(name: str) -> tuple[Method, ...]:
    """Return the methods that an architecture is measured with: those defined for it."""
    methods = [
        NONE,
        Method("cfg", CFG_SCALE, is_negative_in_cfg=True),
        Method("nag", params=AUTHORS[name]),
        Method("nag, strong", params=STRONG),
    ]
    if name in ("shapes-sdxl", "shapes-sd3"):
        methods.append(Method("vsf", params=nag.VsfParams()))
    if name == "shapes-sdxl":
        methods.append(Method("nasa", params=nag.NasaParams()))
    return tuple(methods)


def measure_model(options: Options, name: str, num_steps: int) -> dict[str, Any]:
    """Draw all tasks under each method, and return the figures of each."""
    model = MODELS[name]
    pipeline = load_image_pipeline(model, num_steps, options.weights)
    tasks = image_tasks(1 if options.tiny else options.images)
    answers = {
        method: _judged(tasks, draw_answers(model, pipeline, tasks, method, num_steps))
        for method in methods_of(name)
    }
    plain = answers[NONE]
    return {
        "images": len(tasks),
        "followed": {
            attribute: _followed(tasks, plain, attribute) for attribute in IMAGE_ATTRIBUTES
        },
        "methods": {
            method.name: {
                "passes": 1 if method.guidance_scale == 1 else 2,
                "params": asdict(method.params) if method.params else {},
                **{
                    f"{case}, {attribute}": _figures_of(
                        [
                            task
                            for task in tasks
                            if task.case == case and attribute in (POOLED, task.attribute)
                        ],
                        ours,
                        plain,
                    )
                    for case in CASES
                    for attribute in (POOLED, *IMAGE_ATTRIBUTES)
                },
            }
            for method, ours in answers.items()
        },
    }


def _judged(tasks: Iterable[NegationTask], verdicts: Iterable[Any]) -> dict[Any, JudgedClip]:
    return {
        task.key: JudgedClip(verdict, ()) for task, verdict in zip(tasks, verdicts, strict=True)
    }


def _followed(
    tasks: Iterable[NegationTask], answers: dict[Any, JudgedClip], attribute: str
) -> float:
    """Return the share of named values that are shown, without any negative prompt."""
    flags = [
        getattr(answers[task.key].verdict, attribute) == value
        for task in tasks
        for name, value in task.named
        if name == attribute
    ]
    return sum(flags) / len(flags) if flags else math.nan


def _figures_of(
    tasks: list[NegationTask], ours: dict[Any, JudgedClip], plain: dict[Any, JudgedClip]
) -> dict[str, list[float | None]]:
    """Return each figure as value, low and high end of its 95 % interval."""
    shown, shown_plainly = (column(tasks, some, is_negated) for some in (ours, plain))
    kept, kept_plainly = (column(tasks, some, is_faithful) for some in (ours, plain))
    return {
        "negated": _numbers(share(shown)),
        "suppression": _numbers(suppression(shown, shown_plainly)),
        "fidelity": _numbers(share(kept)),
        "fidelity_to_none": _numbers(difference(kept, kept_plainly)),
        "clean": _numbers(share(column(tasks, ours, is_clean))),
    }


def _numbers(estimate: Estimate) -> list[float | None]:
    """Return value and interval; None, as in JSON, for what is undefined."""
    return [
        None if math.isnan(number) else round(number, 4)
        for number in (estimate.value, estimate.low, estimate.high)
    ]


def cases(options: Options) -> dict[str, Measure]:
    return {
        f"{name}, {num_steps} steps": functools.partial(measure_model, options, name, num_steps)
        for name in MODELS
        for num_steps in (FEW_STEPS, FULL_STEPS)
    }


def figures(cases: Cases) -> Iterable[Figure]:
    for name, found in cases.items():
        methods = found["methods"]
        if name.endswith(f"{FULL_STEPS} steps"):
            for attribute, followed in found["followed"].items():
                yield Figure(f"{attribute} followed, {name}", followed, None, FOLLOWED, True)
            clean = methods["none"][f"open, {POOLED}"]["clean"][0]
            yield Figure(f"clean, {name}", clean, None, CLEAN, True)
        of_nag = methods["nag"][f"open, {POOLED}"]
        yield Figure(f"NAG removes, {name}", of_nag["suppression"][0], None, SUPPRESSED, True)
        yield Figure(
            f"NAG costs what prompts name, {name}",
            -of_nag["fidelity_to_none"][0],
            goal=NAMED_LOSS,
        )


def _percent(numbers: list[float | None]) -> str:
    value, low, high = numbers
    if value is None:
        return "-"
    return f"{value:.0%}" if low is None or high is None else f"{value:.0%} [{low:.0%}, {high:.0%}]"


def _method_table(cases: Cases, case: str, attribute: str) -> str:
    rows = [
        [
            name,
            method,
            f"{figures['passes']}",
            *(
                _percent(figures[f"{case}, {attribute}"][column])
                for column in ("negated", "suppression", "fidelity", "clean")
            ),
        ]
        for name, found in cases.items()
        for method, figures in found["methods"].items()
    ]
    head = ("model", "method", "passes a step", "shows it", "suppression", "fidelity", "clean")
    return markdown_table(head, rows)


def _measured_with(cases: Cases, method: str) -> str:
    """Return the models that were measured with a method."""
    names = [name.partition(",")[0] for name, found in cases.items() if method in found["methods"]]
    return ", ".join(dict.fromkeys(names)) or "no model"


def body(cases: Cases) -> str:
    num_images = max((found["images"] for found in cases.values()), default=0)
    following = [
        [
            name,
            ABOUT[name.partition(",")[0]],
            *(f"{followed:.1%}" for followed in found["followed"].values()),
            _percent(found["methods"]["none"][f"open, {POOLED}"]["clean"]),
        ]
        for name, found in cases.items()
    ]
    strengths = [
        [name, *(f"{value}" for value in asdict(params).values())]
        for name, params in (*AUTHORS.items(), ("strong, all models", STRONG))
    ]
    parts = [
        f"""\
Three tiny image models of the Shapes world ([shapes.md](../explanation/shapes.md)) draw the same
{num_images} tasks (prompt, negative prompt, seed) under each method. In 4 steps they have their
LoRA, in 25 they do not. The exact judge reads each image; brackets are 95 % intervals.

- **cfg**: classifier-free guidance of {CFG_SCALE:g} against the negative prompt.
- **nag**: the author's strengths for the real model of the architecture; **strong**: one setting
  for all three.
- **vsf**: at its defaults, on {_measured_with(cases, "vsf")}.
- **nasa**: at its defaults, on {_measured_with(cases, "nasa")}.
- **shows it**: images that show the negated value. **suppression**: the relative fall of that
  share against no guidance. **fidelity**: images that show all else that the prompt names.
  **clean**: images that are members of the world.

## The models without a negative prompt

Shares of the values that prompts name; *clean* is of the tasks that leave the negated attribute
open.
"""
        "\n" + markdown_table(("model", "architecture", *IMAGE_ATTRIBUTES, "clean"), following),
        "## Strengths of NAG\n\n" + markdown_table(("model", *asdict(STRONG)), strengths),
        "## The prompt leaves the negated attribute open\n\n"
        + _method_table(cases, "open", POOLED),
        "## The prompt names the negated value itself\n\n" + _method_table(cases, "hard", POOLED),
    ]
    parts += [
        f"## Open, against a {attribute}\n\n" + _method_table(cases, "open", attribute)
        for attribute in IMAGE_ATTRIBUTES
    ]
    return "\n".join(parts)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=int,
        default=20,
        help="images for each attribute, case and method (default: 20)",
    )
    parser.add_argument(
        "--weights", type=Path, help="a folder of the models' folders (default: the packaged ones)"
    )


BENCHMARK = Benchmark(
    name="architectures",
    title="Negative prompts over three architectures of images",
    about="Compare methods on the Shapes image models (about ten minutes on an idle core).",
    libraries=("torch", "diffusers", "transformers"),
    cases=cases,
    figures=figures,
    body=body,
    add_options=_add_options,
)

if __name__ == "__main__":
    main(BENCHMARK)
