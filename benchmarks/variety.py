"""`python -m benchmarks.variety` measures how negative prompts narrow what a model shows.

One prompt leaves the colour open, and the negative prompt names one colour. The same seeds are
rendered without guidance and at each strength, and the exact judge reads the colours. Guidance
that works removes one colour; guidance that collapses leaves a single one of the others.
"""

import argparse
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from rich.progress import track

from benchmarks.command import Benchmark, Measure, Options, main
from benchmarks.report import Cases, markdown_table
from nag.params import NagParams, NasaParams, VsfParams
from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.families.registry import load_model
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from pipelines.shapes.judge import Verdict, judge
from pipelines.shapes.world import COLOURS, FPS, NUM_FRAMES, SIZE_PX

PROMPT, NEGATIVE = "a circle moving right", "green"
MODELS = {"shapes-wan-4step": 4, "shapes-wan": 25}  # with the number of steps
STRONG = NagParams(nag_scale=9, nag_alpha=0.5)
# The fields of a request that differ from those without guidance, by the setting's name.
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {"method": "none"},
    "nag, scale 9, alpha 0.5": {"nag": STRONG},
    "nag, scale 3, alpha 0.5": {"nag": replace(STRONG, nag_scale=3)},
    "nag, scale 9, alpha 0.25": {"nag": replace(STRONG, nag_alpha=0.25)},
    "nag, scale 9, alpha 0.125": {"nag": replace(STRONG, nag_alpha=0.125)},
    "nag, scale 9, alpha 0.5, first half": {"nag": replace(STRONG, nag_end=0.5)},
    "nag, scale 9, alpha 0.5, first quarter": {"nag": replace(STRONG, nag_end=0.25)},
    "nag, scale 9, alpha 0.5, tau 1.5": {"nag": replace(STRONG, nag_tau=1.5)},
    "vsf, scale 1": {"method": "vsf", "vsf": VsfParams(vsf_scale=1)},
    "nasa, scale 0.3": {"method": "nasa", "nasa": NasaParams(nasa_scale=0.3)},
    "cfg, scale 2": {"guidance_scale": 2.0},
}
REPLACED = ("method", "nag", "vsf", "nasa")


@dataclass(frozen=True)
class Found:
    """The colours that the clips of one setting show.

    Args:
        colours: number of clips by colour; a colour that cannot be read counts as "unread".
        num_clean: clips that are members of the Shapes world.
    """

    colours: dict[str, int]
    num_clean: int

    @property
    def num_clips(self) -> int:
        return sum(self.colours.values())

    @property
    def largest(self) -> tuple[str, int]:
        """The colour that most clips show, with their number."""
        return max(self.colours.items(), key=lambda pair: pair[1])

    @property
    def num_colours(self) -> int:
        """The number of different colours that were read."""
        return len(self.colours.keys() - {"unread"})


def request_of(name: str, seed: int, num_steps: int, fields: dict[str, Any]) -> GenerationRequest:
    flow_shift = load_model_config(model_paths()[name]).scheduler.flow_shift
    plain = GenerationRequest(
        PROMPT,
        NEGATIVE,
        VideoShape(NUM_FRAMES, SIZE_PX, SIZE_PX),
        FPS,
        SamplingParams(num_steps, fields.get("guidance_scale", 1.0), flow_shift, seed),
        NagParams(),
        "cfg" if "guidance_scale" in fields else "nag",
    )
    return replace(plain, **{name: value for name, value in fields.items() if name in REPLACED})


def verdicts(name: str, requests: list[GenerationRequest]) -> Iterator[Verdict]:
    """Render the requests with one of the packaged models, and judge the clips."""
    path = model_paths()[name]
    config = load_model_config(path)
    model = load_model(config, inspect_model(config, path), num_threads=1)
    for request in requests:
        latents = model.denoise(request, model.encode_text(request), lambda _step: None)
        yield judge(model.decode(request, latents).result().frames)
    model.close()


def measure(name: str, num_steps: int, num_clips: int) -> dict[str, dict[str, Any]]:
    """Return colours and clean clips of each setting of one model, as JSON."""
    wanted = [(setting, seed) for setting in SETTINGS for seed in range(num_clips)]
    requests = [request_of(name, seed, num_steps, SETTINGS[setting]) for setting, seed in wanted]
    clips = track(verdicts(name, requests), f"rendering with {name}", total=len(requests))
    seen: dict[str, list[Verdict]] = {setting: [] for setting in SETTINGS}
    for (setting, _seed), verdict in zip(wanted, clips, strict=True):
        seen[setting].append(verdict)
    return {
        setting: {
            "colours": dict(Counter(one.colour or "unread" for one in found).most_common()),
            "num_clean": sum(one.is_clean for one in found),
        }
        for setting, found in seen.items()
    }


def cases(options: Options) -> dict[str, Measure]:
    num_clips = 1 if options.tiny else options.clips
    return {
        name: functools.partial(measure, name, 1 if options.tiny else num_steps, num_clips)
        for name, num_steps in MODELS.items()
    }


def body(cases: Cases) -> str:
    """Return the page's text and table."""
    rows: list[tuple[str, ...]] = []
    num_clips = 0
    for model, settings in cases.items():
        for setting, fields in settings.items():
            found = Found(**fields)
            num_clips = found.num_clips
            colour, count = found.largest
            rows.append(
                (
                    f"{model}: {setting}",
                    f"{found.colours.get(NEGATIVE, 0)} of {num_clips}",
                    f"{colour}, {count}",
                    f"{found.num_colours} of {len(COLOURS)}",
                    f"{found.num_clean}",
                )
            )
    head = ("model and guidance", f"`{NEGATIVE}`", "largest colour", "colours", "clean")
    return f"""\
Each model renders `{PROMPT}` with the negative prompt `{NEGATIVE}` and the seeds 0 to
{num_clips - 1}. The prompt leaves the colour open, and the judge of the Shapes world reads it.

{markdown_table(head, rows)}"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=int, default=24, help="clips of each setting (default 24)")


BENCHMARK = Benchmark(
    name="variety",
    title="Variety under a negative prompt",
    about=__doc__ or "",
    libraries=("torch", "diffusers"),
    cases=cases,
    figures=lambda _cases: (),
    body=body,
    add_options=add_options,
)

if __name__ == "__main__":
    main(BENCHMARK)
