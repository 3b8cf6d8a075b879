"""The schema of `scheduler` in a model's YAML. Loads without torch.

`pipelines.families.schedulers` makes the scheduler of a clip from it.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal, get_args

from omegaconf import DictConfig, ListConfig

from pipelines.errors import ModelConfigError, RequestError
from pipelines.request import SamplingParams

SchedulerName = Literal[
    "UniPCMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "FlowMatchLCMScheduler",
]
SCHEDULER_NAMES = frozenset(get_args(SchedulerName))
MAX_STEPS = 1000
MAX_TIMESTEP = 1000  # Wan and LTX were trained with timesteps up to this one
# Schedulers for which `stochastic_sampling` decides between fixed and random steps.
_WITH_CHOICE = ("FlowMatchEulerDiscreteScheduler", "DPMSolverMultistepScheduler")


@dataclass(frozen=True)
class SchedulerConfig:
    """The scheduler of a model.

    Args:
        name: class of diffusers; null for the one that the folder was saved with.
            `DPMSolverMultistepScheduler` runs as DPM++ for flow models, `FlowMatchLCMScheduler`
            draws new noise in each step, for models that were distilled for it.
        flow_shift: shift of the noise schedule, above 0; null keeps the saved one.
        sigmas: noise levels of the steps, such as `[1.0, 0.9375, 0.8333, 0.625]`, each above 0 and
            at most 1, falling. They are used as they are, without `flow_shift`, and a clip has as
            many steps. Empty to compute them from the number of steps.
        timesteps: the same as timesteps, 1000 times the noise levels, such as `[1000, 757, 522]`;
            give one of both.
        stochastic_sampling: True to draw new noise in each step: with
            `FlowMatchEulerDiscreteScheduler` all of it anew, with `DPMSolverMultistepScheduler` as
            SDE-DPM++. The noise follows from the clip's seed. Null keeps the saved setting.
    """

    name: SchedulerName | None = None
    flow_shift: float | None = None
    sigmas: tuple[float, ...] = ()
    timesteps: tuple[float, ...] = ()
    stochastic_sampling: bool | None = None

    def __post_init__(self) -> None:
        for name, highest in (("sigmas", 1), ("timesteps", MAX_TIMESTEP)):
            values = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, values)  # OmegaConf gives a list
            _check_levels(name, values, highest)
        if self.sigmas and self.timesteps:
            raise ModelConfigError("give scheduler.sigmas or scheduler.timesteps, not both")
        if self.flow_shift is not None:
            if not 0 < self.flow_shift < math.inf:
                raise ModelConfigError(
                    f"scheduler.flow_shift must be above 0, not {self.flow_shift}"
                )
            if self.levels:
                raise ModelConfigError(
                    f"scheduler.{self.levels_key} are used as they are: leave scheduler.flow_shift "
                    "out"
                )
        if self.stochastic_sampling is not None and self.name not in _WITH_CHOICE:
            raise ModelConfigError(
                f"scheduler.stochastic_sampling needs scheduler.name: {' or '.join(_WITH_CHOICE)}, "
                f"not {self.name or 'null'}"
            )

    @property
    def levels(self) -> tuple[float, ...]:
        """The noise levels that the YAML lists, 1 at most; empty if it lists none."""
        return self.sigmas or tuple(timestep / MAX_TIMESTEP for timestep in self.timesteps)

    @property
    def levels_key(self) -> str:
        """The key under which the YAML lists the noise levels."""
        return "sigmas" if self.sigmas else "timesteps"

    def check_steps(self, model: str, sampling: SamplingParams) -> None:
        """Refuse a request with another number of steps, or a shift, if the YAML lists the steps.

        Raises:
            RequestError: num_inference_steps is not the number of the listed noise levels, or
                flow_shift is given.
        """
        if not self.levels:
            return
        if sampling.num_inference_steps != len(self.levels):
            raise RequestError.of(
                f"num_inference_steps must be {len(self.levels)} for {model}, as many as its YAML "
                f"lists in scheduler.{self.levels_key}, not {sampling.num_inference_steps}",
                "num_inference_steps",
            )
        if sampling.flow_shift is not None:
            raise RequestError.of(
                f"{model} lists scheduler.{self.levels_key}, which are used as they are: leave "
                "flow_shift out",
                "flow_shift",
            )


def check_lists(loaded: DictConfig) -> None:
    """Refuse a list with other entries than numbers, for which OmegaConf names no key."""
    for section, name in (
        *itertools.product(("scheduler", "second_stage"), ("sigmas", "timesteps")),
        ("ltx2_guidance", "spatio_temporal_guidance_blocks"),
    ):
        given = loaded.get(section)
        if not isinstance(given, DictConfig) or name not in given:
            continue
        key, entries = f"{section}.{name}", given.get(name)
        if not isinstance(entries, ListConfig):
            raise ModelConfigError(f"{key} must be a list of numbers, not {entries!r}")
        for entry in entries:
            if isinstance(entry, bool) or not isinstance(entry, int | float):
                raise ModelConfigError(f"{key} must be a list of numbers, but {entry!r} is in it")


def _check_levels(name: str, values: tuple[float, ...], highest: int) -> None:
    if len(values) > MAX_STEPS:
        raise ModelConfigError(
            f"scheduler.{name} must list at most {MAX_STEPS} steps, not {len(values)}"
        )
    for value in values:
        if not 0 < value <= highest:
            raise ModelConfigError(
                f"scheduler.{name} must be above 0 and at most {highest}, not {value:g}; the last "
                "step ends at 0, which is not listed"
            )
    for before, after in itertools.pairwise(values):
        if after >= before:
            raise ModelConfigError(
                f"scheduler.{name} must fall from step to step, but {after:g} follows {before:g}"
            )
