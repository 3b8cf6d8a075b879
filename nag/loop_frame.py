"""The function that runs a denoising loop, by which its own calls are known from others'.

While a loop runs, another pipeline may call the same model: in a callback, for a preview, or in
another thread. Such a call looks like one of the loop's own. The stack of functions tells them
apart.
"""

from collections.abc import Sized
from inspect import currentframe
from types import CodeType, FrameType
from typing import Any

import torch

CALLBACKS = ("callback_on_step_end", "callback")  # arguments of diffusers' pipelines


class LoopFrame:
    """The call of a pipeline's function that runs a denoising loop.

    Args:
        frame: frame of that function; None if the pipeline's own functions run no loop, so that no
            call is known as another one's.
    """

    def __init__(self, frame: FrameType | None) -> None:
        self._frame = frame
        arguments = {} if frame is None else frame.f_locals
        codes = (_code_of(arguments.get(name)) for name in CALLBACKS)
        self._callbacks = {code for code in codes if code is not None}

    def num_timesteps(self) -> int | None:
        """Return the length of the schedule that the function has now; None without one.

        Diffusers' pipelines go over their local `timesteps`, which they have cut by `strength` and
        `denoising_end`. Their `num_timesteps` is at times older than the cut, or missing.
        """
        return None if self._frame is None else length_of(self._frame.f_locals.get("timesteps"))

    def makes_this_call(self) -> bool:
        """Return True if the call under way is one of the loop's own.

        In a model that is compiled as a whole, nothing tells, so every call counts as one.
        """
        if self._frame is None or torch.compiler.is_compiling():
            return True
        frame: FrameType | None = currentframe()
        while frame is not None and frame.f_back is not self._frame:
            if frame.f_code.co_name == "__call__" and _pipeline_of(frame) is not None:
                return False
            frame = frame.f_back
        return frame is not None and frame.f_code not in self._callbacks


def loop_frame(pipeline: Any) -> LoopFrame | None:
    """Return the function that begins a loop of a pipeline; None if it is another pipeline's."""
    frame: FrameType | None = currentframe()
    while frame is not None:
        owner = _pipeline_of(frame)
        if owner is not None:
            return LoopFrame(frame) if owner is pipeline else None
        frame = frame.f_back
    return LoopFrame(None)


def length_of(schedule: Any) -> int | None:
    """Return the number of items of a list or a tensor; None of anything else."""
    if isinstance(schedule, Sized) and getattr(schedule, "ndim", 1):
        return len(schedule)
    return None


def _pipeline_of(frame: FrameType) -> Any:
    """Return the pipeline of a frame if a pipeline's function runs in it."""
    if frame.f_code.co_varnames[:1] != ("self",):
        return None
    owner = frame.f_locals.get("self")
    return owner if hasattr(owner, "progress_bar") else None


def _code_of(callback: Any) -> CodeType | None:
    """Return the code that runs first in a call of a callback; None without one."""
    while hasattr(callback, "func"):  # functools.partial
        callback = callback.func
    callback = getattr(callback, "__func__", callback)
    if not hasattr(callback, "__code__"):
        callback = type(callback).__call__
    return getattr(callback, "__code__", None)
