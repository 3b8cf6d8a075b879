"""Four processes that live for the whole session and join a new process group for each work.

Importing torch and diffusers takes seconds of a processor, so one server imports them and forks the
ranks. Joining a group takes milliseconds. Each wait has a deadline: the ranks' for each other, and
the test's for the ranks.
"""

import logging
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import torch
from torch import distributed

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["tests.pipelines.context_parallel.preloaded"])
NUM_PROCESSES = 4
EXCHANGE_TIMEOUT = timedelta(seconds=120)  # for a collective on a busy machine
END_S = 5.0  # for processes to end after their pipes are closed
DEADLINE_S = 240.0  # for a whole piece of work, with the first import of diffusers


class Ranks:
    """The processes, started at the first need and again after one of them was killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._num_groups = 0
        self._processes: list[tuple[Any, Connection]] = []

    def run(self, work: Callable[..., Any], *args: Any, num_ranks: int) -> list[Any]:
        """Return the results of `work(*args)` on each rank of a new group.

        Args:
            work: an importable function that returns no tensors.
            args: its arguments.
            num_ranks: the size of the group.
        """
        if not self._processes:
            self._start()
        self._num_groups += 1
        store = str(self._folder / f"group-{self._num_groups}")
        pipes = [pipe for _, pipe in self._processes[:num_ranks]]
        for rank, pipe in enumerate(pipes):
            pipe.send((work, args, store, rank, num_ranks))
        return self._collect(pipes)

    def _collect(self, pipes: list[Connection]) -> list[Any]:
        results: dict[int, Any] = {}
        failures: list[str] = []
        end = monotonic() + DEADLINE_S
        while missing := [pipe for rank, pipe in enumerate(pipes) if rank not in results]:
            ready = wait(missing, max(end - monotonic(), 0))
            if not ready:
                self.close()
                failures.append(
                    f"ranks {[pipes.index(pipe) for pipe in missing]} did not answer "
                    f"in {DEADLINE_S} s"
                )
                break
            for pipe in ready:
                assert isinstance(pipe, Connection)
                rank = pipes.index(pipe)
                try:
                    results[rank], failure = pipe.recv()
                except EOFError as error:
                    self.close()
                    raise AssertionError(f"the process of rank {rank} is gone") from error
                if failure:
                    failures.append(f"rank {rank}: {failure}")
        if failures:
            raise AssertionError("\n".join(failures))
        return [results[rank] for rank in range(len(pipes))]

    def _start(self) -> None:
        for _ in range(NUM_PROCESSES):
            ours, theirs = FORKS.Pipe()
            process = FORKS.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._processes.append((process, ours))

    def close(self) -> None:
        for _, pipe in self._processes:
            pipe.close()
        end = monotonic() + END_S
        for process, _ in self._processes:
            process.join(max(end - monotonic(), 0))
            process.kill()  # a process that hangs in an exchange does not see its closed pipe
            process.join()
        self._processes.clear()


class _Heard(logging.Handler):
    """The warnings in diffusers' log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _serve(pipe: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        try:
            work, args, store, rank, num_ranks = pipe.recv()
        except EOFError:
            return
        pipe.send(_join_and_run(work, args, store, rank, num_ranks))


def _join_and_run(
    work: Callable[..., Any], args: tuple[Any, ...], store: str, rank: int, num_ranks: int
) -> tuple[Any, str | None]:
    heard = _Heard()
    logging.getLogger("diffusers").addHandler(heard)
    result, failure = None, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            distributed.init_process_group(
                "gloo",
                store=distributed.FileStore(store, num_ranks),
                rank=rank,
                world_size=num_ranks,
                timeout=EXCHANGE_TIMEOUT,
            )
            distributed.barrier()  # a rank that fails at once would leave while others still join
            result = work(*args)
    # Whatever the work raises must reach the test, which raises it there; `pytest.raises` in the
    # work fails with an error that is no `Exception`.
    except (Exception, pytest.fail.Exception):  # noqa: BLE001
        failure = traceback.format_exc()
    if distributed.is_initialized():
        distributed.destroy_process_group()
    logging.getLogger("diffusers").removeHandler(heard)
    if heard.messages and not failure:
        failure = f"diffusers warned: {heard.messages}"
    return result, failure
