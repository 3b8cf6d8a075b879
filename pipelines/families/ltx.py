"""LTX-Video 0.9.x text-to-video."""

from typing import Any

import torch
from diffusers import LTXPipeline

from pipelines.families.diffusers_model import DiffusersModel, EncodedText
from pipelines.request import GenerationRequest, TextEmbeddings

# Makes the decoder's noise another draw than the latents' noise, from the same seed.
DECODE_SEED_MASK = 0x1DEC0DE


class LTXModel(DiffusersModel):
    """Drives `LTXPipeline`.

    Latents are packed: (1, tokens, C), normalised by the autoencoder's mean and std.
    """

    pipeline_class = LTXPipeline

    @torch.no_grad()
    def _encode(self, text: str) -> EncodedText:
        embeds, mask, _, _ = self.pipeline.encode_prompt(
            text,
            do_classifier_free_guidance=False,
            max_sequence_length=self.config.max_sequence_length,
            device=self.torch_device,
        )
        return embeds, mask

    def _call_arguments(
        self, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "prompt_embeds": embeddings.prompt_embeds,
            "prompt_attention_mask": embeddings.prompt_attention_mask,
            "frame_rate": request.fps,
        }
        if request.has_cfg:
            arguments["negative_prompt_embeds"] = embeddings.unconditional_embeds
            arguments["negative_prompt_attention_mask"] = embeddings.unconditional_attention_mask
        return arguments

    def _decode(self, request: GenerationRequest, latents: torch.Tensor) -> torch.Tensor:
        pipeline, vae, shape = self.pipeline, self.pipeline.vae, request.shape
        unpacked = pipeline._unpack_latents(
            latents,
            (shape.num_frames - 1) // pipeline.vae_temporal_compression_ratio + 1,
            shape.height // pipeline.vae_spatial_compression_ratio,
            shape.width // pipeline.vae_spatial_compression_ratio,
            pipeline.transformer_spatial_patch_size,
            pipeline.transformer_temporal_patch_size,
        )
        unpacked = pipeline._denormalize_latents(
            unpacked, vae.latents_mean, vae.latents_std, vae.config.scaling_factor
        )
        timestep = None
        if vae.config.timestep_conditioning:
            generator = torch.Generator("cpu").manual_seed(request.sampling.seed ^ DECODE_SEED_MASK)
            noise = self.device.send(torch.randn(unpacked.shape, generator=generator)).to(unpacked)
            scale = self.config.decode_noise_scale
            unpacked = (1 - scale) * unpacked + scale * noise
            timestep = self.device.send(
                torch.tensor([self.config.decode_timestep], dtype=vae.dtype)
            )
        return vae.decode(unpacked.to(vae.dtype), timestep, return_dict=False)[0]
