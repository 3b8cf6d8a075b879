"""The memory of a loaded worker's device: the check before its first clip, and what would help.

Decides which clips fit into the memory that the device has for this process. Loads without torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.errors import MemoryShortError
from jobs.types import ClipSpec, Stage
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.cost.activations import Clip
from pipelines.cost.activations import Stage as DeviceStage
from pipelines.cost.memory import MemoryNeed, describe_need, memory_need
from pipelines.cost.memory_advice import advice_of, lines_that_help, remedies
from pipelines.errors import PipelineError
from pipelines.parallel_config import ParallelConfig
from pipelines.video_model import DeviceMemory, DeviceMonitor

LARGE_SHARE = 0.05  # part of a card that other processes hold


@dataclass(frozen=True)
class WorkerMemory:
    """The device of a worker that has loaded a model.

    Args:
        weights: the weights as this machine has them; None for a model without any.
        parallel: the devices on which the worker renders each clip.
    """

    model: ModelConfig
    weights: ModelWeights | None
    parallel: ParallelConfig
    device: DeviceMonitor

    def check(self, clips: Sequence[Clip], *, is_forced: bool) -> str:
        """Compare the device's memory with the estimated need of the clips that may come.

        Args:
            clips: kinds of clip; the model's default one if there are none.
            is_forced: True to render also if no clip fits by estimate.

        Returns:
            A warning if some clips do not fit or may not fit; else nothing.

        Raises:
            MemoryShortError: no clip fits by estimate.
        """
        memory = self.device.memory()
        if memory is None or self.weights is None:
            return ""
        try:
            needs = {clip: self._need(clip, self.weights) for clip in clips or (self._default(),)}
        except (PipelineError, OSError):  # the load has accepted the folder; the count does not
            return ""
        largest = max(needs, key=lambda clip: needs[clip].peak_bytes)
        misfits = [one for one in needs.values() if one.peak_bytes > memory.available_bytes]
        if not misfits and needs[largest].cautious_bytes <= memory.available_bytes:
            return ""
        text = self._need_text(largest, needs[largest], memory)
        if not misfits:
            return f"{text}: it may not fit"
        if len(misfits) == len(needs) and not is_forced:
            raise MemoryShortError(
                f"{text}: by estimate no clip fits; {self._advice(largest, needs[largest], memory)}"
                " (--force overrides)"
            )
        kinds = f"{len(misfits)} of {len(needs)} kinds of clip do not fit by estimate"
        return f"{text}: {kinds}; {self._advice(largest, needs[largest], memory)}"

    def explain(self, spec: ClipSpec, stage: Stage) -> str:
        """Return where a clip ran out of memory, and the lines of the model's YAML that would help.

        Args:
            stage: the stage that the clip was in. Only the device's stages need its memory.

        Returns:
            The text, or nothing for a stage of the host.
        """
        if stage not in ("text", "denoise", "decode"):
            return ""
        clip = Clip(spec.request.shape, spec.request.method, self.parallel)
        try:
            memory = self.device.memory()
        except RuntimeError:  # the device does not answer any more
            memory = None
        lines = self._lines(clip, stage, memory)
        place = f"out of memory on {self.device.name} at {stage} ({clip.shape})"
        return f"{place}: {advice_of(self.model, lines)}{_others_text(memory)}"

    def _need(self, clip: Clip, weights: ModelWeights) -> MemoryNeed:
        return memory_need(self.model, weights, clip)

    def _default(self) -> Clip:
        return Clip(self.model.sampling.shape, self.model.method, self.parallel)

    def _need_text(self, clip: Clip, need: MemoryNeed, memory: DeviceMemory) -> str:
        return (
            f"{self.model.name} {clip.shape} needs {describe_need(need)}; {self.device.name} has "
            f"{memory.available_bytes / 1e9:.1f} GB for this worker{_others_text(memory)}"
        )

    def _advice(self, clip: Clip, need: MemoryNeed, memory: DeviceMemory) -> str:
        return advice_of(self.model, self._lines(clip, need.peak_stage, memory))

    def _lines(
        self, clip: Clip, stage: DeviceStage, memory: DeviceMemory | None
    ) -> tuple[str, ...]:
        """Return the lines that help, or that may help where that cannot be counted."""
        try:
            if self.weights is not None:
                capacity = None if memory is None else memory.available_bytes
                return lines_that_help(self.model, self.weights, clip, stage, capacity)
        except (PipelineError, OSError):  # the folder is gone meanwhile
            pass
        return tuple(remedies(self.model, stage))


def _others_text(memory: DeviceMemory | None) -> str:
    """Return the memory that other processes hold, if it is much."""
    if memory is None or memory.others_bytes < LARGE_SHARE * memory.total_bytes:
        return ""
    return (
        f"; other processes use {memory.others_bytes / 1e9:.1f} of the card's "
        f"{memory.total_bytes / 1e9:.1f} GB"
    )
