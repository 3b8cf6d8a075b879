"""`python -m benchmarks.image_to_video` measures the Shapes model that begins with an image.

The exact judge reads each clip: shape and colour of the image, everything that the prompt names,
and the share of an unwanted motion or background, with NAG against it and without.
"""

import argparse
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.progress import track

from benchmarks.command import Benchmark, Measure, Options, main
from benchmarks.report import Cases, Figure, markdown_table
from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_yaml import load_model_config
from pipelines.shapes.captions import phrase
from pipelines.shapes.measuring.from_images import (
    FromImage,
    ImageTask,
    make_image_tasks,
    render_from_images,
)
from pipelines.shapes.measuring.rendering import Sampling, load_pipeline, share
from pipelines.shapes.training.models import IMAGE_MODELS
from pipelines.shapes.world import ATTRIBUTES

MODEL = "shapes-wan-i2v"
FRAME, CUT_OUT = "first frame", "cut-out"
KEPT, REMAINING = 0.95, 0.2  # goals: clips that keep the image; share of a negated value that stays
NAMED_LOSS = 0.03  # clips that may lose by NAG what their prompt names
# Negated attributes with the kind of image, and the seed of prompts and noise. A first frame
# decides the background, so NAG has nothing to decide there: measured, but without a goal.
NEGATIONS = (("motion", FRAME, 203), ("background", CUT_OUT, 204), ("background", FRAME, 205))


@functools.cache
def _pipeline(weights: Path | None) -> Any:
    return load_pipeline(IMAGE_MODELS[MODEL], weights)


def _render(
    options: Options, tasks: list[ImageTask], negative_prompt: str | None = None
) -> list[FromImage]:
    config = load_model_config(model_paths()[MODEL])
    defaults = config.sampling
    sampling = Sampling(
        1 if options.tiny else defaults.num_inference_steps, defaults.guidance_scale
    )
    negative = None if negative_prompt is None else (negative_prompt, config.nag)
    clips = render_from_images(_pipeline(options.weights), tasks, sampling, negative)
    return list(track(clips, negative_prompt or "no negative prompt", total=len(tasks)))


def count(tasks: list[ImageTask], clips: list[FromImage], attribute: str) -> dict[str, Any]:
    """Return shares of the clips; `shown` is the share of each value of the attribute."""
    pairs = list(zip(tasks, clips, strict=True))
    return {
        "shown": {
            value: share([getattr(clip.verdict, attribute) == value for clip in clips])
            for value in ATTRIBUTES[attribute]
        },
        "as_named": share([clip.follows(task) for task, clip in pairs]),
        "image_kept": share([clip.keeps(task) for task, clip in pairs]),
        "clean": share([clip.verdict.is_clean for clip in clips]),
    }


def measure_following(options: Options, kind: str, num_clips: int) -> dict[str, Any]:
    """Return how often clips keep their image and follow a prompt for motion and background."""
    is_cut_out = kind == CUT_OUT
    always = ("motion", "background") if is_cut_out else ("motion",)
    tasks = make_image_tasks(
        num_clips, 202 if is_cut_out else 201, is_cut_out=is_cut_out, always=always
    )
    clips = _render(options, tasks)
    pairs = list(zip(tasks, clips, strict=True))
    return {
        "clips": num_clips,
        **{
            name: share(
                [getattr(clip.verdict, name) == getattr(task.clip, name) for task, clip in pairs]
            )
            for name in ATTRIBUTES
        },
        "image_kept": share([clip.keeps(task) for task, clip in pairs]),
        "clean": share([clip.verdict.is_clean for clip in clips]),
        "first_frame_off": sum(clip.first_frame_difference for clip in clips) / num_clips,
    }


def measure_negation(
    options: Options, negation: tuple[str, str, int], num_clips: int
) -> dict[str, Any]:
    """Render the same prompts and seeds without NAG, and with NAG against each value."""
    attribute, kind, seed = negation
    tasks = make_image_tasks(num_clips, seed, is_cut_out=kind == CUT_OUT, never=(attribute,))
    against = {
        value: count(tasks, _render(options, tasks, phrase(attribute, value)), attribute)
        for value in ATTRIBUTES[attribute]
    }
    plain = count(tasks, _render(options, tasks), attribute)
    return {"clips": num_clips, "none": plain, "against": against}


def cases(options: Options) -> dict[str, Measure]:
    num_clips = 1 if options.tiny else options.clips
    following = {
        kind: functools.partial(measure_following, options, kind, num_clips)
        for kind in (FRAME, CUT_OUT)
    }
    negations = {
        f"against a {negation[0]}, {negation[1]}": functools.partial(
            measure_negation, options, negation, 1 if options.tiny else options.nag_clips
        )
        for negation in NEGATIONS
    }
    return {**following, **negations}


def figures(cases: Cases) -> Iterable[Figure]:
    for kind in (FRAME, CUT_OUT):
        if kind in cases:
            found = cases[kind]
            yield Figure(
                f"shape and colour of the image, {kind}", found["image_kept"], None, KEPT, True
            )
            yield Figure(f"motion as in the prompt, {kind}", found["motion"], None, KEPT, True)
    for attribute, kind, _ in NEGATIONS[:2]:
        found = cases.get(f"against a {attribute}, {kind}")
        if found is None:
            continue
        for value, guided in found["against"].items():
            before, after = found["none"]["shown"][value], guided["shown"][value]
            yield Figure(
                f"share that stays, against {phrase(attribute, value)}",
                after / before if before else float("nan"),
                goal=REMAINING,
            )
            yield Figure(
                f"loss of what is named, against {phrase(attribute, value)}",
                found["none"]["as_named"] - guided["as_named"],
                goal=NAMED_LOSS,
            )


def body(cases: Cases) -> str:
    following = [
        [kind, str(found["clips"])]
        + [f"{found[name]:.1%}" for name in ("image_kept", *ATTRIBUTES, "clean")]
        + [f"{found['first_frame_off']:.1f}"]
        for kind in (FRAME, CUT_OUT)
        if (found := cases.get(kind))
    ]
    parts = [
        f"""\
`{MODEL}` gets an image and a prompt. The image is the first frame of a true clip
(*first frame*), or its shape alone on a light gray that no clip has (*cut-out*), which leaves the
background to the prompt. Prompts rarely name colour and shape. The exact judge reads each clip.

## Image and prompt

Each prompt names the motion, those for cut-outs the background too. *Image kept*: shape and colour
are those of the image. The last column is the mean difference of the first frame from the image,
of 255 levels; a cut-out's background counts in it.

"""
        + markdown_table(
            ("image", "clips", "image kept", *ATTRIBUTES, "clean", "first frame off"), following
        )
    ]
    for attribute, kind, _ in NEGATIONS:
        found = cases.get(f"against a {attribute}, {kind}")
        if found is None:
            continue
        rows = [
            [
                phrase(attribute, value),
                f"{found['none']['shown'][value]:.1%} -> {guided['shown'][value]:.1%}",
                *(
                    f"{found['none'][name]:.1%} -> {guided[name]:.1%}"
                    for name in ("as_named", "image_kept", "clean")
                ),
            ]
            for value, guided in found["against"].items()
        ]
        parts.append(
            f"## NAG against a {attribute}: {kind}\n\n{_ABOUT[attribute, kind]}\n"
            f"{found['clips']} clips a row, the same prompts and seeds without NAG and with it.\n\n"
            + markdown_table(
                ("negative prompt", "its share", "named kept", "image kept", "clean"), rows
            )
        )
    return "\n".join(parts)


_ABOUT = {
    ("motion", FRAME): "The prompts leave the motion open.",
    ("background", CUT_OUT): "The prompts leave the background open, and so does the image.",
    ("background", FRAME): "The image decides the background, so the share should stay.",
}


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clips", type=int, default=120, help="clips for each kind of image (default: 120)"
    )
    parser.add_argument(
        "--nag-clips", type=int, default=100, help="clips for each negative prompt (default: 100)"
    )
    parser.add_argument(
        "--weights", type=Path, help="a diffusers folder (default: the packaged weights)"
    )


BENCHMARK = Benchmark(
    name="image_to_video",
    title="Image-to-video: the image's attributes, and negative prompts",
    about="Measure the Shapes image-to-video model (about twenty minutes on an idle core).",
    libraries=("torch", "diffusers"),
    cases=cases,
    figures=figures,
    body=body,
    add_options=_add_options,
)

if __name__ == "__main__":
    main(BENCHMARK)
