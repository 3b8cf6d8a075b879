"""The families whose modular pipelines take NagGuider, one row of a table for each.

Each row's negative prompt has filler, where its pipeline has a mask of the text.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.modular_pipelines.flux2 import modular_blocks_flux2_klein_base as klein
from diffusers.modular_pipelines.helios import modular_blocks_helios as helios
from diffusers.modular_pipelines.hunyuan_video1_5 import (
    modular_blocks_hunyuan_video1_5 as hunyuan_video15,
)
from diffusers.modular_pipelines.krea2 import modular_blocks_krea2 as krea2
from diffusers.modular_pipelines.qwenimage import modular_blocks_qwenimage as qwen_image
from diffusers.modular_pipelines.qwenimage21 import modular_blocks_qwenimage21 as qwen_image21
from diffusers.modular_pipelines.stable_diffusion_3 import (
    modular_blocks_stable_diffusion_3 as sd3,
)
from diffusers.modular_pipelines.stable_diffusion_xl import (
    modular_blocks_stable_diffusion_xl as sdxl,
)
from diffusers.modular_pipelines.z_image import modular_blocks_z_image as z_image
from torch.nn.utils.rnn import pad_sequence

from nag import NegativeText
from tests.builders import tiny_images, tiny_joint, tiny_sequence, tiny_wan_copies
from tests.builders.tiny import TEXT_DIM
from tests.nag.reference import mask

STRONG: dict[str, Any] = {"nag_scale": 5.0, "nag_alpha": 0.5, "nag_norm": "l1"}
LENGTH = 5


def seeded(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Modular:
    """One family.

    Args:
        build: builds its tiny stock pipeline, whose parts the modular one takes.
        blocks: class of the modular blocks that denoise.
        texts: arguments that hold the prompt and the negative prompt.
        negative: the same negative prompt for `guide`.
        model: name of its model.
        size: height and width.
        further: further arguments of its call.
    """

    build: Callable[[], Any]
    blocks: Any
    texts: dict[str, Any]
    negative: NegativeText
    model: str = "transformer"
    size: int = 32
    further: dict[str, Any] = field(default_factory=dict[str, Any])

    def pipeline(self, guider: Any) -> Any:
        """Return a modular pipeline of a stock one's parts."""
        stock, pipeline = self.build(), self.blocks().init_pipeline()
        parts = {name: getattr(stock, name) for name in (self.model, "scheduler")}
        pipeline.update_components(**parts, guider=guider)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def render(self, pipeline: Any, **changes: Any) -> torch.Tensor:
        arguments: dict[str, Any] = {"height": self.size, "width": self.size}
        return pipeline(
            num_inference_steps=1,
            generator=torch.Generator().manual_seed(0),
            output="latents",
            **arguments | self.texts | self.further | changes,
        )


def plain(*shape: int) -> tuple[dict[str, Any], NegativeText]:
    """Return both texts of a family without masks, in one shape."""
    negative = seeded(2, *shape)
    texts = {"prompt_embeds": seeded(1, *shape), "negative_prompt_embeds": negative}
    return texts, NegativeText(negative)


def masked(*shape: int) -> tuple[dict[str, Any], NegativeText]:
    """Return both texts of a family with masks; the first row's end with filler."""
    (texts, negative), rows = plain(*shape), shape[0]
    of_negative = mask(shape[1], *(3, shape[1])[:rows])
    texts["prompt_embeds_mask"] = mask(shape[1], *(4, shape[1])[:rows])
    texts["negative_prompt_embeds_mask"] = of_negative
    return texts, NegativeText(negative.embeds, of_negative)


def pooled(*shape: int, width: int) -> tuple[dict[str, Any], torch.Tensor]:
    texts, _ = plain(*shape)
    negative = seeded(4, shape[0], width)
    further = {
        "pooled_prompt_embeds": seeded(3, shape[0], width),
        "negative_pooled_prompt_embeds": negative,
    }
    return texts | further, negative


def _sd3() -> Modular:
    texts, of_negative = pooled(2, LENGTH, TEXT_DIM, width=tiny_joint.POOLED_DIM)
    negative = NegativeText(texts["negative_prompt_embeds"], pooled=of_negative)
    return Modular(
        tiny_joint.sd3_pipeline, sd3.StableDiffusion3T2ICoreDenoiseStep, texts, negative, size=64
    )


def _sdxl() -> Modular:
    texts, _ = pooled(1, LENGTH, TEXT_DIM, width=TEXT_DIM)
    negative = NegativeText(texts["negative_prompt_embeds"])
    build, blocks = tiny_images.sdxl_pipeline, sdxl.StableDiffusionXLCoreDenoiseStep
    return Modular(build, blocks, texts, negative, "unet", 16)


def _qwen_image21() -> Modular:
    texts, negative = masked(1, LENGTH, TEXT_DIM)
    no_image = torch.zeros(1, LENGTH, dtype=torch.bool)
    texts |= {"image_pad_mask": no_image, "negative_image_pad_mask": no_image}
    build, blocks = tiny_sequence.qwen_image21_pipeline, qwen_image21.QwenImage21CoreDenoiseStep
    return Modular(build, blocks, texts, negative)


def _hunyuan_video15() -> Modular:
    texts, negative = masked(1, LENGTH, TEXT_DIM)
    glyphs, of_glyphs = seeded(6, 1, 3, tiny_joint.GLYPH_DIM), mask(3, 1)
    texts |= {
        "prompt_embeds_2": seeded(5, *glyphs.shape),
        "prompt_embeds_mask_2": mask(3, 2),
        "negative_prompt_embeds_2": glyphs,
        "negative_prompt_embeds_mask_2": of_glyphs,
    }
    return Modular(
        tiny_joint.hunyuan_video15_pipeline,
        hunyuan_video15.HunyuanVideo15CoreDenoiseStep,
        texts,
        NegativeText(
            negative.embeds, negative.attention_mask, glyph_embeds=glyphs, glyph_mask=of_glyphs
        ),
        further={"num_frames": 1, "latents": seeded(9, 1, 4, 1, 4, 4)},
    )


def _z_image() -> Modular:
    prompts = [seeded(seed, length, TEXT_DIM) for seed, length in ((1, 5), (2, 4))]
    negatives = [seeded(seed, length, TEXT_DIM) for seed, length in ((3, 3), (4, 6))]
    return Modular(
        tiny_sequence.z_image_pipeline,
        z_image.ZImageCoreDenoiseStep,
        {"prompt_embeds": prompts, "negative_prompt_embeds": negatives},
        NegativeText(pad_sequence(negatives, batch_first=True), mask(6, 3, 6)),
    )


FAMILIES = {
    "Stable Diffusion 3": _sd3(),
    "Stable Diffusion XL": _sdxl(),
    "Qwen-Image": Modular(
        tiny_joint.qwen_image_pipeline,
        qwen_image.QwenImageCoreDenoiseStep,
        *masked(2, LENGTH, TEXT_DIM),
    ),
    "Qwen-Image 2.1": _qwen_image21(),
    "HunyuanVideo 1.5": _hunyuan_video15(),
    "Helios": Modular(
        tiny_wan_copies.helios_pipeline,
        helios.HeliosCoreDenoiseStep,
        *plain(1, LENGTH, TEXT_DIM),
        further={"num_frames": 5},
    ),
    "Krea 2": Modular(
        tiny_sequence.krea2_pipeline,
        krea2.Krea2CoreDenoiseStep,
        *masked(1, LENGTH, 2, TEXT_DIM // 2),
    ),
    "Flux 2 Klein": Modular(
        tiny_sequence.klein_pipeline,
        klein.Flux2KleinBaseCoreDenoiseStep,
        *plain(1, LENGTH, TEXT_DIM),
    ),
    "Z-Image": _z_image(),
}
