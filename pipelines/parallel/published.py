"""The published models and sizes that the cost model is shown for. Loads without torch.

Source: the `transformer/config.json` and the autoencoder's strides of the models' pages on the hub; for Wan and LTX
`tests/pipelines/parallel/test_cost.py` builds the classes with them.
"""

from dataclasses import dataclass

from pipelines.parallel.geometry import ModelGeometry
from pipelines.types import GuidanceMethod, VideoShape

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


@dataclass(frozen=True)
class PublishedCase:
    """One model at one size, with the method and the steps of its YAML."""

    name: str
    geometry: ModelGeometry
    shape: VideoShape
    num_inference_steps: int
    method: GuidanceMethod = "cfg+nag"


SIZES = (
    PublishedCase("Wan 2.1 1.3B, 480p", WAN_1_3B, VideoShape(81, 480, 832), 25),
    PublishedCase("Wan 2.1 1.3B, 720p", WAN_1_3B, VideoShape(81, 720, 1280), 25),
    PublishedCase("Wan 2.1 14B, 480p", WAN_14B, VideoShape(81, 480, 832), 25),
    PublishedCase("Wan 2.1 14B, 720p", WAN_14B, VideoShape(81, 720, 1280), 25),
    PublishedCase("LTX 0.9.5 2B, 480p", LTX_2B, VideoShape(81, 480, 832), 40),
    PublishedCase("LTX 0.9.5 2B, 720p", LTX_2B, VideoShape(81, 704, 1280), 40),
    PublishedCase("LTX 0.9.5 2B, its own size", LTX_2B, VideoShape(161, 512, 768), 40),
    PublishedCase("LTX 0.9.5 2B, 720p, 161 frames", LTX_2B, VideoShape(161, 704, 1280), 40),
)
