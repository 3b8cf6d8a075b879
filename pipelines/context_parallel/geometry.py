"""The sizes of a video transformer that decide its sharding and the cost of it. Needs no torch.

Reads them from the configs in a model's folder as diffusers' classes do, with the same defaults.
`divisibility` decides if a clip can be sharded.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pipelines.catalog.files.weight_files import read_json
from pipelines.catalog.keys.pipeline_classes import Family
from pipelines.catalog.model_config import ModelConfig
from pipelines.errors import ModelFolderError
from pipelines.request import VideoShape


@dataclass(frozen=True)
class ModelGeometry:
    """The sizes of one transformer and of the tokens that its autoencoder's latents become.

    Args:
        ffn_dim: inner width of the feed-forward network.
        num_text_tokens: tokens of one prompt, as the transformer gets it.
        frames_per_token: frames of video in one token after the first.
        height_per_token: pixels.
        width_per_token: pixels.
        num_transformers: 2 if early and late steps have one each; a step runs one of them.
        num_image_tokens: tokens of a clip's images that every rank holds whole, as it does the
            text.
        num_control_layers: layers, among `num_layers`, that follow a control video (VACE).
        num_references: reference images of a clip, each of them a frame of tokens before it (VACE).
    """

    family: Family
    num_layers: int
    num_heads: int
    head_dim: int
    ffn_dim: int
    num_text_tokens: int
    frames_per_token: int
    height_per_token: int
    width_per_token: int
    num_transformers: int = 1
    num_image_tokens: int = 0
    num_control_layers: int = 0
    num_references: int = 0

    @property
    def width(self) -> int:
        """The channels of a token."""
        return self.num_heads * self.head_dim

    def num_tokens(self, shape: VideoShape) -> int:
        """Return the number of video tokens of a clip, with those of its reference images."""
        frames = (shape.num_frames - 1) // self.frames_per_token + 1 + self.num_references
        return (
            frames * (shape.height // self.height_per_token) * (shape.width // self.width_per_token)
        )


_MAX_SIZE = 2**20  # bound of all sizes in a config, far beyond every model
_MAX_LAYERS = 256  # bound of the layers that follow a control video
_MAX_STAGES = 16  # bound of an autoencoder's stages
_MAX_SHOWN_CHARACTERS = 60


def read_geometry(folder: Path, config: ModelConfig) -> ModelGeometry:
    """Read the geometry from the configs in a model's folder.

    Raises:
        ModelFolderError: a config is missing or invalid, or the model cannot be sharded at all.
    """
    has_second = read_json(folder / "model_index.json").get("transformer_2") not in (
        None,
        [None, None],
    )
    components = ("transformer", "transformer_2") if has_second else ("transformer",)
    read = _READERS[config.family]
    vae = _Config(folder / "vae" / "config.json")
    found = [
        read(_Config(folder / component / "config.json"), vae, config.max_sequence_length)
        for component in components
    ]
    if config.family == "wan":
        found = [replace(one, num_image_tokens=_image_tokens(folder)) for one in found]
    if any(geometry != found[0] for geometry in found):
        raise ModelFolderError(
            f"{folder}: transformer and transformer_2 must be of one size to share one clip"
        )
    return replace(found[0], num_transformers=len(found))


def _image_tokens(folder: Path) -> int:
    """Return the tokens of the images that Wan 2.1 shows to its image encoder; 0 without one."""
    transformer = read_json(folder / "transformer" / "config.json")
    if transformer.get("image_dim") is None:
        return 0
    encoder = _Config(folder / "image_encoder" / "config.json")
    per_image = (encoder.size("image_size", 224) // encoder.size("patch_size", 32)) ** 2 + 1
    return per_image * (1 if transformer.get("pos_embed_seq_len") is None else 2)


class _Config:
    """One component's config.json. Its values are checked, because they are not trusted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[str, Any] = read_json(path)

    def size(self, name: str, default: int) -> int:
        return self._checked(name, self._values.get(name, default))

    def optional_size(self, name: str) -> int | None:
        """Return a size, or None if the config has null or no value."""
        value = self._values.get(name)
        return None if value is None else self._checked(name, value)

    def sizes(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return a list of sizes, as long as `default`."""
        values = self._list(name, default)
        if len(values) != len(default):
            raise self._refuse(name, f"a list of {len(default)} whole numbers", values)
        return tuple(self._checked(name, value) for value in values)

    def length(self, name: str) -> int:
        """Return the length of a list of at most 256 entries; 0 without it."""
        values = self._list(name, ())
        if len(values) > _MAX_LAYERS:
            raise self._refuse(name, f"a list of at most {_MAX_LAYERS} entries", values)
        return len(values)

    def num_true(self, name: str, default: tuple[bool, ...]) -> int:
        """Return the number of true values in a list of yes/no values."""
        values = self._list(name, default)
        if len(values) > _MAX_STAGES or not all(isinstance(value, bool) for value in values):
            raise self._refuse(name, f"a list of at most {_MAX_STAGES} yes/no values", values)
        return values.count(True)

    def _list(self, name: str, default: tuple[object, ...]) -> list[object]:
        values = self._values.get(name, list(default))
        if not isinstance(values, list):
            raise self._refuse(name, "a list", values)
        return cast("list[object]", values)

    def refuse_temporal_patch(self, name: str, patch: int) -> None:
        if patch != 1:
            raise ModelFolderError(
                f"{self._path}: {name} must be 1 in time to shard a clip, not {patch}"
            )

    def _checked(self, name: str, value: object) -> int:
        if type(value) is not int or not 1 <= value <= _MAX_SIZE:
            raise self._refuse(name, f"a whole number from 1 to {_MAX_SIZE:,}", value)
        return value

    def _refuse(self, name: str, expected: str, value: object) -> ModelFolderError:
        text = repr(value)
        came = text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}..."
        return ModelFolderError(f"{self._path}: {name} must be {expected}, not {came}")


def _read_wan(transformer: _Config, vae: _Config, num_text_tokens: int) -> ModelGeometry:
    """Read the sizes as WanPipeline does, with the defaults of its transformer and autoencoder."""
    patch = transformer.sizes("patch_size", (1, 2, 2))
    transformer.refuse_temporal_patch("patch_size", patch[0])
    spatial = vae.size("scale_factor_spatial", 8)
    num_control_layers = transformer.length("vace_layers")
    return ModelGeometry(
        family="wan",
        num_layers=transformer.size("num_layers", 40) + num_control_layers,
        num_heads=transformer.size("num_attention_heads", 40),
        head_dim=transformer.size("attention_head_dim", 128),
        ffn_dim=transformer.size("ffn_dim", 13824),
        num_text_tokens=num_text_tokens,
        frames_per_token=vae.size("scale_factor_temporal", 4),
        height_per_token=spatial * patch[1],
        width_per_token=spatial * patch[2],
        num_control_layers=num_control_layers,
    )


def _read_ltx(transformer: _Config, vae: _Config, num_text_tokens: int) -> ModelGeometry:
    """Read the sizes as LTXPipeline does, with the defaults of its transformer and autoencoder."""
    defaults = _LtxDefaults(num_layers=28, head_dim=64, is_scaling=(True, True, True, False))
    return _of_ltx("ltx", defaults, transformer, vae, num_text_tokens)


def _read_ltx2(transformer: _Config, vae: _Config, num_text_tokens: int) -> ModelGeometry:
    """Read the sizes of the video as LTX2Pipeline does. Those of the sound are left out."""
    defaults = _LtxDefaults(num_layers=48, head_dim=128, is_scaling=(True, True, True, True))
    return _of_ltx("ltx2", defaults, transformer, vae, num_text_tokens)


@dataclass(frozen=True)
class _LtxDefaults:
    """The defaults of diffusers' classes in which LTX-Video and LTX-2 differ."""

    num_layers: int
    head_dim: int
    is_scaling: tuple[bool, ...]


def _of_ltx(
    family: Family,
    defaults: _LtxDefaults,
    transformer: _Config,
    vae: _Config,
    num_text_tokens: int,
) -> ModelGeometry:
    patch = transformer.size("patch_size", 1)
    transformer.refuse_temporal_patch("patch_size_t", transformer.size("patch_size_t", 1))
    growth = 2 ** vae.num_true("spatio_temporal_scaling", defaults.is_scaling)
    spatial = vae.optional_size("spatial_compression_ratio") or vae.size("patch_size", 4) * growth
    temporal = (
        vae.optional_size("temporal_compression_ratio") or vae.size("patch_size_t", 1) * growth
    )
    num_heads = transformer.size("num_attention_heads", 32)
    head_dim = transformer.size("attention_head_dim", defaults.head_dim)
    return ModelGeometry(
        family=family,
        num_layers=transformer.size("num_layers", defaults.num_layers),
        num_heads=num_heads,
        head_dim=head_dim,
        ffn_dim=4 * num_heads * head_dim,  # fixed by diffusers' FeedForward; not in the config
        num_text_tokens=num_text_tokens,
        frames_per_token=temporal,
        height_per_token=spatial * patch,
        width_per_token=spatial * patch,
    )


_READERS = {"wan": _read_wan, "ltx": _read_ltx, "ltx2": _read_ltx2}
