"""The pattern of a command: arguments, typed options, and the function that runs them.

Every module of a command holds one `COMMAND`. This module decides the options that several commands
share.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from rich.console import Console

from jobs.ending import ExitCode
from jobs.errors import RefusedError
from jobs.guarded_output import DroppedOutput
from jobs.run.progress.console import print_json, print_log, print_plain
from jobs.run.progress.log_entry import LogEntry
from jobs.settings.run_config import RunConfig, load_config
from jobs.store.store import Store, open_existing
from jobs.text import shown

if TYPE_CHECKING:
    from jobs.worker.setup import ModelLoader

EXIT_OK, EXIT_REFUSED, EXIT_STOPPED = ExitCode.OK, ExitCode.REFUSED, ExitCode.STOPPED
EXIT_QUARANTINE = EXIT_FINDINGS = ExitCode.UNFINISHED
LOG_FORMATS = ("text", "json")
LOG_FORMAT_VARIABLE = "NAGFARM_LOG_FORMAT"
OUTPUT_HELP = "s3://bucket/prefix, file:///folder or a folder such as ./out"


@dataclass(frozen=True)
class Context:
    """The surroundings of a command.

    Args:
        console: the terminal or pipe that gets the output.
        loader: loads the models of the workers.
        dropped: the output of this process that could not be written.
    """

    console: Console
    loader: "ModelLoader | None" = None
    dropped: DroppedOutput = field(default_factory=DroppedOutput)

    def say(self, entry: LogEntry | str) -> None:
        """Print one line, with the time if it is one of a run's log, or in a log in JSON.

        A line feed in it is escaped: several lines are several calls.
        """
        if self.dropped.is_log:
            print_log(self.console, entry)
        else:
            print_plain(self.console, entry)

    def say_json(self, text: str) -> None:
        """Print a JSON document or a part of it."""
        print_json(self.console, text)


@dataclass(frozen=True)
class Options:
    """The options of one command. Each field is named like the argument that sets it."""

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of these options to the command's parser."""

    @classmethod
    def read(cls, namespace: argparse.Namespace) -> Self:
        """Make the options from parsed arguments; lists become tuples."""
        values = {one.name: getattr(namespace, one.name) for one in fields(cls)}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


@dataclass(frozen=True)
class ConfigOptions(Options):
    """The options of a command that reads the run's settings."""

    profile: Path | None
    settings: tuple[str, ...]

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--profile",
            type=Path,
            metavar="FILE",
            help="a YAML of run settings; wins over configs/base.yaml",
        )
        parser.add_argument(
            "settings",
            nargs="*",
            metavar="key=value",
            help="run settings, such as workers.count=2 or store.endpoint_url=...; win over FILE",
        )

    def config(self) -> RunConfig:
        """Return the run's settings. Raises ConfigError if a key or value is wrong."""
        return load_config(self.profile, list(self.settings))


@dataclass(frozen=True)
class OutputOptions(ConfigOptions):
    """The options of a command that looks after one output."""

    uri: str

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "uri",
            metavar="URI",
            help=f"the output of a run: {OUTPUT_HELP}",
        )
        cls.add_positionals(parser)
        super().add_arguments(parser)

    @classmethod
    def add_positionals(cls, parser: argparse.ArgumentParser) -> None:
        """Add arguments that stand between the output and the settings."""

    def store(self) -> Store:
        """Return the store of the output.

        Raises:
            StoreRefusedError: the output is a folder that does not exist.
        """
        return open_existing(self.uri, self.config().store)


def add_log_format_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log-format",
        choices=LOG_FORMATS,
        help="lines for people, or an object a line for programs, without bars; the default is "
        f"${LOG_FORMAT_VARIABLE}, or text",
    )


def log_format_of(namespace: argparse.Namespace) -> str:
    """Return the format of a command's log.

    Raises:
        RefusedError: the variable of the environment holds another word.
    """
    if not hasattr(namespace, "log_format"):
        return "text"
    written = namespace.log_format or os.environ.get(LOG_FORMAT_VARIABLE) or "text"
    if written not in LOG_FORMATS:
        raise RefusedError(
            f"{LOG_FORMAT_VARIABLE}: expected {' or '.join(LOG_FORMATS)}, got {shown(written)}"
        )
    return written


OptionsT = TypeVar("OptionsT", bound=Options)


@dataclass(frozen=True)
class Command(Generic[OptionsT]):
    """One command of `nagfarm`.

    Args:
        name: the word on the command line.
        summary: one line for `nagfarm --help`.
        epilog: the text below the arguments: concepts and examples.
        options: the class that adds the arguments and holds their values.
        run: the function that does the work and returns the exit code.
        is_run: True if the command renders, so that its output is the log of a run and not its
            result.
        has_log: True if the command may take long, so that --log-format applies to its lines.
    """

    name: str
    summary: str
    epilog: str
    options: type[OptionsT]
    run: Callable[[OptionsT, Context], int]
    is_run: bool = False
    has_log: bool = False

    def add_to(self, commands: Any) -> None:
        """Add a parser for this command.

        Args:
            commands: the return value of argparse's `add_subparsers`.
        """
        parser: argparse.ArgumentParser = commands.add_parser(
            self.name,
            help=self.summary,
            description=self.summary,
            epilog=self.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.options.add_arguments(parser)
        if self.is_run or self.has_log:
            add_log_format_argument(parser)

    def __call__(self, namespace: argparse.Namespace, context: Context) -> int:
        return self.run(self.options.read(namespace), context)
