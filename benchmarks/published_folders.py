"""Folders of published models at their real size, with configs and headers, and without weights.

The files of weights are as long as real ones, and sparse: they take no disk. So the estimate of
`pipelines.cost.memory` reads them like a download.

Source: huggingface/diffusers, scripts/convert_wan_to_diffusers.py and those of skyreelsv2, ltx and
ltx2; the config.json of google/umt5-xxl, google/t5-v1_1-xxl, google/gemma-3-12b-it and
laion/CLIP-ViT-H-14-laion2B-s32B-b79K on the hub. LTX-2's connectors and its parts for sound are
left out.
"""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Video,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    LTX2VideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    SkyReelsV2Transformer3DModel,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

Build = Callable[[], Any]

_XXL: dict[str, Any] = {
    "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip
_SMALL: dict[str, Any] = {"num_layers": 30, "num_attention_heads": 12, "ffn_dim": 8960}
_LARGE: dict[str, Any] = {"num_layers": 40, "num_attention_heads": 40, "ffn_dim": 13824}
_SEEN: dict[str, Any] = {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}
_SEEN_SMALL = {**_SEEN, "added_kv_proj_dim": 1536}
_LTX_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 1024, 2048),
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "decoder_block_out_channels": (256, 512, 1024),
    "layers_per_block": (4, 6, 6, 2, 2),
    "decoder_layers_per_block": (5, 5, 5, 5),
    "spatio_temporal_scaling": (True,) * 4,
    "decoder_spatio_temporal_scaling": (True,) * 3,
    "decoder_inject_noise": (False,) * 4,
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "upsample_residual": (True,) * 3,
    "upsample_factor": (2, 2, 2),
    "timestep_conditioning": True,
}


def _umt5() -> Any:
    return UMT5EncoderModel(UMT5Config(vocab_size=256384, **_XXL))


def _t5() -> Any:
    return T5EncoderModel(T5Config(vocab_size=32128, **_XXL))


def _gemma() -> Any:
    text = {
        "hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "vocab_size": 262208,
    }  # fmt: skip
    vision = {
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
        "num_attention_heads": 16, "image_size": 896, "patch_size": 14,
    }  # fmt: skip
    return Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision))


def _clip() -> Any:
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=1280, intermediate_size=5120, num_hidden_layers=32,
            num_attention_heads=16, patch_size=14,
        )
    )  # fmt: skip


def _wan(**sizes: Any) -> dict[str, Build]:
    return {
        "transformer": lambda: WanTransformer3DModel(**sizes),
        "text_encoder": _umt5,
        "vae": AutoencoderKLWan,
    }


def _a14b(**sizes: Any) -> dict[str, Build]:
    parts = _wan(**_LARGE, **sizes)
    return {**parts, "transformer_2": parts["transformer"]}


def _vace(layers: range, sizes: dict[str, Any]) -> dict[str, Build]:
    """Return the parts of a VACE whose blocks number `layers` follow the control video."""
    return {
        **_wan(),
        "transformer": lambda: WanVACETransformer3DModel(**sizes, vace_layers=[*layers]),
    }


def _skyreels(**sizes: Any) -> dict[str, Build]:
    return {
        **_wan(),
        "transformer": lambda: SkyReelsV2Transformer3DModel(**sizes),
    }


def _ltx(**sizes: Any) -> dict[str, Build]:
    return {
        "transformer": lambda: LTXVideoTransformer3DModel(**sizes),
        "text_encoder": _t5,
        "vae": lambda: AutoencoderKLLTXVideo(**_LTX_VAE),
    }


def _ltx2(*, is_2_3: bool) -> dict[str, Build]:
    return {
        "transformer": lambda: LTX2VideoTransformer3DModel(
            gated_attn=is_2_3, cross_attn_mod=is_2_3, audio_gated_attn=is_2_3,
            audio_cross_attn_mod=is_2_3, use_prompt_embeddings=not is_2_3,
        ),
        "text_encoder": _gemma,
        "vae": lambda: AutoencoderKLLTX2Video(
            spatial_compression_ratio=32, temporal_compression_ratio=8
        ),
    }  # fmt: skip


_WAN_5B = {
    **_wan(num_layers=30, num_attention_heads=24, ffn_dim=14336, in_channels=48, out_channels=48),
    "vae": lambda: AutoencoderKLWan(
        base_dim=160, decoder_base_dim=256, z_dim=48, is_residual=True, in_channels=12,
        out_channels=12, patch_size=2, scale_factor_spatial=16,
    ),
}  # fmt: skip
_LTX_13B = _ltx(num_layers=48, attention_head_dim=128, cross_attention_dim=4096)
# By the beginning of a packaged model's name; the longest counts.
PARTS: Mapping[str, Mapping[str, Build]] = {
    "wan2.1-t2v-1.3b": _wan(**_SMALL),
    "wan2.1-v2v-1.3b": _wan(**_SMALL),
    "fastwan2.1-t2v-1.3b": _wan(**_SMALL),
    "wan2.1-vace-1.3b": _vace(range(0, 30, 2), _SMALL),
    "wan2.1-t2v-14b": _wan(**_LARGE),
    "wan2.1-i2v-14b": {**_wan(**_LARGE, **_SEEN), "image_encoder": _clip},
    "wan2.1-flf2v-14b": {**_wan(**_LARGE, **_SEEN, pos_embed_seq_len=514), "image_encoder": _clip},
    "wan2.1-vace-14b": _vace(range(0, 40, 5), _LARGE),
    "wan2.2-t2v-a14b": _a14b(),
    "wan2.2-i2v-a14b": _a14b(in_channels=36),
    "wan2.2-ti2v-5b": _WAN_5B,
    "fastwan2.2-ti2v-5b": _WAN_5B,
    "skyreels-v2-t2v-14b": _skyreels(**_LARGE),
    "skyreels-v2-i2v-14b": {**_skyreels(**_LARGE, **_SEEN), "image_encoder": _clip},
    "skyreels-v2-i2v-1.3b": {**_skyreels(**_SMALL, **_SEEN_SMALL), "image_encoder": _clip},
    "skyreels-v2-df-1.3b": _skyreels(**_SMALL, inject_sample_info=True),
    "skyreels-v2-df-14b": _skyreels(**_LARGE),
    "ltx-video-0.9.5": _ltx(),
    "ltx-video-0.9.7-13b": _LTX_13B,
    "ltx-video-0.9.8-13b": _LTX_13B,
    "ltx-2": _ltx2(is_2_3=False),
    "ltx-2.3": _ltx2(is_2_3=True),
}


def parts_of(model: str) -> Mapping[str, Build] | None:
    """Return the parts of a packaged model; None if its sizes are not here."""
    known = [name for name in PARTS if model == name or model.startswith(f"{name}-")]
    return PARTS[max(known, key=len)] if known else None


def write_folder(parts: Mapping[str, Build], folder: Path) -> None:
    """Write configs and files of weights without their content."""
    index: dict[str, list[str]] = {}
    for name, build in parts.items():
        with torch.device("meta"):
            model = build()
        place = folder / name
        place.mkdir(parents=True)
        is_transformers = hasattr(model.config, "save_pretrained")
        (model.config.save_pretrained if is_transformers else model.save_config)(place)
        _write_header(model, place / "model.safetensors")
        index[name] = [type(model).__module__.partition(".")[0], type(model).__name__]
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


def _write_header(model: Any, path: Path) -> None:
    """Write a safetensors file of a model's parameters in bfloat16, whose content is a hole."""
    entries: dict[str, Any] = {}
    end = 0
    for name, parameter in model.named_parameters():
        begin, end = end, end + 2 * parameter.numel()
        shape = list(parameter.shape)
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
