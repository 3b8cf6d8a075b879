"""The scheduler of one clip, made anew for each from the model's YAML and its saved scheduler.

Decides how the schedulers of diffusers run a flow model: with the shift under the name that each
gives it, with listed noise levels, and with noise from the clip's seed. Every family calls its
scheduler through its stock pipeline, which knows neither lists nor seeds.
"""

from functools import cache
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    UniPCMultistepScheduler,
)

from pipelines.catalog.keys.scheduler_config import MAX_TIMESTEP, SchedulerConfig
from pipelines.errors import RequestError

_SCHEDULERS: dict[str, Any] = {
    scheduler.__name__: scheduler
    for scheduler in (
        UniPCMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
        DPMSolverMultistepScheduler,
        FlowMatchLCMScheduler,
    )
}
_FLOW_MATCH = (FlowMatchEulerDiscreteScheduler, FlowMatchLCMScheduler)  # others: shift=flow_shift
# Makes the noise of the steps another draw than the latents' noise, from the same seed.
STEP_SEED_MASK = 0x57E9_0153
HIGHEST_SIGMA = 1 - 1e-6  # for solvers that take the logarithm of 1 - sigma


class ClipSchedulers:
    """The schedulers of a model's clips.

    Args:
        config: `scheduler` of the model's YAML.
        saved: scheduler that the pipeline was loaded with.
    """

    def __init__(self, config: SchedulerConfig, saved: Any) -> None:
        self._config = config
        self._class = _SCHEDULERS[config.name] if config.name else type(saved)
        self._saved = dict(saved.config)

    def build(self, flow_shift: float | None, seed: int) -> Any:
        """Return a new scheduler for one clip.

        Args:
            flow_shift: shift of the clip; None keeps the saved one.
            seed: seed of the clip, for schedulers that draw noise.
        """
        settings = self._settings(flow_shift)
        levels = self._config.levels
        if levels:
            settings |= {"use_dynamic_shifting": False}
        scheduler = _extended(self._class, has_levels=bool(levels)).from_config(
            self._saved, **settings
        )
        scheduler.clip_noise = torch.Generator("cpu").manual_seed(seed ^ STEP_SEED_MASK)
        scheduler.clip_sigmas = levels
        return scheduler

    def _settings(self, flow_shift: float | None) -> dict[str, Any]:
        saved, is_flow_match = self._saved, issubclass(self._class, _FLOW_MATCH)
        if flow_shift is None:
            flow_shift = saved.get("flow_shift", saved.get("shift"))
        settings: dict[str, Any] = {}
        if flow_shift is not None:
            settings["shift" if is_flow_match else "flow_shift"] = flow_shift
        if not is_flow_match:
            # These are flow models, also if the saved config has other values.
            settings |= {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
        if (is_stochastic := self._config.stochastic_sampling) is not None:
            settings |= (
                {"stochastic_sampling": is_stochastic}
                if is_flow_match
                else {"algorithm_type": "sde-dpmsolver++" if is_stochastic else "dpmsolver++"}
            )
        return settings


class _SeededNoise:
    """A scheduler that draws the noise of its steps on the CPU, from the clip's seed."""

    clip_noise: torch.Generator

    def step(self, *args: Any, **kwargs: Any) -> Any:
        stock: Any = super()
        return stock.step(*args, **{"generator": self.clip_noise, **kwargs})


class _ListedSigmas:
    """A scheduler whose noise levels the model's YAML lists, whatever its pipeline proposes."""

    clip_sigmas: tuple[float, ...]
    sigmas: torch.Tensor
    timesteps: torch.Tensor

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,  # the pipeline's shift, which a list needs none of
        timesteps: Any = None,
    ) -> None:
        proposed = next((given for given in (sigmas, timesteps) if given is not None), None)
        count = num_inference_steps if proposed is None else len(proposed)
        if count != len(self.clip_sigmas):
            raise RequestError.of(
                f"the model lists {len(self.clip_sigmas)} noise levels, not {count}",
                "num_inference_steps",
            )
        stock: Any = super()
        stock.set_timesteps(len(self.clip_sigmas), device=device)
        levels = torch.tensor([*self.clip_sigmas, 0.0], dtype=torch.float64)
        self.timesteps = (levels[:-1] * MAX_TIMESTEP).to(self.timesteps.device, torch.float32)
        if not isinstance(self, _FLOW_MATCH):
            levels = levels.clamp(max=HIGHEST_SIGMA)
        self.sigmas = levels.to(self.sigmas.device, torch.float32)


@cache
def _extended(stock: Any, *, has_levels: bool) -> Any:
    """Return a scheduler class of diffusers with noise from the seed and listed noise levels."""
    parts = (
        *((_ListedSigmas,) if has_levels else ()),
        *(() if _is_fixed(stock) else (_SeededNoise,)),
    )
    return type(stock.__name__, (*parts, stock), {}) if parts else stock


def _is_fixed(stock: Any) -> bool:
    """Return True if a scheduler draws no noise, whatever its settings."""
    return issubclass(stock, UniPCMultistepScheduler)
