"""One run of a denoising loop: its calls and its steps, by the scheduler that takes them.

A loop may run inside another one: a callback may call its own pipeline for a preview.
"""

from collections.abc import Callable, Iterator
from functools import update_wrapper
from types import TracebackType
from typing import Any, Self

from nag.loop_frame import LoopFrame
from nag.stand_ins import ReplacedMethod, restore


class DenoisingLoop:
    """The calls and the steps of one loop. `step` of its scheduler is replaced until `end`.

    Args:
        pipeline: the pipeline that runs it.
        frame: its function that runs it.
        has_unconditional_text: True if the pipeline encoded an unconditional text for it; None if
            it does not tell.
        length: steps that its progress bar goes over; None if the bar only counts.

    Attributes:
        num_calls: calls without a name, since the scheduler took the last step.
        num_begun: steps that its progress bar has begun, if it goes over them.
        num_steps: steps that were taken.
        timesteps: the pipeline's tensor of one timestep for each frame, of the step under way.
        num_forced_steps: steps that were seen with such a tensor.
    """

    def __init__(
        self,
        pipeline: Any,
        frame: LoopFrame,
        has_unconditional_text: bool | None,
        length: int | None,
    ) -> None:
        self.frame = frame
        self.has_unconditional_text = has_unconditional_text
        self.num_calls = 0
        self.num_begun = 0
        self.num_steps = 0
        self.timesteps: Any = None
        self.num_forced_steps = 0
        self._length = length
        self._num_timesteps = frame.num_timesteps()
        self._pipeline = pipeline
        self._num_before = 0  # steps before this scheduler replaced another one
        self._first_index: int | None = None  # the scheduler's index of its first step here
        self._observed = _ObservedStep(pipeline.scheduler, self)

    def follow_scheduler(self) -> None:
        """Observe the pipeline's scheduler of now, which a callback may have replaced."""
        scheduler = self._pipeline.scheduler
        if scheduler is self._observed.scheduler:
            return
        self._num_before = self.step_index
        self._first_index = None
        self._observed.remove()
        self._observed = _ObservedStep(scheduler, self)

    @property
    def step_index(self) -> int:
        """The step under way, from 0.

        A loop may enter the schedule late, as video to video does by its strength, or leave it
        early, or begin it again; some call `step` twice a step.
        """
        scheduler = self._observed.scheduler
        if not hasattr(scheduler, "step_index"):  # it does not count
            return self.num_steps
        if self._first_index is None or scheduler.step_index is None:
            return self._num_before
        return self._num_before + scheduler.step_index - self._first_index

    @property
    def num_timesteps(self) -> int | None:
        """The steps of the schedule that it goes over; None if nothing tells.

        A schedule that begins anew inside the loop counts from its second step on. In its first one
        the step is 0, of any number.
        """
        return self._num_timesteps if self._length is None else self._length

    def end_step(self, index: int | None) -> None:
        """Note a step of the scheduler, which counts `index` steps now, if it counts."""
        if self._first_index is None and index is not None:
            self._first_index = index - 1
        if self._length is not None and not self.num_steps:
            self._length -= max(self.num_begun - 1, 0)  # earlier ones were skipped
        self.num_steps += 1
        self._num_timesteps = self.frame.num_timesteps()  # not in a call: that may be compiled

    def end(self) -> None:
        """Give the scheduler its own `step` back."""
        self._observed.remove()


class ObservedBar:
    """A progress bar, as a context manager or an iterator, that tells when its loop runs."""

    def __init__(
        self, bar: Any, begin: Callable[[], DenoisingLoop | None], end: Callable[..., None]
    ) -> None:
        self._bar, self._begin, self._end = bar, begin, end

    def __enter__(self) -> Self:
        self._loop = self._begin()
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._end(self._loop, is_whole=kind is None)
        finally:
            self._bar.__exit__(kind, error, traceback)

    def __iter__(self) -> Iterator[Any]:
        loop, is_whole = self._begin(), False
        try:
            for one in self._bar:
                if loop is not None:
                    loop.num_begun += 1
                yield one
            is_whole = True
        finally:
            self._end(loop, is_whole=is_whole)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bar, name)


class _ObservedStep:
    """Stands in the place of `step` on a scheduler, until it is removed."""

    def __init__(self, scheduler: Any, loop: DenoisingLoop) -> None:
        self.scheduler = scheduler
        self._loop = loop
        self.is_over = False
        self.replaced = vars(scheduler).get("step")  # another extension's, or an outer loop's
        own = self.replaced.step if isinstance(self.replaced, _ObservedStep) else scheduler.step
        self.step: Any = own
        update_wrapper(self, own)  # pipelines read its signature
        scheduler.step = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._loop.num_calls = 0
        taken = self.step(*args, **kwargs)
        self._loop.end_step(getattr(self.scheduler, "step_index", None))
        return taken

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the own step of a copy of the scheduler: it is not of this loop."""
        return getattr, (self.scheduler, "step")

    def remove(self) -> None:
        self.is_over = True
        earlier = self.replaced
        while isinstance(earlier, _ObservedStep) and earlier.is_over:
            earlier = earlier.replaced
        restore(self.scheduler, "step", self, earlier)


class PerturbedProcessors:
    """Takes back the processors of perturbed attention guidance (PAG) from a loop that failed.

    Diffusers' pipelines replace processors before their loop, and give the earlier ones back only
    behind a whole one. A refused clip would leave a model that no later clip can use.

    Args:
        pipeline: `_set_pag_attn_processor` is replaced on it until `remove`, if it has one.
    """

    NAME = "_set_pag_attn_processor"

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._observed: ReplacedMethod | None = None
        self._earlier: tuple[Any, dict[str, Any]] | None = None  # a model, and its processors
        if hasattr(pipeline, self.NAME):
            self._observed = ReplacedMethod(pipeline, self.NAME, self._perturb)

    def _perturb(self, *args: Any, **kwargs: Any) -> Any:
        assert self._observed is not None
        model = getattr(self._pipeline, "unet", None) or self._pipeline.transformer
        self._earlier = model, dict(model.attn_processors)
        return self._observed.own(*args, **kwargs)

    def end_loop(self, *, is_whole: bool) -> None:
        """Note the end of a loop; give the earlier processors back if it failed."""
        earlier, self._earlier = self._earlier, None
        if earlier is not None and not is_whole:
            model, processors = earlier
            model.set_attn_processor(processors)

    def remove(self) -> None:
        """Take the observer off the pipeline."""
        if self._observed is not None:
            self._observed.remove()
