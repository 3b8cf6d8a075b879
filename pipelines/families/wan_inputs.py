"""Wan pipelines whose clips begin with images or videos.

The pipelines encode these as the most likely latents, without a draw, so the clip's seed is that of
its noise alone.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline, WanVACEPipeline, WanVideoToVideoPipeline
from PIL import Image
from transformers import CLIPImageProcessorPil

from pipelines.catalog.files.weight_files import read_json
from pipelines.families.diffusers_model import seeded
from pipelines.families.wan import WanModel
from pipelines.request import GenerationRequest, TextEmbeddings
from pipelines.video_model import OnStep


def to_picture(image_HWC: torch.Tensor) -> Image.Image:
    """Return an image as the pipelines take one: 8 bits, which they do not resize in its size."""
    return Image.fromarray(image_HWC.numpy())


def to_pictures(video_THWC: torch.Tensor) -> list[Image.Image]:
    """Return the frames of a video, or of a mask, (T, H, W), as images."""
    return [to_picture(frame) for frame in video_THWC]


def image_arguments(embeddings: TextEmbeddings) -> dict[str, Any]:
    """Return a clip's first and last image, as far as it has them, as arguments of a pipeline."""
    return {
        name: to_picture(image)
        for name in ("image", "last_image")
        if (image := getattr(embeddings.inputs, name)) is not None
    }


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
        return {**super()._call_arguments(request, embeddings), **image_arguments(embeddings)}


class WanVideoToVideoModel(WanModel):
    """Drives `WanVideoToVideoPipeline`, which adds noise to a video and takes the last steps."""

    pipeline_class = WanVideoToVideoPipeline

    def _start(self, request: GenerationRequest) -> dict[str, Any]:
        return {"generator": seeded(request.sampling.seed), "strength": request.sampling.strength}

    def _call_arguments(
        self, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> dict[str, Any]:
        assert embeddings.inputs.video is not None
        video = to_pictures(embeddings.inputs.video)
        return {**super()._call_arguments(request, embeddings), "video": video}


class WanVACEModel(WanModel):
    """Drives `WanVACEPipeline`, with images of what to show, and a video to follow or to fill."""

    pipeline_class = WanVACEPipeline

    def _start(self, request: GenerationRequest) -> dict[str, Any]:
        return {
            "num_frames": request.shape.num_frames,
            "generator": seeded(request.sampling.seed),
            "conditioning_scale": self.config.conditioning_scale,
        }

    def _call_arguments(
        self, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> dict[str, Any]:
        inputs, given = embeddings.inputs, dict[str, Any]()
        if inputs.video is not None:
            given["video"] = to_pictures(inputs.video)
        if inputs.mask is not None:
            given["mask"] = to_pictures(inputs.mask)
        if inputs.reference_images:
            given["reference_images"] = [to_picture(image) for image in inputs.reference_images]
        return {**super()._call_arguments(request, embeddings), **given}

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        """Denoise, and cut off the latents of the reference images, which come first."""
        latents = super().denoise(request, embeddings, on_step)
        return latents[:, :, len(embeddings.inputs.reference_images) :]
