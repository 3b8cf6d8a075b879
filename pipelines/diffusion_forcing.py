"""The schedule of diffusion forcing (SkyReels V2): each frame has a timestep. Loads without torch.

A clip that is longer than the model's window is rendered in parts: a part begins with the last
frames of the one before. With `ar_step` the frames of a part are denoised one block behind another.
Diffusers (0.42.1) leaves frames as noise, or fails in the middle of a clip, where the numbers do
not divide; such a clip is refused here. Source: huggingface/diffusers, issue 13609.
"""

from dataclasses import dataclass

from nag.params import NagParams
from pipelines.errors import ModelConfigError, ModelFolderError, RequestError
from pipelines.request import GenerationRequest

MAX_ADDED_NOISE = 60  # diffusers warns above


@dataclass(frozen=True)
class DiffusionForcing:
    """The schedule of a model with diffusion forcing, under diffusers' names and defaults.

    Args:
        base_num_frames: frames that the model renders at once, 97 for 540p and 121 for 720p; a
            longer clip is rendered in parts of so many frames.
        overlap_history: last frames of a part with which the next one begins, 17 or 37; null
            refuses clips longer than `base_num_frames`.
        addnoise_condition: noise on the frames that a part begins with, of 1000, 0 to 60; 20 makes
            long clips steadier. It follows from the clip's seed and the kind of its device.
        ar_step: steps by which each block of frames lags behind the one before, such as 5; 0
            denoises all frames together. It takes more steps.
        causal_block_size: latents of a block, which attends to no later block, such as 5 with
            `ar_step`; null for the folder's. Above 1 it takes the memory of a mask: 2.6 GB for 97
            frames of 960x544, and more while attention reads it.
    """

    base_num_frames: int = 97
    overlap_history: int | None = None
    addnoise_condition: int = 0
    ar_step: int = 0
    causal_block_size: int | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("base_num_frames", 1, 10_000),
            ("overlap_history", 1, self.base_num_frames - 1),
            ("addnoise_condition", 0, MAX_ADDED_NOISE),
            ("ar_step", 0, 1000),
            ("causal_block_size", 1, 10_000),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ModelConfigError(
                    f"diffusion_forcing.{name} must be between {low} and {high}, not {value}"
                )

    def num_parts(self, num_frames: int, frames_per_latent: int) -> int:
        """Return the number of parts in which a clip is rendered."""
        if self.overlap_history is None or num_frames <= self.base_num_frames:
            return 1
        latents, base, overlap = (
            num_latents(frames, frames_per_latent)
            for frames in (num_frames, self.base_num_frames, self.overlap_history)
        )
        return 1 + -(-(latents - base) // (base - overlap))

    def num_rows(self, num_frames: int, num_steps: int, frames_per_latent: int) -> int:
        """Return the steps of all parts, in each of which the model sees one part.

        A part's last block begins `ar_step` steps behind the one before, and so on.
        """
        block, size = self.causal_block_size or 1, min(num_frames, self.base_num_frames)
        blocks = num_latents(size, frames_per_latent) // block
        known = num_latents(self.overlap_history or 1, frames_per_latent) // block
        num_parts = self.num_parts(num_frames, frames_per_latent)
        num_lags = blocks - 1 + (num_parts - 1) * (blocks - known - 1)
        return num_parts * num_steps + self.ar_step * max(num_lags, 0)


def num_latents(num_frames: int, frames_per_latent: int) -> int:
    """Return the latents of a number of frames, the first of which has one of its own."""
    return (num_frames - 1) // frames_per_latent + 1


def check_parts(
    forcing: DiffusionForcing, block_size: int, frames_per_latent: int, *, has_image: bool
) -> None:
    """Refuse a schedule whose parts do not divide into latents and blocks.

    Args:
        block_size: block size that the folder was saved with; the YAML's wins.
        has_image: True if clips begin with an image.

    Raises:
        ModelFolderError: the message has the key of the YAML, and a number that works.
    """
    block = forcing.causal_block_size or block_size
    if has_image and block != 1:
        raise ModelFolderError(
            "diffusion_forcing.causal_block_size must be 1 where a clip begins with an image, not "
            f"{block}: the image is one latent, which diffusers denoises with its block"
        )
    if forcing.overlap_history is None and forcing.addnoise_condition and not has_image:
        raise ModelFolderError(
            "diffusion_forcing.addnoise_condition is for the frames that a part begins with, and "
            "no clip has parts without diffusion_forcing.overlap_history: set that too, such as "
            "17, or leave both out"
        )
    if forcing.overlap_history is None:
        return  # no clip has several parts
    for name in ("base_num_frames", "overlap_history"):
        frames = getattr(forcing, name)
        if _off(frames, block, frames_per_latent):
            raise ModelFolderError(
                f"diffusion_forcing.{name} must be {_rule(block, frames_per_latent)}: "
                f"{_nearest(frames, block, frames_per_latent)}, not {frames}"
            )


def check_forcing(
    forcing: DiffusionForcing,
    request: GenerationRequest,
    model: str,
    block_size: int,
    frames_per_latent: int,
) -> None:
    """Refuse a request that diffusers would not render whole.

    Args:
        block_size: block size that the folder was saved with; the YAML's wins.

    Raises:
        RequestError: the frames do not divide into parts and blocks, or a range of steps is asked
            of frames that are at different steps.
    """
    frames, block = request.shape.num_frames, forcing.causal_block_size or block_size
    is_long = frames > forcing.base_num_frames
    if is_long and forcing.overlap_history is None:
        raise RequestError.of(
            f"{model} renders {forcing.base_num_frames} frames at once, not {frames}: for longer "
            "clips set diffusion_forcing.overlap_history in its YAML, such as 17",
            "num_frames",
        )
    if _off(frames, block, frames_per_latent):
        raise RequestError.of(
            f"num_frames must be {_rule(block, frames_per_latent)} for {model}: "
            f"{_nearest(frames, block, frames_per_latent)}, not {frames}",
            "num_frames",
        )
    nag = request.attention_params
    has_range = isinstance(nag, NagParams) and (nag.nag_start, nag.nag_end) != (0, 1)
    if forcing.ar_step and has_range:
        raise RequestError.of(
            f"the frames of {model} are at different steps (diffusion_forcing.ar_step), and a "
            "range guides whole steps: leave nag_start and nag_end out",
            "nag_start",
            "nag_end",
        )
    if request.inputs.image is not None:
        _check_image(forcing, request, model, frames_per_latent)


def _check_image(
    forcing: DiffusionForcing, request: GenerationRequest, model: str, frames_per_latent: int
) -> None:
    frames = request.shape.num_frames
    if frames == 1:
        raise RequestError.of(
            f"num_frames must be above 1 for {model}, which begins with an image", "num_frames"
        )
    if forcing.num_parts(frames, frames_per_latent) == 1:
        return
    if request.inputs.last_image is not None:
        raise RequestError.of(
            f"{model} ends with a last image in clips of {forcing.base_num_frames} frames at most, "
            f"not {frames}: leave last_image out, or take fewer frames",
            "last_image",
            "num_frames",
        )
    base, overlap = forcing.base_num_frames, forcing.overlap_history
    assert overlap is not None
    if (frames - base) % (base - overlap):
        below = (frames - base) // (base - overlap) * (base - overlap) + base
        raise RequestError.of(
            f"num_frames must be {base} plus a multiple of {base - overlap} for {model}, so that "
            f"each part is whole: {below} or {below + base - overlap}, not {frames}",
            "num_frames",
        )


def _off(frames: int, block: int, frames_per_latent: int) -> bool:
    return (frames - 1) % frames_per_latent != 0 or num_latents(
        frames, frames_per_latent
    ) % block != 0


def _rule(block: int, frames_per_latent: int) -> str:
    if block == 1:
        return f"a multiple of {frames_per_latent} plus 1"
    return f"{block * frames_per_latent} times a whole number, minus {frames_per_latent - 1}"


def _nearest(frames: int, block: int, frames_per_latent: int) -> str:
    """Return the nearest numbers of frames that are whole blocks, below and above."""
    size = block * frames_per_latent
    below = (frames + frames_per_latent - 1) // size * size - frames_per_latent + 1
    return f"{below} or {below + size}" if below > 0 else f"{below + size}"
