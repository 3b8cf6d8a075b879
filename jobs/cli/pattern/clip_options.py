"""The options of a command that is about some of the clips of an output."""

import argparse
from dataclasses import dataclass
from typing import Self

from rich.console import Console

from jobs.cli.pattern.command import OutputOptions
from jobs.errors import RefusedError
from jobs.overview.clip_filter import ClipFilter
from jobs.overview.clips import Unreadable
from jobs.records.listing import has_run
from jobs.run.progress.console import print_plain
from jobs.store.store import Store


@dataclass(frozen=True)
class ClipOptions(OutputOptions):
    """An output, and the choice among its clips.

    Args:
        chosen: the choice that the options of `ClipFilter` make.
    """

    chosen: ClipFilter

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        ClipFilter.add_arguments(parser, with_states=cls.has_states())

    @classmethod
    def has_states(cls) -> bool:
        """Return True to offer `--state`; a command about one state alone returns False."""
        return True

    @classmethod
    def read(cls, namespace: argparse.Namespace) -> Self:
        namespace.chosen = ClipFilter.read(namespace)
        return super().read(namespace)

    def output_of_a_run(self) -> Store:
        """Return the store of the output.

        Raises:
            RefusedError: no run has written to it.
            StoreRefusedError: the output is a folder that does not exist.
        """
        return output_of_a_run(self.store())


def output_of_a_run(store: Store) -> Store:
    """Return the store of an output. Raises RefusedError if no run has written to it."""
    if not has_run(store):
        raise RefusedError(
            f"{store.uri}: expected the output of a run, got no object of any run; correct the "
            "URI, which `nagfarm render` prints"
        )
    return store


def say_unreadable(found: Unreadable) -> None:
    """Print an object that cannot be read to stderr, so that the result stays as it is."""
    say_aside(f"cannot be read: {found.key}: {found.message}")


def say_aside(line: str) -> None:
    """Print a line for people to stderr, beside a result for programs."""
    print_plain(Console(stderr=True), line)
