"""Operations and bytes of one forward on each rank of a group: counts, no times. Without torch.

`prediction` turns counts into times. `tests/pipelines/cost/test_cost.py` holds the counts against
counted operations and bytes of the real classes.

Left out are: work done once per forward and not in each layer (patches, the projection of text,
timestep and output), under 0.3 % of the work of a rank of a published model at any size in
docs/measurements/parallel-cost.md; all work that is not a matrix product (norms, modulations,
rotary embeddings, softmax, the formula of guidance); the timestep that Wan 2.2 5B has for each
token (about 1 % of its operations); and the sound of LTX-2, with its attention to the video and
back. The times of a plan leave out the reference images of VACE too, each a frame of tokens.

Context parallelism cuts the video tokens. Each rank holds all weights and the whole text.
"""

from dataclasses import dataclass
from typing import Literal

from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import CFG_METHODS, GuidanceMethod, VideoShape

# Per token after the last projection; only Wan 2.2 5B differs (192).
OUTPUT_CHANNELS = {"wan": 64, "ltx": 128, "ltx2": 128}
ATTENTION_GUIDES: tuple[GuidanceMethod, ...] = ("nag", "cfg+nag", "vsf", "nasa")


@dataclass(frozen=True)
class Forward:
    """One call of the transformer.

    Args:
        num_rows: rows of its batch.
        num_guided_rows: rows that also attend to the negative prompt.
        dtype_bytes: bytes of one number in the hidden states.
        output_channels: channels of a token in the output; None takes those of the published models
            of the family.
    """

    geometry: ModelGeometry
    shape: VideoShape
    num_rows: int = 1
    num_guided_rows: int = 0
    dtype_bytes: int = 2
    output_channels: int | None = None

    def num_local_tokens(self, parallel: ParallelConfig) -> int:
        """Video tokens of one rank; the degree must divide the tokens."""
        return self.geometry.num_tokens(self.shape) // parallel.degree


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one rank in one forward; a multiply-add counts two.

    `text` is the keys and values of prompts and images in each layer: each rank computes all of it.
    """

    self_attention: int
    cross_attention: int
    projections: int
    feed_forward: int
    text: int

    @property
    def total(self) -> int:
        return (
            self.self_attention
            + self.cross_attention
            + self.projections
            + self.feed_forward
            + self.text
        )


@dataclass(frozen=True)
class Exchange:
    """The collectives of one kind in one forward.

    Args:
        num_calls: number of calls.
        sent_bytes: bytes that leave the rank by all of them. One share of an all-to-all stays on
            the rank; an all-gather sends the whole to every other rank.
    """

    kind: Literal["all_to_all", "all_gather"]
    num_calls: int
    sent_bytes: int


def forwards_of_step(
    geometry: ModelGeometry, shape: VideoShape, method: GuidanceMethod
) -> tuple[Forward, ...]:
    """Return the calls of one denoise step.

    Under classifier-free guidance Wan calls twice, LTX once with two rows. NAG that is active in
    some steps counts in all.
    """
    num_guided = int(method in ATTENTION_GUIDES)
    guided = Forward(geometry, shape, 1, num_guided)
    if method not in CFG_METHODS:
        return (guided,)
    if geometry.family in ("ltx", "ltx2"):
        return (Forward(geometry, shape, 2, num_guided),)
    return Forward(geometry, shape), guided


def operations(forward: Forward, parallel: ParallelConfig = ONE_DEVICE) -> Operations:
    """Count the work of one rank. A matrix product of m x k and k x n counts 2 m k n."""
    geometry, rows = forward.geometry, forward.num_rows
    tokens, width = forward.num_local_tokens(parallel), geometry.width
    # the text of all rows is as long as that of the guided ones, which hold both prompts
    text_rows = rows * (2 if forward.num_guided_rows else 1)
    # the queries of a guided row attend to prompt and negative prompt, in two attentions or in one
    text_attentions = rows + forward.num_guided_rows
    return Operations(
        # queries and keys, then weights and values; ulysses: all tokens, some heads; ring: reverse
        self_attention=geometry.num_layers
        * rows
        * 4
        * tokens
        * geometry.num_tokens(forward.shape)
        * width,
        cross_attention=geometry.num_layers
        * 4
        * tokens
        * (text_attentions * geometry.num_text_tokens + rows * geometry.num_image_tokens)
        * width,
        # query, key, value, output of the self-attention; query and output of the cross-attention;
        # one in each control layer, and one more in the first
        projections=rows
        * 2
        * tokens
        * width**2
        * (6 * geometry.num_layers + _num_control_projections(geometry)),
        feed_forward=geometry.num_layers * rows * 4 * tokens * width * geometry.ffn_dim,
        # keys and values of the texts and of the images
        text=geometry.num_layers
        * 4
        * (text_rows * geometry.num_text_tokens + rows * geometry.num_image_tokens)
        * width**2,
    )


def exchanges(forward: Forward, parallel: ParallelConfig) -> tuple[Exchange, ...]:
    """Count the traffic of one rank.

    Cross-attention sends nothing, guided or not: each rank holds the whole text.

    Source: diffusers 0.42.1, `TemplatedUlyssesAttention`, `TemplatedRingAttention`,
    `_templated_unified_attention` and `EquipartitionSharder.unshard`.
    """
    geometry, ulysses, ring = forward.geometry, parallel.ulysses, parallel.ring
    if parallel.degree == 1:
        return ()
    token_bytes = forward.num_rows * forward.num_local_tokens(parallel) * forward.dtype_bytes
    hidden_bytes = token_bytes * geometry.width
    found: list[Exchange] = []
    if ulysses > 1:  # query, key and value to heads, and the output back to tokens
        num_calls = 4 * geometry.num_layers
        found.append(
            Exchange("all_to_all", num_calls, num_calls * hidden_bytes * (ulysses - 1) // ulysses)
        )
    output_bytes = token_bytes * (forward.output_channels or OUTPUT_CHANNELS[geometry.family])
    num_gathers, sent_bytes = 1, output_bytes * (parallel.degree - 1)
    if ring > 1:  # keys and values in one tensor, to every rank of the ring at once
        num_gathers += geometry.num_layers
        sent_bytes += geometry.num_layers * 2 * hidden_bytes * (ring - 1)
    found.append(Exchange("all_gather", num_gathers, sent_bytes))
    return tuple(found)


def weight_bytes(geometry: ModelGeometry, dtype_bytes: int = 2) -> int:
    """Return the bytes of the layer matrices of all transformers; every rank holds them all."""
    images = 2 * geometry.width**2 if geometry.num_image_tokens else 0  # their keys and values
    of_layer = 8 * geometry.width**2 + images + 2 * geometry.width * geometry.ffn_dim
    control = _num_control_projections(geometry) * geometry.width**2
    return geometry.num_transformers * (geometry.num_layers * of_layer + control) * dtype_bytes


def _num_control_projections(geometry: ModelGeometry) -> int:
    return geometry.num_control_layers + (1 if geometry.num_control_layers else 0)
