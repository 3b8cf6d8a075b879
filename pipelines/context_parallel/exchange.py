"""Exchange of embeddings and checksums among ranks, beside the transformer's own collectives.

Only numbers and raw bytes travel, so that nothing is unpickled and any dtype works on any backend.
"""

import math
from dataclasses import fields

import torch
import torch.distributed as dist

from pipelines.clip_inputs import MAX_REFERENCES, ClipInputs
from pipelines.request import TextEmbeddings

DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.bool,
    torch.int32,
    torch.float64,
    torch.uint8,
)
FIELDS = tuple(field.name for field in fields(TextEmbeddings) if field.name != "inputs")
INPUTS = ("image", "last_image", "video", "mask")  # before the reference images
MAX_DIMS = 4
# One tensor's header: 1 + its dtype's index, or 0 for None; its number of dimensions; their sizes.
NUM_NUMBERS = 2 + MAX_DIMS
# By bytes of an element.
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Odd, 2**64 over the golden ratio: positions far apart get unlike weights.
FACTOR = 0x9E3779B97F4A7C15 - 2**64


def broadcast_embeddings(embeddings: TextEmbeddings | None, device: torch.device) -> TextEmbeddings:
    """Send the leader's text embeddings, and the inputs beside them, to every rank.

    Args:
        embeddings: the leader's embeddings; None on the ranks that receive them.
        device: the device that the received embeddings are put on.
    """
    tensors = _tensors(embeddings)
    header = torch.tensor(
        [_describe(tensor) for tensor in tensors], dtype=torch.int64, device=device
    )
    dist.broadcast(header, src=0)
    rows: list[list[int]] = header.tolist()
    received = [_broadcast(tensor, row, device) for tensor, row in zip(tensors, rows, strict=True)]
    if embeddings is not None:
        return embeddings
    prompt_embeds, *others = received[: len(FIELDS)]
    assert prompt_embeds is not None, "every clip has a prompt"
    inputs = [None if one is None else one.cpu() for one in received[len(FIELDS) :]]
    references = tuple(one for one in inputs[len(INPUTS) :] if one is not None)
    named = dict(zip(INPUTS, inputs, strict=False))
    return TextEmbeddings(
        prompt_embeds, *others, inputs=ClipInputs(**named, reference_images=references)
    )


def _tensors(embeddings: TextEmbeddings | None) -> list[torch.Tensor | None]:
    """Return the tensors of the leader's clip in a fixed order; None where there is none."""
    if embeddings is None:
        return [None] * (len(FIELDS) + len(INPUTS) + MAX_REFERENCES)
    inputs = embeddings.inputs
    missing = [None] * (MAX_REFERENCES - len(inputs.reference_images))
    return [
        *(getattr(embeddings, name) for name in FIELDS),
        *(getattr(inputs, name) for name in INPUTS),
        *inputs.reference_images,
        *missing,
    ]


def checksum(tensor: torch.Tensor) -> int:
    """Return the sum of a tensor's bits, each weighted by its position.

    Equal tensors have equal sums; unequal tensors almost never do.
    """
    flat = tensor.detach().contiguous().flatten()
    bits = flat.view(INTEGERS[flat.element_size()]).to(torch.int64)
    positions = torch.arange(1, len(bits) + 1, dtype=torch.int64, device=bits.device)
    return int((bits * (positions * FACTOR | 1)).sum())  # int64 wraps around


def gather_numbers(number: int, device: torch.device) -> list[int]:
    """Return each rank's number, in the order of ranks; one collective of eight bytes each."""
    own = torch.tensor([number], dtype=torch.int64, device=device)
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, own)
    return [int(one) for one in gathered]


def _describe(tensor: torch.Tensor | None) -> list[int]:
    if tensor is None:
        return [0] * NUM_NUMBERS
    assert tensor.dim() <= MAX_DIMS, f"expected at most {MAX_DIMS} dimensions, got {tensor.dim()}"
    sizes = [*tensor.shape, *[0] * (MAX_DIMS - tensor.dim())]
    return [1 + DTYPES.index(tensor.dtype), tensor.dim(), *sizes]


def _broadcast(
    tensor: torch.Tensor | None, row: list[int], device: torch.device
) -> torch.Tensor | None:
    if row[0] == 0:
        return None
    dtype, shape = DTYPES[row[0] - 1], row[2 : 2 + row[1]]
    if tensor is None:
        data = torch.empty(math.prod(shape) * dtype.itemsize, dtype=torch.uint8, device=device)
    else:
        data = tensor.to(device).contiguous().flatten().view(torch.uint8)
    dist.broadcast(data, src=0)
    return data.view(dtype).view(shape) if tensor is None else tensor
