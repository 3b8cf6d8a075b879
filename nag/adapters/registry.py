"""The adapters of all families, each imported once a model of it is met.

A class is looked up by its name, so that no family's classes are imported for another one, and then
compared with the classes that the adapter names itself. A new family is a module with an `ADAPTER`
and its lines here.
"""

from importlib import import_module
from typing import Any

from nag.adapters.adapter import Adapter

MODULES = {
    "WanTransformer3DModel": "cross.wan",
    "WanVACETransformer3DModel": "cross.wan",
    "SkyReelsV2Transformer3DModel": "cross.wan_copies",
    "WanAnimateTransformer3DModel": "cross.wan_copies",
    "ChronoEditTransformer3DModel": "cross.wan_copies",
    "HeliosTransformer3DModel": "cross.wan_copies",
    "AnyFlowTransformer3DModel": "cross.wan_copies",
    "LTXVideoTransformer3DModel": "cross.ltx",
    "LTX2VideoTransformer3DModel": "cross.ltx2",
    "AudioLDM2UNet2DConditionModel": "cross.audioldm2",
    "AllegroTransformer3DModel": "cross.text_transformers",
    "CosmosTransformer3DModel": "cross.cosmos",
    "Kandinsky5Transformer3DModel": "cross.kandinsky5",
    "HunyuanDiT2DModel": "cross.hunyuan_dit",
    "Kandinsky3UNet": "cross.kandinsky3",
    "LatteTransformer3DModel": "cross.text_transformers",
    "LongCatAudioDiTTransformer": "cross.longcat_audio",
    "LuminaNextDiT2DModel": "cross.lumina",
    "PixArtTransformer2DModel": "cross.text_transformers",
    "SanaTransformer2DModel": "cross.text_transformers",
    "SanaVideoTransformer3DModel": "cross.text_transformers",
    "StableAudio3DiTModel": "cross.stable_audio3",
    "StableAudioDiTModel": "cross.stable_audio",
    "PRXTransformer2DModel": "beside_image.prx",
    "NucleusMoEImageTransformer2DModel": "beside_image.nucleus_moe",
    "DreamLiteUNetModel": "cross.unet",
    "UNet2DConditionModel": "cross.unet",
    "UNetMotionModel": "cross.unet",
    "SD3Transformer2DModel": "joint.sd3",
    "FluxTransformer2DModel": "joint.flux",
    "OvisImageTransformer2DModel": "joint.flux_copies",
    "LongCatImageTransformer2DModel": "joint.flux_copies",
    "BriaTransformer2DModel": "joint.flux_copies",
    "QwenImageTransformer2DModel": "joint.qwen_image",
    "ZImageTransformer2DModel": "sequence.z_image",
    "Lumina2Transformer2DModel": "sequence.lumina2",
    "HunyuanVideoTransformer3DModel": "joint.hunyuan_video",
    "HunyuanVideo15Transformer3DModel": "video.hunyuan_video15",
    "HunyuanImageTransformer2DModel": "joint.hunyuan_image",
    "CogVideoXTransformer3DModel": "joint.cogvideox",
    "ConsisIDTransformer3DModel": "joint.cogvideox",
    "Kandinsky6Transformer3DModel": "video.kandinsky6",
    "EasyAnimateTransformer3DModel": "video.easyanimate",
    "MotifVideoTransformer3DModel": "video.motif_video",
    "HunyuanVideoFramepackTransformer3DModel": "joint.hunyuan_video",
    "JoyImageEditTransformer3DModel": "joint.joyimage",
    "JoyImageEditPlusTransformer3DModel": "joint.joyimage_plus",
    "CogView3PlusTransformer2DModel": "joint.cogview",
    "CogView4Transformer2DModel": "joint.cogview",
    "AuraFlowTransformer2DModel": "joint.auraflow",
    "ChromaTransformer2DModel": "joint.chroma",
    "MochiTransformer3DModel": "video.mochi",
    "SanaWMTransformer3DModel": "video.sana_wm",
    "HiDreamImageTransformer2DModel": "joint.hidream",
    "BriaFiboTransformer2DModel": "joint.bria_fibo",
    "BriaFibo2Transformer2DModel": "sequence.bria_fibo2",
    "Flux2Transformer2DModel": "sequence.flux2",
    "ErnieImageTransformer2DModel": "sequence.ernie_image",
    "Ideogram4Transformer2DModel": "sequence.ideogram4",
    "Krea2Transformer2DModel": "sequence.krea2",
    "QwenImage21Transformer2DModel": "sequence.qwen_image21",
}


def adapter_of(model: Any) -> Adapter | None:
    """Return the adapter of a model, or None for a model that no adapter guides."""
    for kind in type(model).__mro__:
        if kind.__name__ in MODULES:
            adapter = adapter_of_class(kind.__name__)
            if kind in adapter.models:
                return adapter
    return None


def adapter_of_class(name: str) -> Adapter:
    """Return the adapter of a class of models, by its name in `MODULES`."""
    return import_module(f"nag.adapters.{MODULES[name]}").ADAPTER
