"""The transformer's calls in a denoising loop: which rows are guided, and which step is under way.

A pipeline calls its transformer once or twice a step, and classifier-free guidance adds calls that
must stay unguided. Most pipelines name their calls (`cache_context`). The others are observed:
a stock pipeline between the start and the end of its progress bar, a modular one by its guider.
A call that a pipeline did not make, such as that of a second pipeline on the same transformer, is
refused unless its name tells enough.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

from nag.attention.denoising_loop import DenoisingLoop, ObservedBar, PerturbedProcessors
from nag.attention.pipeline_passes import passes_of
from nag.attention.text_encoding_calls import TextEncodingCalls
from nag.errors import (
    ForeignCallError,
    NagCoverageError,
    NagParameterError,
    UnnamedCallError,
)
from nag.loop_frame import length_of, loop_frame
from nag.stand_ins import ReplacedMethod

GuidedRows = Literal[
    "all", "none", "second half", "first half", "first third", "middle third", "last third"
]

# The names that diffusers' pipelines and guiders give to calls of the transformer.
GUIDED_ROWS: dict[str | None, GuidedRows] = {
    "cond": "all",
    "pred_cond": "all",
    "uncond": "none",
    "pred_uncond": "none",
    # LTX-2's weak predictions of the prompt, which its pipelines push away from.
    "uncond_stg": "none",
    "uncond_modality": "none",
}
# The prompt's rows, where others without a prompt lie beside them.
BATCHES: dict[str | None, GuidedRows] = {
    "batched": "second half",
    "prompt half": "first half",
    "prompt third": "first third",
}
LAST_OF_TEXTS: dict[int, GuidedRows] = {1: "all", 2: "second half", 3: "last third"}
BATCHED_CALL = "cond_uncond"  # one row for each clip, or with its unconditional half before it


@dataclass(frozen=True)
class DenoisingStep:
    """The position in the denoising loop: step `index`, from 0, of `count`."""

    index: int
    count: int


class DenoisingCalls(Protocol):
    """The calls that one pipeline makes of its transformers."""

    def guided_rows(self, name: str | None) -> GuidedRows:
        """Return the rows of the call under way that are guided.

        Args:
            name: name of the call; None without one.

        Raises:
            ForeignCallError: the pipeline does not make this call, and its name tells too little.
            UnnamedCallError: the unconditional call is unknown.
        """
        ...

    def step(self) -> DenoisingStep:
        """Return the step of the call under way.

        Raises:
            ForeignCallError: the pipeline does not make this call.
            NagParameterError: the frames of the call are at different steps.
        """
        ...

    def remove(self) -> None:
        """Take off whatever observes the pipeline."""
        ...


class PipelineCalls:
    """The calls of a stock pipeline, from the start to the end of its progress bar.

    Args:
        pipeline: the pipeline; `progress_bar` is replaced on it until `remove`, and `step` on its
            scheduler while a loop runs.
        check: called at the start of each denoising loop and after its last step; it may raise.
        ended: called at the end of each denoising loop, also of one that failed.
    """

    def __init__(self, pipeline: Any, check: Callable[[], None], ended: Callable[[], None]) -> None:
        self._pipeline = pipeline
        self._check = check
        self._ended = ended
        self._loops: list[DenoisingLoop] = []  # each runs inside the one before
        self._passes = passes_of(pipeline)
        self._text_encoding = TextEncodingCalls(pipeline)
        self._perturbed = PerturbedProcessors(pipeline)
        self._progress_bar = ReplacedMethod(pipeline, "progress_bar", self._observed_bar)

    def guided_rows(self, name: str | None) -> GuidedRows:
        if name in GUIDED_ROWS:
            return GUIDED_ROWS[name]
        loop = self._loop()
        loop.num_calls += 1
        is_first = loop.num_calls == 1
        if self._passes == "prompt first":
            return "all" if is_first else "none"
        rows = self._rows_of_batch(name, loop)
        return rows if is_first or rows == "all" else "none"

    def _rows_of_batch(self, name: str | None, loop: DenoisingLoop) -> GuidedRows:
        """Return the prompt's rows in a call that may have those of other passes too.

        Raises:
            UnnamedCallError: they are not known.
        """
        if self._passes == "single":
            return "all"
        if self._passes == "prompt last":
            return LAST_OF_TEXTS[self._text_encoding.num_texts or 1]
        has_unconditional = self._has_unconditional_pass(loop)
        is_batched = name == BATCHED_CALL or self._passes == "batched"
        if self._is_perturbing():  # the perturbed rows are the last
            if not is_batched:
                raise self._unknown_call(name)
            return "middle third" if has_unconditional else "first half"
        if not has_unconditional:
            return "all"
        rows = BATCHES["batched"] if is_batched else BATCHES.get(self._passes)
        if rows is None:
            raise self._unknown_call(name)
        return rows

    def _is_perturbing(self) -> bool:
        """Return True if perturbed rows follow those of the prompt (PAG)."""
        return getattr(self._pipeline, "do_perturbed_attention_guidance", False)

    def _has_unconditional_pass(self, loop: DenoisingLoop) -> bool:
        """Return True if a step has an unconditional pass.

        Raises:
            UnnamedCallError: the pipeline does not tell.
        """
        pipeline = self._pipeline
        is_on = getattr(pipeline, "do_classifier_free_guidance", loop.has_unconditional_text)
        if is_on is None:
            raise self._unknown_call(None)
        return is_on and not self._is_past_truncation(loop)

    def _is_past_truncation(self, loop: DenoisingLoop) -> bool:
        """Return True in a step of Z-Image's whose unconditional half `cfg_truncation` drops."""
        pipeline = self._pipeline
        limit = getattr(pipeline, "_cfg_truncation", None)
        if limit is None or float(limit) >= 1:
            return False
        # A loop may enter the schedule late, so its steps are counted from the end.
        timestep = pipeline.scheduler.timesteps[loop.num_steps - pipeline.num_timesteps]
        return ((1000 - timestep.float()) / 1000).item() > float(limit)

    def _unknown_call(self, name: str | None) -> UnnamedCallError:
        return UnnamedCallError(
            f"{type(self._pipeline).__name__} calls its transformer "
            f"{'without a name' if name is None else f'by the name {name!r}'} (cache_context), so "
            "guidance cannot tell the unconditional call; switch classifier-free guidance off with "
            "guidance_scale=1"
        )

    def step(self) -> DenoisingStep:
        loop = self._loop()
        count = getattr(self._pipeline, "num_timesteps", len(self._pipeline.scheduler.timesteps))
        timestep = getattr(self._pipeline, "current_timestep", None)  # not all pipelines have it
        if getattr(timestep, "ndim", 0):
            return self._step_of_frames(loop, timestep, count)
        return DenoisingStep(loop.step_index, loop.num_timesteps or count)

    def _step_of_frames(self, loop: DenoisingLoop, timesteps: Any, count: int) -> DenoisingStep:
        """Return the step under diffusion forcing: each frame has a timestep and a scheduler.

        The pipeline's own scheduler takes no step, so the steps are counted.

        Args:
            timesteps: the pipeline's tensor of timesteps, another object in each step.
        """
        if count > len(self._pipeline.scheduler.timesteps):
            raise NagParameterError.of(
                "an asynchronous schedule (ar_step above 0) has its frames at different steps, and "
                "a range guides whole steps: leave nag_start and nag_end out",
                "nag_start",
                "nag_end",
            )
        if timesteps is not loop.timesteps:
            loop.timesteps = timesteps
            loop.num_forced_steps += 1
        return DenoisingStep(loop.num_forced_steps - 1, count)

    def remove(self) -> None:
        self._text_encoding.remove()
        self._perturbed.remove()
        self._progress_bar.remove()

    def _loop(self) -> DenoisingLoop:
        """Return the loop that makes the call under way, or raise if none runs."""
        if not (self._loops and self._loops[-1].frame.makes_this_call()):
            raise ForeignCallError(
                "the transformer was called outside the denoising loop of the "
                f"{type(self._pipeline).__name__} that guidance was installed on; install it on "
                "the pipeline that renders, or name the call by "
                "`with transformer.cache_context('cond')`"
            )
        loop = self._loops[-1]
        loop.follow_scheduler()
        return loop

    def _observed_bar(self, *args: Any, **kwargs: Any) -> ObservedBar:
        length = length_of(args[0] if args else kwargs.get("iterable"))
        bar = self._progress_bar.own(*args, **kwargs)
        return ObservedBar(bar, partial(self._begin, length), self._end)

    def _begin(self, length: int | None) -> DenoisingLoop | None:
        """Note the start of a loop; None if a shallow copy of the pipeline runs it.

        Args:
            length: steps that its progress bar goes over; None if the bar only counts.
        """
        frame = loop_frame(self._pipeline)
        if frame is None:
            return None
        try:
            self._check()
        except BaseException as error:
            self._perturbed.end_loop(is_whole=False)
            if isinstance(error, NagCoverageError) and self._is_perturbing():
                raise NagCoverageError(
                    f"{type(self._pipeline).__name__} perturbs attentions to the text, which "
                    f"guidance needs; switch that off with pag_scale=0: {error}"
                ) from error
            raise
        has_unconditional_text = self._text_encoding.has_unconditional_text
        loop = DenoisingLoop(self._pipeline, frame, has_unconditional_text, length)
        self._loops.append(loop)
        return loop

    def _end(self, loop: DenoisingLoop | None, *, is_whole: bool) -> None:
        if loop is None:
            return
        self._loops.remove(loop)
        loop.end()
        self._perturbed.end_loop(is_whole=is_whole)
        self._ended()
        if is_whole:
            self._check()
