"""The facts in a folder's configs that decide which clips a model renders. Loads without torch.

One pipeline class of diffusers drives models that differ: an image-to-video model may read a last
image, need one, or ignore it. Here such a clip is refused when it is planned, where the pipeline
would fail in the middle of a run, or leave an input out without a word.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.catalog.files.weight_files import read_json
from pipelines.catalog.model_config import ModelConfig
from pipelines.diffusion_forcing import check_forcing, check_parts
from pipelines.errors import ModelFolderError, RequestError
from pipelines.request import GenerationRequest

STOCK_TEXT_TOKENS = 512  # diffusers takes the last 512 tokens for text where images have tokens
_SMALL_PATCHES = 8  # pixels of a latent in all autoencoders of Wan but that of Wan 2.2 5B
_LTX2_BLOCKS = 48  # in its transformer, by default
_LTX2_LATENT = 32  # pixels of a latent of LTX-2 in each direction
_TAKES_IMAGES = ("WanImageToVideoPipeline", "SkyReelsV2ImageToVideoPipeline")
_ASSUMES_SMALL_PATCHES = ("WanVideoToVideoPipeline", "WanVACEPipeline")


@dataclass(frozen=True)
class FolderFacts:
    """The facts about one folder; those of Wan have its defaults in the folders of others.

    Args:
        has_two_transformers: True if early and late steps have a transformer each.
        has_image_encoder: True if the folder holds an image encoder.
        has_image_tokens: True if the transformer reads tokens of the image encoder.
        has_image_pairs: True if it reads those of a first and a last image, and not of one alone.
        has_token_timesteps: True if the first image replaces the first frame (Wan 2.2 5B).
        input_channels: channels that the transformer reads.
        latent_channels: channels of the autoencoder's latents.
        frames_per_latent: frames of video in one latent after the first.
        pixels_per_latent: pixels in each direction.
        latents_per_block: latents of a block that attends to no later one (SkyReels V2).
        least_side_px: pixels of a side below which the autoencoder cannot decode.
    """

    has_two_transformers: bool
    has_image_encoder: bool
    has_image_tokens: bool
    has_image_pairs: bool
    has_token_timesteps: bool
    input_channels: int
    latent_channels: int
    frames_per_latent: int
    pixels_per_latent: int
    latents_per_block: int = 1
    least_side_px: int = 1


def needs_facts(config: ModelConfig, request: GenerationRequest) -> bool:
    """Return True if the folder's facts decide whether a model renders a request."""
    pipeline = config.pipeline_class
    by_folder = pipeline.name in _TAKES_IMAGES or pipeline.has_forcing or config.family == "ltx2"
    return by_folder or request.sampling.guidance_scale_2 is not None


def read_facts(folder: Path) -> FolderFacts:
    """Read the facts from the configs of an accepted folder, with diffusers' defaults.

    Raises:
        ModelFolderError: a config is missing or no JSON.
    """
    index = read_json(folder / "model_index.json")
    paths = {part: folder / part / "config.json" for part in ("transformer", "vae")}
    configs = {part: read_json(path) for part, path in paths.items()}

    def size(part: str, name: str, default: int) -> int:
        value = configs[part].get(name, default)
        if type(value) is not int or value < 1:
            raise ModelFolderError(
                f"{paths[part]}: {name} must be a whole number above 0, not {value!r}"
            )
        return value

    return FolderFacts(
        has_two_transformers=_has(index, "transformer_2"),
        has_image_encoder=_has(index, "image_encoder") and _has(index, "image_processor"),
        has_image_tokens=configs["transformer"].get("image_dim") is not None,
        has_image_pairs=configs["transformer"].get("pos_embed_seq_len") is not None,
        has_token_timesteps=bool(index.get("expand_timesteps")),
        input_channels=size("transformer", "in_channels", 16),
        latent_channels=size("vae", "z_dim", 16),
        frames_per_latent=size("vae", "scale_factor_temporal", 4),
        pixels_per_latent=size("vae", "scale_factor_spatial", _SMALL_PATCHES),
        latents_per_block=size("transformer", "num_frame_per_block", 1),
        least_side_px=_least_side_px(configs["vae"]),
    )


def _least_side_px(vae: dict[str, Any]) -> int:
    """Return the least side of a clip that an autoencoder decodes.

    That of LTX-2 reflects the latents at their borders, for which it needs two of them.
    """
    if vae.get("_class_name") != "AutoencoderKLLTX2Video":
        return 1
    return 1 if vae.get("decoder_spatial_padding_mode", "reflect") == "zeros" else 2 * _LTX2_LATENT


def check_facts(config: ModelConfig, folder: Path) -> None:
    """Refuse a folder that the pipeline class of a YAML would load, but not render right.

    Raises:
        ModelFolderError: the message has the fact, and the YAML's value that fits it.
    """
    if config.pipeline_class.name == "LTXConditionPipeline":
        _check_scheduler(config, folder)
    if config.ltx2_guidance.has_stg:
        _check_perturbed_blocks(config, folder)
    if config.family != "wan" or (config.pipeline is None and config.boundary_ratio is None):
        return
    facts, pipeline = read_facts(folder), config.pipeline_class.name
    if config.boundary_ratio is not None and not facts.has_two_transformers:
        raise ModelFolderError(
            f"{folder} has one transformer, so it has no boundary: leave boundary_ratio out of the "
            f"YAML of {config.name}"
        )
    if facts.has_two_transformers and "transformer_2" not in config.pipeline_class.components:
        raise ModelFolderError(
            f"{folder} has two transformers, and {pipeline} would render with the first alone"
        )
    if pipeline in _ASSUMES_SMALL_PATCHES and (
        facts.has_token_timesteps or facts.pixels_per_latent != _SMALL_PATCHES
    ):
        raise ModelFolderError(
            f"{folder}: {pipeline} cannot render with a Wan 2.2 5B, whose latents have "
            f"{facts.pixels_per_latent} pixels and a timestep for each token; use another folder"
        )
    if pipeline in _TAKES_IMAGES:
        _check_images(config, facts, folder)
    if config.pipeline_class.has_forcing:
        check_parts(
            config.diffusion_forcing,
            facts.latents_per_block,
            facts.frames_per_latent,
            has_image="image" in config.pipeline_class.required_inputs,
        )


def _check_scheduler(config: ModelConfig, folder: Path) -> None:
    """Refuse a saved scheduler that LTXConditionPipeline cannot follow, unless the YAML changes it.

    The pipeline hands over each prediction with the other sign, which random steps get wrong.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    saved = read_json(path)
    wanted, name = "FlowMatchEulerDiscreteScheduler", saved.get("_class_name")
    if config.scheduler.name is None and name != wanted:
        raise ModelFolderError(
            f"{path} is of {name!r}, and LTXConditionPipeline needs {wanted}: set scheduler: "
            f"{{name: {wanted}}} in the YAML of {config.name}"
        )
    if config.scheduler.stochastic_sampling is None and saved.get("stochastic_sampling"):
        raise ModelFolderError(
            f"{path} has stochastic_sampling, which LTXConditionPipeline cannot follow: set "
            f"scheduler: {{name: {wanted}, stochastic_sampling: false}} in the YAML of "
            f"{config.name}"
        )


def _check_perturbed_blocks(config: ModelConfig, folder: Path) -> None:
    """Refuse spatio-temporal guidance of a transformer that cannot be perturbed where it asks."""
    path = folder / "transformer" / "config.json"
    transformer = read_json(path)
    if not transformer.get("perturbed_attn"):
        raise ModelFolderError(
            f"{path} lacks perturbed_attn: true, without which stg_scale would push away from an "
            f"equal prediction: leave stg_scale out of the YAML of {config.name}"
        )
    num_layers: object = transformer.get("num_layers", _LTX2_BLOCKS)
    last = max(config.ltx2_guidance.spatio_temporal_guidance_blocks)
    if type(num_layers) is not int or last >= num_layers:
        raise ModelFolderError(
            f"{path} has {num_layers} blocks, counted from 0, and the YAML of {config.name} names "
            f"block {last} in spatio_temporal_guidance_blocks"
        )


def _check_images(config: ModelConfig, facts: FolderFacts, folder: Path) -> None:
    wanted = 2 * facts.latent_channels + facts.frames_per_latent
    if not facts.has_token_timesteps and facts.input_channels != wanted:
        raise ModelFolderError(
            f"{folder} cannot begin with an image: its transformer reads {facts.input_channels} "
            f"channels, not the {wanted} of latents, mask and image; leave pipeline out of the "
            f"YAML of {config.name}"
        )
    if not facts.has_image_tokens:
        return
    if not facts.has_image_encoder:
        raise ModelFolderError(
            f"{folder} lacks image_encoder or image_processor, which its transformer needs; fetch "
            "the folder again"
        )
    if config.max_sequence_length != STOCK_TEXT_TOKENS:
        raise ModelFolderError(
            f"{folder}: beside tokens of an image diffusers takes a text for {STOCK_TEXT_TOKENS} "
            f"tokens: set max_sequence_length to {STOCK_TEXT_TOKENS} in the YAML of {config.name}, "
            f"not {config.max_sequence_length}"
        )


def check_by_facts(config: ModelConfig, facts: FolderFacts, request: GenerationRequest) -> None:
    """Refuse a request for which a model's folder lacks something.

    Raises:
        RequestError: `guidance_scale_2` has no second transformer to act on, or a last image is
            missing, or would be left out, or the clip is smaller than its autoencoder can decode,
            or its frames do not divide into blocks and parts.
    """
    if request.sampling.guidance_scale_2 is not None and not facts.has_two_transformers:
        raise RequestError.of(
            f"{config.name} has one transformer, so guidance_scale_2 acts on none: leave it out",
            "guidance_scale_2",
        )
    _check_least_side(config, facts, request)
    if config.pipeline_class.has_forcing:
        check_forcing(
            config.diffusion_forcing,
            request,
            config.name,
            facts.latents_per_block,
            facts.frames_per_latent,
        )
    if config.pipeline_class.name not in _TAKES_IMAGES:
        return
    has_last = request.inputs.last_image is not None
    if has_last and (
        facts.has_token_timesteps or (facts.has_image_tokens and not facts.has_image_pairs)
    ):
        raise RequestError.of(
            f"{config.name} begins with a first image alone: leave last_image out", "last_image"
        )
    if facts.has_image_pairs and not has_last:
        raise RequestError.of(
            f"last_image is missing: {config.name} moves from a first image to a last one",
            "last_image",
        )


def _check_least_side(config: ModelConfig, facts: FolderFacts, request: GenerationRequest) -> None:
    least = facts.least_side_px
    for name, size in (("height", request.shape.height), ("width", request.shape.width)):
        if size < least:
            raise RequestError.of(
                f"{name} must be at least {least} for {config.name}, whose autoencoder cannot "
                f"decode less, not {size}",
                name,
            )


def _has(index: dict[str, Any], component: str) -> bool:
    return index.get(component) not in (None, [None, None])
