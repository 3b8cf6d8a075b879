"""A bar on stderr while a command hashes gigabytes of weights, or a line in a log."""

import math
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from jobs.run.progress.console import print_plain
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights, inspect_model
from pipelines.load_progress import LoadProgress

SHOWN_AFTER_S = 0.5  # weights whose digests are known take less
MIN_SHOWN_BYTES = 200_000_000


class HashingBar(LoadProgress):
    """The progress of hashing a model's weights, which shows itself if that takes long.

    Args:
        name: the name of the model.
        console: the terminal or log.
        monotonic: clock in seconds that never goes back.
    """

    def __init__(
        self, name: str, console: Console, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(monotonic)
        self._name = name
        self._console = console
        self._clock = monotonic
        self._shown_from_s = math.inf
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(f"hashing {name}", total=0)

    def expect(self, num_bytes: int) -> None:
        super().expect(num_bytes)
        self._bar.update(self._task, total=num_bytes)
        if num_bytes >= MIN_SHOWN_BYTES:
            self._shown_from_s = self._clock() + SHOWN_AFTER_S

    def advance(self, num_bytes: int) -> None:
        super().advance(num_bytes)
        self._bar.update(self._task, advance=num_bytes)
        if self._clock() >= self._shown_from_s:
            self._shown_from_s = math.inf
            self._bar.start()
            if not self._console.is_terminal:
                print_plain(self._console, f"hashing the weights of {self._name}, once a machine")

    def close(self) -> None:
        self._bar.stop()


def inspect_with_bar(config: ModelConfig, config_path: Path) -> ModelWeights:
    """Check the weights of a model as `inspect_model` does, and show the hashing on stderr."""
    bar = HashingBar(config.name, Console(stderr=True))
    try:
        return inspect_model(config, config_path, bar)
    finally:
        bar.close()
