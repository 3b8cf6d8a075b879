"""The lines of a model's YAML that lower the memory of a clip, or bring one stage of it to fit.

Decides which lines are tried, and in which order. `memory` counts. Loads without torch.
"""

from dataclasses import replace

from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.cost.activations import Clip, Stage
from pipelines.cost.memory import MARGIN, MemoryNeed, memory_need
from pipelines.errors import ModelConfigError

LEAST_GAIN = 0.01  # share of the stage's peak
LEAST_GAIN_BYTES = 10**8


def remedies(config: ModelConfig, stage: Stage) -> list[str]:
    """Return the lines of YAML that may lower the peak of a stage, the cheapest first."""
    found: list[str] = []
    # images and videos of a clip are encoded before its first step
    has_autoencoder = stage == "decode" or (stage == "denoise" and config.pipeline_class.inputs)
    if stage != "text" and config.offload == "none" and config.device != "cpu":
        found.append("offload: text_encoder")
    if has_autoencoder and config.vae_dtype == "float32":
        found.append("vae_dtype: bfloat16")
    if has_autoencoder and not config.vae_tiling:
        found.append("vae_tiling: true")
    if config.dtype == "float32":
        found.append("dtype: bfloat16")
    if config.device != "cpu" and config.offload in ("none", "text_encoder"):
        found += ["offload: model", "offload: group"]
    if stage != "text" and config.layerwise_casting is None:
        found += ["layerwise_casting: float8_e4m3fn", "quantization: int8_weight_only"]
    return found


def helpful(need: MemoryNeed, config: ModelConfig, weights: ModelWeights, clip: Clip) -> list[str]:
    """Return the remedies that lower this need by a tenth of a gigabyte or more."""
    changed = _needs_with_lines(config, weights, clip, need.peak_stage)
    return [
        line
        for line, lower in changed.items()
        if lower.peak_bytes < need.peak_bytes - LEAST_GAIN_BYTES
    ]


def lines_that_help(
    config: ModelConfig, weights: ModelWeights, clip: Clip, stage: Stage, capacity: int | None
) -> tuple[str, ...]:
    """Return the lines, such as `vae_tiling: true`, that lower the peak of a stage.

    Args:
        capacity: bytes that the device has for this process; None if it is not known.

    Returns:
        The cheapest line with which the stage fits, if one is enough by estimate; else all that
        lower its peak. None of them may be enough.

    Raises:
        ModelFolderError: the folder's configs or headers are broken.
    """
    most = (1 - LEAST_GAIN) * memory_need(config, weights, clip).peaks[stage]
    changed = _needs_with_lines(config, weights, clip, stage)
    peaks = {line: need.peaks[stage] for line, need in changed.items() if need.peaks[stage] < most}
    fitting = [line for line, peak in peaks.items() if peak * (1 + MARGIN) <= (capacity or 0)]
    return tuple(fitting[:1] or peaks)


def advice_of(config: ModelConfig, lines: tuple[str, ...]) -> str:
    """Return what to do in words, such as "add `vae_tiling: true` to wan2.1.yaml"."""
    if not lines:
        return (
            f"no line of {config.name}.yaml lowers that: take fewer frames or pixels, or a larger "
            "card"
        )
    either = " or ".join(f"`{line}`" for line in lines)
    return f"add {either} to {config.name}.yaml"


def _needs_with_lines(
    config: ModelConfig, weights: ModelWeights, clip: Clip, stage: Stage
) -> dict[str, MemoryNeed]:
    """Return the need with each remedy of a stage that the model and the clip's group allow."""
    return {
        line: memory_need(changed, weights, clip)
        for line in remedies(config, stage)
        if (changed := _with_line(config, line)) is not None
        and (clip.parallel.degree == 1 or changed.can_be_sharded)
    }


def _with_line(config: ModelConfig, line: str) -> ModelConfig | None:
    """Return a model with a line of YAML changed, or None if another of its lines forbids it."""
    key, _, value = line.partition(": ")
    changes = {key: True if value == "true" else value}
    try:
        return replace(config, **changes)  # pyright: ignore[reportArgumentType]
    except ModelConfigError:
        return None
