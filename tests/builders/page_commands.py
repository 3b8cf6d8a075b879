"""The rules by which a command of the manual is checked: one for each program.

`nagfarm` is read by its own parser and, in `make slow`, run. NEEDS says why the others cannot run
in a test of this repository, or which test runs them.
"""

import re
from argparse import ArgumentParser, _SubParsersAction
from functools import cache

from jobs.cli.main import COMMANDS, make_parser, parse_arguments
from jobs.cli.pattern.command import ConfigOptions
from jobs.settings.run_config import load_config
from tests.builders.pages import SimpleCommand
from tests.structure import ROOT

# program -> its need, or the test that runs it
NEEDS = {
    "apt-get": "a Debian machine: tests/infra/ray/test_bare_machines.py",
    "aws": "an account of AWS; tests/docs/test_analysis_page.py runs `aws s3 sync`",
    "curl": "a webhook",
    "cut": "run with the others: tests/infra/kuberay/test_kubernetes_page.py",
    "docker": "a container engine; tests/infra/docker/test_dockerfile.py builds the image without",
    "ffprobe": "run with the others: tests/docs/test_analysis_page.py",
    "helm": "Kubernetes",
    "hf": "the hub of Hugging Face",
    "install": "a machine to set up: tests/infra/ray/test_bare_machines.py",
    "journalctl": "systemd",
    "jq": "the output of another command",
    "kubectl": "Kubernetes; tests/infra/kuberay/test_kubernetes_page.py makes what it applies",
    "ls": "a folder that a person filled: tests/jobs/cli/test_clip_commands.py pipes its names",
    "od": "a machine to set up: tests/infra/ray/test_bare_machines.py",
    "openssl": "Kubernetes: it makes a secret of a cluster",
    "pip": "the network; `make install` runs it",
    "prometheus": "a server: tests/infra/test_real_prometheus.py",
    "promtool": "a program: tests/infra/test_dashboards.py",
    "python3": "a machine to set up: tests/infra/ray/test_bare_machines.py",
    "python3.11": "the network; `make install` runs it",
    "rclone": "run with the others: tests/docs/test_analysis_page.py",
    "sed": "the file of another command",
    "sha256sum": "run with the others: tests/infra/kuberay/test_kubernetes_page.py",
    "systemctl": "systemd: tests/infra/ray/test_bare_machines.py",
    "systemd-analyze": "systemd: tests/infra/test_schedules.py",
    "tr": "a machine to set up: tests/infra/ray/test_bare_machines.py",
    "useradd": "a machine to set up: tests/infra/ray/test_bare_machines.py",
}
# programs of every machine, which tests run as they stand
PLAIN = frozenset({"cat", "head", "ls", "mkdir", "printf", "sort", "wc"})


class WrongCommandError(Exception):
    """A command of a page that would not work."""


@cache
def parsers() -> dict[str, ArgumentParser]:
    """Return the parser of each command of nagfarm."""
    (action,) = (one for one in make_parser()._actions if isinstance(one, _SubParsersAction))
    return dict(action.choices)


@cache
def targets() -> frozenset[str]:
    """Return the targets of the Makefile."""
    return frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def check(command: SimpleCommand) -> None:
    """Check one command without running it.

    Raises:
        WrongCommandError: it would be refused, or its program has no rule.
    """
    match command.program:
        case "nagfarm":
            check_nagfarm(list(command.arguments))
        case "make":
            words = [word for word in command.arguments if "=" not in word and word != "-j"]
            if wrong := set(words) - targets():
                raise WrongCommandError(f"the Makefile has no {', '.join(wrong)}")
        case "python" if command.arguments[:1] == ("-m",):
            check_module(command.arguments[1])
        case "ray":
            _check_ray(command)
        case program if program not in PLAIN and program not in NEEDS:
            raise WrongCommandError(
                f"no rule for {program!r}: add it to NEEDS in tests/builders/page_commands.py, or "
                "label the block `text` if it holds an output"
            )
        case _:
            pass  # a plain program, or one that needs something else


def check_nagfarm(words: list[str]) -> None:
    """Read a command line as nagfarm does, its settings too."""
    if words in (["--version"], ["--help"]) or (words[1:] == ["--help"] and words[0] in COMMANDS):
        return
    try:
        namespace = parse_arguments(words)
    except SystemExit as error:
        raise WrongCommandError("the parser refuses it, see standard error") from error
    options = COMMANDS[namespace.command].options.read(namespace)
    if isinstance(options, ConfigOptions):
        load_config(None, list(options.settings))


def check_module(name: str) -> None:
    """Find a program of this repository, without importing it."""
    path = ROOT / name.replace(".", "/")
    if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
        raise WrongCommandError(f"this repository has no module {name}")


def _check_ray(command: SimpleCommand) -> None:
    if command.arguments[:2] == ("job", "submit") and command.arguments[2:]:
        inner = [word for word in command.arguments if word.startswith("nagfarm")]
        if inner:
            raise WrongCommandError("the command of a job stands behind --")


def check_fragment(text: str) -> None:
    """Check a command within a sentence, which may lack its arguments: names and options."""
    words = re.sub(r"^.*?\bnagfarm ", "", text).split()
    if not words or words[0].isupper() or words[0] == "...":
        return
    if words[0].startswith("-"):
        raise_unless_known(words[0], make_parser())
        return
    if words[0] not in COMMANDS:
        raise WrongCommandError(f"nagfarm has no command {words[0]!r}")
    for word in words[1:]:
        if word.startswith("--"):
            raise_unless_known(word.partition("=")[0], parsers()[words[0]])


def raise_unless_known(option: str, parser: ArgumentParser) -> None:
    if option not in parser._option_string_actions:
        raise WrongCommandError(f"{parser.prog} has no {option}")
