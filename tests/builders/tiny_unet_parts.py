"""Networks beside a UNet, at tiny size: ControlNets, adapters and an autoencoder of codes."""

from inspect import signature
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    ControlNetUnionModel,
    MotionAdapter,
    SparseControlNetModel,
    T2IAdapter,
    VQModel,
)

from tests.builders.tiny import TEXT_DIM


def with_noise(net: Any) -> Any:
    """Fill the layers of a ControlNet that are zero when new."""
    for convolution in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        torch.nn.init.normal_(convolution.weight, std=0.3)
    return net.eval()


def control_net(unet: Any, *, is_union: bool = False) -> Any:
    built: Any = ControlNetModel.from_unet(unet, conditioning_channels=3)
    torch.manual_seed(4)
    if is_union:
        sizes: dict[str, Any] = {"num_trans_channel": 8, "num_trans_head": 2, "num_proj_channel": 8}
        known = signature(ControlNetUnionModel.__init__).parameters
        config = {name: one for name, one in built.config.items() if name in known}
        built = ControlNetUnionModel.from_config(config, **sizes)
    built.controlnet_cond_embedding = torch.nn.Conv2d(3, 8, 1)
    return with_noise(built)


def motion_adapter() -> MotionAdapter:
    torch.manual_seed(6)
    return MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        motion_max_seq_length=4,
    ).eval()


def t2i_adapter(downscale_factor: int = 1, **settings: Any) -> dict[str, Any]:
    torch.manual_seed(6)
    built = T2IAdapter(
        in_channels=3,
        channels=[8, 16],
        num_res_blocks=1,
        downscale_factor=downscale_factor,
        **settings,
    )
    return {"adapter": built.eval()}


def sparse_control_net() -> SparseControlNetModel:
    torch.manual_seed(6)
    built = SparseControlNetModel(
        conditioning_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=TEXT_DIM,
        attention_head_dim=2,
        motion_num_attention_heads=2,
        conditioning_embedding_out_channels=(8,),
        use_simplified_condition_embedding=True,
    )
    return with_noise(built)


def movq() -> VQModel:
    torch.manual_seed(2)
    sizes: dict[str, Any] = {"block_out_channels": (8,), "norm_num_groups": 4}
    return VQModel(latent_channels=4, num_vq_embeddings=4, vq_embed_dim=4, **sizes).eval()
