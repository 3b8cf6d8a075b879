"""The tests that render each guided pipeline of diffusers: rows, and tests by hand."""

from tests.nag import (
    cosmos_variants,
    edit_variants,
    transformer_variants,
    unet_variants,
    video_input_variants,
    video_variants,
)

ROWS = (
    *unet_variants.ROWS,
    *transformer_variants.ROWS,
    *video_variants.ROWS,
    *edit_variants.ROWS,
    *video_input_variants.ROWS,
    *cosmos_variants.ROWS,
)
# The pipelines that no test can render, and why. A row of one shows the release that mends it.
UNRENDERED = {
    "EasyAnimateControlPipeline": "it calls its encode_prompt with an argument that this refuses",
}
# The pipelines of no row: a module that compares each with guidance by hand, and its name there.
BY_HAND = {
    "BriaFiboEditPipeline": ("nag/test_bria_fibo.py", "BriaFiboEditPipeline"),
    "Flux2KleinKVPipeline": ("nag/test_flux2.py", "Flux2KleinKVPipeline"),
    "Flux2Pipeline": ("nag/test_flux2.py", "Flux2Pipeline"),
    "FluxFillPipeline": ("nag/test_joint_attention.py", "FluxFillPipeline"),
    "FluxKontextPipeline": ("nag/test_joint_attention.py", "FluxKontextPipeline"),
    "HeliosPyramidPipeline": ("nag/test_wan_copies.py", "helios_pyramid_pipeline"),
    "LTX2ConditionPipeline": ("nag/test_ltx2_guidance.py", "LTX2ConditionPipeline"),
    "LTX2HDRPipeline": ("nag/test_ltx2_guidance.py", "LTX2HDRPipeline"),
    "LTX2ImageToVideoPipeline": ("nag/test_ltx2_guidance.py", "LTX2ImageToVideoPipeline"),
    "LTX2InContextPipeline": ("nag/test_ltx2_guidance.py", "LTX2InContextPipeline"),
    "LTXConditionPipeline": ("pipelines/families/test_ltx_conditions.py", "LTXConditionPipeline"),
    "LTXI2VLongMultiPromptPipeline": (
        "nag/test_ltx_guidance.py",
        "LTXI2VLongMultiPromptPipeline",
    ),
    "LTXImageToVideoPipeline": (
        "pipelines/families/test_ltx_image_to_video.py",
        "LTXImageToVideoPipeline",
    ),
    "LongCatImageEditPipeline": ("nag/test_flux_copies.py", "LongCatImageEditPipeline"),
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": (
        "pipelines/families/test_wan_inputs.py",
        "SkyReelsV2DiffusionForcingImageToVideoPipeline",
    ),
    "SkyReelsV2DiffusionForcingPipeline": ("nag/test_wan_copies.py", "diffusion_forcing"),
    "SkyReelsV2ImageToVideoPipeline": (
        "pipelines/families/test_wan_inputs.py",
        "SkyReelsV2ImageToVideoPipeline",
    ),
    "StableDiffusion3PAGPipeline": ("nag/test_joint_attention.py", "sd3_pag_pipeline"),
    "VisualClozeGenerationPipeline": ("nag/test_visual_cloze.py", "VisualClozeGenerationPipeline"),
    "WanImageToVideoPipeline": ("nag/test_wan_guidance.py", "wan_image_to_video_pipeline"),
    "WanVideoToVideoPipeline": ("nag/test_wan_guidance.py", "WanVideoToVideoPipeline"),
    "ZImageImg2ImgPipeline": ("nag/test_z_image.py", "ZImageImg2ImgPipeline"),
}
