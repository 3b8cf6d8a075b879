"""The memory that a model needs on a device for a clip: weights, and the largest stage's peak.

Loads without torch. Weights are counted from the headers of the safetensors, in the dtype that they
have once loaded. Activations are counts of live tensors, times the shapes of the clip: the counts
were taken from diffusers 0.42.1 by running its classes on tensors without data, and
`tests/pipelines/cost/test_memory.py` takes them again. Left out are the workspaces of kernels, the
context of CUDA, the texts that a worker keeps, and the activations of the text encoder, all small.

On one H200 the peak of Wan 14B at 832x480x81 was 35.3 GB with 28.1 GB of weights, and of a folder
of 6.6 GB at 832x480x49 16.3 GB with a float32 autoencoder and 11.5 GB in bfloat16. So a guided
transformer counts as in the first of them; the other two are 11 and 7 % above the estimate.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from pipelines.catalog.files.safetensors_file import read_header
from pipelines.catalog.files.weight_files import read_json, weight_files
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.catalog.pipeline_classes import COMPONENTS_WITH_WEIGHTS
from pipelines.context_parallel.geometry import ModelGeometry, read_geometry
from pipelines.cost.loaded_weights import DTYPE_BYTES, loaded_bytes, streamed_bytes
from pipelines.errors import ModelConfigError
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import CFG_METHODS, GuidanceMethod, VideoShape

# Tensors of (tokens, width) that live at the peak of a Wan block: at the residual sum behind the
# feed-forward network, or inside of it beside the two of its inner width.
WAN_RESIDUAL, WAN_BESIDE_INNER = 11.5, 4.6
WAN_GUIDED = 21.5  # by the peak of Wan 14B on an H200, where guidance ran in float32
LTX_PER_ROW = 16.1
# Feature maps of the largest resolution in a decoder, for each of its channels there.
WAN_DECODER = {4: 12.7, 2: 13.2}
WAN_RESIDUAL_DECODER = 21.4  # Wan 2.2 5B; its frames come in patches of 2 x 2
LTX_DECODER = {4: 4.4, 2: 6.3}

Stage = Literal["text", "denoise", "decode"]
_STAGES: dict[str, Stage] = {  # all other components denoise
    "text_encoder": "text", "connectors": "text",
    "vae": "decode", "audio_vae": "decode", "vocoder": "decode",
}  # fmt: skip


@dataclass(frozen=True)
class MemoryNeed:
    """The memory of one worker's device, in bytes.

    Args:
        weights: weights of each component as loaded, by its name in the folder; with the name
            `all` those of a model that is known by its description alone. Of a transformer whose
            blocks come one after another, those that are there at a time.
        activations: peak beyond the weights of each stage; None where it was not counted.
        offloaded: components that are on the device only in the text stage.
        takes_turns: True if one component is on the device at a time.
    """

    weights: dict[str, int]
    activations: dict[Stage, int | None]
    offloaded: frozenset[str] = frozenset()
    takes_turns: bool = False

    @property
    def peaks(self) -> dict[Stage, int]:
        """Peak of each stage, weights included."""
        return {
            stage: self._weights_at(stage) + (size or 0) for stage, size in self.activations.items()
        }

    def _weights_at(self, stage: Stage) -> int:
        if self.takes_turns:
            return max(
                size
                for name, size in self.weights.items()
                if _STAGES.get(name, "denoise") == stage or name == "all"
            )
        return sum(
            size
            for name, size in self.weights.items()
            if stage == "text" or name not in self.offloaded
        )

    @property
    def peak_bytes(self) -> int:
        return max(self.peaks.values())

    @property
    def peak_stage(self) -> Stage:
        return max(self.peaks, key=lambda stage: self.peaks[stage])


def memory_need(
    config: ModelConfig,
    weights: ModelWeights,
    shape: VideoShape,
    method: GuidanceMethod,
    parallel: ParallelConfig = ONE_DEVICE,
) -> MemoryNeed:
    """Count the memory of one clip on one device, or on the leader of a group.

    Raises:
        ModelFolderError: the folder's configs or headers are broken.
    """
    folder = weights.folder
    stages: dict[Stage, int | None] = {"text": 0, "denoise": None, "decode": None}
    if config.family != "ltx2":
        geometry = read_geometry(folder, config)
        seen = config.at_once(shape)
        stages["denoise"] = _denoise_bytes(geometry, config, seen, method) // parallel.degree
        stages["decode"] = None if config.vae_tiling else _decode_bytes(folder, config, shape)
    return MemoryNeed(
        _weights(config, weights),
        stages,
        frozenset({"text_encoder"} if config.offload in ("text_encoder", "group") else ()),
        config.offload == "model",
    )


def remedies(config: ModelConfig, stage: Stage) -> list[str]:
    """Return the lines of YAML that would lower the peak of a stage, the cheapest first."""
    found: list[str] = []
    if stage != "text" and config.offload == "none" and config.device != "cpu":
        found.append("offload: text_encoder")
    if stage == "decode" and config.vae_dtype == "float32":
        found.append("vae_dtype: bfloat16")
    if stage == "decode" and not config.vae_tiling:
        found.append("vae_tiling: true")
    if config.dtype == "float32":
        found.append("dtype: bfloat16")
    if config.device != "cpu" and config.offload in ("none", "text_encoder"):
        found += ["offload: model", "offload: group"]
    if stage != "text" and config.layerwise_casting is None:
        found += ["layerwise_casting: float8_e4m3fn", "quantization: int8_weight_only"]
    return found


def helpful(
    need: MemoryNeed, config: ModelConfig, weights: ModelWeights, clip: "Clip"
) -> list[str]:
    """Return the remedies that lower this need by a tenth of a gigabyte or more."""
    return [
        line
        for line in remedies(config, need.peak_stage)
        if (changed := _changed(config, line)) is not None
        and (clip.parallel.degree == 1 or changed.can_be_sharded)
        and memory_need(changed, weights, *clip.of_need).peak_bytes < need.peak_bytes - 10**8
    ]


def _changed(config: ModelConfig, line: str) -> ModelConfig | None:
    """Return a model with a line of YAML changed, or None if another of its lines forbids it."""
    key, _, value = line.partition(": ")
    try:
        return replace(config, **{key: True if value == "true" else value})
    except ModelConfigError:
        return None


@dataclass(frozen=True)
class Clip:
    """The values of a clip that decide its memory."""

    shape: VideoShape
    method: GuidanceMethod
    parallel: ParallelConfig = ONE_DEVICE

    @property
    def of_need(self) -> tuple[VideoShape, GuidanceMethod, ParallelConfig]:
        return self.shape, self.method, self.parallel


def describe_need(need: MemoryNeed) -> str:
    """Return the need in words, with its parts."""
    parts = [
        f"{name.replace('_', ' ')} {size / 1e9:.1f}"
        + (" (text stage alone)" if name in need.offloaded else "")
        + (" (in turn)" if need.takes_turns else "")
        for name, size in need.weights.items()
    ]
    for stage, size in need.activations.items():
        if stage != "text":
            parts.append(f"{stage} {'not counted' if size is None else f'{size / 1e9:.1f}'}")
    least = "at least " if None in need.activations.values() else "about "
    return f"{least}{need.peak_bytes / 1e9:.1f} GB at {need.peak_stage}: {', '.join(parts)}"


def _weights(config: ModelConfig, weights: ModelWeights) -> dict[str, int]:
    if weights.described is not None:
        return {"all": weights.described.description.num_weight_bytes}
    index = read_json(weights.folder / "model_index.json")
    found: dict[str, int] = {}
    for component in COMPONENTS_WITH_WEIGHTS:
        folder = weights.folder / component
        if index.get(component) not in (None, [None, None]) and folder.is_dir():
            sizes = {
                name: loaded_bytes(
                    config, component, name, entry.dtype, entry.shape, entry.stop - entry.start
                )
                for path in weight_files(folder)
                for name, entry in read_header(path).entries.items()
            }
            is_streamed = config.offload == "group" and component.startswith("transformer")
            found[component] = streamed_bytes(sizes) if is_streamed else sum(sizes.values())
    return found


def _denoise_bytes(
    geometry: ModelGeometry, config: ModelConfig, shape: VideoShape, method: GuidanceMethod
) -> int:
    """Count the peak of one forward. Wan calls twice under guidance, LTX once with two rows."""
    item = DTYPE_BYTES[config.dtype]
    token = geometry.num_tokens(shape) * geometry.width * item
    if geometry.family == "ltx":
        rows = 2 if method in CFG_METHODS else 1
        return int(token * LTX_PER_ROW * rows)
    residual = 0.0 if item == 4 else WAN_RESIDUAL
    guided = 0.0 if method in ("none", "cfg") else WAN_GUIDED
    return int(
        token * max(WAN_BESIDE_INNER + 2 * geometry.ffn_dim / geometry.width, residual, guided)
    )


def _decode_bytes(folder: Path, config: ModelConfig, shape: VideoShape) -> int:
    """Count the peak of a decode: Wan's goes by four frames at a time, LTX's takes all at once."""
    vae: dict[str, Any] = read_json(folder / "vae" / "config.json")
    item, pixels = DTYPE_BYTES[config.vae_dtype], shape.height * shape.width
    video = pixels * shape.num_frames * 3 * item
    if config.family == "ltx":
        channels = vae.get("decoder_block_out_channels") or vae.get("block_out_channels") or [128]
        patch = _size(vae.get("patch_size"), 4)
        # (channels at the largest resolution; all frames)
        maps = LTX_DECODER[item] * _size(cast("list[object]", channels)[0], 128)
        return int(maps * pixels / patch**2 * shape.num_frames * item)
    width = _size(vae.get("decoder_base_dim") or vae.get("base_dim"), 96)
    if vae.get("is_residual"):
        patch = _size(vae.get("patch_size"), 1)
        return int(WAN_RESIDUAL_DECODER * width * 4 * pixels / patch**2 * item) + video
    return int(WAN_DECODER[item] * width * 4 * pixels * item) + video


def _size(value: object, default: int) -> int:
    return value if type(value) is int and 0 < value <= 2**20 else default
