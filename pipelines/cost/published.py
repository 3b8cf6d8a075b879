"""Published models, sizes and speed-ups that the cost model is shown with. Loads without torch.

Source: the `transformer/config.json` and the autoencoder strides on the hub pages of the models;
for Wan and LTX `tests/pipelines/cost/test_cost.py` builds the classes with them.
"""

from dataclasses import dataclass

from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.cost.prediction import (
    A100,
    H100,
    H800,
    NVLINK_A100,
    NVLINK_H100,
    NVLINK_H800,
    Device,
    Interconnect,
    Work,
)
from pipelines.request import VideoShape

WAN_1_3B = ModelGeometry(
    family="wan",
    num_layers=30,
    num_heads=12,
    head_dim=128,
    ffn_dim=8960,
    num_text_tokens=512,
    frames_per_token=4,
    height_per_token=16,
    width_per_token=16,
)
WAN_14B = ModelGeometry(
    family="wan",
    num_layers=40,
    num_heads=40,
    head_dim=128,
    ffn_dim=13824,
    num_text_tokens=512,
    frames_per_token=4,
    height_per_token=16,
    width_per_token=16,
)
LTX_2B = ModelGeometry(
    family="ltx",
    num_layers=28,
    num_heads=32,
    head_dim=64,
    ffn_dim=8192,
    num_text_tokens=128,
    frames_per_token=8,
    height_per_token=32,
    width_per_token=32,
)


# guidance method and steps as in the YAML of each model
SIZES = {
    "Wan 2.1 1.3B, 480p": Work(WAN_1_3B, VideoShape(81, 480, 832), 25, "cfg+nag"),
    "Wan 2.1 1.3B, 720p": Work(WAN_1_3B, VideoShape(81, 720, 1280), 25, "cfg+nag"),
    "Wan 2.1 14B, 480p": Work(WAN_14B, VideoShape(81, 480, 832), 25, "cfg+nag"),
    "Wan 2.1 14B, 720p": Work(WAN_14B, VideoShape(81, 720, 1280), 25, "cfg+nag"),
    "LTX 0.9.5, 480p": Work(LTX_2B, VideoShape(81, 480, 832), 40, "cfg+nag"),
    "LTX 0.9.5, 720p": Work(LTX_2B, VideoShape(81, 704, 1280), 40, "cfg+nag"),
    "LTX 0.9.5, its own size": Work(LTX_2B, VideoShape(161, 512, 768), 40, "cfg+nag"),
    "LTX 0.9.5, 720p, 161 frames": Work(LTX_2B, VideoShape(161, 704, 1280), 40, "cfg+nag"),
}


@dataclass(frozen=True)
class PublicFigure:
    """A speed-up that others measured.

    None of the sources states all settings; sizes and steps are the usual ones of the model.
    """

    setup: str
    speed_up: float
    work: Work
    num_devices: int
    device: Device
    interconnect: Interconnect
    remark: str = ""


# HunyuanVideo has other layers; these have as many operations: per token 60 times
# 24 width^2 + 4 tokens width
HUNYUAN_STAND_IN = ModelGeometry(
    family="wan",
    num_layers=60,
    num_heads=24,
    head_dim=128,
    ffn_dim=3 * 24 * 128,
    num_text_tokens=256,
    frames_per_token=4,
    height_per_token=16,
    width_per_token=16,
)
PUBLIC_FIGURES = (
    PublicFigure(
        "Wan 2.1 14B, 4 A100",
        3.54,
        Work(WAN_14B, VideoShape(81, 480, 832), 50, "cfg"),
        4,
        A100,
        NVLINK_A100,
    ),
    PublicFigure(
        "HunyuanVideo, 8 H100",
        5.6,
        Work(HUNYUAN_STAND_IN, VideoShape(129, 720, 1280), 50, "none"),
        8,
        H100,
        NVLINK_H100,
        "a stand-in of as many operations was predicted",
    ),
    PublicFigure(
        "LTX 2B, 4 H800",
        1.9,
        Work(LTX_2B, VideoShape(161, 512, 768), 40, "cfg"),
        4,
        H800,
        NVLINK_H800,
        "what is left out counts in so short a step",
    ),
)
