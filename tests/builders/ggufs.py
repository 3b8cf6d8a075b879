"""A tiny Wan whose transformer fits the blocks of GGUF files, and its file."""

from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel

from tests.builders import tiny
from tests.builders.loras import published


def wide_transformer(num_layers: int = 2) -> WanTransformer3DModel:
    """Return a transformer with rows of 32 weights, as a block of Q8_0 has."""
    torch.manual_seed(0)
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=8,
        out_channels=8,
        text_dim=tiny.TEXT_DIM,
        freq_dim=32,
        ffn_dim=64,
        num_layers=num_layers,
        cross_attn_norm=True,
        rope_max_seq_len=32,
    ).eval()


def write_gguf(path: Path, transformer: Any) -> Path:
    """Write a transformer as publishers do: Wan's own names, matrices in Q8_0, the rest wider."""
    import gguf
    import numpy as np

    kind = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(path, "wan")
    writer.add_array("labels", ["one", "two"])
    for name, parameter in transformer.state_dict().items():
        values, entry = parameter.numpy(), _entry(name)
        if values.ndim == 2 and values.shape[1] % 32 == 0 and "time_embedder" not in name:
            writer.add_tensor(entry, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(entry, values.astype(np.float32 if values.ndim < 2 else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _entry(name: str) -> str:
    if name == "scale_shift_table":
        return "head.modulation"
    module, _, ending = name.rpartition(".")
    if ending == "scale_shift_table":
        return f"{module}.modulation"
    return f"{published('wan', module)}.{ending}".replace(".norm2.", ".norm3.")
