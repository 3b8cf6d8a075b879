"""Image pipelines of real classes at tiny size, with random weights: UNets and image transformers.

They are called with embeddings, so that most need no text encoder.
"""

from typing import Any

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    MotionAdapter,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionLatentUpscalePipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPAGPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor, IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.builders.tiny import LETTERS, TEXT_DIM, shared

LATENT_PX = 8


def image_vae(scaling_factor: float = 0.18215) -> AutoencoderKL:
    """Build an autoencoder that keeps the size, so that an image of 8 px has 8 x 8 latents."""
    torch.manual_seed(2)
    return AutoencoderKL(
        block_out_channels=(8,),
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=4,
        scaling_factor=scaling_factor,
    ).eval()


def clip_tokenizer() -> CLIPTokenizer:
    tokens = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{one}</w>" for one in LETTERS)]
    built = CLIPTokenizer(vocab={one: index for index, one in enumerate(tokens)}, merges=[])
    built.model_max_length = 12
    return built


def clip_text_encoder() -> CLIPTextModel:
    torch.manual_seed(1)
    config = CLIPTextConfig(
        vocab_size=2 * len(LETTERS) + 2,
        hidden_size=TEXT_DIM,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=12,
    )
    return CLIPTextModel(config).eval()


def unet(**settings: Any) -> UNet2DConditionModel:
    """Build a UNet of two resolutions: five text cross-attentions."""
    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "sample_size": LATENT_PX,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": TEXT_DIM,
        "attention_head_dim": 2,
    }
    return UNet2DConditionModel(**{**defaults, **settings}).eval()


def stable_diffusion_pipeline(
    kind: type = StableDiffusionPipeline, its_unet: Any = None, **parts: Any
) -> Any:
    components: dict[str, Any] = {
        "vae": shared(image_vae),
        "text_encoder": shared(clip_text_encoder),
        "tokenizer": shared(clip_tokenizer),
        "unet": its_unet or unet(),
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    pipeline = kind(**{**components, **parts})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def plain_processors() -> Any:
    pipeline = stable_diffusion_pipeline()
    pipeline.unet.set_attn_processor(AttnProcessor())
    return pipeline


def fused_projections() -> Any:
    pipeline = sdxl_pipeline()
    pipeline.fuse_qkv_projections(vae=False)
    return pipeline


def instruct_pix2pix_pipeline() -> Any:
    return stable_diffusion_pipeline(StableDiffusionInstructPix2PixPipeline, unet(in_channels=8))


def latent_consistency_pipeline() -> Any:
    its_unet = unet(time_cond_proj_dim=8)
    return stable_diffusion_pipeline(
        LatentConsistencyModelPipeline, its_unet, scheduler=LCMScheduler()
    )


def upscale_pipeline() -> Any:
    """Build an upscaler, in which both attentions of some blocks attend to the text."""
    its_unet = unet(in_channels=7, only_cross_attention=(True, False), num_class_embeds=400)
    kind: Any = StableDiffusionUpscalePipeline
    pipeline = kind(
        vae=shared(image_vae, 0.08333),  # the only one that the upscaler takes
        text_encoder=shared(clip_text_encoder),
        tokenizer=shared(clip_tokenizer),
        unet=its_unet,
        low_res_scheduler=DDPMScheduler(),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latent_upscale_pipeline() -> Any:
    """Build the upscaler of latents, whose UNet has blocks of another kind."""
    its_unet = unet(
        only_cross_attention=False,
        act_fn="gelu",
        attention_head_dim=8,
        norm_num_groups=None,
        block_out_channels=(32, 32, 64, 64),
        time_cond_proj_dim=128 + TEXT_DIM,
        conv_in_kernel=1,
        conv_out_kernel=1,
        in_channels=8,
        out_channels=5,
        mid_block_type=None,
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="fourier",
        timestep_post_act="gelu",
        down_block_types=("KDownBlock2D", *("KCrossAttnDownBlock2D",) * 3),
        up_block_types=(*("KCrossAttnUpBlock2D",) * 3, "KUpBlock2D"),
    )
    pipeline = StableDiffusionLatentUpscalePipeline(
        vae=shared(image_vae),
        text_encoder=shared(clip_text_encoder),
        tokenizer=shared(clip_tokenizer),
        unet=its_unet,
        scheduler=EulerDiscreteScheduler(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sdxl_unet(**settings: Any) -> UNet2DConditionModel:
    defaults: dict[str, Any] = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 6 * 4 + TEXT_DIM,
        "transformer_layers_per_block": (1, 2),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    return unet(**{**defaults, **settings})


def sdxl_pipeline(kind: Any = StableDiffusionXLPipeline, its_unet: Any = None, **parts: Any) -> Any:
    components: dict[str, Any] = {
        "vae": shared(image_vae),
        "text_encoder": None,
        "text_encoder_2": None,
        "tokenizer": None,
        "tokenizer_2": None,
        "unet": its_unet or sdxl_unet(),
        "scheduler": EulerDiscreteScheduler(),
    }
    pipeline = kind(**{**components, **parts})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def projected_text() -> Any:
    """Build a UNet that projects its text, as that of Kolors does."""
    return sdxl_pipeline(its_unet=sdxl_unet(encoder_hid_dim=24))


def sdxl_pag_pipeline() -> Any:
    return sdxl_pipeline(StableDiffusionXLPAGPipeline, pag_applied_layers="mid")


def sdxl_instruct_pix2pix_pipeline() -> Any:
    return sdxl_pipeline(StableDiffusionXLInstructPix2PixPipeline, sdxl_unet(in_channels=8))


def sdxl_controlnet_pipeline() -> Any:
    """Build a ControlNet whose own text attention changes the result."""
    its_unet = sdxl_unet()
    controlnet: Any = ControlNetModel.from_unet(its_unet, conditioning_channels=3)
    torch.manual_seed(4)
    controlnet.controlnet_cond_embedding = torch.nn.Conv2d(3, 8, 1)
    for convolution in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
        torch.nn.init.normal_(convolution.weight, std=0.3)
    return sdxl_pipeline(StableDiffusionXLControlNetPipeline, its_unet, controlnet=controlnet)


IMAGE_PROMPT_DIM = 6


def image_prompt_pipeline() -> Any:
    """Build SDXL with two IP-Adapters, as loading their weights does."""
    pipeline = sdxl_pipeline()
    its_unet = pipeline.unet
    torch.manual_seed(6)
    for name, module in its_unet.named_modules():
        if name.endswith(".attn2"):
            scale: Any = [0.7, [0.4, 0.9]]  # two images in the second
            processor = IPAdapterAttnProcessor2_0(
                module.inner_dim, TEXT_DIM, num_tokens=[2, 3], scale=scale
            )
            module.set_processor(processor)
    its_unet.encoder_hid_proj = MultiIPAdapterImageProjection(
        [ImageProjection(IMAGE_PROMPT_DIM, TEXT_DIM, tokens) for tokens in (2, 3)]
    )
    its_unet.config.encoder_hid_dim_type = "ip_image_proj"
    return pipeline


def animate_diff_pipeline() -> Any:
    """Build a UNet with motion modules, whose attentions attend to no text."""
    adapter = MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        motion_max_seq_length=4,
    )
    pipeline = AnimateDiffPipeline(
        vae=shared(image_vae),
        text_encoder=shared(clip_text_encoder),
        tokenizer=shared(clip_tokenizer),
        unet=unet(),
        motion_adapter=adapter,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
    )
    pipeline.unet.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
