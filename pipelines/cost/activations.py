"""The activations of a clip: bytes beyond the weights at the peak of each stage, without torch.

They are counts of live tensors, times the shapes of the clip. The counts were taken from diffusers
0.42.1 by running its classes of the published sizes on tensors without data, and
`tests/pipelines/cost/test_activations.py` takes them again. In autoencoders a convolution also
counts a copy of its padded input and one of its output, as cuDNN's workspace has them where it
changes their layout: with that, the two decodes that were measured on an H200 are 4 and 6 % above
the count.

Left out: the activations of text and image encoders and of parts for sound, and reference images of
VACE, which are a few latent frames more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pipelines.catalog.files.weight_files import read_json
from pipelines.catalog.model_config import ModelConfig
from pipelines.context_parallel.geometry import ModelGeometry, read_geometry
from pipelines.cost.loaded_weights import DTYPE_BYTES
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import CFG_METHODS, GuidanceMethod, VideoShape

Stage = Literal["text", "denoise", "decode"]

# Tensors of (tokens, width) that live at the peak of a Wan block: at the residual sum behind the
# feed-forward network, or inside of it beside the two of its inner width.
WAN_RESIDUAL, WAN_BESIDE_INNER = 11.2, 4.4
WAN_GUIDED = 21.5  # by the peak of Wan 14B on an H200, where guidance ran in float32
WAN_TOKEN_TIMESTEPS = 19  # Wan 2.2 5B and diffusion forcing modulate each token, in float32
LTX_ROW, LTX_TOKEN_TIMESTEPS = 16.1, 13
LTX2_ROW, LTX2_TEXT, LTX2_TOKEN_TIMESTEPS = 21.1, 4.3, 23
# Feature maps of the largest resolution in an autoencoder, for each of its channels there.
WAN_DECODER, WAN_ENCODER = 14.7, 11.2
WAN_RESIDUAL_DECODER = 23.0  # Wan 2.2 5B; its frames come in patches of 2 x 2
LTX_DECODER, LTX2_DECODER, LTX_ENCODER = 6.1, 7.1, 7.2
FRAMES_AT_A_TIME = 4  # by Wan's autoencoders; those of LTX take all at once
# `enable_tiling` of diffusers: pixels of a tile's side, and from one tile to the next.
TILES = {"wan": (256, 192), "ltx": (512, 448), "ltx2": (512, 448)}


@dataclass(frozen=True)
class Clip:
    """The values of a clip that decide its memory."""

    shape: VideoShape
    method: GuidanceMethod
    parallel: ParallelConfig = ONE_DEVICE


def activations(folder: Path, config: ModelConfig, clip: Clip) -> dict[Stage, int]:
    """Count the bytes of each stage on one device, or on the leader of a group.

    Args:
        folder: folder of the weights; its configs are enough.

    Raises:
        ModelFolderError: a config is broken.
    """
    vae = Autoencoder.of(folder, config)
    denoise = forward_bytes(folder, config, clip) // clip.parallel.degree
    return {
        "text": 0,
        "denoise": max(denoise, vae.encode_bytes(clip.shape)),
        "decode": vae.decode_bytes(clip.shape),
    }


def forward_bytes(folder: Path, config: ModelConfig, clip: Clip) -> int:
    """Count the peak of one forward on one device.

    Wan calls twice under classifier-free guidance, LTX once with two rows.
    """
    geometry = read_geometry(folder, config)
    transformer = read_json(folder / "transformer" / "config.json")
    item = DTYPE_BYTES[config.dtype]
    num_tokens = geometry.num_tokens(config.at_once(clip.shape))
    if config.family == "wan":
        index = read_json(folder / "model_index.json")
        tensors = num_tokens * _wan_tensors(geometry, clip.method, item)
        if index.get("expand_timesteps") or config.pipeline_class.has_forcing:
            tensors += num_tokens * WAN_TOKEN_TIMESTEPS
        if hints := transformer.get("vace_layers"):  # one of each such layer, and their own input
            tensors += num_tokens * (len(hints) + 1)
        return int(tensors * geometry.width * item)
    rows = 2 if clip.method in CFG_METHODS else 1
    has_image = "image" in config.pipeline_class.inputs  # each token has a timestep of its own
    if config.family == "ltx":
        tensors = num_tokens * (LTX_ROW + has_image * LTX_TOKEN_TIMESTEPS)
    else:
        tensors = num_tokens * (LTX2_ROW + has_image * LTX2_TOKEN_TIMESTEPS)
        tensors += geometry.num_text_tokens * LTX2_TEXT
    return int(tensors * rows * geometry.width * item)


def _wan_tensors(geometry: ModelGeometry, method: GuidanceMethod, item: int) -> float:
    """Return the tensors of (tokens, width) at the peak of a block."""
    residual = 0.0 if item == 4 else WAN_RESIDUAL
    guided = 0.0 if method in ("none", "cfg") else WAN_GUIDED
    return max(WAN_BESIDE_INNER + 2 * geometry.ffn_dim / geometry.width, residual, guided)


@dataclass(frozen=True)
class Autoencoder:
    """The sizes of a video autoencoder that decide its memory.

    Args:
        item: bytes of a value.
        tile: sides of a tile in pixels and their distance; None decodes a frame as a whole.
    """

    config: ModelConfig
    values: Mapping[str, Any]
    item: int
    tile: tuple[int, int] | None

    @classmethod
    def of(cls, folder: Path, config: ModelConfig) -> "Autoencoder":
        values: dict[str, Any] = read_json(folder / "vae" / "config.json")
        tile = TILES[config.family] if config.vae_tiling else None
        return cls(config, values, DTYPE_BYTES[config.vae_dtype], tile)

    def decode_bytes(self, shape: VideoShape) -> int:
        """Count the peak of a decode. The tiles' videos overlap, and are joined to the video."""
        maps = self._maps(shape, self._decoder_maps())
        return int(maps) + int(self._video_bytes(shape) * self._overlap(shape))

    def encode_bytes(self, shape: VideoShape) -> int:
        """Count the peak of encoding a clip's video, which Wan makes of an image, too.

        Wan 2.2 5B and LTX encode an image as one frame, which takes less than their denoising.
        """
        inputs, values = self.config.pipeline_class.inputs, self.values
        is_wan = self.config.family == "wan"
        if not inputs or values.get("is_residual") or not (is_wan or "video" in inputs):
            return 0
        if is_wan:
            num_maps = WAN_ENCODER * _size(values.get("base_dim"), 96)
        else:
            num_maps = LTX_ENCODER * _first(values.get("block_out_channels"), 128)
        num_videos = 4 if "mask" in inputs else 1  # VACE splits a video by its mask
        return int(self._maps(shape, num_maps)) + num_videos * self._video_bytes(shape)

    def _decoder_maps(self) -> float:
        """Return the feature maps of the largest resolution."""
        values = self.values
        if self.config.family == "wan":
            width = _size(values.get("decoder_base_dim") or values.get("base_dim"), 96)
            return width * (WAN_RESIDUAL_DECODER if values.get("is_residual") else WAN_DECODER)
        default = _LTX if self.config.family == "ltx" else _LTX2
        width = _first(values.get("decoder_block_out_channels"), default.channels)
        width //= _first(values.get("upsample_factor"), default.factor)
        return width * (LTX_DECODER if self.config.family == "ltx" else LTX2_DECODER)

    def _maps(self, shape: VideoShape, num_maps: float) -> float:
        """Return the bytes of feature maps, in the frames and pixels that are there at a time."""
        height, width = shape.height, shape.width
        if self.tile is not None:
            height, width = min(height, self.tile[0]), min(width, self.tile[0])
        is_wan = self.config.family == "wan"
        patch = _size(self.values.get("patch_size"), 1 if is_wan else 4)
        num_frames = FRAMES_AT_A_TIME if is_wan else shape.num_frames
        return num_maps * num_frames * height * width / patch**2 * self.item

    def _overlap(self, shape: VideoShape) -> float:
        """Return the pixels of all tiles over those of a frame; 1 without tiles."""
        if self.tile is None or max(shape.height, shape.width) <= self.tile[0]:
            return 1.0
        side, distance = self.tile
        return (side / distance) ** 2

    def _video_bytes(self, shape: VideoShape) -> int:
        return shape.num_frames * shape.height * shape.width * 3 * self.item


@dataclass(frozen=True)
class _Defaults:
    """The defaults of diffusers' decoders: channels and upsampling behind the last block."""

    channels: int
    factor: int


_LTX, _LTX2 = _Defaults(128, 1), _Defaults(256, 2)


def _first(value: object, default: int) -> int:
    """Return the first entry of a list of sizes, which belongs to the largest resolution."""
    return (
        _size(cast("list[object]", value)[0], default)
        if isinstance(value, list) and value
        else default
    )


def _size(value: object, default: int) -> int:
    return value if type(value) is int and 0 < value <= 2**20 else default
