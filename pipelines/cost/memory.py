"""The memory that a model needs on a device for a clip: weights, and the largest stage's peak.

Loads without torch. Weights are counted from the headers of the safetensors, in the dtype that they
have once loaded; `activations` counts the rest. Left out are the context of CUDA, the allocator's
gaps, and the texts that a worker keeps.

On one H200 the peak of Wan 14B at 832x480x81 was 35.3 GB with 28.1 GB of weights, and of a folder
of 6.5 GB at 832x480x49 16.3 GB with a float32 autoencoder and 11.5 GB in bfloat16. So a guided
transformer counts as in the first of them; the other two are 4 and 6 % above the estimate. Others
were not measured. So a clip whose estimate is within `MARGIN` of a card's memory may fit or not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from pipelines.catalog.files.safetensors_file import read_header
from pipelines.catalog.files.weight_files import read_json, weight_files
from pipelines.catalog.keys.pipeline_classes import COMPONENTS_WITH_WEIGHTS
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.cost.activations import Clip, Stage, activations
from pipelines.cost.loaded_weights import DTYPE_BYTES, loaded_bytes, streamed_bytes

MARGIN = 0.1  # share of the estimate, for its error and for what it leaves out
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
        activations: peak beyond the weights of each stage.
        offloaded: components that are on the device only in the text stage.
        takes_turns: True if one component is on the device at a time.
        is_least: True if the weights may need more.
    """

    weights: Mapping[str, int]
    activations: Mapping[Stage, int]
    offloaded: frozenset[str] = frozenset()
    takes_turns: bool = False
    is_least: bool = False

    @property
    def peaks(self) -> dict[Stage, int]:
        """Peak of each stage, weights included."""
        return {stage: self._weights_at(stage) + size for stage, size in self.activations.items()}

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

    @property
    def cautious_bytes(self) -> int:
        """Memory with which a clip fits also if the estimate is too low by `MARGIN`."""
        return int(self.peak_bytes * (1 + MARGIN))


def memory_need(config: ModelConfig, weights: ModelWeights, clip: Clip) -> MemoryNeed:
    """Count the memory of one clip on one device, or on the leader of a group.

    Raises:
        ModelFolderError: the folder's configs or headers are broken.
    """
    return MemoryNeed(
        _weights(config, weights),
        activations(weights.folder, config, clip),
        frozenset({"text_encoder"} if config.offload in ("text_encoder", "group") else ()),
        takes_turns=config.offload == "model",
        is_least=weights.described is not None,
    )


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
            parts.append(f"{stage} {size / 1e9:.1f}")
    least = "at least " if need.is_least else "about "
    return f"{least}{need.peak_bytes / 1e9:.1f} GB at {need.peak_stage}: {', '.join(parts)}"


def _weights(config: ModelConfig, weights: ModelWeights) -> dict[str, int]:
    if weights.described is not None:
        # As if all were float32, the dtype with most bytes: a description does not say it.
        num_bytes = weights.described.description.num_weight_bytes
        return {"all": num_bytes * DTYPE_BYTES[config.dtype] // 4}
    index = read_json(weights.folder / "model_index.json")
    found = {one.component: sum(one.sizes.values()) for one in weights.ggufs}
    for component in COMPONENTS_WITH_WEIGHTS:
        folder = weights.folder / component
        if (
            component not in found
            and index.get(component) not in (None, [None, None])
            and folder.is_dir()
        ):
            sizes = {
                name: loaded_bytes(
                    config, component, name, entry.dtype, entry.shape, entry.stop - entry.start
                )
                for path in weight_files(folder)
                for name, entry in read_header(path).entries.items()
            }
            is_streamed = config.offload == "group" and component.startswith("transformer")
            found[component] = streamed_bytes(sizes) if is_streamed else sum(sizes.values())
    if weights.upsampler is not None:
        shapes = (
            shape
            for path in weight_files(weights.upsampler.folder)
            for shape in read_header(path).shapes.values()
        )
        found["latent_upsampler"] = sum(map(prod, shapes)) * DTYPE_BYTES[config.dtype]
    return found
