"""The schema of `ltx2_guidance` in a model's YAML: passes beside classifier-free guidance.

LTX-2's pipelines can push each prediction away from a weak one: from that of the same prompt with
perturbed self-attention (spatio-temporal guidance, STG), and from that in which video and sound
ignore each other (modality guidance). Loads without torch.
"""

import math
from dataclasses import dataclass

from pipelines.errors import ModelConfigError

MAX_SCALE = 100.0
_LEAST = {
    "stg_scale": 0.0,
    "audio_stg_scale": 0.0,
    "modality_scale": 1.0,
    "audio_modality_scale": 1.0,
    "audio_guidance_scale": 1.0,
    "audio_guidance_rescale": 0.0,
}


@dataclass(frozen=True)
class Ltx2Guidance:
    """The further guidance of an LTX-2 model, under the names of diffusers' `LTX2Pipeline`.

    The weak predictions of STG and of modality guidance are never guided by a negative prompt, and
    each of the two costs one more pass in a step. A null for the sound takes the value of the
    video.

    Args:
        stg_scale: strength of STG for the video, 0 to 100; 0 is off, 1 is usual.
        modality_scale: strength of modality guidance for the video, 1 to 100; 1 is off, 3 is usual.
        spatio_temporal_guidance_blocks: blocks of the transformer whose self-attention STG
            perturbs, from 0: `[29]` for LTX-2, `[28]` for 2.3.
        audio_stg_scale: `stg_scale` for the sound.
        audio_modality_scale: `modality_scale` for the sound.
        audio_guidance_scale: `guidance_scale` for the sound, in clips with classifier-free
            guidance.
        audio_guidance_rescale: `guidance_rescale` for the sound.
    """

    stg_scale: float = 0.0
    modality_scale: float = 1.0
    spatio_temporal_guidance_blocks: tuple[int, ...] = ()
    audio_stg_scale: float | None = None
    audio_modality_scale: float | None = None
    audio_guidance_scale: float | None = None
    audio_guidance_rescale: float | None = None

    def __post_init__(self) -> None:
        # OmegaConf gives a list
        blocks = tuple(self.spatio_temporal_guidance_blocks)
        object.__setattr__(self, "spatio_temporal_guidance_blocks", blocks)
        for name, least in _LEAST.items():
            value, most = getattr(self, name), 1.0 if name.endswith("rescale") else MAX_SCALE
            if value is not None and not (math.isfinite(value) and least <= value <= most):
                raise ModelConfigError(
                    f"ltx2_guidance.{name} must be between {least:g} and {most:g}, not {value}"
                )
        if (self.audio_stg_scale == 0 and self.stg_scale > 0) or self.audio_guidance_rescale == 0:
            name = "audio_stg_scale" if self.audio_stg_scale == 0 else "audio_guidance_rescale"
            raise ModelConfigError(
                f"ltx2_guidance.{name}: diffusers takes 0 for the value of the video: write a "
                "small number, such as 0.001"
            )
        if any(block < 0 for block in blocks) or len({*blocks}) < len(blocks):
            raise ModelConfigError(
                "ltx2_guidance.spatio_temporal_guidance_blocks must be different numbers from 0, "
                f"not {[*blocks]}"
            )
        if self.has_stg != bool(blocks):
            raise ModelConfigError(
                "ltx2_guidance: stg_scale and spatio_temporal_guidance_blocks need each other; "
                "write for example stg_scale: 1.0, spatio_temporal_guidance_blocks: [28]"
            )

    @property
    def has_stg(self) -> bool:
        """True if each step has the pass of spatio-temporal guidance."""
        return self.stg_scale > 0 or (self.audio_stg_scale or 0) > 0

    @property
    def has_modality(self) -> bool:
        """True if each step has the pass of modality guidance."""
        return self.modality_scale > 1 or (self.audio_modality_scale or 1) > 1

    @property
    def num_passes(self) -> int:
        """The number of passes that a step has beside those of the prompts."""
        return self.has_stg + self.has_modality


NO_FURTHER_GUIDANCE = Ltx2Guidance()
