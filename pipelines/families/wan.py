"""Wan text-to-video: 2.1, and 2.2 with its two transformers or with a timestep for each token."""

from typing import Any

import torch
from diffusers import WanPipeline
from diffusers.utils.torch_utils import randn_tensor

from pipelines.catalog.model_config import ModelConfig
from pipelines.families.diffusers_model import DiffusersModel, EncodedText, seeded
from pipelines.request import GenerationRequest, TextEmbeddings


class WanModel(DiffusersModel):
    """Drives `WanPipeline`, and is the base of the drivers of Wan's other pipelines.

    Latents are (1, C, F, H, W), normalised by the autoencoder's mean and std.
    """

    pipeline_class = WanPipeline

    def __init__(self, config: ModelConfig, pipeline: Any, *further: Any) -> None:
        if config.boundary_ratio is not None:
            pipeline.register_to_config(boundary_ratio=config.boundary_ratio)
        super().__init__(config, pipeline, *further)

    @torch.no_grad()
    def _encode(self, text: str) -> EncodedText:
        embeds, _ = self._encode_prompt(text)
        return embeds, None

    def _call_arguments(
        self, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> dict[str, Any]:
        arguments: dict[str, Any] = {"prompt_embeds": embeddings.prompt_embeds}
        if request.has_cfg:
            arguments["negative_prompt_embeds"] = embeddings.unconditional_embeds
            if request.sampling.guidance_scale_2 is not None:
                arguments["guidance_scale_2"] = request.sampling.guidance_scale_2
        return arguments

    def _draw_noise(self, request: GenerationRequest) -> torch.Tensor:
        """Draw the noise as every pipeline of Wan does, before it encodes images.

        The transformer may take more channels than the noise has: those of a mask and of images.
        """
        pipeline, shape = self.pipeline, request.shape
        noise = randn_tensor(
            (
                1,
                pipeline.vae.config.z_dim,
                (shape.num_frames - 1) // pipeline.vae_scale_factor_temporal + 1,
                shape.height // pipeline.vae_scale_factor_spatial,
                shape.width // pipeline.vae_scale_factor_spatial,
            ),
            seeded(request.sampling.seed),
            torch.device("cpu"),
            torch.float32,
        )
        return self.device.send(noise)

    def _decode(self, request: GenerationRequest, latents: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        mean, std = (
            self.device.send(torch.tensor(values, dtype=vae.dtype)).view(1, -1, 1, 1, 1)
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        return vae.decode(latents.to(vae.dtype) * std + mean, return_dict=False)[0]
