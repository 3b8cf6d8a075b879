"""The reference for LTX-2: both text cross-attentions by hand in float64, gates after guidance.

Nothing here imports from nag/. Shapes: L video or audio tokens, T text tokens, D channels, H heads,
K channels a head.
"""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
import torch

from tests.builders import tiny_ltx2
from tests.nag.reference import Guidance, combined, softmax_sums

Text = tuple[torch.Tensor, torch.Tensor]  # for the video and for the sound, each (B, T, D)
OFF: dict[str, Any] = {  # each of the pipeline's own passes beyond the prompt's
    "guidance_scale": 1.0,
    "audio_guidance_scale": 1.0,
    "stg_scale": 0.0,
    "audio_stg_scale": 0.0,
    "modality_scale": 1.0,
    "audio_modality_scale": 1.0,
}
ALL_PASSES: dict[str, Any] = {
    "guidance_scale": 3.0,
    "audio_guidance_scale": 5.0,
    "stg_scale": 1.0,
    "audio_stg_scale": 0.5,
    "modality_scale": 2.0,
    "audio_modality_scale": 3.0,
    "spatio_temporal_guidance_blocks": [1],
}


def texts(pipeline: Any, rows: int, length: int, seed: int) -> Text:
    """Return random texts as the connectors would give them."""
    generator = torch.Generator().manual_seed(seed)
    connectors = pipeline.connectors
    widths = connectors.video_connector.inner_dim, connectors.audio_connector.inner_dim
    video, audio = (torch.randn(rows, length, width, generator=generator) for width in widths)
    return video, audio


def render(
    pipeline: Any,
    prompt: Text | str | None,
    mask: torch.Tensor | None = None,
    unconditional: Text | None = None,
    **arguments: Any,
) -> tuple[torch.Tensor, ...]:
    """Return the latents of video and sound after two steps, or of video alone.

    No prompt leaves the text to further arguments. A prompt of tensors goes past the connectors to
    the transformer. The noise of row i comes from seed i.
    """
    call: dict[str, Any] = {
        "height": 64,
        "width": 64,
        "num_frames": 9,
        "frame_rate": 8.0,
        "num_inference_steps": 2,
        "max_sequence_length": tiny_ltx2.MAX_TOKENS,
        "output_type": "latent",
        "generator": torch.Generator().manual_seed(0),
        **OFF,
    }
    known = signature(pipeline.__call__).parameters
    call = {name: one for name, one in call.items() if name in known}
    if prompt is None or isinstance(prompt, str):
        result = pipeline(prompt=prompt, **call | arguments)
        return (result.frames,) if result.audio is None else (result.frames, result.audio)
    assert mask is not None
    width, connectors = prompt[0].shape[2], pipeline.connectors
    call["prompt_embeds"], call["prompt_attention_mask"] = torch.cat(prompt, dim=2), mask
    call["generator"] = [torch.Generator().manual_seed(row) for row in range(len(mask))]
    if unconditional is not None:
        call["negative_prompt_embeds"] = torch.cat(unconditional, dim=2)
        call["negative_prompt_attention_mask"] = mask
    pipeline.connectors = lambda joined, mask, **_: (joined[..., :width], joined[..., width:], mask)
    try:
        result = pipeline(**call | arguments)
    finally:
        pipeline.connectors = connectors
    return result.frames, result.audio


@dataclass
class _Call:
    """The transformer's call under way, and the modulation of its text in the block under way."""

    mask: torch.Tensor | None = None
    rows: list[int | None] = field(default_factory=list)  # the row of the negative; None unguided
    shift_scale: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)


@contextmanager
def by_hand(
    pipeline: Any, guidance: Guidance, negative: Text, unconditional: Text | None = None
) -> Generator[None]:
    """Guide each call by hand; rows that equal the unconditional text stay as they are.

    Args:
        guidance: its strengths and the mask of the negative prompt; its `negative` is not used.
        unconditional: None without classifier-free guidance.
    """
    transformer, call = pipeline.transformer, _Call()
    unguided = [] if unconditional is None else list(unconditional[0])

    def note_call(_module: Any, _args: Any, arguments: dict[str, Any]) -> None:
        text = arguments["encoder_hidden_states"]
        is_perturbed = (
            arguments["isolate_modalities"] or arguments["spatio_temporal_guidance_blocks"]
        )
        call.mask, call.rows, num_guided = arguments["encoder_attention_mask"], [], 0
        assert arguments["audio_encoder_attention_mask"] is call.mask
        for row in text:
            if is_perturbed or any(torch.equal(row, other) for other in unguided):
                call.rows.append(None)
                continue
            call.rows.append(num_guided if len(negative[0]) > 1 else 0)
            num_guided += 1

    def note_block(block: Any, _args: Any, arguments: dict[str, Any]) -> None:
        if not block.cross_attn_adaln:
            return
        for name, table, temb in (
            ("attn2", block.prompt_scale_shift_table, arguments["temb_prompt"]),
            ("audio_attn2", block.audio_prompt_scale_shift_table, arguments["temb_prompt_audio"]),
        ):
            values = table + temb.reshape(len(temb), 2, -1)
            call.shift_scale[name] = values[:, 0], values[:, 1]

    with ExitStack() as stack:
        hook = transformer.register_forward_pre_hook(note_call, with_kwargs=True)
        stack.callback(hook.remove)
        for block in transformer.transformer_blocks:
            hook = block.register_forward_pre_hook(note_block, with_kwargs=True)
            stack.callback(hook.remove)
            for index, name in enumerate(("attn2", "audio_attn2")):
                projection = ("caption_projection", "audio_caption_projection")[index]
                project = getattr(transformer, projection, lambda text: text)
                attention = getattr(block, name)
                attention.forward = _Attention(
                    attention, name, call, guidance, project(negative[index])
                )
                stack.callback(delattr, attention, "forward")
        yield


@dataclass
class _Attention:
    module: Any
    name: str
    call: _Call
    guidance: Guidance
    negative: torch.Tensor  # (B, T, D)

    def __call__(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        module, call = self.module, self.call
        rows: list[torch.Tensor] = []
        for row, hidden_LD in enumerate(hidden_states):
            query = module.norm_q(module.to_q(hidden_LD))
            mask = None if call.mask is None else call.mask[row]
            positive = self._attend(query, encoder_hidden_states[row], mask)
            output_LHK, index = positive.mean(), call.rows[row]
            if index is not None:
                masks = self.guidance.negative_mask
                text_TD = self.negative[index]
                if self.name in call.shift_scale:
                    shift, scale = call.shift_scale[self.name]
                    text_TD = text_TD * (1 + scale[row]) + shift[row]
                negative = self._attend(query, text_TD, None if masks is None else masks[index])
                output_LHK = combined(positive, negative, self.guidance)
            if module.to_gate_logits is not None:
                logits = module.to_gate_logits(hidden_LD).detach().double().numpy()
                output_LHK = output_LHK * (2 / (1 + np.exp(-logits)))[..., None]
            flat = output_LHK.reshape(len(output_LHK), -1)
            rows.append(torch.from_numpy(flat).to(hidden_states.dtype))
        return module.to_out[0](torch.stack(rows))

    def _attend(self, query: torch.Tensor, text: torch.Tensor, mask: torch.Tensor | None) -> Any:
        module = self.module
        key, value = module.norm_k(module.to_k(text)), module.to_v(text)
        return softmax_sums(query, key, value, module.heads, mask)
