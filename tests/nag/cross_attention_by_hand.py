"""NAG by hand on any model with separate text cross-attentions, for the tests of all families.

Nothing here imports from nag/. Each call of the model is made twice: first with the negative prompt
in place of the prompt, to note the text that reaches each attention, then with the prompt. There
each attention is the stock one, called with either text and without its output projection; the
guidance is computed between them in float64.
"""

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

Form = Literal[
    "batched",
    "prompt first",
    "prompt half",
    "prompt third",
    "middle third",
    "last third",
    "single",
]


@dataclass(frozen=True)
class ByHand:
    """The guidance of a clip or image.

    Args:
        negative: embeddings of the negative prompts, one row or one for each prompt.
        mask: their mask; None for a model without.
        form: order of the passes; "single" guides all rows of all calls.
        further: further arguments of the model that the negative prompt has its own of.
        is_bounded: gets True for each guided token whose norm `tau` bounds, in each attention.
    """

    negative: torch.Tensor
    mask: torch.Tensor | None = None
    form: Form = "single"
    scale: float = 5.0
    tau: float = 1.5
    alpha: float = 0.5
    text: str = "encoder_hidden_states"
    text_mask: str = "encoder_attention_mask"
    further: Mapping[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    positions: str | None = None
    num_shared_tokens: int = 0
    of_text: tuple[str, ...] = ()  # further arguments of an attention that belong to its text
    output: str | None = "to_out"  # name of an attention's output projection; None without one
    adds_input: bool = False  # the stock attention adds its input, an image, to its output
    is_bounded: list[torch.Tensor] = field(default_factory=list[torch.Tensor])

    def guided_rows(self, num_rows: int, call_of_step: int) -> range:
        """Return the guided rows of a call, the first, second, ... of its step."""
        match self.form:
            case "batched":
                return range(num_rows // 2, num_rows)
            case "prompt half":
                return range(num_rows // 2)
            case "prompt third":
                return range(num_rows // 3)
            case "middle third":
                return range(num_rows // 3, 2 * num_rows // 3)
            case "last third":
                return range(2 * num_rows // 3, num_rows)
            case "prompt first" if call_of_step:
                return range(0)
            case _:
                return range(num_rows)


@dataclass
class _Call:
    is_noting: bool = False
    num_rows: int = 0
    guided: range = field(default_factory=lambda: range(0))
    timestep: float | None = None
    call_of_step: int = 0
    seen: dict[nn.Module, dict[str, Any]] = field(default_factory=dict[nn.Module, dict[str, Any]])


@contextmanager
def guided_by_hand(
    model: Any, attentions: Sequence[nn.Module], guidance: ByHand
) -> Generator[None]:
    """Guide the attentions of a model by hand until the end of the `with`."""
    call, stock = _Call(), model.forward
    signature = inspect.signature(stock)

    def forward(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        argument = arguments[guidance.text]
        text = argument[0] if isinstance(argument, tuple) else argument
        timestep = arguments["timestep"]
        timestep = float(torch.as_tensor(timestep).flatten()[0])
        call.call_of_step = call.call_of_step + 1 if timestep == call.timestep else 0
        call.timestep, call.num_rows = timestep, len(text)
        call.guided = guidance.guided_rows(len(text), call.call_of_step)
        if call.guided:
            rows = _negative_rows(guidance, call)
            mask = arguments.get(guidance.text_mask)
            other: dict[str, Any] = {guidance.text: guidance.negative[rows]}
            if guidance.mask is not None:
                kind = torch.bool if mask is None else mask.dtype
                other[guidance.text_mask] = guidance.mask[rows].to(kind)
            other |= {name: value[rows] for name, value in guidance.further.items()}
            if guidance.num_shared_tokens:
                shared = slice(-guidance.num_shared_tokens, None)
                parts = [other[guidance.text], text[:, shared]]
                other[guidance.text] = torch.cat(parts, dim=1)
                if mask is not None:
                    parts = [other[guidance.text_mask], mask[:, shared]]
                    other[guidance.text_mask] = torch.cat(parts, dim=1)
            if guidance.positions:
                other[guidance.positions] = torch.arange(guidance.negative.shape[1])
            if isinstance(argument, tuple):
                other[guidance.text] = (other[guidance.text], *argument[1:])
            call.is_noting = True
            stock(**{**arguments, **other})
            call.is_noting = False
        return stock(*args, **kwargs)

    with ExitStack() as stack:
        model.forward = forward
        stack.callback(delattr, model, "forward")
        for attention in attentions:
            attention.forward = _attention(attention, attention.forward, call, guidance)
            stack.callback(delattr, attention, "forward")
        yield


def _negative_rows(guidance: ByHand, call: _Call) -> list[int]:
    shared_by = len(call.guided) // len(guidance.negative)
    return [
        (row - call.guided.start) // shared_by if row in call.guided else 0
        for row in range(call.num_rows)
    ]


def _attention(
    module: Any, stock: Callable[..., torch.Tensor], call: _Call, guidance: ByHand
) -> Callable[..., torch.Tensor]:
    signature = inspect.signature(stock)

    def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
        bound = signature.bind(*args, **kwargs)
        for name in ("cross_attention_kwargs", "kwargs"):
            bound.arguments |= bound.arguments.pop(name, {})
        arguments = dict(bound.arguments)
        names = (
            *("encoder_hidden_states", "attention_mask", "attn_mask", "prompt_rotary_emb"),
            *("context", "context_mask"),
            *guidance.of_text,
        )
        text = {name: arguments[name] for name in names if name in arguments}
        if call.is_noting:
            call.seen[module] = text
        if call.is_noting or not call.guided:
            return stock(**arguments)
        with _without_output(module, guidance.output):
            with_images = _tokens(stock(**arguments), arguments, guidance)
            with _without_images(module):
                positive, negative = (
                    _tokens(stock(**_of_text({**arguments, **other})), arguments, guidance)
                    for other in ({}, call.seen[module])
                )
        output = with_images.double()
        images = (with_images - positive).double()
        frames = len(output) // call.num_rows
        rows = slice(call.guided.start * frames, call.guided.stop * frames)
        guided = _guided(positive[rows].double(), negative[rows].double(), guidance)
        output[rows] = guided + images[rows]
        return _project_out(module, output.to(positive.dtype), arguments, guidance)

    return forward


def _tokens(output: torch.Tensor, arguments: dict[str, Any], guidance: ByHand) -> torch.Tensor:
    """Return an attention's output with its heads merged, (B, L, D)."""
    if guidance.adds_input:
        return (output - arguments["hidden_states"]).flatten(2).transpose(1, 2)
    return output.flatten(2)


def _guided(positive: torch.Tensor, negative: torch.Tensor, guidance: ByHand) -> torch.Tensor:
    extrapolated = guidance.scale * positive - (guidance.scale - 1) * negative
    norm, its_norm = positive.abs().sum(-1), extrapolated.abs().sum(-1)
    too_long = its_norm > guidance.tau * norm
    guidance.is_bounded.append(too_long.flatten())
    factor = torch.where(too_long, guidance.tau * norm / its_norm, torch.ones_like(norm))
    return guidance.alpha * extrapolated * factor[..., None] + (1 - guidance.alpha) * positive


@contextmanager
def _without_output(module: Any, name: str | None) -> Generator[None]:
    """Have an attention return its heads merged, without all that follows."""
    if name is None:
        yield
        return
    output = getattr(module, name)
    settings = {
        one: getattr(module, one)
        for one in ("residual_connection", "rescale_output_factor")
        if hasattr(module, one)
    }
    several = isinstance(output, nn.ModuleList)
    identity = nn.ModuleList([nn.Identity(), nn.Identity()]) if several else nn.Identity()
    setattr(module, name, identity)
    for one, value in zip(settings, (False, 1.0), strict=False):
        setattr(module, one, value)
    yield
    setattr(module, name, output)
    for one, value in settings.items():
        setattr(module, one, value)


def _of_text(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a call of Cosmos 2.5 without its image tokens; any other call is returned as it is."""
    text = arguments.get("encoder_hidden_states")
    if isinstance(text, tuple) and torch.is_tensor(text[1]):
        return {**arguments, "encoder_hidden_states": (text[0], None)}
    return arguments


@contextmanager
def _without_images(module: Any) -> Generator[None]:
    """Have an attention of an IP-Adapter attend to the text alone."""
    processor = module.processor
    if not hasattr(processor, "to_k_ip"):
        yield
        return
    scale = processor.scale
    processor.scale = [0.0] * len(scale)
    yield
    processor.scale = scale


def _project_out(
    module: Any, output: torch.Tensor, arguments: dict[str, Any], guidance: ByHand
) -> torch.Tensor:
    if guidance.output is None:
        return output.unflatten(2, (module.heads, -1))
    projection: Any = getattr(module, guidance.output)
    tokens: Any = arguments.get("hidden_states")
    output = (projection[0] if isinstance(projection, nn.ModuleList) else projection)(output)
    if guidance.adds_input:
        return output.transpose(1, 2).reshape(tokens.shape) + tokens
    if getattr(module, "residual_connection", False):
        output = output + tokens
    return output / getattr(module, "rescale_output_factor", 1.0)
