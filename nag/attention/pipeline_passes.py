"""The order of the passes in the stock pipelines: which call of the model is the prompt's.

Loads without torch. Classifier-free guidance adds an unconditional pass, which must stay unguided.
A pipeline that is not listed is guided without classifier-free guidance, or where it names its
calls; else it is refused.
"""

from typing import Any, Literal

Passes = Literal[
    "named", "batched", "prompt first", "prompt half", "prompt third", "prompt last", "single"
]
"""The way in which a pipeline tells its passes apart.

named: by `cache_context`. batched: one call a step, the unconditional half before the prompt's, and
with perturbed-attention guidance a third of perturbed rows behind both.
prompt first: one call a pass, the prompt's before all others. prompt half: one call a step, the
prompt's half before the unconditional one. prompt third: one call a step, the prompt's third before
two without the prompt. prompt last: one call a step, the prompt's rows behind one or two parts
without it, as many as the texts that the pipeline encodes together. single: the prompt's pass
alone, in all cases.
"""

STABLE_DIFFUSION = (
    "StableDiffusion{}Pipeline",
    "StableDiffusion{}Img2ImgPipeline",
    "StableDiffusion{}InpaintPipeline",
    "StableDiffusion{}AdapterPipeline",
    "StableDiffusion{}ControlNetPipeline",
    "StableDiffusion{}ControlNetImg2ImgPipeline",
    "StableDiffusion{}ControlNetInpaintPipeline",
    "StableDiffusion{}PAGPipeline",
    "StableDiffusion{}PAGImg2ImgPipeline",
    "StableDiffusion{}PAGInpaintPipeline",
    "StableDiffusion{}ControlNetPAGPipeline",
)

OF_UNETS: dict[str, Passes] = {
    **dict.fromkeys((name.format("") for name in STABLE_DIFFUSION), "batched"),
    **dict.fromkeys((name.format("XL") for name in STABLE_DIFFUSION), "batched"),
    **dict.fromkeys(
        (
            "StableDiffusionControlNetPAGInpaintPipeline",
            "StableDiffusionXLControlNetPAGImg2ImgPipeline",
            "StableDiffusionXLControlNetUnionPipeline",
            "StableDiffusionXLControlNetUnionImg2ImgPipeline",
            "StableDiffusionXLControlNetUnionInpaintPipeline",
            "StableDiffusionDepth2ImgPipeline",
            "StableDiffusionUpscalePipeline",
            "StableDiffusionLatentUpscalePipeline",
            "StableUnCLIPPipeline",
            "StableUnCLIPImg2ImgPipeline",
            "KolorsPipeline",
            "KolorsImg2ImgPipeline",
            "KolorsPAGPipeline",
            "AnimateDiffPipeline",
            "AnimateDiffSDXLPipeline",
            "AnimateDiffControlNetPipeline",
            "AnimateDiffSparseControlNetPipeline",
            "AnimateDiffVideoToVideoPipeline",
            "AnimateDiffVideoToVideoControlNetPipeline",
            "AnimateDiffPAGPipeline",
            "Kandinsky3Pipeline",
            "Kandinsky3Img2ImgPipeline",
            "IFPipeline",
            "IFImg2ImgPipeline",
            "IFInpaintingPipeline",
            "IFSuperResolutionPipeline",
            "IFImg2ImgSuperResolutionPipeline",
            "IFInpaintingSuperResolutionPipeline",
        ),
        "batched",
    ),
    "DreamLitePipeline": "prompt last",
    **dict.fromkeys(
        ("StableDiffusionInstructPix2PixPipeline", "StableDiffusionXLInstructPix2PixPipeline"),
        "prompt third",
    ),
    **dict.fromkeys(
        (
            "LatentConsistencyModelPipeline",
            "LatentConsistencyModelImg2ImgPipeline",
            "DreamLiteMobilePipeline",
        ),
        "single",
    ),
}

OF_TEXT_TRANSFORMERS: dict[str, Passes] = {
    **dict.fromkeys(
        (
            "AllegroPipeline",
            "AudioLDM2Pipeline",
            "HunyuanDiTPipeline",
            "HunyuanDiTControlNetPipeline",
            "HunyuanDiTPAGPipeline",
            "LattePipeline",
            "PixArtAlphaPipeline",
            "PixArtSigmaPipeline",
            "PixArtSigmaPAGPipeline",
            "SanaPipeline",
            "SanaControlNetPipeline",
            "SanaPAGPipeline",
            "SanaVideoPipeline",
            "SanaWMPipeline",
            "SanaImageToVideoPipeline",
            "StableAudioPipeline",
            "StableAudio3Pipeline",
            "PRXPipeline",
            "PRXPixelPipeline",
        ),
        "batched",
    ),
    **dict.fromkeys(
        (
            "CosmosTextToWorldPipeline",
            "CosmosVideoToWorldPipeline",
            "Cosmos2TextToImagePipeline",
            "Cosmos2VideoToWorldPipeline",
            "Cosmos2_5_PredictBasePipeline",
            "Cosmos2_5_TransferPipeline",
            "Kandinsky5T2VPipeline",
            "Kandinsky5I2VPipeline",
            "Kandinsky5T2IPipeline",
            "Kandinsky5I2IPipeline",
            "LongCatAudioDiTPipeline",
            "NucleusMoEImagePipeline",
        ),
        "prompt first",
    ),
    "LuminaPipeline": "prompt half",
    "Kandinsky6TI2VAPipeline": "named",
    **dict.fromkeys(("SanaSprintPipeline", "SanaSprintImg2ImgPipeline"), "single"),
    **dict.fromkeys(("StableAudio3AudioToAudioPipeline", "StableAudio3InpaintPipeline"), "single"),
}

OF_JOINT_ATTENTION: dict[str, Passes] = {
    **dict.fromkeys(
        (
            "StableDiffusion3Pipeline",
            "StableDiffusion3Img2ImgPipeline",
            "StableDiffusion3InpaintPipeline",
            "StableDiffusion3ControlNetPipeline",
            "StableDiffusion3ControlNetInpaintingPipeline",
            "StableDiffusion3PAGPipeline",
            "StableDiffusion3PAGImg2ImgPipeline",
        ),
        "batched",
    ),
    **dict.fromkeys(
        (
            "CogVideoXPipeline",
            "CogVideoXImageToVideoPipeline",
            "CogVideoXVideoToVideoPipeline",
            "CogVideoXFunControlPipeline",
        ),
        "batched",
    ),
    "ConsisIDPipeline": "batched",
    **dict.fromkeys(
        ("EasyAnimatePipeline", "EasyAnimateControlPipeline", "EasyAnimateInpaintPipeline"),
        "batched",
    ),
    **dict.fromkeys(("MotifVideoPipeline", "MotifVideoImage2VideoPipeline"), "named"),
    "JoyImageEditPipeline": "prompt first",
    "JoyImageEditPlusPipeline": "batched",
    "HunyuanVideoPipeline": "named",
    "HunyuanVideoFramepackPipeline": "prompt first",
    **dict.fromkeys(
        ("HunyuanVideoImageToVideoPipeline", "HunyuanSkyreelsImageToVideoPipeline"), "prompt first"
    ),
    **dict.fromkeys(("HunyuanVideo15Pipeline", "HunyuanVideo15ImageToVideoPipeline"), "named"),
    **dict.fromkeys(("HunyuanImagePipeline", "HunyuanImageRefinerPipeline"), "named"),
    "FluxPipeline": "named",
    **dict.fromkeys(
        (
            "FluxImg2ImgPipeline",
            "FluxInpaintPipeline",
            "FluxControlNetPipeline",
            "FluxKontextPipeline",
            "FluxKontextInpaintPipeline",
        ),
        "prompt first",
    ),
    **dict.fromkeys(
        (
            "FluxFillPipeline",
            "FluxControlPipeline",
            "FluxControlImg2ImgPipeline",
            "FluxControlInpaintPipeline",
            "FluxControlNetImg2ImgPipeline",
            "FluxControlNetInpaintPipeline",
            "VisualClozeGenerationPipeline",
        ),
        "single",
    ),
    **dict.fromkeys(
        (
            "QwenImagePipeline",
            "QwenImageImg2ImgPipeline",
            "QwenImageInpaintPipeline",
            "QwenImageControlNetPipeline",
            "QwenImageControlNetInpaintPipeline",
            "QwenImageEditPipeline",
            "QwenImageEditInpaintPipeline",
            "QwenImageEditPlusPipeline",
            "QwenImageLayeredPipeline",
        ),
        "named",
    ),
    **dict.fromkeys(
        ("OvisImagePipeline", "LongCatImagePipeline", "LongCatImageEditPipeline"), "named"
    ),
    "BriaPipeline": "batched",
    "AuraFlowPipeline": "batched",
    **dict.fromkeys(
        ("ChromaPipeline", "ChromaImg2ImgPipeline", "ChromaInpaintPipeline"), "prompt first"
    ),
    "MochiPipeline": "batched",
    "HiDreamImagePipeline": "batched",
    **dict.fromkeys(("BriaFiboPipeline", "BriaFiboEditPipeline"), "batched"),
    "CogView3PlusPipeline": "batched",
    "CogView4Pipeline": "named",
    "CogView4ControlPipeline": "prompt first",
}

OF_SINGLE_STREAMS: dict[str, Passes] = {
    **dict.fromkeys(
        (
            "ZImagePipeline",
            "ZImageImg2ImgPipeline",
            "ZImageInpaintPipeline",
            "ZImageControlNetPipeline",
            "ZImageControlNetInpaintPipeline",
        ),
        "prompt half",
    ),
    **dict.fromkeys(("Lumina2Pipeline", "Krea2Pipeline", "BriaFibo2Pipeline"), "prompt first"),
    "QwenImage21Pipeline": "named",
    "ErnieImagePipeline": "batched",
    **dict.fromkeys(("Flux2Pipeline", "Flux2KleinKVPipeline", "Ideogram4Pipeline"), "single"),
    **dict.fromkeys(("Flux2KleinPipeline", "Flux2KleinInpaintPipeline"), "named"),
}

PASSES: dict[str, Passes] = {
    **dict.fromkeys(("WanPipeline", "WanImageToVideoPipeline", "WanVACEPipeline"), "named"),
    "LucyEditPipeline": "named",
    **dict.fromkeys(("WanVideoToVideoPipeline", "ChronoEditPipeline"), "prompt first"),
    "WanAnimatePipeline": "named",
    **dict.fromkeys(("HeliosPipeline", "HeliosPyramidPipeline"), "named"),
    "AnyFlowPipeline": "batched",
    **dict.fromkeys(("SkyReelsV2Pipeline", "SkyReelsV2ImageToVideoPipeline"), "named"),
    **dict.fromkeys(
        (
            "SkyReelsV2DiffusionForcingPipeline",
            "SkyReelsV2DiffusionForcingImageToVideoPipeline",
            "SkyReelsV2DiffusionForcingVideoToVideoPipeline",
        ),
        "named",
    ),
    **dict.fromkeys(("LTXPipeline", "LTXImageToVideoPipeline", "LTXConditionPipeline"), "batched"),
    "LTXI2VLongMultiPromptPipeline": "batched",
    **dict.fromkeys(("LTX2Pipeline", "LTX2ImageToVideoPipeline", "LTX2ConditionPipeline"), "named"),
    **dict.fromkeys(("LTX2InContextPipeline", "LTX2HDRPipeline"), "named"),
    **OF_UNETS,
    **OF_TEXT_TRANSFORMERS,
    **OF_JOINT_ATTENTION,
    **OF_SINGLE_STREAMS,
}


def passes_of(pipeline: Any) -> Passes | None:
    """Return the passes of a pipeline; None if its loop is not that of a listed class."""
    for kind in type(pipeline).__mro__:
        if kind.__name__ in PASSES and kind.__module__.startswith("diffusers."):
            return PASSES[kind.__name__] if type(pipeline).__call__ is kind.__call__ else None
    return None
