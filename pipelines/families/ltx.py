"""LTX-Video 0.9.x: from a text, from a first image, and from 0.9.5 on also from a last one."""

from typing import Any

import torch
from diffusers import LTXConditionPipeline, LTXImageToVideoPipeline, LTXPipeline
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image

from pipelines.families.diffusers_model import DiffusersModel, EncodedText, seeded
from pipelines.families.second_stage import SECOND_STAGE_SEED_MASK, SecondStageRunner
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
        embeds, mask, _, _ = self._encode_prompt(text)
        return embeds, mask

    def _call_arguments(
        self, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "prompt_embeds": embeddings.prompt_embeds,
            "prompt_attention_mask": embeddings.prompt_attention_mask,
            "frame_rate": request.fps,
            "guidance_rescale": request.sampling.guidance_rescale,
        }
        if request.has_cfg:
            arguments["negative_prompt_embeds"] = embeddings.unconditional_embeds
            arguments["negative_prompt_attention_mask"] = embeddings.unconditional_attention_mask
        return arguments

    def _decode(self, request: GenerationRequest, latents: torch.Tensor) -> torch.Tensor:
        pipeline, vae = self.pipeline, self.pipeline.vae
        unpacked = pipeline._denormalize_latents(
            self._unpack(request, latents),
            vae.latents_mean,
            vae.latents_std,
            vae.config.scaling_factor,
        )
        timestep = None
        if vae.config.timestep_conditioning:
            generator = seeded(request.sampling.seed ^ DECODE_SEED_MASK)
            noise = self.device.send(torch.randn(unpacked.shape, generator=generator)).to(unpacked)
            scale = self.config.decode_noise_scale
            unpacked = (1 - scale) * unpacked + scale * noise
            timestep = self.device.send(
                torch.tensor([self.config.decode_timestep], dtype=vae.dtype)
            )
        return vae.decode(unpacked.to(vae.dtype), timestep, return_dict=False)[0]

    def _unpack(self, request: GenerationRequest, latents: torch.Tensor) -> torch.Tensor:
        """Return latents as (1, C, F, H, W)."""
        pipeline, shape = self.pipeline, request.shape
        return pipeline._unpack_latents(
            latents,
            (shape.num_frames - 1) // pipeline.vae_temporal_compression_ratio + 1,
            shape.height // pipeline.vae_spatial_compression_ratio,
            shape.width // pipeline.vae_spatial_compression_ratio,
            pipeline.transformer_spatial_patch_size,
            pipeline.transformer_temporal_patch_size,
        )


class LTXImageToVideoModel(LTXModel):
    """Drives `LTXImageToVideoPipeline`: the first latent frame is that of the image.

    The image is encoded here, in the dtype of the autoencoder; the pipeline would use that of the
    text. Its latents are drawn before the noise, from the clip's seed, as the pipeline does.
    """

    pipeline_class = LTXImageToVideoPipeline

    def _start(self, request: GenerationRequest) -> dict[str, Any]:
        return {"num_frames": request.shape.num_frames}

    def _call_arguments(
        self, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> dict[str, Any]:
        return {
            **super()._call_arguments(request, embeddings),
            "latents": self._draw_with_image(request, embeddings),
        }

    def _draw_with_image(
        self, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> torch.Tensor:
        image_HWC = embeddings.inputs.image
        assert image_HWC is not None, "check_request asks for an image"
        pipeline, shape = self.pipeline, request.shape
        picture = Image.fromarray(image_HWC.numpy())
        image_BCHW = pipeline.video_processor.preprocess(picture, shape.height, shape.width)
        latents, _ = pipeline.prepare_latents(
            image_BCHW.to(self.torch_device, pipeline.vae.dtype),
            1,
            pipeline.transformer.config.in_channels,
            shape.height,
            shape.width,
            shape.num_frames,
            torch.float32,
            self.torch_device,
            seeded(request.sampling.seed),
        )
        return latents


class LTXConditionModel(LTXModel):
    """Drives `LTXConditionPipeline`, with a first image, a last image, both or none.

    The first image stands for the first frame of the latents. The last image is further tokens,
    which the pipeline cuts off. It draws its noise and that of the images itself, in a fixed order,
    from one CPU generator with the clip's seed. Latents are (1, C, F, H, W).
    """

    pipeline_class = LTXConditionPipeline

    def _start(self, request: GenerationRequest) -> dict[str, Any]:
        generator = seeded(request.sampling.seed)
        return {"num_frames": request.shape.num_frames, "generator": generator}

    def _call_arguments(
        self, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> dict[str, Any]:
        inputs = embeddings.inputs
        conditions = [
            LTXVideoCondition(image=Image.fromarray(image_HWC.numpy()), frame_index=frame)
            for image_HWC, frame in (
                (inputs.image, 0),
                (inputs.last_image, request.shape.num_frames - 1),
            )
            if image_HWC is not None
        ]
        return {
            **super()._call_arguments(request, embeddings),
            "conditions": conditions or None,
            "image_cond_noise_scale": self.config.image_cond_noise_scale,
        }

    def _second_arguments(
        self,
        second: SecondStageRunner,
        request: GenerationRequest,
        embeddings: TextEmbeddings,
        latents: torch.Tensor,
    ) -> dict[str, Any]:
        pipeline, vae = self.pipeline, self.pipeline.vae
        statistics = vae.latents_mean, vae.latents_std, vae.config.scaling_factor
        upsampled = second.upsample(pipeline._denormalize_latents(latents, *statistics))
        return {
            **self._call_arguments(request, embeddings),
            "num_frames": request.shape.num_frames,
            "generator": seeded(request.sampling.seed ^ SECOND_STAGE_SEED_MASK),
            "guidance_scale": second.guidance_scale(request),
            "latents": pipeline._normalize_latents(upsampled, *statistics),
        }

    def _unpack(self, request: GenerationRequest, latents: torch.Tensor) -> torch.Tensor:
        return latents
