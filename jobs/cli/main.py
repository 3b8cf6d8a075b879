"""`nagfarm`: read the command line, run one command, and return its exit code.

Answers without torch; the commands that need a cluster import Ray.
"""

import argparse
import signal
import sys
import textwrap
import threading
import time
import traceback
from importlib import metadata
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

from jobs.cli import bench, doctor, models, plan, prompts, render, schema
from jobs.cli.outputs import (
    compare,
    export,
    gc,
    list_clips,
    pick,
    prune,
    records,
    report,
    retry,
    score,
    sheet,
    status,
    verify,
)
from jobs.cli.pattern.command import Command, Context, log_format_of
from jobs.ending import ExitCode, ended_by_signals, stop_reason
from jobs.errors import JobError, OutputError, StoppedError
from jobs.escaping import escape_logs, plain_block, plain_line
from jobs.guarded_output import guard_output
from jobs.json_lines import JsonLines, error_line, inner_stream, write_json_lines
from jobs.redaction import redact
from jobs.text import log_time
from nag.errors import NagError
from pipelines.errors import PipelineError

if TYPE_CHECKING:
    from jobs.worker.setup import ModelLoader

COMMANDS: dict[str, Command[Any]] = {
    module.COMMAND.name: module.COMMAND
    for module in (
        *(plan, render, bench),
        *(status, report, list_clips, sheet, compare, pick, export, records, score),
        *(verify, retry, prune, gc),
        *(models, prompts, schema, doctor),
    )
}
DESCRIPTION = (
    "Render clips from texts and images in batches: a manifest goes in, MP4s and records come out."
)
EXIT_CODES = "\n".join(
    textwrap.fill(f"{code:<4}{code.meaning}", 98, initial_indent="  ", subsequent_indent=" " * 6)
    for code in ExitCode
)
EPILOG = f"""\
examples:
  nagfarm plan spring.yaml                          check the manifest; render nothing
  nagfarm render spring.yaml                        render it; run it again to resume
  nagfarm render prompts.csv --model shapes-wan --output ./spring
  RAY_AUTH_MODE=token ray job submit --working-dir . -- nagfarm render spring.yaml
  nagfarm bench negatives --quick                   measure negative prompts, in a few minutes
  nagfarm status s3://renders/spring                progress, clips in flight, last failures
  nagfarm report s3://renders/spring                write its gallery, a page to look at
  nagfarm status s3://renders/spring --watch        the same, until the run ends
  nagfarm list s3://renders/spring                  the clips: name, prompt, seed, state, key
  nagfarm sheet s3://renders/spring spring.png      one picture of many clips
  nagfarm compare ./spring fox-1 fox-2 --output foxes.mp4
  nagfarm pick s3://renders/spring fox --seeds 3    a manifest of more takes of a clip
  nagfarm verify s3://renders/spring                check every committed clip against its record
  nagfarm export s3://renders/spring ./clips        copy the clips under their names
  nagfarm records s3://renders/spring               records.parquet for DuckDB, pandas and others
  nagfarm score s3://renders/spring --measure clip  measure the clips, a record each
  nagfarm retry s3://renders/spring                 try quarantined clips again in the next run
  nagfarm prune s3://renders/spring --keep new.yaml list the clips that a manifest does not name
  nagfarm gc s3://renders/spring                    list what nothing needs; --delete removes it
  nagfarm models                                    the models, and whether their weights are here
  nagfarm prompts objects --output objects.jsonl    a prompt set of the field, as a manifest
  nagfarm schema manifest                           its JSON Schema, for editors
  nagfarm doctor --output s3://renders/spring       what is missing on this machine

exit codes:
{EXIT_CODES}
"""


def main(arguments: list[str] | None = None, loader: "ModelLoader | None" = None) -> int:
    """Run one command and return its exit code. Expected errors become one plain line.

    Args:
        loader: loads the models of the workers; None loads diffusers' pipelines.
    """
    sys.stdout, sys.stderr = inner_stream(sys.stdout), inner_stream(sys.stderr)
    dropped = guard_output()
    sys.excepthook = _print_redacted
    threading.excepthook = lambda args: _print_redacted(
        args.exc_type, args.exc_value, args.exc_traceback
    )
    escape_logs()
    try:
        namespace = parse_arguments(arguments)
        command = COMMANDS[namespace.command]
        dropped.is_log = command.is_run
        return _run(command, namespace, Context(Console(), loader, dropped))
    except KeyboardInterrupt:  # beside the command itself
        return _print_stop(stop_reason(signal.SIGINT), ExitCode.STOPPED)
    except OutputError as error:
        if not isinstance(error.__cause__, BrokenPipeError):  # a reader such as `head` has enough
            _print_stop(str(error), ExitCode.STOPPED)
        return ExitCode.STOPPED


def _run(command: Command[Any], namespace: argparse.Namespace, context: Context) -> int:
    try:
        if log_format_of(namespace) == "json":
            write_json_lines()
        with ended_by_signals(2):
            return command(namespace, context)
    except OutputError:
        raise
    except StoppedError as error:
        return _print_stop(str(error), ExitCode.of_stop(error), is_log=command.is_run)
    except KeyboardInterrupt:  # before a run handles signals itself
        reason = stop_reason(signal.SIGINT)
        return _print_stop(reason, ExitCode.STOPPED, is_log=command.is_run)
    except (JobError, PipelineError, NagError) as error:
        code = ExitCode.of_refusal(error)
        _print_end(error_line("refused", redact(str(error)), exit_code=code))
        return code


class _PrintVersion(argparse.Action):
    """Prints the installed version, which takes some milliseconds to find."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(f"nagfarm {metadata.version('nagfarm')}")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """A parser whose errors repeat the command line safely."""

    def error(self, message: str) -> NoReturn:
        super().error(plain_line(message))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the program, with a parser for each command."""
    parser = _Parser(
        prog="nagfarm",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=_PrintVersion, nargs=0, help="print the version and exit"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS.values():
        command.add_to(commands)
    return parser


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line. Settings may stand anywhere, even behind an option."""
    parser = make_parser()
    namespace, rest = parser.parse_known_args(arguments)
    # argparse itself does not find positional arguments that stand behind an option
    if rest and (not hasattr(namespace, "settings") or any(text.startswith("-") for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        namespace.settings += rest
    return namespace


def _print_redacted(
    _kind: type[BaseException], error: BaseException | None, _traceback: TracebackType | None
) -> None:
    """Print the traceback of an unexpected exception without secrets."""
    text = redact("".join(traceback.format_exception(error)))
    if isinstance(sys.stderr, JsonLines):
        message = redact(f"{type(error).__name__}: {error}")
        sys.stderr.write_entry("exception", message, "error", traceback=text)
    else:
        sys.stderr.write(plain_block(text))


def _print_stop(reason: str, code: ExitCode, *, is_log: bool = False) -> ExitCode:
    """Print the reason of a command that stopped before its end, and return its exit code."""
    stamp = f"{log_time(time.time())} " if is_log else ""
    message = redact(f"stopped: {reason}")
    _print_end(error_line("stopped", message, stamp=stamp, exit_code=code))
    return code


def _print_end(line: str) -> None:
    print(line, file=inner_stream(sys.stderr))
