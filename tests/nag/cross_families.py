"""The families with a separate text cross-attention, one row of a table for each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import PRXPixelPipeline

from nag import NegativeText
from tests.builders import (
    tiny_beside_image,
    tiny_cross_attention,
    tiny_images,
    tiny_pooled_text,
    tiny_text_transformers,
    tiny_wan_copies,
)
from tests.builders.tiny import TEXT_DIM
from tests.nag.cross_attention_by_hand import ByHand, Form
from tests.nag.reference import mask

LENGTH, NEGATIVE_LENGTH, SECOND_LENGTH = 6, 4, 5
STRONG: dict[str, Any] = {"nag_scale": 5.0, "nag_tau": 1.5, "nag_alpha": 0.5, "nag_norm": "l1"}


def seeded(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Family:
    """One family of models.

    Args:
        build: builds its tiny pipeline.
        coverage: text attentions of its model.
        model: name of its model in the pipeline.
        form: order of the passes with classifier-free guidance.
        is_named: True if the pipeline names its calls, so that those of another one are known too.
        guidance_scale: argument that switches classifier-free guidance on, and its value for it;
            None without classifier-free guidance.
        mask: argument of the text's mask; None without one.
        embeds: argument of the text's embeddings.
        attentions: regular expression for the names of the text attentions, where not all modules
            that are called with a text are such.
        second: arguments of the model that hold a second text and its mask; None without one.
        second_names: arguments of the pipeline that hold the second text and its mask.
        negative_length: tokens of the negative prompt.
        has_words: True if the pipeline takes texts alone, no embeddings.
        text_blocks: attentions that the coverage counts and that belong to the text alone.
        pooled: argument of the pooled text; None without one.
        width: channels of the text.
        num_results: tensors that the pipeline returns, such as a video and its sound.
        num_with_cfg: images of a call with classifier-free guidance that the pipeline can do.
        arguments: further arguments of the pipeline's call.
        settings: arguments of the pipeline's constructor beside its components.
        tau: bound that some tokens of its tiny model reach, and others do not.
    """

    build: Callable[[], Any]
    coverage: int
    model: str = "unet"
    form: Form = "batched"
    is_named: bool = False
    guidance_scale: tuple[str, float] | None = ("guidance_scale", 3.0)
    mask: str | None = None
    pooled: str | None = None
    embeds: str = "prompt_embeds"
    attentions: str = ""
    second: tuple[str, str] | None = None
    second_names: tuple[str, str] = ("prompt_embeds_2", "prompt_attention_mask_2")
    negative_length: int = NEGATIVE_LENGTH
    has_words: bool = False
    text_blocks: int = 0
    width: int = TEXT_DIM
    num_results: int = 1
    num_with_cfg: int = 2
    by_hand: Mapping[str, Any] = field(default_factory=dict[str, Any])
    arguments: Callable[[int, bool], Mapping[str, Any]] = lambda _rows, _cfg: {}
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tau: float = 5.0

    @property
    def strengths(self) -> dict[str, Any]:
        return STRONG | {"nag_tau": self.tau}

    def texts(self, rows: int, seed: int, prefix: str = "") -> dict[str, Any]:
        """Return the arguments of the pipeline that hold a text."""
        if self.has_words:
            words = ["a red cat", "dog"] if prefix else ["two blue birds", "one"]
            return {f"{prefix}prompt": words[:rows]}
        found = {prefix + self.embeds: seeded(seed, rows, LENGTH, self.width)}
        if self.mask:
            lengths = (LENGTH - 2 * row for row in range(rows))
            found[prefix + self.mask] = mask(LENGTH, *lengths).long()
        if self.pooled:
            found[prefix + self.pooled] = seeded(seed + 50, rows, TEXT_DIM)
        if self.second:
            embeds, of_embeds = (prefix + one for one in self.second_names)
            found[embeds] = seeded(seed + 60, rows, SECOND_LENGTH, TEXT_DIM)
            found[of_embeds] = mask(SECOND_LENGTH, *range(1, 1 + rows))
        return found

    def negative(self, rows: int) -> NegativeText:
        """Return a negative prompt of another length, the first row in part padding."""
        its_mask = mask(self.negative_length, *range(2, 2 + rows)).long() if self.mask else None
        embeds, second = seeded(2, rows, self.negative_length, self.width), None
        if self.second:
            second = seeded(62, rows, SECOND_LENGTH, TEXT_DIM), mask(SECOND_LENGTH, *([3] * rows))
        return NegativeText(
            embeds,
            its_mask,
            second_embeds=second[0] if second else None,
            second_mask=second[1] if second else None,
        )

    def guidance(self, rows: int, *, cfg: bool) -> ByHand:
        negative, strengths = self.negative(rows), (5.0, self.tau, 0.5)
        form: Form = self.form if cfg else "single"
        further: dict[str, Any] = {}
        if self.second:
            further = {
                "further": dict(
                    zip(self.second, (negative.second_embeds, negative.second_mask), strict=True)
                )
            }
        mask_ = negative.attention_mask
        return ByHand(negative.embeds, mask_, form, *strengths, **self.by_hand, **further)

    def render(self, pipeline: Any, rows: int = 2, *, cfg: bool, **others: Any) -> torch.Tensor:
        """Return the result after two steps, in latents, of noise from seed i in row i."""
        call: dict[str, Any] = {
            **self.texts(rows, 1),
            "num_inference_steps": 2,
            "generator": [torch.Generator().manual_seed(row) for row in range(rows)],
            "output_type": "latent",
            "return_dict": False,
            **self.arguments(rows, cfg),
        }
        if self.guidance_scale:
            name, value = self.guidance_scale
            call |= {name: value if cfg else 1.0}
            call |= {"negative_prompt": None}
            call |= self.texts(rows, 3, "negative_") if cfg else {}
        results = pipeline(**{**call, **others})[: self.num_results]
        if self.num_results == 1:
            return results[0]
        return torch.cat([one.flatten(1) for one in results], dim=1)

    def model_of(self, pipeline: Any) -> Any:
        return getattr(pipeline, self.model)


def _size(_rows: int, _cfg: bool) -> dict[str, Any]:
    return {"height": tiny_images.LATENT_PX, "width": tiny_images.LATENT_PX}


def _image(rows: int, _cfg: bool) -> dict[str, Any]:
    return {"image": seeded(7, rows, 3, tiny_images.LATENT_PX, tiny_images.LATENT_PX).sigmoid()}


def _latents(rows: int, _cfg: bool) -> dict[str, Any]:
    return {"image": seeded(7, rows, 4, 8, 8).sigmoid()}


def _sized_image(rows: int, cfg: bool) -> dict[str, Any]:
    return {**_size(rows, cfg), **_image(rows, cfg)}


def _image_prompts(rows: int, cfg: bool) -> dict[str, Any]:
    """Return two image prompts: one without a mask, one of two images with a mask for each."""
    images = [seeded(8, 1 + cfg, number, tiny_images.IMAGE_PROMPT_DIM) for number in (1, 2)]
    return {
        **_size(rows, cfg),
        "ip_adapter_image_embeds": images,
        "cross_attention_kwargs": {"ip_adapter_masks": [None, seeded(9, 1, 2, 8, 8).sigmoid()]},
    }


def _sides(
    side_px: int, *, binned: bool | None = None, **others: Any
) -> Callable[[int, bool], dict[str, Any]]:
    binning = {} if binned is None else {"use_resolution_binning": binned}
    return lambda _rows, _cfg: {"height": side_px, "width": side_px, **binning, **others}


def _sequence_lengths(rows: int, cfg: bool) -> dict[str, Any]:
    ends = torch.arange(rows + 1) * LENGTH
    negative = {"negative_prompt_cu_seqlens": ends} if cfg else {}
    return {"height": 64, "width": 64, "prompt_cu_seqlens": ends, **negative}


def _prompted(rows: int, _cfg: bool) -> dict[str, Any]:
    return {"prompt": "a red cat", "num_images_per_prompt": rows, "height": 8, "width": 8}


def _edited(rows: int, cfg: bool) -> dict[str, Any]:
    return {**_prompted(rows, cfg), "image": seeded(7, rows, 4, 8, 8)}


DREAMLITE: dict[str, Any] = {
    "has_words": True,
    "mask": "of the text",
    "guidance_scale": None,
    "form": "batched",
    "arguments": _prompted,
}
EDITING: dict[str, Any] = {**DREAMLITE, "form": "last third", "arguments": _edited}
DREAMLITE_MOBILE: dict[str, Any] = {**DREAMLITE, "form": "single"}
MASKED: dict[str, Any] = {"model": "transformer", "mask": "prompt_attention_mask"}
COSMOS: dict[str, Any] = {
    "model": "transformer",
    "form": "prompt first",
    "arguments": _sides(32),
}
DEEPFLOYD: dict[str, Any] = {
    "tau": 0.8,
    "width": 12,
    "by_hand": {"adds_input": True},
    "arguments": lambda _rows, _cfg: {"output_type": "pt"},
}
HUNYUAN_DIT: dict[str, Any] = {
    **MASKED,
    "tau": 3.7,
    "second": ("encoder_hidden_states_t5", "text_embedding_mask_t5"),
    "negative_length": LENGTH,
    "by_hand": {"text_mask": "text_embedding_mask"},
    "arguments": _sides(64, binned=False),
}
STABLE_AUDIO3: dict[str, Any] = {
    "model": "transformer",
    "mask": "encoder_attention_mask",
    "attentions": ".*cross_attn",
    "by_hand": {"num_shared_tokens": 1},
    "arguments": lambda _rows, _cfg: {"duration": 1.0},
}
KANDINSKY6: dict[str, Any] = {
    "model": "transformer",
    "form": "prompt first",
    "is_named": True,
    "mask": "of the text",
    "has_words": True,
    "attentions": r".*_dec_block.cross_attention",
    "text_blocks": 2,
    "num_results": 2,
    "by_hand": {"output": "out_layer"},
    "arguments": _sides(32, num_frames=5),
}
PRX: dict[str, Any] = {**MASKED, "tau": 0.7, "by_hand": {"text_mask": "attention_mask"}}
POOLED: dict[str, Any] = {"pooled": "pooled_prompt_embeds"}
PERTURBED: dict[str, Any] = {**POOLED, "settings": {"pag_applied_layers": "mid"}}
THIRDS: dict[str, Any] = {"form": "prompt third", "arguments": _sized_image}
FAMILIES = {
    "Stable Diffusion": Family(tiny_images.stable_diffusion_pipeline, 4, arguments=_size),
    "plain processors": Family(tiny_images.plain_processors, 4, arguments=_size),
    "InstructPix2Pix": Family(
        tiny_images.instruct_pix2pix_pipeline, 4, form="prompt third", arguments=_image
    ),
    "latent consistency": Family(
        tiny_images.latent_consistency_pipeline,
        4,
        form="single",
        guidance_scale=None,
        arguments=_size,
    ),
    "upscaler": Family(tiny_images.upscale_pipeline, 7, arguments=_image),
    "latent upscaler": Family(tiny_images.latent_upscale_pipeline, 6, arguments=_latents, **POOLED),
    "DreamLite": Family(tiny_cross_attention.dreamlite_pipeline, 4, **DREAMLITE),
    "DreamLite, editing": Family(
        tiny_cross_attention.dreamlite_pipeline,
        4,
        **EDITING,
    ),
    "DreamLite Mobile": Family(
        lambda: tiny_cross_attention.dreamlite_pipeline(tiny_cross_attention.TinyDreamLiteMobile),
        4,
        **DREAMLITE_MOBILE,
    ),
    "SDXL": Family(tiny_images.sdxl_pipeline, 8, arguments=_size, **POOLED),
    "SDXL, fused": Family(tiny_images.fused_projections, 8, arguments=_size, **POOLED),
    "SDXL with a text projection": Family(
        tiny_images.projected_text, 8, width=24, arguments=_size, **POOLED
    ),
    "SDXL without perturbation": Family(
        tiny_images.sdxl_pag_pipeline,
        8,
        arguments=lambda rows, cfg: {**_size(rows, cfg), "pag_scale": 0.0},
        **PERTURBED,
    ),
    "SDXL with perturbation": Family(
        tiny_images.sdxl_pag_pipeline, 8, form="middle third", arguments=_size, **PERTURBED
    ),
    "SDXL with perturbation alone": Family(
        tiny_images.sdxl_pag_pipeline,
        8,
        form="prompt half",
        guidance_scale=("guidance_scale", 1.0),
        arguments=_size,
        **PERTURBED,
    ),
    "SDXL InstructPix2Pix": Family(
        tiny_images.sdxl_instruct_pix2pix_pipeline, 8, **THIRDS, **POOLED
    ),
    "SDXL with a ControlNet": Family(
        tiny_images.sdxl_controlnet_pipeline, 8, arguments=_sized_image, **POOLED
    ),
    "SDXL with image prompts": Family(
        tiny_images.image_prompt_pipeline, 8, arguments=_image_prompts, **POOLED
    ),
    "AnimateDiff": Family(
        tiny_images.animate_diff_pipeline,
        4,
        arguments=lambda rows, cfg: {**_size(rows, cfg), "num_frames": 2},
    ),
    "PixArt": Family(
        tiny_text_transformers.pixart_pipeline,
        2,
        arguments=_sides(64, binned=False),
        tau=2.2,
        **MASKED,
    ),
    "PixArt, plain processors": Family(
        tiny_text_transformers.plain_pixart,
        2,
        arguments=_sides(64, binned=False),
        tau=2.2,
        **MASKED,
    ),
    "Sana": Family(
        tiny_text_transformers.sana_pipeline,
        2,
        arguments=_sides(128, binned=False),
        tau=3.7,
        **MASKED,
    ),
    "Sana Sprint": Family(
        tiny_text_transformers.sana_sprint_pipeline,
        2,
        form="single",
        guidance_scale=None,
        arguments=_sides(128, binned=False, intermediate_timesteps=None),
        tau=4.3,
        **MASKED,
    ),
    "Sana Video": Family(
        tiny_text_transformers.sana_video_pipeline,
        2,
        arguments=_sides(64, frames=5, binned=False),
        tau=3.5,
        **MASKED,
    ),
    "DeepFloyd": Family(tiny_pooled_text.deepfloyd_pipeline, 4, **DEEPFLOYD),
    "DeepFloyd, plain processors": Family(tiny_pooled_text.plain_deepfloyd, 4, **DEEPFLOYD),
    "Kandinsky 3": Family(
        tiny_pooled_text.kandinsky3_pipeline,
        6,
        mask="attention_mask",
        attentions=r"(down|up)_blocks.\d.attentions.[12].attention",
        arguments=_sides(64),
    ),
    "Lumina-Next": Family(
        tiny_pooled_text.lumina_pipeline,
        2,
        form="prompt half",
        attentions=r".*attn2",
        by_hand={"text_mask": "encoder_mask", "output": None},
        arguments=_sides(64),
        **MASKED,
    ),
    "HunyuanDiT": Family(
        lambda: tiny_pooled_text.hunyuan_dit_pipeline(LENGTH, SECOND_LENGTH), 2, **HUNYUAN_DIT
    ),
    "HunyuanDiT, fused": Family(
        lambda: tiny_pooled_text.fused_hunyuan_dit(LENGTH, SECOND_LENGTH), 2, **HUNYUAN_DIT
    ),
    "LongCat audio": Family(
        tiny_pooled_text.longcat_audio_pipeline,
        2,
        model="transformer",
        form="prompt first",
        mask="of the text",
        has_words=True,
        arguments=lambda rows, _cfg: {"latents": seeded(7, rows, 6, 8), "generator": None},
        tau=2.1,
    ),
    "Cosmos 2": Family(tiny_text_transformers.cosmos_pipeline, 2, **COSMOS),
    "Cosmos 2.5 with image tokens": Family(
        lambda: tiny_text_transformers.cosmos_pipeline(image_tokens=3), 2, **COSMOS
    ),
    "Kandinsky 5": Family(
        tiny_text_transformers.kandinsky_pipeline,
        3,
        model="transformer",
        form="prompt first",
        embeds="prompt_embeds_qwen",
        pooled="prompt_embeds_clip",
        text_blocks=1,
        by_hand={"output": "out_layer", "positions": "text_rope_pos"},
        arguments=_sequence_lengths,
    ),
    "Kandinsky 6": Family(tiny_cross_attention.kandinsky6_pipeline, 6, **KANDINSKY6),
    "Kandinsky 6 without filler": Family(
        lambda: tiny_cross_attention.kandinsky6_pipeline(tiny_cross_attention.TinyKandinsky6),
        6,
        **KANDINSKY6,
    ),
    "Stable Audio": Family(
        tiny_text_transformers.stable_audio_pipeline,
        2,
        model="transformer",
        by_hand={"num_shared_tokens": 2},
        tau=3.0,
    ),
    "AudioLDM 2": Family(
        tiny_cross_attention.audioldm2_pipeline,
        8,
        embeds="generated_prompt_embeds",
        second=("encoder_hidden_states_1", "encoder_attention_mask_1"),
        second_names=("prompt_embeds", "attention_mask"),
        arguments=lambda _rows, _cfg: {"audio_length_in_s": 1.0},
    ),
    "Stable Audio 3": Family(tiny_cross_attention.stable_audio3_pipeline, 2, **STABLE_AUDIO3),
    "Stable Audio 3, plain": Family(
        lambda: tiny_cross_attention.stable_audio3_pipeline(is_differential=False),
        2,
        **STABLE_AUDIO3,
    ),
    # Its pipeline gives two rows their time, whatever the number of images.
    "PRX": Family(
        tiny_beside_image.prx_pipeline,
        2,
        num_with_cfg=1,
        arguments=_sides(64, binned=False),
        **PRX,
    ),
    "PRX Pixel": Family(
        lambda: tiny_beside_image.prx_pipeline(PRXPixelPipeline),
        2,
        form="single",
        guidance_scale=("guidance_scale", 1.0),
        arguments=_sides(8, binned=False),
        **PRX,
    ),
    "NucleusMoE": Family(
        tiny_beside_image.nucleus_moe_pipeline,
        2,
        model="transformer",
        form="prompt first",
        mask="prompt_embeds_mask",
        by_hand={"text_mask": "encoder_hidden_states_mask", "of_text": ("image_rotary_emb",)},
        arguments=_sides(64),
        tau=0.9,
    ),
    "Latte": Family(
        tiny_text_transformers.latte_pipeline,
        2,
        model="transformer",
        arguments=_sides(64, video_length=2, mask_feature=False),
        tau=2.1,
    ),
    "Allegro": Family(
        tiny_text_transformers.allegro_pipeline,
        2,
        arguments=_sides(64, num_frames=8),
        tau=2.8,
        **MASKED,
    ),
    "AnyFlow": Family(
        tiny_wan_copies.anyflow_pipeline,
        2,
        model="transformer",
        arguments=_sides(32, num_frames=5),
        tau=3.0,
    ),
    "Helios": Family(
        tiny_wan_copies.helios_pipeline,
        2,
        model="transformer",
        form="prompt first",
        is_named=True,
        arguments=lambda _rows, _cfg: tiny_wan_copies.HELIOS_CALL,
        tau=2.0,
    ),
}
