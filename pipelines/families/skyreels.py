"""SkyReels V2: Wan 2.1 trained further, with pipelines of its own, from a text or from images."""

from diffusers import SkyReelsV2ImageToVideoPipeline, SkyReelsV2Pipeline

from pipelines.families.wan import WanModel
from pipelines.families.wan_inputs import WanImageToVideoModel


class SkyReelsModel(WanModel):
    """Drives `SkyReelsV2Pipeline`."""

    pipeline_class = SkyReelsV2Pipeline


class SkyReelsImageToVideoModel(WanImageToVideoModel):
    """Drives `SkyReelsV2ImageToVideoPipeline`, with a first image, or with a first and a last one.

    As in Wan 2.1 the images are further channels, and the image encoder sees them too.
    """

    pipeline_class = SkyReelsV2ImageToVideoPipeline
