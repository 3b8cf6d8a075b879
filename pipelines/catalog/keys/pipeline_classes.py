"""The pipeline classes of diffusers that nagfarm drives. Loads without torch.

Decides what a folder for each must hold, which inputs a clip may bring, and which class drives it.
A row of the table here and a driver in `pipelines.families` make a new pipeline.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipelines.catalog.keys.scheduler_config import SCHEDULER_NAMES
from pipelines.clip_inputs import InputName

Family = Literal["wan", "ltx", "ltx2"]
LTX: tuple[Family, ...] = ("ltx", "ltx2")
COMPONENTS_WITH_WEIGHTS = (
    "text_encoder", "image_encoder", "connectors", "vae", "audio_vae", "vocoder", "transformer",
    "transformer_2",
)  # fmt: skip
LIBRARIES = ("diffusers", "transformers", "ltx2")  # ltx2: the parts that belong to its pipeline


@dataclass(frozen=True)
class PipelineClass:
    """One pipeline class of diffusers.

    Args:
        name: name of the class.
        driver: module in `pipelines.families` and class in it, such as `wan.WanModel`.
        folders: pipeline classes that a folder's model_index.json may name.
        components: classes that each component of the folder may have.
        optional: components that a folder may lack.
        required_inputs: inputs that each clip must bring.
        optional_inputs: inputs that a clip may bring.
        has_audio: True if the model makes sound.
        can_shard: True if several devices can share a clip.
        has_block_cache: True if diffusers' first block cache knows the transformer's blocks.
        has_forcing: True if `diffusion_forcing` of the YAML decides the schedule.
        takes_strength: True if `strength` decides how much of a video is left.
        takes_rescale: True if the pipeline has `guidance_rescale`.
        has_second_stage: True if it can denoise upsampled latents again.
    """

    name: str
    family: Family
    driver: str
    folders: frozenset[str]
    components: Mapping[str, frozenset[str]] = field(hash=False)
    optional: frozenset[str] = frozenset()
    required_inputs: frozenset[InputName] = frozenset()
    optional_inputs: frozenset[InputName] = frozenset()
    has_audio: bool = False
    can_shard: bool = True
    has_block_cache: bool = True
    has_forcing: bool = False
    takes_strength: bool = False
    takes_rescale: bool = False
    has_second_stage: bool = False

    @property
    def inputs(self) -> frozenset[InputName]:
        """Inputs that a clip brings or may bring."""
        return self.required_inputs | self.optional_inputs


def _components(**classes: str) -> dict[str, frozenset[str]]:
    """Return the allowed classes of each component; several are separated by a space."""
    return {
        "tokenizer": frozenset({"T5Tokenizer", "T5TokenizerFast"}),
        **{component: frozenset(names.split()) for component, names in classes.items()},
        "scheduler": SCHEDULER_NAMES,
    }


_WAN = _components(
    text_encoder="UMT5EncoderModel",
    vae="AutoencoderKLWan",
    transformer="WanTransformer3DModel",
    transformer_2="WanTransformer3DModel",
)
_WAN_IMAGE = {
    **_WAN,
    "image_encoder": frozenset({"CLIPVisionModel", "CLIPVisionModelWithProjection"}),
    "image_processor": frozenset(
        {"CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPProcessor"}
    ),
}
_WAN_VIDEO = {name: classes for name, classes in _WAN.items() if name != "transformer_2"}
_WAN_VACE = {
    **_WAN,
    **dict.fromkeys(("transformer", "transformer_2"), frozenset({"WanVACETransformer3DModel"})),
}
_SKYREELS = {**_WAN_VIDEO, "transformer": frozenset({"SkyReelsV2Transformer3DModel"})}
_SKYREELS_IMAGE = {
    **_SKYREELS,
    **{name: _WAN_IMAGE[name] for name in ("image_encoder", "image_processor")},
}
_SKYREELS_FORCING = {**_SKYREELS, "scheduler": frozenset({"UniPCMultistepScheduler"})}
_LTX = _components(
    text_encoder="T5EncoderModel",
    vae="AutoencoderKLLTXVideo",
    transformer="LTXVideoTransformer3DModel",
)
_LTX2 = _components(
    tokenizer="GemmaTokenizer GemmaTokenizerFast",
    text_encoder="Gemma3ForConditionalGeneration",
    connectors="LTX2TextConnectors",
    vae="AutoencoderKLLTX2Video",
    audio_vae="AutoencoderKLLTX2Audio",
    vocoder="LTX2Vocoder LTX2VocoderWithBWE",
    transformer="LTX2VideoTransformer3DModel",
)
DEFAULTS: dict[Family, str] = {  # without `pipeline`
    "wan": "WanPipeline",
    "ltx": "LTXPipeline",
    "ltx2": "LTX2Pipeline",
}
PIPELINE_CLASSES = {
    one.name: one
    for one in (
        PipelineClass(
            "WanPipeline",
            "wan",
            "wan.WanModel",
            frozenset({"WanPipeline", "WanDMDPipeline"}),  # FastWan names the latter
            _WAN,
            frozenset({"transformer_2"}),
        ),
        PipelineClass(
            "WanImageToVideoPipeline",
            "wan",
            "wan_inputs.WanImageToVideoModel",
            frozenset({"WanImageToVideoPipeline", "WanPipeline"}),  # Wan 2.2 5B is saved as both
            _WAN_IMAGE,
            frozenset({"transformer_2", "image_encoder", "image_processor"}),
            required_inputs=frozenset({"image"}),
            optional_inputs=frozenset({"last_image"}),
        ),
        PipelineClass(
            "WanVideoToVideoPipeline",
            "wan",
            "wan_inputs.WanVideoToVideoModel",
            frozenset({"WanVideoToVideoPipeline", "WanPipeline"}),
            _WAN_VIDEO,
            required_inputs=frozenset({"video"}),
            takes_strength=True,
        ),
        PipelineClass(
            "WanVACEPipeline",
            "wan",
            "wan_inputs.WanVACEModel",
            frozenset({"WanVACEPipeline"}),
            _WAN_VACE,
            frozenset({"transformer_2"}),
            optional_inputs=frozenset({"reference_images", "video", "mask"}),
        ),
        PipelineClass(
            "SkyReelsV2Pipeline",
            "wan",
            "skyreels.SkyReelsModel",
            frozenset({"SkyReelsV2Pipeline"}),
            _SKYREELS,
            can_shard=False,  # diffusers has no plan for its transformer
            has_block_cache=False,
        ),
        PipelineClass(
            "SkyReelsV2ImageToVideoPipeline",
            "wan",
            "skyreels.SkyReelsImageToVideoModel",
            frozenset({"SkyReelsV2ImageToVideoPipeline"}),
            _SKYREELS_IMAGE,
            required_inputs=frozenset({"image"}),
            optional_inputs=frozenset({"last_image"}),
            can_shard=False,
            has_block_cache=False,
        ),
        PipelineClass(
            "SkyReelsV2DiffusionForcingPipeline",
            "wan",
            "skyreels.SkyReelsForcingModel",
            frozenset({"SkyReelsV2DiffusionForcingPipeline"}),
            _SKYREELS_FORCING,
            can_shard=False,
            has_block_cache=False,
            has_forcing=True,
        ),
        PipelineClass(
            "SkyReelsV2DiffusionForcingImageToVideoPipeline",
            "wan",
            "skyreels.SkyReelsForcingImageToVideoModel",
            frozenset(  # one folder serves both
                {
                    "SkyReelsV2DiffusionForcingImageToVideoPipeline",
                    "SkyReelsV2DiffusionForcingPipeline",
                }
            ),
            _SKYREELS_FORCING,
            required_inputs=frozenset({"image"}),
            optional_inputs=frozenset({"last_image"}),
            can_shard=False,
            has_block_cache=False,
            has_forcing=True,
        ),
        PipelineClass(
            "LTXPipeline",
            "ltx",
            "ltx.LTXModel",
            frozenset({"LTXPipeline"}),
            _LTX,
            takes_rescale=True,
        ),
        PipelineClass(
            "LTXImageToVideoPipeline",
            "ltx",
            "ltx.LTXImageToVideoModel",
            frozenset({"LTXImageToVideoPipeline", "LTXPipeline"}),  # one folder serves both
            _LTX,
            required_inputs=frozenset({"image"}),
            can_shard=False,  # each token has a timestep of its own
            takes_rescale=True,
        ),
        PipelineClass(
            "LTXConditionPipeline",
            "ltx",
            "ltx.LTXConditionModel",
            frozenset({"LTXConditionPipeline", "LTXPipeline"}),
            _LTX,
            optional_inputs=frozenset({"image", "last_image"}),
            can_shard=False,  # images add tokens, and each token has a timestep of its own
            takes_rescale=True,
            has_second_stage=True,
        ),
        PipelineClass(
            "LTX2Pipeline",
            "ltx2",
            "ltx2.LTX2Model",
            frozenset({"LTX2Pipeline"}),
            _LTX2,
            has_audio=True,
            can_shard=False,
            has_block_cache=False,
            takes_rescale=True,
            has_second_stage=True,
        ),
        PipelineClass(
            "LTX2ImageToVideoPipeline",
            "ltx2",
            "ltx2.LTX2ImageToVideoModel",
            frozenset({"LTX2ImageToVideoPipeline", "LTX2Pipeline"}),  # one folder serves both
            _LTX2,
            required_inputs=frozenset({"image"}),
            has_audio=True,
            can_shard=False,  # no plan covers both video and sound, which attend to each other
            has_block_cache=False,
            takes_rescale=True,
            has_second_stage=True,
        ),
    )
}
ALL_COMPONENTS = frozenset(
    component for one in PIPELINE_CLASSES.values() for component in one.components
)
