"""The values that flow through a render. Loads without torch.

What a request may hold is checked here as far as it concerns every model; what one model cannot do (its grid of
sizes) is checked by `ModelConfig.check_request`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from nag.params import GuidanceParams, NagParams, NasaParams, VsfParams
from pipelines.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    import torch

MAX_PROMPT_CHARACTERS = 20_000
MAX_SEED = 2**63 - 1
MAX_FRAMES, MAX_SIDE_PX = 10_000, 8192
GuidanceMethod = Literal["none", "cfg", "nag", "vsf", "nasa", "cfg+nag"]
CFG_METHODS: tuple[GuidanceMethod, ...] = ("cfg", "cfg+nag")  # the others run the model once a step
_CONTROL_CHARACTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class VideoShape:
    """Frames and pixels of a clip."""

    num_frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        for name, most in (
            ("num_frames", MAX_FRAMES),
            ("height", MAX_SIDE_PX),
            ("width", MAX_SIDE_PX),
        ):
            if not 1 <= getattr(self, name) <= most:
                raise RequestError(
                    f"{name} must be between 1 and {most:,}, not {getattr(self, name)}"
                )
        for name in ("height", "width"):
            if getattr(self, name) % 2:
                raise RequestError(
                    f"{name} must be even (H.264 with yuv420p), not {getattr(self, name)}"
                )

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.num_frames}"


@dataclass(frozen=True)
class SamplingParams:
    """How the latents are denoised. `guidance_scale` is classifier-free guidance; 1 is none."""

    num_inference_steps: int
    guidance_scale: float
    flow_shift: float | None  # None: as the model's scheduler was saved
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.num_inference_steps <= 1000:
            raise RequestError(
                f"num_inference_steps must be between 1 and 1000, not {self.num_inference_steps}"
            )
        if not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 1):
            raise RequestError(
                f"guidance_scale must be at least 1 (1 is no guidance), not {self.guidance_scale}"
            )
        if self.flow_shift is not None and not (
            math.isfinite(self.flow_shift) and self.flow_shift > 0
        ):
            raise RequestError(f"flow_shift must be above 0, not {self.flow_shift}")
        if not 0 <= self.seed <= MAX_SEED:
            raise RequestError(f"seed must be between 0 and {MAX_SEED}, not {self.seed}")


@dataclass(frozen=True)
class GenerationRequest:
    """Everything that a user says about one clip.

    `method` says what the negative prompt does. `none`: nothing. `cfg`: it is the text of classifier-free guidance's
    unconditional pass. `nag`, `vsf`, `nasa`: attention pushes away from it, in one pass. `cfg+nag`: NAG pushes away
    from it and the unconditional text is empty, so that nothing is pushed away from twice; where NAG does not act
    (`nag_scale=1`), it is the unconditional text after all.
    """

    prompt: str
    negative_prompt: str
    shape: VideoShape
    fps: float
    sampling: SamplingParams
    nag: NagParams
    method: GuidanceMethod = "nag"
    vsf: VsfParams = field(default_factory=VsfParams)
    nasa: NasaParams = field(default_factory=NasaParams)

    @property
    def has_cfg(self) -> bool:
        """Whether classifier-free guidance acts on this clip, with its second pass in each step."""
        return self.method in CFG_METHODS

    @property
    def attention_params(self) -> GuidanceParams | None:
        """What guides the attention; None where the method, the negative prompt or the strength leaves it alone."""
        params = {"nag": self.nag, "cfg+nag": self.nag, "vsf": self.vsf, "nasa": self.nasa}.get(
            self.method
        )
        return params if params and params.is_active and self.negative_prompt.strip() else None

    @property
    def unconditional_prompt(self) -> str | None:
        """The text of classifier-free guidance's unconditional pass; None where that pass does not run."""
        if not self.has_cfg:
            return None
        return "" if self.attention_params else self.negative_prompt

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise RequestError("prompt is empty")
        for name in ("prompt", "negative_prompt"):
            check_text(name, getattr(self, name))
        if self.method not in get_args(GuidanceMethod):
            raise RequestError(
                f"method must be one of {', '.join(get_args(GuidanceMethod))}, not {self.method!r}"
            )
        guidance_scale = self.sampling.guidance_scale
        if self.has_cfg and guidance_scale == 1:
            raise RequestError(
                f"guidance_scale must be above 1 for the method {self.method}, not 1, which is no classifier-free "
                "guidance: raise it, or use a method without cfg"
            )
        if not self.has_cfg and guidance_scale > 1:
            raise RequestError(
                f"guidance_scale is {guidance_scale:g}, but the method {self.method} runs no classifier-free guidance: "
                f"use method {'cfg+nag' if self.method == 'nag' else 'cfg or cfg+nag'}, or leave guidance_scale out"
            )
        num_steps, params = self.sampling.num_inference_steps, self.attention_params
        if params and not any(params.is_active_at(step, num_steps) for step in range(num_steps)):
            raise RequestError(
                f"nag_start {self.nag.nag_start} and nag_end {self.nag.nag_end} hold none of the {num_steps} steps, "
                f"which begin at 0, {1 / num_steps:.3g}, ...: the negative prompt would have no effect"
            )
        if not (math.isfinite(self.fps) and 1 <= self.fps <= 240):
            raise RequestError(f"fps must be between 1 and 240, not {self.fps}")


def check_text(name: str, text: str) -> None:
    """Refuses text that no tokenizer, log line or MP4 tag should be given.

    Raises:
        RequestError: too long, a control character other than tab and newline, or half a surrogate pair.
    """
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise RequestError(
            f"{name} has {len(text):,} characters; at most {MAX_PROMPT_CHARACTERS:,} are allowed"
        )
    if found := _CONTROL_CHARACTER.search(text):
        raise RequestError(
            f"{name} holds the control character U+{ord(found[0]):04X} at position {found.start() + 1}"
        )


@dataclass(frozen=True, eq=False)
class TextEmbeddings:
    """Text as the transformer takes it. Masks are None where the family has none (Wan pads with zeros)."""

    prompt_embeds: torch.Tensor  # (1, L, D)
    prompt_attention_mask: torch.Tensor | None  # (1, L)
    negative_prompt_embeds: torch.Tensor | None = (
        None  # (1, L, D), for the attention; None if unguided
    )
    negative_prompt_attention_mask: torch.Tensor | None = None  # (1, L)
    unconditional_embeds: torch.Tensor | None = (
        None  # (1, L, D), for classifier-free guidance; None where it is off
    )
    unconditional_attention_mask: torch.Tensor | None = None  # (1, L)


@dataclass(frozen=True, eq=False)
class VideoFrames:
    """A finished clip in memory."""

    frames: np.ndarray  # (T, H, W, 3) uint8
    fps: float
