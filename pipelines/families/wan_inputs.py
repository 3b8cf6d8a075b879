"""Wan pipelines whose clips begin with images or videos.

The pipelines encode these as the most likely latents, without a draw, so the clip's seed is that of
its noise alone.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline
from PIL import Image
from transformers import CLIPImageProcessorPil

from pipelines.catalog.files.weight_files import read_json
from pipelines.families.wan import WanModel
from pipelines.request import GenerationRequest, TextEmbeddings


def to_picture(image_HWC: torch.Tensor) -> Image.Image:
    """Return an image as the pipelines take one without resizing it: 8 bits, in the clip's size."""
    return Image.fromarray(image_HWC.numpy())


class WanImageToVideoModel(WanModel):
    """Drives `WanImageToVideoPipeline`, with a first image and, where the model can, a last one.

    Wan 2.1 also shows the images to an image encoder, in float32. Wan 2.2 has none: A14B gets the
    images as further channels, 5B in place of the first frame.
    """

    pipeline_class = WanImageToVideoPipeline

    @classmethod
    def _own_parts(cls, folder: Path) -> dict[str, Any]:
        if read_json(folder / "model_index.json").get("image_processor") in (None, [None, None]):
            return {"image_encoder": None, "image_processor": None}
        # The class that the folder names computes other values where torchvision is installed.
        return {
            "image_processor": CLIPImageProcessorPil.from_pretrained(
                folder / "image_processor", local_files_only=True
            )
        }

    def _call_arguments(
        self, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> dict[str, Any]:
        images = {
            name: to_picture(image)
            for name in ("image", "last_image")
            if (image := getattr(embeddings.inputs, name)) is not None
        }
        return {**super()._call_arguments(request, embeddings), **images}
