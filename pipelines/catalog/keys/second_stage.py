"""The schema of `second_stage` in a model's YAML: denoise again at twice the size.

A clip is denoised at half of its height and width. A latent upsampler doubles these latents, and
they are denoised again at the clip's size, from noise of a lower level. Loads without torch.
"""

import itertools
import math
from dataclasses import dataclass

from pipelines.catalog.files.sources import check_source
from pipelines.errors import ModelConfigError

SCALE = 2  # for height and width
MAX_LEVELS = {"sigmas": 1, "timesteps": 1000}
MAX_STEPS = 1000


@dataclass(frozen=True)
class SecondStage:
    """The second stage of an LTX model, and its latent upsampler.

    Guidance, LoRAs and texts are those of the first stage; a range of guided steps (`nag_start`,
    `nag_end`) is a range of each stage. `sampling.num_inference_steps` counts the first stage
    alone. Predicted times count that stage at the size of the clip, and the second one not at all.

    Args:
        source: hub id, or folder, that holds the latent upsampler.
        revision: commit or tag on the hub.
        subfolder: folder of the upsampler in `source`; empty if `source` is that folder.
        sigmas: noise levels of the steps, such as `[0.909375, 0.725, 0.421875]`, each above 0 and
            below 1, falling. The upsampled latents get noise of the first one.
        timesteps: the same as timesteps, 1000 times the noise levels; give one of both.
        num_inference_steps: steps of a whole schedule, 2 to 1,000, with `denoise_strength`; in
            place of a list, for `LTXConditionPipeline`.
        denoise_strength: share of that schedule, at its end, which is taken, above 0 and below 1;
            0.4 of 10 steps is usual.
        guidance_scale: strength of classifier-free guidance in this stage, at least 1, in clips
            that have it; null takes the clip's.
        adain_factor: share by which the upsampled latents get the mean and deviation of those
            before, 0 to 1; 1 for distilled LTX-Video.
        tone_map_compression_ratio: compression of large values of the upsampled latents, 0 to 1;
            0.6 for LTX-Video 0.9.8.
    """

    source: str = ""
    revision: str | None = None
    subfolder: str = "latent_upsampler"
    sigmas: tuple[float, ...] = ()
    timesteps: tuple[float, ...] = ()
    num_inference_steps: int | None = None
    denoise_strength: float | None = None
    guidance_scale: float | None = None
    adain_factor: float = 0.0
    tone_map_compression_ratio: float = 0.0

    def __post_init__(self) -> None:
        if not self.source:
            raise ModelConfigError(
                "second_stage.source is missing: write the hub id or the folder of the latent "
                "upsampler, such as Lightricks/ltxv-spatial-upscaler-0.9.7"
            )
        check_source(self.source, self.revision)
        if self.source.endswith(".safetensors"):
            raise ModelConfigError("second_stage.source must be a folder, with a config.json")
        if self.subfolder and not self.subfolder.replace("_", "").replace("-", "").isalnum():
            raise ModelConfigError(
                "second_stage.subfolder must be one name of letters, digits, _ and -, or empty, "
                f"not {self.subfolder!r}"
            )
        self._check_steps()
        if self.guidance_scale is not None and not 1 <= self.guidance_scale < math.inf:
            raise ModelConfigError(
                f"second_stage.guidance_scale must be at least 1, not {self.guidance_scale}"
            )
        for name in ("adain_factor", "tone_map_compression_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ModelConfigError(
                    f"second_stage.{name} must be between 0 and 1, not {getattr(self, name)}"
                )

    def _check_steps(self) -> None:
        for name, highest in MAX_LEVELS.items():
            values = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, values)  # OmegaConf gives a list
            if len(values) > MAX_STEPS:
                raise ModelConfigError(
                    f"second_stage.{name} must list at most {MAX_STEPS} steps, not {len(values)}"
                )
            if not all(0 < value < highest for value in values) or any(
                after >= before for before, after in itertools.pairwise(values)
            ):
                raise ModelConfigError(
                    f"second_stage.{name} must fall from step to step, each above 0 and below "
                    f"{highest}, not {[*values]}"
                )
        has_schedule = (self.num_inference_steps, self.denoise_strength) != (None, None)
        if bool(self.sigmas) + bool(self.timesteps) + has_schedule != 1:
            raise ModelConfigError(
                "second_stage needs sigmas, or timesteps, or num_inference_steps with "
                "denoise_strength: one of the three"
            )
        if not has_schedule:
            return
        count, strength = self.num_inference_steps, self.denoise_strength
        if count is None or not 2 <= count <= MAX_STEPS:
            raise ModelConfigError(
                f"second_stage.num_inference_steps must be between 2 and {MAX_STEPS}, not {count}"
            )
        if strength is None or not 0 < strength < 1:
            raise ModelConfigError(
                f"second_stage.denoise_strength must be above 0 and below 1, not {strength}"
            )
        if not self.num_steps:
            raise ModelConfigError(
                f"second_stage: denoise_strength {strength:g} of {count} steps is less than one"
            )

    @property
    def levels(self) -> tuple[float, ...]:
        """The noise levels that the YAML lists, below 1; empty if it lists none."""
        return self.sigmas or tuple(value / MAX_LEVELS["timesteps"] for value in self.timesteps)

    @property
    def num_steps(self) -> int:
        """The number of denoise steps that are taken, counted as diffusers does."""
        if self.num_inference_steps is None or self.denoise_strength is None:
            return len(self.levels)
        return int(self.num_inference_steps * self.denoise_strength)
