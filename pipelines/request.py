"""The values that flow through a render. Loads without torch.

Checks each request as far as every model agrees; `ModelConfig.check_request` checks the rules of
one model, such as its grid of sizes. The `Args` of these classes are the descriptions in
docs/reference/manifest.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self, TypeVar, get_args

from nag.params import GuidanceParams, NagParams, NasaParams, VsfParams
from pipelines.clip_inputs import NO_FILES, NO_INPUTS, ClipInputs, InputFiles
from pipelines.errors import RequestError
from pipelines.lora_choice import LoraChoice
from pipelines.texts import LongText, check_text

if TYPE_CHECKING:
    import numpy as np
    import torch

T = TypeVar("T")
MAX_SEED = 2**63 - 1
MAX_FRAMES, MAX_SIDE_PX = 10_000, 8192
GuidanceMethod = Literal["none", "cfg", "nag", "vsf", "nasa", "cfg+nag"]
CFG_METHODS: tuple[GuidanceMethod, ...] = ("cfg", "cfg+nag")  # the others run the model once a step


@dataclass(frozen=True)
class VideoShape:
    """Frames and pixels of a clip.

    Args:
        num_frames: number of frames, 1 to 10,000, on the grid of the model.
        height: height in pixels, even, at most 8,192, on the grid of the model.
        width: width in pixels, even, at most 8,192, on the grid of the model.

    Raises:
        RequestError: a size is outside its range, or height or width is odd.
    """

    num_frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        check_range("num_frames", self.num_frames, 1, MAX_FRAMES)
        check_range("height", self.height, 1, MAX_SIDE_PX)
        check_range("width", self.width, 1, MAX_SIDE_PX)
        for name in ("height", "width"):
            if getattr(self, name) % 2:
                raise RequestError.of(
                    f"{name} must be even (H.264 with yuv420p), not {getattr(self, name)}", name
                )

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.num_frames}"


@dataclass(frozen=True)
class SamplingParams:
    """The settings of the sampler that denoises the latents.

    Args:
        num_inference_steps: number of denoise steps, 1 to 1,000.
        guidance_scale: strength of classifier-free guidance, at least 1; 1 switches it off.
        flow_shift: shift of the noise schedule, above 0; null keeps the shift that the model's
            scheduler was saved with.
        seed: seed of the initial noise, 0 to 2**63 - 1.
        guidance_scale_2: strength of classifier-free guidance in the low-noise transformer of a
            model with two, at least 1; null takes `guidance_scale` for both.
        strength: share of the denoise steps that a video to video clip goes through, above 0 and at
            most 1: the higher, the less is left of the video; null for the model's own.
        guidance_rescale: share of a guided prediction that gets the contrast of the unguided one,
            against overexposure, 0 to 1, in LTX models with classifier-free guidance; 0 is off.

    Raises:
        RequestError: a value is outside its range or not finite.
    """

    num_inference_steps: int
    guidance_scale: float
    flow_shift: float | None
    seed: int
    guidance_scale_2: float | None = None
    strength: float | None = None
    guidance_rescale: float = 0.0

    @property
    def num_steps(self) -> int:
        """The number of denoise steps that are taken, counted as diffusers does."""
        if self.strength is None:
            return self.num_inference_steps
        return min(int(self.num_inference_steps * self.strength), self.num_inference_steps)

    def __post_init__(self) -> None:
        check_range("num_inference_steps", self.num_inference_steps, 1, 1000)
        if not 1 <= self.guidance_scale < math.inf:
            raise RequestError.of(
                f"guidance_scale must be at least 1 (1 switches it off), not {self.guidance_scale}",
                "guidance_scale",
            )
        if self.flow_shift is not None and not 0 < self.flow_shift < math.inf:
            raise RequestError.of(
                f"flow_shift must be above 0, not {self.flow_shift}", "flow_shift"
            )
        check_range("seed", self.seed, 0, MAX_SEED)
        if self.guidance_scale_2 is not None and not 1 <= self.guidance_scale_2 < math.inf:
            raise RequestError.of(
                f"guidance_scale_2 must be at least 1, not {self.guidance_scale_2}",
                "guidance_scale_2",
            )
        if self.strength is not None and not 0 < self.strength <= 1:
            raise RequestError.of(
                f"strength must be above 0 and at most 1, not {self.strength}", "strength"
            )
        if not 0 <= self.guidance_rescale <= 1:
            raise RequestError.of(
                f"guidance_rescale must be between 0 and 1, not {self.guidance_rescale}",
                "guidance_rescale",
            )
        if not self.num_steps:
            raise RequestError.of(
                f"strength {self.strength} of {self.num_inference_steps} steps is less than one "
                "step: raise strength, or num_inference_steps",
                "strength",
                "num_inference_steps",
            )


@dataclass(frozen=True)
class GenerationRequest:
    """Everything that a user decides about one clip.

    With `none` the negative prompt is not used. With `cfg` it is the text of the unconditional pass
    of classifier-free guidance. With `nag`, `vsf` and `nasa` attention pushes away from it, in one
    pass. With `cfg+nag` NAG pushes away from it and the unconditional text is empty, so that the
    model does not push away from it twice; if NAG has no effect (`nag_scale=1`), the negative
    prompt is the unconditional text.

    Args:
        prompt: description of the clip, at most 20,000 characters, not blank.
        negative_prompt: description of what the clip must not show, at most 20,000 characters.
        fps: frames per second of the MP4, 1 to 240.
        method: guidance method, which decides how the negative prompt is used.
        loras: LoRAs of the model's YAML that are on, with their weights (`style=0.8 detail`, a list
            or a mapping; `none` for no LoRA); null for those that the YAML switches on.
        text: treatment of a prompt or negative prompt with more tokens than the model reads:
            `refuse` it, or `truncate` it.
        audio: sound in the MP4, for a model that makes sound.

    Raises:
        RequestError: a value is outside its range, or two values contradict each other.
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
    loras: tuple[LoraChoice, ...] | None = None
    text: LongText = "refuse"
    inputs: InputFiles = NO_FILES
    audio: bool = True

    @property
    def has_cfg(self) -> bool:
        """Return True if classifier-free guidance runs its second pass in each step."""
        return self.method in CFG_METHODS

    @property
    def attention_params(self) -> GuidanceParams | None:
        """Return the parameters that guide the attention.

        None if the method, the negative prompt or the strength leaves the attention unguided.
        """
        params = {"nag": self.nag, "cfg+nag": self.nag, "vsf": self.vsf, "nasa": self.nasa}.get(
            self.method
        )
        return params if params and params.is_active and self.negative_prompt.strip() else None

    @property
    def unconditional_prompt(self) -> str | None:
        """Return the text of the unconditional pass; None if that pass does not run."""
        if not self.has_cfg:
            return None
        return "" if self.attention_params else self.negative_prompt

    def with_prompt_and_seed(self, prompt: str, seed: int) -> Self:
        """Return this request with another prompt and seed; check these two alone.

        A manifest of a million rows differs in little else.
        """
        check_prompt_and_seed(prompt, seed)
        sampling = _changed(self.sampling, {"seed": seed})
        return _changed(self, {"prompt": prompt, "sampling": sampling})

    def __post_init__(self) -> None:
        _check_prompt(self.prompt)
        check_text("negative_prompt", self.negative_prompt)
        if self.method not in get_args(GuidanceMethod):
            raise RequestError.of(
                f"method must be one of {', '.join(get_args(GuidanceMethod))}, not {self.method!r}",
                "method",
            )
        self._check_guidance_scale()
        self._check_steps()
        check_range("fps", self.fps, 1, 240)

    def _check_guidance_scale(self) -> None:
        guidance_scale = self.sampling.guidance_scale
        if self.has_cfg and guidance_scale == 1:
            raise RequestError.of(
                f"guidance_scale must be above 1 for the method {self.method}, not 1, which "
                "switches classifier-free guidance off: raise it, or use a method without cfg",
                "guidance_scale",
                "method",
            )
        if not self.has_cfg and guidance_scale > 1:
            method = "cfg+nag" if self.method == "nag" else "cfg or cfg+nag"
            raise RequestError.of(
                f"guidance_scale is {guidance_scale:g}, but the method {self.method} runs no "
                f"classifier-free guidance: use method {method}, or leave guidance_scale out",
                "guidance_scale",
                "method",
            )
        if not self.has_cfg and self.sampling.guidance_scale_2 is not None:
            raise RequestError.of(
                f"guidance_scale_2 is {self.sampling.guidance_scale_2:g}, but the method "
                f"{self.method} runs no classifier-free guidance: leave it out",
                "guidance_scale_2",
                "method",
            )

    def _check_steps(self) -> None:
        """Refuse a range of steps that no step of the clip falls into."""
        num_steps, params = self.sampling.num_steps, self.attention_params
        if params and not any(params.is_active_at(step, num_steps) for step in range(num_steps)):
            raise RequestError.of(
                f"nag_start {self.nag.nag_start} and nag_end {self.nag.nag_end} hold none of the "
                f"{num_steps} steps, which begin at 0, {1 / num_steps:.3g}, ...: "
                "the negative prompt would have no effect",
                "nag_start",
                "nag_end",
                "num_inference_steps",
                "negative_prompt",
            )


def check_prompt_and_seed(prompt: str, seed: int) -> None:
    """Refuse a prompt or a seed that no request may have.

    Raises:
        RequestError: it is one of these.
    """
    _check_prompt(prompt)
    check_range("seed", seed, 0, MAX_SEED)


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise RequestError.of("prompt is empty", "prompt")
    check_text("prompt", prompt)


def _changed(value: T, checked: Mapping[str, object]) -> T:
    """Return a copy of a frozen dataclass with other values, without its checks."""
    copy = object.__new__(type(value))
    object.__setattr__(copy, "__dict__", {**vars(value), **checked})
    return copy


def check_range(name: str, value: float, least: int, most: int) -> None:
    """Raise RequestError if the value of a field is outside its range or not a number."""
    if not least <= value <= most:
        raise RequestError.of(f"{name} must be between {least} and {most:,}, not {value}", name)


@dataclass(frozen=True, eq=False)
class TextEmbeddings:
    """The encoded texts of a clip, as the transformer takes them.

    Masks are None for families that use none: Wan pads with zeros.

    Args:
        prompt_embeds: embeddings of the prompt, (1, L, D).
        prompt_attention_mask: mask of the prompt, (1, L).
        negative_prompt_embeds: text that guides the attention, (1, L, D); None if unguided.
        negative_prompt_attention_mask: mask of that text, (1, L).
        unconditional_embeds: text of the unconditional pass, (1, L, D); None without
            classifier-free guidance.
        unconditional_attention_mask: mask of that text, (1, L).
        inputs: images and videos that the clip begins with, which go the same way.
    """

    prompt_embeds: torch.Tensor
    prompt_attention_mask: torch.Tensor | None
    negative_prompt_embeds: torch.Tensor | None = None
    negative_prompt_attention_mask: torch.Tensor | None = None
    unconditional_embeds: torch.Tensor | None = None
    unconditional_attention_mask: torch.Tensor | None = None
    inputs: ClipInputs = NO_INPUTS


@dataclass(frozen=True, eq=False)
class AudioTrack:
    """The sound of a clip: `samples` is (N, channels) float32 in -1..1."""

    samples: np.ndarray
    sample_rate: int


@dataclass(frozen=True, eq=False)
class VideoFrames:
    """A finished clip in memory. `frames` is (T, H, W, 3) uint8; `audio` is None without sound."""

    frames: np.ndarray
    fps: float
    audio: AudioTrack | None = None

    def result(self) -> VideoFrames:
        """Return these frames, which are `PendingFrames` without a wait."""
        return self
