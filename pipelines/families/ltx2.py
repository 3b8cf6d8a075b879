"""LTX-2 and 2.3: video with sound, from a text, or from a text and a first image.

Latents are one tensor, (1, N): those of the video, (1, C, F, H, W), and of the sound, (1, c, L, M),
flattened one after the other. Both are as their autoencoders decode them, not normalised.

The passes that LTX-2's pipelines can add to a step are those of the YAML's `ltx2_guidance`.
"""

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import LTX2ImageToVideoPipeline, LTX2Pipeline
from PIL import Image

import nag
from pipelines.catalog.model_config import ModelConfig
from pipelines.errors import ModelConfigError
from pipelines.families.chosen_loras import ChosenLoras
from pipelines.families.decode import FetchedAudio, fetch_audio
from pipelines.families.diffusers_model import DiffusersModel, EncodedText, cache_texts, seeded
from pipelines.families.ltx import DECODE_SEED_MASK
from pipelines.families.second_stage import SECOND_STAGE_SEED_MASK, SecondStageRunner
from pipelines.request import GenerationRequest, TextEmbeddings

MAX_TEXTS = 64  # 16 MB each at 1024 tokens


class JoinedTexts:
    """Stands for the connectors in the pipeline, and takes texts that went through them before.

    A text encoder's states of all layers, which the connectors read, are 385 MB a text; what they
    make of them is 16 MB. So a text goes through the connectors once, when it is encoded.

    Args:
        video_width: channels of the text for the video; those for the sound are behind them.
    """

    def __init__(self, video_width: int) -> None:
        self._video_width = video_width

    def split(self, joined_BLD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the texts for the video and for the sound."""
        video, audio = joined_BLD.tensor_split([self._video_width], dim=2)
        return video.contiguous(), audio.contiguous()

    def __call__(
        self, joined_BLD: torch.Tensor, mask_BL: torch.Tensor, padding_side: str = "left"
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        del padding_side  # the padding has become the connectors' registers
        return *self.split(joined_BLD), mask_BL


class LTX2Model(DiffusersModel):
    """Drives `LTX2Pipeline`."""

    pipeline_class: Any = LTX2Pipeline

    def __init__(
        self,
        config: ModelConfig,
        pipeline: Any,
        device: torch.device,
        loras: ChosenLoras | None = None,
    ) -> None:
        self._connectors = connectors = pipeline.connectors
        num_registers = connectors.config.video_connector_num_learnable_registers or 1
        if config.max_sequence_length % num_registers:
            raise ModelConfigError(
                f"max_sequence_length must be a multiple of {num_registers}, the registers of "
                f"{config.name}'s connectors, not {config.max_sequence_length}"
            )
        self._joined = JoinedTexts(connectors.video_connector.inner_dim)
        pipeline.connectors = self._joined
        super().__init__(config, pipeline, device, loras)
        self._embed = cache_texts(self._encode_on_device, MAX_TEXTS)

    @classmethod
    def _own_parts(cls, _folder: Path) -> dict[str, Any]:
        # They write other prompts and choose other durations than the manifest asks for.
        return {"processor": None, "prompt_enhancer": None, "duration_head": None}

    def close(self) -> None:
        self.pipeline.connectors = self._connectors
        del self._connectors
        super().close()

    @torch.no_grad()
    def _encode(self, text: str) -> EncodedText:
        embeds, mask, _, _ = self._encode_prompt(text)
        video, audio, connected_mask = self._connectors(
            embeds, mask, padding_side=self.pipeline.tokenizer.padding_side
        )
        return torch.cat([video, audio], dim=2), connected_mask

    def _negative_text(
        self, embeds: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> nag.NegativeText:
        video, audio = self._joined.split(embeds)
        return nag.NegativeText(video, attention_mask, audio_embeds=audio)

    def _start(self, request: GenerationRequest) -> dict[str, Any]:
        return {"num_frames": request.shape.num_frames}

    def _call_arguments(
        self, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> dict[str, Any]:
        return {
            **self._text_arguments(request, embeddings),
            **self._guidance_arguments(request, request.sampling.guidance_scale),
            **self._noise(request, embeddings),
        }

    def _second_arguments(
        self,
        second: SecondStageRunner,
        request: GenerationRequest,
        embeddings: TextEmbeddings,
        latents: torch.Tensor,
    ) -> dict[str, Any]:
        of_video = self._video_shape(second.first(request))
        video = latents[:, : math.prod(of_video)].view(of_video)
        of_sound = self._audio_shape(request)
        scale = second.guidance_scale(request)
        return {
            **self._text_arguments(request, embeddings),
            **self._guidance_arguments(request, scale),
            "num_frames": request.shape.num_frames,
            "generator": seeded(request.sampling.seed ^ SECOND_STAGE_SEED_MASK),
            "guidance_scale": scale,
            "latents": self._begin(second.upsample(video), request, embeddings),
            "audio_latents": latents[:, -math.prod(of_sound) :].view(of_sound),
            "noise_scale": second.schedule.start,
        }

    def _text_arguments(
        self, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "prompt_embeds": embeddings.prompt_embeds,
            "prompt_attention_mask": embeddings.prompt_attention_mask,
            "frame_rate": request.fps,
            # 2.3 modulates the cross-attentions of video and sound by each other's timestep.
            "use_cross_timestep": bool(self.pipeline.transformer.config.cross_attn_mod),
        }
        if request.has_cfg:
            arguments["negative_prompt_embeds"] = embeddings.unconditional_embeds
            arguments["negative_prompt_attention_mask"] = embeddings.unconditional_attention_mask
        return arguments

    def _guidance_arguments(
        self, request: GenerationRequest, guidance_scale: float
    ) -> dict[str, Any]:
        """Return the scales of all guidance but the attention's, each for video and sound."""
        further, sampling = self.config.ltx2_guidance, request.sampling
        found: dict[str, Any] = {
            "guidance_rescale": sampling.guidance_rescale,
            "stg_scale": further.stg_scale,
            "modality_scale": further.modality_scale,
        }
        for_sound = {f"audio_{name}": getattr(further, f"audio_{name}") for name in found}
        # A scale for the sound alone would switch classifier-free guidance on.
        for_sound["audio_guidance_scale"] = (
            further.audio_guidance_scale if guidance_scale > 1 else None
        )
        of_video = {**found, "guidance_scale": guidance_scale}
        for name, value in for_sound.items():
            found[name] = of_video[name.removeprefix("audio_")] if value is None else value
        blocks = [*further.spatio_temporal_guidance_blocks]
        return {**found, "spatio_temporal_guidance_blocks": blocks or None}

    def _noise(self, request: GenerationRequest, embeddings: TextEmbeddings) -> dict[str, Any]:
        """Return the latents that the pipeline begins with, in the form that it normalises itself.

        It would draw the same numbers, the video's before the sound's, from the same generator.
        """
        pipeline, generator = self.pipeline, seeded(request.sampling.seed)
        video = self._send_noise(self._video_shape(request), generator)
        audio = self._send_noise(self._audio_shape(request), generator)
        packed = pipeline._denormalize_audio_latents(
            pipeline._pack_audio_latents(audio),
            pipeline.audio_vae.latents_mean,
            pipeline.audio_vae.latents_std,
        )
        return {
            "latents": self._begin(self._denormalized(video), request, embeddings),
            "audio_latents": pipeline._unpack_audio_latents(
                packed, audio.shape[2], num_mel_bins=audio.shape[3]
            ),
        }

    def _begin(
        self, latents: torch.Tensor, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> torch.Tensor:
        """Return latents of the video with the clip's image in them, if it begins with one."""
        del request, embeddings
        return latents

    def _send_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        return self.device.send(torch.randn(shape, generator=generator))

    def _denormalized(self, latents: torch.Tensor) -> torch.Tensor:
        vae = self.pipeline.vae
        return self.pipeline._denormalize_latents(
            latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor
        )

    def _latents_of(self, result: Any) -> torch.Tensor:
        return torch.cat([result.frames.flatten(1), result.audio.flatten(1)], dim=1)

    def _decode(self, request: GenerationRequest, latents: torch.Tensor) -> torch.Tensor:
        pipeline, vae = self.pipeline, self.pipeline.vae
        shape = self._video_shape(request)
        video, timestep = latents[:, : math.prod(shape)].view(shape), None
        if vae.config.timestep_conditioning:
            generator = seeded(request.sampling.seed ^ DECODE_SEED_MASK)
            noise, scale = self._send_noise(shape, generator), self.config.decode_noise_scale
            normalized = pipeline._normalize_latents(
                video, vae.latents_mean, vae.latents_std, vae.config.scaling_factor
            )
            video = self._denormalized((1 - scale) * normalized + scale * noise.to(normalized))
            timestep = self.device.send(
                torch.tensor([self.config.decode_timestep], dtype=vae.dtype)
            )
        return vae.decode(video.to(vae.dtype), timestep, return_dict=False)[0]

    def _decode_audio(self, request: GenerationRequest, latents: torch.Tensor) -> FetchedAudio:
        vae, vocoder = self.pipeline.audio_vae, self.pipeline.vocoder
        shape = self._audio_shape(request)
        audio = latents[:, -math.prod(shape) :].view(shape).to(vae.dtype)
        waveform_BCN = vocoder(vae.decode(audio, return_dict=False)[0].to(vocoder.dtype))
        duration_s = request.shape.num_frames / request.fps
        rate = vocoder.config.output_sampling_rate
        return fetch_audio(waveform_BCN, rate, duration_s, self.device)

    def _video_shape(self, request: GenerationRequest) -> tuple[int, ...]:
        """Return the shape of the video's latents, (1, C, F, H, W)."""
        pipeline, shape = self.pipeline, request.shape
        return (
            1,
            pipeline.transformer.config.in_channels,
            (shape.num_frames - 1) // pipeline.vae_temporal_compression_ratio + 1,
            shape.height // pipeline.vae_spatial_compression_ratio,
            shape.width // pipeline.vae_spatial_compression_ratio,
        )

    def _audio_shape(self, request: GenerationRequest) -> tuple[int, ...]:
        """Return the shape of the sound's latents, (1, c, L, M), as the pipeline chooses it."""
        pipeline, vae = self.pipeline, self.pipeline.audio_vae
        per_second = pipeline.audio_sampling_rate / pipeline.audio_hop_length
        per_second /= float(pipeline.audio_vae_temporal_compression_ratio)
        return (
            1,
            vae.config.latent_channels,
            round(request.shape.num_frames / request.fps * per_second),
            vae.config.mel_bins // pipeline.audio_vae_mel_compression_ratio,
        )


class LTX2ImageToVideoModel(LTX2Model):
    """Drives `LTX2ImageToVideoPipeline`: the first latent frame is that of the image.

    It is encoded here, in the dtype of the autoencoder; the pipeline would use that of the text. By
    default the pipeline also compresses the image once with H.264, as in training, for which it
    needs PyAV. Images of a manifest are mostly compressed already, so this is left out
    (`image_crf=0` of the pipeline).
    """

    pipeline_class = LTX2ImageToVideoPipeline

    def _begin(
        self, latents: torch.Tensor, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> torch.Tensor:
        image_HWC = embeddings.inputs.image
        assert image_HWC is not None, "check_request asks for an image"
        pipeline, shape = self.pipeline, request.shape
        picture = Image.fromarray(image_HWC.numpy())
        # A first stage is smaller than the image, which is then resized with Lanczos.
        values_BCHW = pipeline.video_processor.preprocess(picture, shape.height, shape.width)
        image_BC1HW = self.device.send(values_BCHW[:, :, None]).to(pipeline.vae.dtype)
        first = pipeline.vae.encode(image_BC1HW).latent_dist.mode().to(latents)
        # Given latents take the place of the image that the pipeline would encode.
        return torch.cat([first, latents[:, :, 1:]], dim=2)
