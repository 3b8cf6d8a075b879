"""The names of a LoRA's entries, in each layout that trainers write. Loads without torch.

An entry is named PREFIX MODULE ENDING. A trainer writes one of several prefixes or none; it names
the module as diffusers does or as the model's publisher does, with dots or with `_` for each dot;
the ending says which part of the change the tensor is. A name is found by comparison with the
names of the model's own modules, so that no layout needs to be recognized as a whole.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pipelines.catalog.keys.pipeline_classes import Family

Part = Literal["down", "up", "bias", "alpha", "diff", "diff_b"]

PEFT_PREFIX = "base_model.model."  # PEFT's own files, whose scale stands in adapter_config.json
PREFIXES = (
    PEFT_PREFIX,
    "model.diffusion_model.",
    "diffusion_model.",  # ComfyUI, lightx2v, diffusion-pipe
    "transformer.",  # diffusers
    "pipe.dit.",  # DiffSynth
    "dit.",
    "unet.",
    "lora_unet_",  # kohya, musubi
    "lora_transformer_",
)
# `lora_A` and `lora_down` read a module's input; PEFT may write an adapter's name behind them. Old
# versions of diffusers wrote `to_q_lora.down` or `to_q.lora.down`.
_MATRIX = re.compile(
    r"(?P<module>.+?)[._]lora[._](?P<side>A|B|down|up)(\.[\w-]+)?\.(?P<kind>weight|bias)"
)
_OTHER = re.compile(r"(?P<module>.+)\.(?P<part>alpha|diff|diff_b)")
_MODULATION = ".diff_m"
# Entries of other methods, which change the weights by other formulas.
OTHER_METHODS = (
    ("dora_scale", "DoRA"),
    ("lora_magnitude_vector", "DoRA"),
    ("lokr_", "LoKr"),
    ("hada_", "LoHa"),
    ("oft_", "OFT"),
    ("boft_", "BOFT"),
    ("lora_mid", "LoCon with a third matrix"),
)
# Parts of a module's name in diffusers, and what the publisher's code has in their place.
# Source: diffusers 0.42.1, `loaders/single_file_utils.py`, `convert_wan_transformer_to_diffusers`
# and `convert_ltx_transformer_checkpoint_to_diffusers`; `loaders/lora_conversion_utils.py`,
# `_convert_non_diffusers_ltx2_lora_to_diffusers`.
_PUBLISHED: dict[Family, tuple[tuple[str, str], ...]] = {
    "wan": (
        (".condition_embedder.image_embedder.norm1.", ".img_emb.proj.0."),
        (".condition_embedder.image_embedder.ff.net.0.proj.", ".img_emb.proj.1."),
        (".condition_embedder.image_embedder.ff.net.2.", ".img_emb.proj.3."),
        (".condition_embedder.image_embedder.norm2.", ".img_emb.proj.4."),
        (".condition_embedder.time_embedder.linear_1.", ".time_embedding.0."),
        (".condition_embedder.time_embedder.linear_2.", ".time_embedding.2."),
        (".condition_embedder.text_embedder.linear_1.", ".text_embedding.0."),
        (".condition_embedder.text_embedder.linear_2.", ".text_embedding.2."),
        (".condition_embedder.time_proj.", ".time_projection.1."),
        (".attn1.", ".self_attn."),
        (".attn2.", ".cross_attn."),
        (".to_out.0.", ".o."),
        (".to_q.", ".q."),
        (".to_k.", ".k."),
        (".to_v.", ".v."),
        (".add_k_proj.", ".k_img."),
        (".add_v_proj.", ".v_img."),
        (".norm_added_k.", ".norm_k_img."),
        (".ffn.net.0.proj.", ".ffn.0."),
        (".ffn.net.2.", ".ffn.2."),
        (".norm2.", ".norm3."),  # the norm before the text attention
        (".proj_out.", ".head.head."),
    ),
    "ltx": (
        (".proj_in.", ".patchify_proj."),
        (".time_embed.", ".adaln_single."),
        (".norm_q.", ".q_norm."),
        (".norm_k.", ".k_norm."),
    ),
    "ltx2": (
        (".proj_in.", ".patchify_proj."),
        (".audio_proj_in.", ".audio_patchify_proj."),
        (".time_embed.", ".adaln_single."),
        (".audio_time_embed.", ".audio_adaln_single."),
        (".av_cross_attn_video_scale_shift.", ".av_ca_video_scale_shift_adaln_single."),
        (".av_cross_attn_video_a2v_gate.", ".av_ca_a2v_gate_adaln_single."),
        (".av_cross_attn_audio_scale_shift.", ".av_ca_audio_scale_shift_adaln_single."),
        (".av_cross_attn_audio_v2a_gate.", ".av_ca_v2a_gate_adaln_single."),
        (".prompt_adaln.", ".prompt_adaln_single."),
        (".audio_prompt_adaln.", ".audio_prompt_adaln_single."),
        (".norm_q.", ".q_norm."),
        (".norm_k.", ".k_norm."),
    ),
}


_PUBLISHED_VACE = ((".proj_in.", ".before_proj."), (".proj_out.", ".after_proj."))


@dataclass(frozen=True)
class EntryName:
    """A name taken apart: the module as the file names it, and the tensor's part in its change."""

    module: str
    part: Part


def parse_name(name: str) -> EntryName | None:
    """Return the parts of an entry's name, or None if no layout of LoRAs has its ending."""
    if match := _MATRIX.fullmatch(name):
        is_down = match["side"] in ("A", "down")
        if match["kind"] == "bias":
            return None if is_down else EntryName(match["module"], "bias")
        return EntryName(match["module"], "down" if is_down else "up")
    if match := _OTHER.fullmatch(name):
        part: Part = match["part"]  # pyright: ignore[reportAssignmentType]
        return EntryName(match["module"], part)
    if name.endswith(_MODULATION):  # lightx2v
        return EntryName(f"{name.removesuffix(_MODULATION)}.modulation", "diff")
    return None


def other_method(name: str) -> str | None:
    """Return the method that an entry's name belongs to, if it is a known one but not LoRA."""
    return next((method for part, method in OTHER_METHODS if part in name), None)


class ModuleNames:
    """The names under which files may speak of a transformer's modules and single parameters."""

    def __init__(self, family: Family, parameters: Iterable[str]) -> None:
        """Collect the names.

        Args:
            family: architecture, which decides the publisher's names.
            parameters: names of the transformer's parameters in diffusers.
        """
        self._modules: dict[str, str] = {}
        for parameter in parameters:
            module, _, kind = parameter.rpartition(".")
            # A parameter of a whole block stands for itself, such as `blocks.0.scale_shift_table`.
            name = module if kind in ("weight", "bias") else parameter
            aliases = [name, published_name(family, name)]
            if name.endswith(".to_out.0"):
                aliases.append(name.removesuffix(".0"))
            for alias in aliases:
                self._modules[alias] = name
                self._modules[alias.replace(".", "_")] = name

    def find(self, name: str) -> str | None:
        """Return diffusers' name of a module that a file names, or None if there is none."""
        name = name.replace(".processor.", ".")
        while name not in self._modules:
            prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
            if prefix is None:
                return None
            name = name.removeprefix(prefix)
        return self._modules[name]


def published_name(family: Family, module: str) -> str:
    """Return the name that the model's publisher gave to a module of diffusers."""
    if family == "wan" and module.endswith("scale_shift_table"):
        block = module.removesuffix("scale_shift_table")
        return f"{block or 'head.'}modulation"
    name = f".{module}."
    own = _PUBLISHED_VACE if module.startswith("vace_blocks.") else ()
    for ours, published in (*own, *_PUBLISHED[family]):
        name = name.replace(ours, published)
    return name.strip(".")
