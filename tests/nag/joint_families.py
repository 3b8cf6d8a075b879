"""The families with joint attention: a row for each, with what tests of all of them need."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen

from nag import NegativeText
from tests.builders import tiny_diffusion_transformers as tiny_dits
from tests.builders import tiny_flux_copies, tiny_joint
from tests.builders import tiny_joint_videos as tiny_videos
from tests.nag.joint_by_hand import Rotate
from tests.nag.reference import Guidance, mask

LENGTH = 7
GLYPHS = 4
OF_GUIDER = "guidance_scale of the guider"


def seeded(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def text(rows: int, seed: int, length: int = LENGTH) -> torch.Tensor:
    return seeded(seed, rows, length, tiny_joint.TEXT_DIM)


def pooled(rows: int, seed: int) -> torch.Tensor:
    return seeded(seed, rows, tiny_joint.POOLED_DIM)


def layers(rows: int, seed: int, length: int = LENGTH) -> torch.Tensor:
    return seeded(seed, tiny_dits.NUM_LAYERS, rows, length, tiny_dits.LAYER_DIM)


def glyphs(rows: int, seed: int) -> torch.Tensor:
    return seeded(seed, rows, GLYPHS, tiny_joint.GLYPH_DIM)


@dataclass(frozen=True)
class Family:
    """One family of models.

    Args:
        build: builds its tiny pipeline.
        coverage: text attentions of its transformer.
        guidance_scale: argument that switches classifier-free guidance on, or OF_GUIDER.
        pooled: argument of the pooled text; None without one.
        mask: argument of the text's mask; None without one.
        has_own_lengths: True if the texts may have two lengths.
        video: True if it makes clips.
        rotate: its rotary embedding of text and image; None without one.
        glyphs: True if it takes the letters that a prompt quotes, with their mask.
        sees_mask: False if the mask does not reach its transformer.
        mask_type: numbers that its pipeline makes masks of.
        norm: norm that bounds the guidance in this family's row.
        names_calls: True if its pipeline names the calls of its transformer.
        text: argument of the text.
        layers: argument of the text by the layers of an encoder; None without one.
        further: further arguments of its pipeline's call, by the number of rows.
        has_flip: True if Value Sign Flip guides it too.
    """

    build: Callable[[], Any]
    coverage: int
    guidance_scale: str
    pooled: str | None = "pooled_prompt_embeds"
    mask: str | None = None
    has_own_lengths: bool = False
    video: bool = False
    rotate: Rotate | None = None
    glyphs: bool = False
    sees_mask: bool = True
    mask_type: torch.dtype = torch.bool
    norm: int = 1
    names_calls: bool = True
    text: str = "prompt_embeds"
    layers: str | None = None
    further: Callable[[int], dict[str, Any]] = lambda _rows: {}
    has_flip: bool = False

    def texts(self, rows: int, seed: int, prefix: str = "") -> dict[str, Any]:
        """Return the arguments of the pipeline that hold a text."""
        if self.text == "prompt":  # a pipeline without embeddings: each prompt tells its own
            words = [f"{seed} {rows} {row} {LENGTH} {LENGTH - 2 * row}" for row in range(rows)]
            return {f"{prefix}prompt": words}
        found = {prefix + self.text: text(rows, seed)}
        if self.layers:
            found[prefix + self.layers] = layers(rows, seed)
        if self.pooled:
            found[prefix + self.pooled] = pooled(rows, seed)
        if self.mask:
            lengths = (LENGTH - 2 * row for row in range(rows))
            found[prefix + self.mask] = mask(LENGTH, *lengths).to(self.mask_type)
        if self.glyphs:
            found[f"{prefix}prompt_embeds_2"] = glyphs(rows, seed)
            found[f"{prefix}prompt_embeds_mask_2"] = mask(GLYPHS, *range(1, rows + 1))
        return found

    def negative(self, rows: int = 1) -> tuple[NegativeText, Guidance, torch.Tensor | None]:
        """Return a negative prompt for nag and for the reference, with its pooled text."""
        length = LENGTH - 3 if self.has_own_lengths else LENGTH
        has_mask = self.mask and self.sees_mask
        negative_mask = mask(length, *(length - row for row in range(rows))) if has_mask else None
        whole = pooled(rows, 2) if self.pooled else None
        embeds = text(rows, 2, length)
        glyph_mask = mask(GLYPHS, *(GLYPHS - row for row in range(rows))) if self.glyphs else None
        nag = NegativeText(
            embeds,
            negative_mask,
            pooled=whole,
            glyph_embeds=glyphs(rows, 2) if self.glyphs else None,
            glyph_mask=glyph_mask,
            layer_embeds=layers(rows, 2, length) if self.layers else None,
        )
        by_hand = Guidance(
            embeds,
            negative_mask,
            scale=5.0,
            tau=1.5,
            alpha=0.5,
            norm=self.norm,
            glyphs=nag.glyph_embeds,
            glyph_mask=glyph_mask,
            layers=nag.layer_embeds,
        )
        return nag, by_hand, whole

    def strengths(self) -> dict[str, Any]:
        norm = "l1" if self.norm == 1 else "l2"
        return {"nag_scale": 5.0, "nag_tau": 1.5, "nag_alpha": 0.5, "nag_norm": norm}


def _rotate_flux(tokens: torch.Tensor, positions: Any) -> torch.Tensor:
    rotate: Any = apply_rotary_emb
    return rotate(tokens, positions, sequence_dim=1)


def _rotate_qwen(tokens: torch.Tensor, positions: Any) -> torch.Tensor:
    rotate: Any = apply_rotary_emb_qwen
    image, of_text = positions
    return rotate(tokens, torch.cat([of_text, image]), use_real=False)


def _rotate_video(tokens: torch.Tensor, positions: Any) -> torch.Tensor:
    start = tokens.shape[1] - positions[0].shape[0]
    rotated = _rotate_flux(tokens[:, start:], positions)
    return torch.cat([tokens[:, :start], rotated], dim=1)


def _rotate_halves(tokens: torch.Tensor, positions: Any) -> torch.Tensor:
    """Turn the image's tokens, the halves of each head as pairs."""
    cosines, sines = (one[None, :, None] for one in positions)
    start = tokens.shape[1] - cosines.shape[1]
    image = tokens[:, start:]
    one, other = image.chunk(2, dim=-1)
    turned = image * cosines + torch.cat([-other, one], dim=-1) * sines
    return torch.cat([tokens[:, :start], turned], dim=1)


def _rotate_heads(tokens: torch.Tensor, positions: Any) -> torch.Tensor:
    """Turn the video's tokens, each head by its own angles."""
    cosines, sines = positions
    start = tokens.shape[1] - len(cosines)
    even, odd = tokens[:, start:, :, 0::2], tokens[:, start:, :, 1::2]
    pairs = [even * cosines - odd * sines, even * sines + odd * cosines]
    return torch.cat([tokens[:, :start], torch.stack(pairs, dim=-1).flatten(-2)], dim=1)


FAMILIES = {
    "SD3": Family(
        tiny_joint.sd3_pipeline,
        3,
        "guidance_scale",
        names_calls=False,
        has_flip=True,
    ),
    "Flux": Family(tiny_joint.flux_pipeline, 4, "true_cfg_scale", rotate=_rotate_flux, norm=2),
    "Qwen-Image": Family(
        tiny_joint.qwen_image_pipeline,
        2,
        "true_cfg_scale",
        pooled=None,
        mask="prompt_embeds_mask",
        has_own_lengths=True,
        has_flip=True,
        rotate=_rotate_qwen,
    ),
    "HunyuanVideo": Family(
        tiny_joint.hunyuan_video_pipeline,
        4,
        "true_cfg_scale",
        mask="prompt_attention_mask",
        rotate=_rotate_video,
        video=True,
    ),
    "HunyuanImage": Family(
        tiny_joint.hunyuan_image_pipeline,
        4,
        OF_GUIDER,
        pooled=None,
        mask="prompt_embeds_mask",
        rotate=_rotate_video,
        glyphs=True,
    ),
    "HunyuanVideo 1.5": Family(
        tiny_joint.hunyuan_video15_pipeline,
        2,
        OF_GUIDER,
        pooled=None,
        mask="prompt_embeds_mask",
        rotate=_rotate_video,
        video=True,
        glyphs=True,
    ),
    "CogVideoX": Family(
        tiny_joint.cogvideox_pipeline,
        2,
        "guidance_scale",
        pooled=None,
        rotate=_rotate_video,
        video=True,
        names_calls=False,
    ),
    "Ovis-Image": Family(
        tiny_flux_copies.ovis_image_pipeline,
        4,
        "guidance_scale",
        pooled=None,
        rotate=_rotate_flux,
        norm=2,
    ),
    "LongCat-Image": Family(
        tiny_flux_copies.longcat_image_pipeline,
        4,
        "guidance_scale",
        pooled=None,
        rotate=_rotate_flux,
        norm=2,
    ),
    "Bria": Family(
        tiny_flux_copies.bria_pipeline,
        4,
        "guidance_scale",
        pooled=None,
        rotate=_rotate_flux,
        norm=2,
        names_calls=False,
    ),
    "AuraFlow": Family(
        tiny_dits.auraflow_pipeline,
        4,
        "guidance_scale",
        pooled=None,
        mask="prompt_attention_mask",
        sees_mask=False,
        names_calls=False,
    ),
    "Chroma": Family(
        tiny_dits.chroma_pipeline,
        4,
        "guidance_scale",
        pooled=None,
        mask="prompt_attention_mask",
        mask_type=torch.float32,
        rotate=_rotate_flux,
        norm=2,
        names_calls=False,
    ),
    "Mochi": Family(
        tiny_dits.mochi_pipeline,
        2,
        "guidance_scale",
        pooled=None,
        mask="prompt_attention_mask",
        rotate=_rotate_heads,
        video=True,
        names_calls=False,
    ),
    "CogView 3 Plus": Family(
        tiny_dits.cogview3_pipeline,
        2,
        "guidance_scale",
        pooled=None,
        has_own_lengths=True,
        names_calls=False,
    ),
    "CogView 4": Family(
        tiny_dits.cogview4_pipeline,
        2,
        "guidance_scale",
        pooled=None,
        has_own_lengths=True,
        rotate=_rotate_halves,
    ),
    "HiDream": Family(
        tiny_dits.hidream_pipeline,
        4,
        "guidance_scale",
        names_calls=False,
        text="prompt_embeds_t5",
        layers="prompt_embeds_llama3",
    ),
    "Bria Fibo": Family(
        tiny_dits.fibo_pipeline,
        4,
        "guidance_scale",
        pooled=None,
        mask="of a prompt",
        has_own_lengths=True,
        rotate=_rotate_flux,
        norm=2,
        names_calls=False,
        text="prompt",
        layers="of a prompt",
    ),
    "ConsisID": Family(
        tiny_videos.consisid_pipeline,
        2,
        "guidance_scale",
        pooled=None,
        rotate=_rotate_video,
        video=True,
        names_calls=False,
        further=tiny_videos.a_face,
    ),
    "EasyAnimate": Family(
        tiny_videos.easyanimate_pipeline,
        2,
        "guidance_scale",
        pooled=None,
        mask="prompt_attention_mask",
        has_own_lengths=True,
        sees_mask=False,
        rotate=_rotate_video,
        video=True,
        names_calls=False,
    ),
    "Framepack": Family(
        tiny_videos.framepack_pipeline,
        2,
        "true_cfg_scale",
        mask="prompt_attention_mask",
        rotate=_rotate_video,
        video=True,
        names_calls=False,
        further=tiny_videos.a_window,
    ),
    "Motif-Video": Family(
        tiny_videos.motif_video_pipeline,
        6,
        OF_GUIDER,
        pooled=None,
        mask="prompt_attention_mask",
        rotate=_rotate_video,
        video=True,
    ),
    "JoyImage Edit": Family(
        tiny_videos.joyimage_pipeline,
        2,
        "guidance_scale",
        pooled=None,
        mask="prompt_embeds_mask",
        has_own_lengths=True,
        sees_mask=False,
        names_calls=False,
    ),
    "JoyImage Edit Plus": Family(
        tiny_videos.joyimage_plus_pipeline,
        2,
        "guidance_scale",
        pooled=None,
        mask="prompt_embeds_mask",
        mask_type=torch.long,
        has_own_lengths=True,
        names_calls=False,
        further=tiny_videos.a_prompt,
    ),
}
all_families = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))


def render(pipeline: Any, family: Family, rows: int = 1, **arguments: Any) -> torch.Tensor:
    """Return latents after two steps, of noise from seed i in row i."""
    call: dict[str, Any] = {
        **family.texts(rows, 1),
        family.guidance_scale: 1.0,
        "negative_prompt": None,  # Ovis-Image's default is a text, beside which it takes no other
        "height": 64,
        "width": 64,
        "num_inference_steps": 2,
        "generator": [torch.Generator().manual_seed(row) for row in range(rows)],
        "output_type": "latent",
        "return_dict": False,
    }
    if family.video:
        call["num_frames"] = 5
    call |= family.further(rows) | arguments
    scale = call.pop(OF_GUIDER, None)
    if scale is not None:
        pipeline.guider.guidance_scale = scale
    rendered = pipeline(**call)[0]
    return rendered[-1] if isinstance(rendered, list) else rendered  # Framepack's windows


def assert_agrees(one: torch.Tensor, other: torch.Tensor) -> None:
    assert ((one - other).norm() / other.norm()).item() < 1e-5


def assert_differs(one: torch.Tensor, other: torch.Tensor) -> None:
    assert ((one - other).norm() / other.norm()).item() > 1e-2
