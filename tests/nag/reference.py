"""The reference for nag/: each method by hand in float64, on pipelines that nag/ never touched.

`cross_attention_by_hand` replaces the forward of each text cross-attention. It gets the two texts
apart, one row and one head at a time, without the masked tokens. Nothing here imports from nag/.

Shapes: L video tokens, T text tokens, D channels, H heads, K channels a head.
"""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from tests.builders import tiny

NEGATIVE_LENGTH = 7  # differs from the length of every prompt here


@dataclass(frozen=True)
class Guidance:
    """The guidance of a clip.

    Rows that equal a row of `unconditional` stay unguided; `steps` None guides all steps. `method`
    is nag (scale, tau, alpha, norm), vsf (scale, bias) or nasa (scale). `glyphs` are those of the
    negative prompts, `layers` the same texts by the layers of an encoder.
    """

    negative: torch.Tensor
    negative_mask: torch.Tensor | None = None
    scale: float = 9.0
    tau: float = 2.5
    alpha: float = 0.25
    unconditional: torch.Tensor | None = None
    steps: tuple[int, ...] | None = None
    norm: int = 1
    method: Literal["nag", "vsf", "nasa"] = "nag"
    bias: float = 0.0
    glyphs: torch.Tensor | None = None
    glyph_mask: torch.Tensor | None = None
    layers: torch.Tensor | None = None


@dataclass
class Call:
    """The transformer's call under way."""

    text_length: int = 0
    mask: torch.Tensor | None = None
    # One for each row.
    negatives: list[tuple[torch.Tensor, torch.Tensor | None] | None] = field(default_factory=list)
    timesteps: list[float] = field(default_factory=list)  # seen so far, in order


def guided(
    positive: Any, negative: Any, scale: float, tau: float, alpha: float, norm_order: int = 1
) -> np.ndarray:
    """Return NAG of (tokens, channels), token by token, as the paper writes it."""
    positive, negative = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    result = np.empty_like(positive)
    for token, (plus, minus) in enumerate(zip(positive, negative, strict=True)):
        extrapolated = scale * plus - (scale - 1) * minus
        norm = sum(abs(channel) ** norm_order for channel in plus) ** (1 / norm_order)
        extrapolated_norm = sum(abs(channel) ** norm_order for channel in extrapolated) ** (
            1 / norm_order
        )
        if extrapolated_norm > tau * norm:
            extrapolated = extrapolated * (tau * norm / extrapolated_norm)
        result[token] = alpha * extrapolated + (1 - alpha) * plus
    return result


@contextmanager
def cross_attention_by_hand(pipeline: Any, guidance: Guidance) -> Generator[None]:
    with ExitStack() as stack:
        for transformer in (pipeline.transformer, getattr(pipeline, "transformer_2", None)):
            if transformer is not None:
                _by_hand(transformer, guidance, stack)
        yield


def _by_hand(transformer: Any, guidance: Guidance, stack: ExitStack) -> None:
    is_ltx = hasattr(transformer, "caption_projection")
    project = (
        transformer.caption_projection if is_ltx else transformer.condition_embedder.text_embedder
    )
    call = Call()

    def note_call(_module: Any, _args: Any, arguments: dict[str, Any]) -> None:
        text, timestep = (
            arguments["encoder_hidden_states"],
            arguments["timestep"].flatten()[0].item(),
        )
        if timestep not in call.timesteps:
            call.timesteps.append(timestep)
        call.text_length, call.mask = text.shape[1], arguments.get("encoder_attention_mask")
        is_guided_step = guidance.steps is None or call.timesteps.index(timestep) in guidance.steps
        unconditional = [] if guidance.unconditional is None else list(guidance.unconditional)
        call.negatives = []
        num_guided = 0
        for row in text:
            if not is_guided_step or any(torch.equal(row, other) for other in unconditional):
                call.negatives.append(None)
                continue
            index = num_guided if len(guidance.negative) > 1 else 0
            mask = None if guidance.negative_mask is None else guidance.negative_mask[index]
            call.negatives.append((project(guidance.negative[index : index + 1]), mask))
            num_guided += 1

    stack.callback(transformer.register_forward_pre_hook(note_call, with_kwargs=True).remove)
    blocks = [*transformer.transformer_blocks] if is_ltx else [*transformer.blocks]
    for block in (*blocks, *getattr(transformer, "vace_blocks", ())):
        attention = block.attn2
        attention.forward = _Attention(attention, call, guidance)
        stack.callback(delattr, attention, "forward")


class _Attention:
    def __init__(self, module: Any, call: Call, guidance: Guidance) -> None:
        self.module, self.call, self.guidance = module, call, guidance

    def __call__(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, *_: Any, **__: Any
    ) -> Any:
        module, call, guidance = self.module, self.call, self.guidance
        num_image = encoder_hidden_states.shape[1] - call.text_length
        rows: list[torch.Tensor] = []
        for row, hidden in enumerate(hidden_states):
            query = module.norm_q(module.to_q(hidden[None]))[0]
            text = encoder_hidden_states[row : row + 1, num_image:]
            positive = self._attend(query, text, None if call.mask is None else call.mask[row])
            negative = call.negatives[row]
            output = positive.mean()
            if negative is not None:
                output = combined(positive, self._attend(query, *negative), guidance)
            output = output.reshape(len(output), -1)
            if num_image:
                image = encoder_hidden_states[row : row + 1, :num_image]
                key, value = (
                    module.norm_added_k(module.add_k_proj(image))[0],
                    module.add_v_proj(image)[0],
                )
                output = output + softmax_sums(
                    query, key, value, module.heads, None
                ).mean().reshape(len(output), -1)
            rows.append(torch.from_numpy(output).to(hidden_states.dtype))
        return module.to_out[0](torch.stack(rows))

    def _attend(
        self, query_LD: torch.Tensor, text_1TD: torch.Tensor, mask_T: torch.Tensor | None
    ) -> "Sums":
        key, value = (
            self.module.norm_k(self.module.to_k(text_1TD))[0],
            self.module.to_v(text_1TD)[0],
        )
        return softmax_sums(query_LD, key, value, self.module.heads, mask_T)


@dataclass(frozen=True)
class Sums:
    """The sums of one softmax over a text."""

    weighted: np.ndarray  # sum of exp(logits) times the values, (L, H, K)
    weights: np.ndarray  # sum of exp(logits), (L, H, 1)

    def mean(self) -> np.ndarray:
        return self.weighted / self.weights


def combined(positive: Sums, negative: Sums, guidance: Guidance) -> np.ndarray:
    """Return the guided output, (L, H, K)."""
    plus, minus = positive.mean(), negative.mean()
    if guidance.method == "nasa":
        return plus - guidance.scale * minus
    if guidance.method == "vsf":
        # Both texts share one softmax; the bias weakens the negative one by exp(-bias).
        weakened = np.exp(-guidance.bias)
        return (positive.weighted - guidance.scale * weakened * negative.weighted) / (
            positive.weights + weakened * negative.weights
        )
    shape = plus.shape
    plus, minus = plus.reshape(len(plus), -1), minus.reshape(len(minus), -1)
    return guided(plus, minus, guidance.scale, guidance.tau, guidance.alpha, guidance.norm).reshape(
        shape
    )


def softmax_sums(
    query_LD: torch.Tensor,
    key_TD: torch.Tensor,
    value_TD: torch.Tensor,
    heads: int,
    mask_T: torch.Tensor | None,
    bias_LT: np.ndarray | None = None,
) -> Sums:
    parts = [tensor.detach().double().numpy() for tensor in (query_LD, key_TD, value_TD)]
    query, key, value = (part.reshape(len(part), heads, -1) for part in parts)
    if mask_T is not None:
        key, value = key[mask_T.bool().numpy()], value[mask_T.bool().numpy()]
    logits = np.einsum("lhk,thk->lht", query, key) / np.sqrt(query.shape[2])
    exponentials = np.exp(logits if bias_LT is None else logits + bias_LT[:, None])
    return Sums(
        np.einsum("lht,thk->lhk", exponentials, value), exponentials.sum(axis=2, keepdims=True)
    )


def text(rows: int, length: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, length, tiny.TEXT_DIM, generator=torch.Generator().manual_seed(seed))


def mask(length: int, *num_tokens: int) -> torch.Tensor:
    """Return a row for each number: that many tokens, the rest padding."""
    return torch.arange(length)[None] < torch.tensor(num_tokens)[:, None]


def render(pipeline: Any, prompt_embeds: torch.Tensor, /, **arguments: Any) -> torch.Tensor:
    """Return the latents of clips without guidance, after two steps.

    The noise of row i comes from seed i; `arguments` go to the pipeline, but for None. A
    `prompt` of None goes too, since diffusion forcing has no default for it.
    """
    call: dict[str, Any] = {
        "prompt_embeds": prompt_embeds,
        "height": 32,
        "width": 32,
        "num_frames": 5,
        "num_inference_steps": 2,
        "guidance_scale": 1.0,
        "generator": [torch.Generator().manual_seed(row) for row in range(len(prompt_embeds))],
        "output_type": "latent",
    }
    if hasattr(pipeline.transformer, "caption_projection"):
        call["prompt_attention_mask"] = torch.ones(prompt_embeds.shape[:2], dtype=torch.bool)
    call |= arguments
    call = {name: value for name, value in call.items() if value is not None or name == "prompt"}
    return pipeline(**call).frames


def image(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8))


def largest_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one - other).abs().max().item()


def state(model: Any) -> list[Any]:
    """Return all that guidance could leave behind on a model."""
    return [
        (
            name,
            id(getattr(module, "processor", None)),
            list(module._forward_pre_hooks.values()),
            list(module._forward_hooks.values()),
            sorted(vars(module)),
        )
        for name, module in model.named_modules()
    ]
