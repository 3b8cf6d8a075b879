"""The options of a benchmark and their defaults. Loads without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.errors import RefusedError
from jobs.manifest.model_catalog import ModelCatalog
from jobs.text import unknown
from pipelines.catalog.model_config import ModelConfig
from pipelines.errors import ModelNotFoundError

Series = Literal["measure", "choose", "held-out"]
BenchKind = Literal["negatives", "parameters"]
MODELS = ("shapes-wan-4step", "shapes-wan", "shapes-ltx-4step", "shapes-ltx")
METHODS = ("none", "cfg", "nag", "vsf", "nasa", "cfg+nag")
QUICK_METHODS = ("none", "cfg", "nag")
ATTRIBUTES = ("colour", "shape", "background", "motion")
CASES = ("open", "hard")
NEGATIVES_SERIES: tuple[Series, ...] = ("measure", "held-out")
REPORT = "--report"  # the option for the folder of a report
PRECISION = "precision"  # this slice compares two models, not settings
SLICE_NAMES = (
    "scale-alpha",
    "scale-tau",
    "range",
    "norm",
    "guidance-scale",
    "vsf",
    "nasa",
    PRECISION,
)
QUICK_SLICES = ("norm", PRECISION)
MAX_FEW_STEPS = 4  # a model with so few default steps was distilled for them
# the main number of steps first, then those of the curve
FEW_STEPS, MANY_STEPS = (4, 1, 2, 8), (25, 4, 8)
# For models whose YAML says 1: the usual strength, and for distilled models the scale with the
# mildest loss in the sweep.
USUAL_CFG_SCALE, DISTILLED_CFG_SCALE = 3.0, 2.0
CLIP_SHAPE = (17, 64, 64)  # the only frames, height and width that the judge reads


@dataclass(frozen=True)
class Sizes:
    """The numbers of clips.

    Args:
        clips: clips for each attribute, case and setting of the main table; in a sweep, for each
            setting over all attributes.
        curve_clips: clips for each attribute and method at the other numbers of steps; may be 0.
        judge_clips: true clips, and broken clips of each kind, that measure the judge itself.
    """

    clips: int
    curve_clips: int
    judge_clips: int


STANDARD: dict[BenchKind, Sizes] = {
    "negatives": Sizes(50, 25, 100),
    "parameters": Sizes(40, 0, 100),
}
QUICK = Sizes(2, 0, 3)


@dataclass(frozen=True)
class BenchOptions:
    """The options of one benchmark; empty models and steps stand for the defaults.

    Args:
        series: the sequence of tasks of `negatives`.
        processes: the number of processes that judge clips.
    """

    kind: BenchKind
    report: Path
    sizes: Sizes
    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = METHODS
    steps: tuple[int, ...] = ()
    attributes: tuple[str, ...] = ATTRIBUTES
    cases: tuple[str, ...] = CASES
    slices: tuple[str, ...] = SLICE_NAMES
    series: Series = "measure"
    is_quick: bool = False
    processes: int = 1

    def __post_init__(self) -> None:
        for name, given, known in (
            ("method", self.methods, METHODS),
            ("attribute", self.attributes, ATTRIBUTES),
            ("case", self.cases, CASES),
            ("slice", self.slices, SLICE_NAMES),
        ):
            for word in given:
                if word not in known:
                    raise RefusedError(unknown(name, word, known))
        if self.series not in NEGATIVES_SERIES:
            raise RefusedError(unknown("series", self.series, NEGATIVES_SERIES))
        if self.sizes.clips < 1 or self.sizes.curve_clips < 0:
            raise RefusedError("--clips must be at least 1, and --curve-clips at least 0")
        if self.processes < 1:
            raise RefusedError(f"--processes must be at least 1, got {self.processes}")
        if any(num_steps < 1 for num_steps in self.steps):
            raise RefusedError(f"--steps must be at least 1, got {min(self.steps)}")
        if self.methods[:1] != ("none",):
            raise RefusedError("--method must begin with none: all others are compared to it")

    @property
    def work(self) -> Path:
        """Return the folder that keeps the manifest and the judgements between runs."""
        return self.report / "work"

    def steps_of(self, config: ModelConfig) -> tuple[int, ...]:
        """Return the numbers of steps for a model, the main one first."""
        if self.steps:
            return self.steps
        return FEW_STEPS if config.sampling.num_inference_steps <= MAX_FEW_STEPS else MANY_STEPS


def cfg_scale(config: ModelConfig) -> float:
    """Return the scale of classifier-free guidance that a model is compared at."""
    sampling = config.sampling
    if sampling.guidance_scale > 1:
        return sampling.guidance_scale
    is_distilled = sampling.num_inference_steps <= MAX_FEW_STEPS
    return DISTILLED_CFG_SCALE if is_distilled else USUAL_CFG_SCALE


def find_models(
    options: BenchOptions, catalog: ModelCatalog
) -> tuple[list[ModelConfig], list[str]]:
    """Return the models to measure, and the default models whose weights are missing.

    Raises:
        UnknownModelError, PipelineError: a model named in the options is missing or broken.
        RefusedError: a model renders clips that the judge cannot read.
    """
    known, missing = list[ModelConfig](), list[str]()
    for name in options.models or MODELS:
        if not options.models and name not in catalog.names():
            missing.append(name)
            continue
        try:
            config = catalog.get(name).config
        except ModelNotFoundError:
            if options.models:
                raise
            missing.append(name)
            continue
        sampling = config.sampling
        if (sampling.num_frames, sampling.height, sampling.width) != CLIP_SHAPE:
            frames, height, width = CLIP_SHAPE
            raise RefusedError(
                f"{name}: the judge reads only Shapes clips of {frames} frames of {width}x{height}"
            )
        known.append(config)
    if not known:
        raise RefusedError(
            f"none of {', '.join(MODELS)} is here; nagfarm models shows what is missing"
        )
    return (known[:1] if options.is_quick and not options.models else known), missing
