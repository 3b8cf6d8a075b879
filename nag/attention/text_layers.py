"""The text that a model takes from all layers of a text encoder, beside the text itself."""

from typing import Any

import torch
from torch.nn import functional

from nag.attention.text.negative_text import NegativeText
from nag.attention.text_lanes import LaneRows
from nag.errors import NagTextError


def append_layers(
    arguments: dict[str, Any], name: str, negative: NegativeText, rows: LaneRows
) -> None:
    """Put the negative prompt's layers below those of the prompt.

    Args:
        arguments: arguments of the model's call; changed in place.
        name: argument of the layers: one tensor (layers, B, T, D), or a tensor (B, T, D) for each.
        negative: negative prompt with a row for each guided row.
        rows: rows of the call.

    Raises:
        NagTextError: the negative prompt has no layers, or others than the prompt has.
    """
    of_call, layers = arguments[name], negative.layer_embeds
    if layers is None:
        raise NagTextError(
            f"the model takes {name} too: give NegativeText the layer_embeds, made of what the "
            "pipeline's encode_prompt returns, or give guide() the text itself"
        )
    num_layers, num_channels = len(of_call), of_call[0].shape[-1]
    if len(layers) != num_layers or layers.shape[-1] != num_channels:
        raise NagTextError(
            f"the negative prompt's layer_embeds must be ({num_layers}, batch, tokens, "
            f"{num_channels}), got {tuple(layers.shape)}"
        )
    both = [_below(one, layer.to(one), rows) for one, layer in zip(of_call, layers, strict=True)]
    arguments[name] = torch.stack(both) if torch.is_tensor(of_call) else both


def _below(of_call: torch.Tensor, of_lane: torch.Tensor, rows: LaneRows) -> torch.Tensor:
    """Return the rows of both lanes; the shorter text is filled up with zeros."""
    length, lane_length = of_call.shape[1], of_lane.shape[1]
    if lane_length - length != rows.negative_length - rows.text_length:
        raise NagTextError(
            "the negative prompt's layer_embeds must have "
            f"{length + rows.negative_length - rows.text_length} tokens, got {lane_length}"
        )
    width = max(length, lane_length)
    return torch.cat(
        [functional.pad(one, (0, 0, 0, width - one.shape[1])) for one in (of_call, of_lane)]
    )
