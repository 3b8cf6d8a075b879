"""What a benchmark may be asked for, and what it takes where nothing is said. Loads without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.errors import RefusedError
from jobs.manifest.model_catalog import ModelCatalog
from jobs.text import unknown
from pipelines.catalog.model_config import ModelConfig
from pipelines.errors import ModelNotFoundError

BenchKind = Literal["negatives", "parameters"]
MODELS = ("shapes-wan-4step", "shapes-wan", "shapes-ltx-4step", "shapes-ltx")
METHODS = ("none", "cfg", "nag", "vsf", "nasa", "cfg+nag")
QUICK_METHODS = ("none", "cfg", "nag")
ATTRIBUTES = ("colour", "shape", "background", "motion")
CASES = ("open", "hard")
PRECISION = "precision"  # a slice of two models, not of settings
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
MAX_FEW_STEPS = 4  # a model that renders in so few steps by default was distilled for it
FEW_STEPS, MANY_STEPS = (
    (4, 1, 2, 8),
    (25, 4, 8),
)  # the main number of steps first, then those of the curve
DEFAULT_CFG_SCALE = 2.0  # for models whose YAML says 1, as distilled ones do: the mildest loss in the sweep of scales
CLIP_SHAPE = (17, 64, 64)  # what the judge reads


@dataclass(frozen=True)
class Sizes:
    """How many clips.

    Args:
        clips: for each attribute, case and setting in main cells; for each setting of a sweep, over all attributes.
        curve_clips: for each attribute and method at the other numbers of steps; 0 leaves these out.
        judge_clips: true ones, and spoilt ones of each kind, that the judge itself is measured on.
    """

    clips: int
    curve_clips: int
    judge_clips: int


STANDARD: dict[BenchKind, Sizes] = {
    "negatives": Sizes(50, 24, 100),
    "parameters": Sizes(40, 0, 100),
}
QUICK = Sizes(2, 0, 3)


@dataclass(frozen=True)
class BenchOptions:
    """A benchmark as it was asked for; empty models and steps take the defaults.

    Args:
        processes: that judge clips side by side.
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
        if self.sizes.clips < 1 or self.sizes.curve_clips < 0:
            raise RefusedError("--clips must be at least 1, and --curve-clips at least 0")
        if self.processes < 1:
            raise RefusedError(f"--processes must be at least 1, not {self.processes}")
        if any(num_steps < 1 for num_steps in self.steps):
            raise RefusedError(f"--steps must be at least 1, not {min(self.steps)}")
        if self.methods[:1] != ("none",):
            raise RefusedError("--method must begin with none: all others are compared to it")

    @property
    def work(self) -> Path:
        """Where the manifest and what was seen are kept between runs."""
        return self.report / "work"

    def steps_of(self, config: ModelConfig) -> tuple[int, ...]:
        """The main number of steps first."""
        if self.steps:
            return self.steps
        return FEW_STEPS if config.sampling.num_inference_steps <= MAX_FEW_STEPS else MANY_STEPS


def find_models(
    options: BenchOptions, catalog: ModelCatalog
) -> tuple[list[ModelConfig], list[str]]:
    """The models to measure, and of those that nobody named the ones whose weights are not here.

    Raises:
        UnknownModelError, PipelineError: a model that was named is not there or broken.
        RefusedError: a model does not draw what the judge reads.
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
                f"{name}: the judge reads Shapes clips of {frames} frames of {width}x{height} alone"
            )
        known.append(config)
    if not known:
        raise RefusedError(
            f"none of {', '.join(MODELS)} is here; nagfarm models says what is missing"
        )
    return (known[:1] if options.is_quick and not options.models else known), missing
