"""Wan text-to-video: 2.1, and 2.2 with its two transformers."""

from typing import Any

import torch
from diffusers import WanPipeline

from pipelines.families.diffusers_model import DiffusersModel, EncodedText
from pipelines.request import GenerationRequest, TextEmbeddings


class WanModel(DiffusersModel):
    """Drives `WanPipeline`.

    Latents are (1, C, F, H, W), normalised by the autoencoder's mean and std.
    """

    pipeline_class = WanPipeline

    @torch.no_grad()
    def _encode(self, text: str) -> EncodedText:
        embeds, _ = self.pipeline.encode_prompt(
            text,
            do_classifier_free_guidance=False,
            max_sequence_length=self.config.max_sequence_length,
            device=self.torch_device,
        )
        return embeds, None

    def _call_arguments(
        self, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> dict[str, Any]:
        unconditional = (
            {"negative_prompt_embeds": embeddings.unconditional_embeds} if request.has_cfg else {}
        )
        return {"prompt_embeds": embeddings.prompt_embeds, **unconditional}

    def _decode(self, request: GenerationRequest, latents: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        mean, std = (
            self.device.send(torch.tensor(values, dtype=vae.dtype)).view(1, -1, 1, 1, 1)
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        return vae.decode(latents.to(vae.dtype) * std + mean, return_dict=False)[0]
