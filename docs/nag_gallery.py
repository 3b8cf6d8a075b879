"""The pictures and the table of docs/explanation/nag.md.

`python -m docs.nag_gallery` renders the pictures by the Shapes models of this repository, on a CPU,
and writes the table of every family's strengths. A test compares the table with the code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import LTXPipeline, UniPCMultistepScheduler, WanPipeline
from PIL import Image, ImageDraw

from nag import GuidanceParams, NagParams, NasaParams, VsfParams, guide, install
from nag.adapters.registry import MODULES
from pipelines.shapes.images import judge_image
from pipelines.shapes.measuring.images import FEW_STEPS, load_image_pipeline
from pipelines.shapes.training.images.models import MODELS, ImageModel
from pipelines.shapes.world import FPS

ROOT = Path(__file__).parents[1]
IMAGES = "nag-images.png"
PAGE = ROOT / "docs" / "explanation" / "nag.md"
WEIGHTS = ROOT / "pipelines" / "shapes" / "weights"
BEGIN, END = "<!-- defaults: begin -->\n", "<!-- defaults: end -->\n"
SIDE_PX, GAP_PX, LABEL_PX = 64, 4, 16
LENGTH = 48  # tokens of a text, as the Shapes models take
PROMPTS = ("a circle moving right", "a square moving up", "a triangle moving left")
SEEDS = (0, 1)
IMAGE_PROMPTS = ("a circle", "a square", "a triangle")


@dataclass(frozen=True)
class Sheet:
    """One picture.

    Args:
        name: file name beside the page.
        negative: negative prompt: the color that this model draws unasked.
        build: builds the pipeline.
        columns: label and parameters of each column; None renders without guidance.
    """

    name: str
    negative: str
    build: Callable[[], Any]
    columns: tuple[tuple[str, GuidanceParams | None], ...]


def few_step_wan() -> Any:
    pipeline: Any = WanPipeline.from_pretrained(WEIGHTS / "shapes-wan")
    pipeline.scheduler = UniPCMultistepScheduler.from_config(
        pipeline.scheduler.config, flow_shift=3.0
    )
    pipeline.load_lora_weights(WEIGHTS / "shapes-wan-4step")
    return pipeline


def few_step_ltx() -> Any:
    pipeline: Any = LTXPipeline.from_pretrained(WEIGHTS / "shapes-ltx")
    pipeline.load_lora_weights(WEIGHTS / "shapes-ltx-4step")
    return pipeline


def nag(scale: float) -> tuple[str, GuidanceParams]:
    return f"NAG {scale:g}", NagParams(nag_scale=scale, nag_tau=2.5, nag_alpha=0.5)


NONE: tuple[str, GuidanceParams | None] = ("without", None)
SHEETS = (
    Sheet(
        "nag-wan.png",
        "yellow",
        few_step_wan,
        (NONE, nag(3), nag(6), ("VSF", VsfParams(1.0, 1.0)), ("NASA", NasaParams(0.3))),
    ),
    Sheet(
        "nag-ltx.png",
        "yellow",
        few_step_ltx,
        (NONE, nag(3), nag(6), ("VSF", VsfParams(0.5, 0.2)), ("NASA", NasaParams(0.3))),
    ),
)


def render(pipeline: Any, prompt: str, seed: int) -> Image.Image:
    """Return the middle frame of a clip of four steps and one pass a step."""
    # shapes-ltx has seen this rate alone, and Wan takes none
    frame_rate = {"frame_rate": FPS} if isinstance(pipeline, LTXPipeline) else {}
    (frames,) = pipeline(
        prompt,
        height=SIDE_PX,
        width=SIDE_PX,
        num_frames=17,
        num_inference_steps=4,
        guidance_scale=1.0,
        max_sequence_length=LENGTH,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        **frame_rate,
    ).frames
    return Image.fromarray((np.clip(frames[len(frames) // 2], 0, 1) * 255).round().astype(np.uint8))


def draw(sheet: Sheet) -> Image.Image:
    """Return the picture: a row for each prompt and seed, a column for each setting."""
    pipeline = sheet.build()
    pipeline.set_progress_bar_config(disable=True)
    rows = [(prompt, seed) for prompt in PROMPTS for seed in SEEDS]
    step, left = SIDE_PX + GAP_PX, 190
    size = (left + step * len(sheet.columns), LABEL_PX + step * len(rows))
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    for column, (label, _) in enumerate(sheet.columns):
        pen.text((left + column * step, 2), label, fill="black")
    with install(pipeline) as installed:
        for row, (prompt, seed) in enumerate(rows):
            top = LABEL_PX + row * step
            pen.text((2, top + 20), f"{prompt}\nnegative: {sheet.negative}", fill="black")
            for column, (_, params) in enumerate(sheet.columns):
                if params is None:
                    frame = render(pipeline, prompt, seed)
                else:
                    with installed.guide(sheet.negative, params, LENGTH):
                        frame = render(pipeline, prompt, seed)
                picture.paste(frame, (left + column * step, top))
    return picture


def render_image(model: ImageModel, pipeline: Any, prompt: str, seed: int) -> Image.Image:
    """Return an image of four steps and one pass a step."""
    return pipeline(
        prompt,
        height=SIDE_PX,
        width=SIDE_PX,
        num_inference_steps=FEW_STEPS,
        generator=torch.Generator().manual_seed(seed),
        **{model.guidance_argument: 1.0, **model.call_arguments},
    ).images[0]


def first_clean(model: ImageModel, pipeline: Any, prompt: str) -> tuple[int, Image.Image, str]:
    """Return the first seed that gives a clean image, the image and its color."""
    for seed in count():
        image = render_image(model, pipeline, prompt, seed)
        verdict = judge_image(np.asarray(image))
        if verdict.is_clean and verdict.colour:
            return seed, image, verdict.colour
    raise AssertionError("seeds never end")


def draw_images() -> Image.Image:
    """Return the picture of the image models: in each row one prompt, without guidance and with.

    The seed is the first that gives a clean image without guidance, and the negative prompt is the
    color that the judge reads there.
    """
    rows = [(model, prompt) for model in MODELS.values() for prompt in IMAGE_PROMPTS]
    step, left = SIDE_PX + GAP_PX, 190
    picture = Image.new("RGB", (left + step * 2, LABEL_PX + step * len(rows)), "white")
    pen = ImageDraw.Draw(picture)
    for column, label in enumerate(("without", "NAG")):
        pen.text((left + column * step, 2), label, fill="black")
    for row, (model, prompt) in enumerate(rows):
        pipeline = load_image_pipeline(model, FEW_STEPS)
        seed, unguided, negative = first_clean(model, pipeline, prompt)
        with guide(pipeline, negative, **model.call_arguments):
            guided = render_image(model, pipeline, prompt, seed)
        top = LABEL_PX + row * step
        pen.text((2, top + 20), f"{model.name}: {prompt}\nnegative: {negative}", fill="black")
        picture.paste(unguided, (left, top))
        picture.paste(guided, (left + step, top))
    return picture


def table() -> str:
    """Return the strengths of every family where a call names none."""
    rows = [
        "| models | `nag_scale` | `nag_tau` | `nag_alpha` | `nag_norm` |",
        "|---|---|---|---|---|",
    ]
    models: dict[NagParams, list[str]] = {}
    for model, module in MODULES.items():
        defaults = import_module(f"nag.adapters.{module}").ADAPTER.defaults
        models.setdefault(defaults, []).append(f"`{model}`")
    for one, names in models.items():
        strengths = f"{one.nag_scale:g} | {one.nag_tau:g} | {one.nag_alpha:g} | {one.nag_norm}"
        rows.append(f"| {', '.join(sorted(names))} | {strengths} |")
    return "\n".join(rows) + "\n"


def with_table(page: str) -> str:
    """Return the page with the table of now between its marks."""
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}{table()}{END}{rest.split(END)[1]}"


def main() -> None:
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    draw_images().save(PAGE.parent / IMAGES, optimize=True)
    for sheet in SHEETS:
        draw(sheet).quantize(64).save(PAGE.parent / sheet.name, optimize=True)


if __name__ == "__main__":
    main()
