"""Small folders of weights and LoRAs, made of bytes without torch. No library can load them."""

import json
import struct
from pathlib import Path
from typing import Any

YAML = """\
family: wan
source: {source}
grid: {{num_frames: 4, height: 16, width: 16}}
sampling:
  num_inference_steps: 2
  guidance_scale: 1.0
  num_frames: 5
  height: 32
  width: 32
  fps: 8
dtype: float32
device: cpu
"""
INDEX: dict[str, Any] = {
    "_class_name": "WanPipeline",
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
}
MODULE = "blocks.0.attn1.to_q"


def safetensors(header: bytes, num_bytes: int = 8) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(num_bytes)


def header_of(*names: str, shape: Any = (2, 1), end: Any = 8, **metadata: Any) -> bytes:
    entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, end]}
    extra = {"__metadata__": metadata} if metadata else {}
    return json.dumps({**extra, **dict.fromkeys(names, entry)}).encode()


def write_model(folder: Path) -> Path:
    """Write a folder that passes every check before a run, and return it."""
    for component in INDEX:
        if component.startswith("_"):
            continue
        (folder / component).mkdir(parents=True)
        (folder / component / "config.json").write_text("{}")
        (folder / component / "model.safetensors").write_bytes(
            safetensors(header_of(f"{MODULE}.weight"))
        )
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    return folder


def write_lora(
    folder: Path,
    name: str = "lora.safetensors",
    down: str = f"transformer.{MODULE}.lora_A.weight",
    up: str = f"transformer.{MODULE}.lora_B.weight",
    width: int = 1,
    height: int = 2,
) -> Path:
    """Write a LoRA of that model into a folder, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    end = 4 * width
    header = {
        down: {"dtype": "F32", "shape": [1, width], "data_offsets": [0, end]},
        up: {"dtype": "F32", "shape": [height, 1], "data_offsets": [end, end + 4 * height]},
    }
    content = safetensors(json.dumps(header).encode(), 0) + b"\1" * (end + 4 * height)
    (folder / name).write_bytes(content)
    return folder
