"""The transformer's calls in a denoising loop: which rows are guided, and which step is under way.

A pipeline calls its transformer once or twice a step, and classifier-free guidance adds calls that
must stay unguided. Most pipelines name their calls (`cache_context`). The others are observed:
a stock pipeline between the start and the end of its progress bar, a modular one by its guider.
A call that a pipeline did not make, such as that of a second pipeline on the same transformer, is
refused unless its name tells enough.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from nag.attention.pipeline_passes import passes_of
from nag.attention.text_encoding_calls import TextEncodingCalls, restore
from nag.errors import ForeignCallError, NagParameterError, UnnamedCallError

GuidedRows = Literal["all", "none", "second half", "first half", "first third"]

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
        self._is_denoising = False
        self._passes = passes_of(pipeline)
        self._text_encoding = TextEncodingCalls(pipeline)
        self._num_calls = 0  # unnamed, since the scheduler took the last step
        self._num_steps = 0  # taken by the scheduler in this loop
        self._first_index: int | None = None  # the scheduler's index of this loop's first step
        self._timesteps: Any = None  # one for each frame, of the step under way
        self._num_forced_steps = 0  # seen with a timestep for each frame
        self._scheduler: Any = None  # the one of the loop, whose `step` is observed
        self._replaced = vars(pipeline).get("progress_bar")  # another extension's
        self._progress_bar = pipeline.progress_bar
        pipeline.progress_bar = self._observed_bar

    def guided_rows(self, name: str | None) -> GuidedRows:
        if name in GUIDED_ROWS:
            return GUIDED_ROWS[name]
        self._refuse_foreign_call()
        self._num_calls += 1
        if self._passes == "prompt first":
            return "all" if self._num_calls == 1 else "none"
        if self._passes == "single" or not self._has_more_passes():
            return "all"
        if self._passes == "prompt third":
            return "first third" if self._num_calls == 1 else "none"
        if self._passes == "prompt half":
            return "first half" if self._num_calls == 1 else "none"
        if name == BATCHED_CALL or self._passes == "batched":
            return "second half" if self._num_calls == 1 else "none"
        raise self._unknown_call(name)

    def _has_more_passes(self) -> bool:
        """Return True if a step has more than the prompt's pass.

        Raises:
            UnnamedCallError: the pipeline does not tell.
        """
        pipeline = self._pipeline
        if getattr(pipeline, "do_perturbed_attention_guidance", False):
            raise UnnamedCallError(
                f"{type(pipeline).__name__} adds perturbed rows to the prompt's, which guidance "
                "cannot tell apart; switch them off with pag_scale=0"
            )
        is_on = getattr(
            pipeline, "do_classifier_free_guidance", self._text_encoding.has_unconditional_text
        )
        if is_on is None:
            raise self._unknown_call(None)
        return is_on and not self._is_past_truncation()

    def _is_past_truncation(self) -> bool:
        """Return True in a step of Z-Image's whose unconditional half `cfg_truncation` drops."""
        pipeline = self._pipeline
        limit = getattr(pipeline, "_cfg_truncation", None)
        if limit is None or float(limit) >= 1:
            return False
        # A loop may enter the schedule late, so its steps are counted from the end.
        timestep = pipeline.scheduler.timesteps[self._num_steps - pipeline.num_timesteps]
        return ((1000 - timestep.float()) / 1000).item() > float(limit)

    def _unknown_call(self, name: str | None) -> UnnamedCallError:
        return UnnamedCallError(
            f"{type(self._pipeline).__name__} calls its transformer "
            f"{'without a name' if name is None else f'by the name {name!r}'} (cache_context), so "
            "guidance cannot tell the unconditional call; switch classifier-free guidance off with "
            "guidance_scale=1"
        )

    def step(self) -> DenoisingStep:
        self._refuse_foreign_call()
        scheduler = self._pipeline.scheduler
        count = getattr(self._pipeline, "num_timesteps", len(scheduler.timesteps))
        timestep = getattr(self._pipeline, "current_timestep", None)  # not all pipelines have it
        if getattr(timestep, "ndim", 0):
            return self._step_of_frames(timestep, count)
        if not hasattr(scheduler, "step_index"):  # it does not count
            return DenoisingStep(self._num_steps, count)
        # A loop may enter the schedule late, as video to video does by its strength, or leave it
        # early, or begin it again; some call `step` twice a step.
        if self._first_index is None or scheduler.step_index is None:
            return DenoisingStep(0, count)
        return DenoisingStep(scheduler.step_index - self._first_index, count)

    def _step_of_frames(self, timesteps: Any, count: int) -> DenoisingStep:
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
        if timesteps is not self._timesteps:
            self._timesteps = timesteps
            self._num_forced_steps += 1
        return DenoisingStep(self._num_forced_steps - 1, count)

    def remove(self) -> None:
        self._text_encoding.remove()
        restore(self._pipeline, "progress_bar", self._observed_bar, self._replaced)

    def _refuse_foreign_call(self) -> None:
        if not self._is_denoising:
            raise ForeignCallError(
                "the transformer was called outside the denoising loop of the "
                f"{type(self._pipeline).__name__} that guidance was installed on; install it on "
                "the pipeline that renders, or name the call by "
                "`with transformer.cache_context('cond')`"
            )

    def _observed_bar(self, *args: Any, **kwargs: Any) -> "_ObservedBar":
        return _ObservedBar(self._progress_bar(*args, **kwargs), self._begin, self._end)

    def _begin(self) -> None:
        self._check()
        self._is_denoising, self._num_calls, self._num_steps = True, 0, 0
        self._timesteps, self._num_forced_steps, self._first_index = None, 0, None
        self._scheduler = scheduler = self._pipeline.scheduler
        self._scheduler_step, self._replaced_step = scheduler.step, vars(scheduler).get("step")
        scheduler.step = self._observed_step

    def _observed_step(self, *args: Any, **kwargs: Any) -> Any:
        self._num_calls = 0
        taken = self._scheduler_step(*args, **kwargs)
        index = getattr(self._scheduler, "step_index", None)
        if self._first_index is None and index is not None:
            self._first_index = index - 1
        self._num_steps += 1
        return taken

    def _end(self, *, is_whole: bool) -> None:
        self._is_denoising, self._timesteps = False, None
        restore(self._scheduler, "step", self._observed_step, self._replaced_step)
        self._ended()
        if is_whole:
            self._check()


class _ObservedBar:
    """A progress bar, as a context manager or an iterator, that tells when its loop runs."""

    def __init__(self, bar: Any, begin: Callable[[], None], end: Callable[..., None]) -> None:
        self._bar, self._begin, self._end = bar, begin, end

    def __enter__(self) -> Self:
        self._begin()
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._end(is_whole=kind is None)
        finally:
            self._bar.__exit__(kind, error, traceback)

    def __iter__(self) -> Iterator[Any]:
        self._begin()
        is_whole = False
        try:
            yield from self._bar
            is_whole = True
        finally:
            self._end(is_whole=is_whole)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bar, name)
