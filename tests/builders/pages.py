"""The pages of the manual, their blocks of code, and the commands in these blocks.

A block without a language holds commands, as `sh` does; `console` holds commands behind `$ ` and
their output. An output alone is `text`.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.structure import ROOT

SHELL = ("", "sh", "console")  # a console shows commands behind "$ " and their output
REDIRECTIONS = {">", ">>", "<", ">&", "<<<", ">|"}
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
KEYWORDS = {"do", "done", "then", "fi", "else", "if", "while", "sudo", "exec", "time"}
# Words behind which another command stands in the same simple command
SUBMIT = ("ray", "job", "submit")


@dataclass(frozen=True)
class Block:
    """One block of code of a page.

    Args:
        page: path of the page in the repository.
        line: number of the line of its fence.
        language: the word behind the fence; empty for commands.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    def statements(self) -> Iterator[str]:
        """Yield the commands of the block as bash would read them, one after the other."""
        held: list[str] = []
        lines = self.text.splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        for line in lines:
            held.append(line)
            statement = "\n".join(held)
            if line.endswith("\\") or not is_whole(statement):
                continue
            held = []
            if statement.strip() and not statement.lstrip().startswith("#"):
                yield statement
        if held:
            raise ValueError(f"{self.place}: a quote or a loop without an end: {held[0]}")


def is_whole(statement: str) -> bool:
    """Return True if neither a quote nor a loop is open at the end of a text."""
    try:
        words = list(tokens(statement))
    except ValueError:
        return False
    return words.count("do") == words.count("done")


def tokens(statement: str) -> Iterator[str]:
    """Yield the words and operators of a command; comments are left out."""
    reader = shlex.shlex(statement.replace("\\\n", " "), posix=True, punctuation_chars="();<>|&")
    reader.whitespace_split = True
    yield from reader


@dataclass(frozen=True)
class SimpleCommand:
    """One program and its arguments, without variables, redirections and keywords."""

    program: str
    arguments: tuple[str, ...]
    environment: tuple[str, ...] = ()


def simple_commands(statement: str) -> Iterator[SimpleCommand]:
    """Yield each program that a command line starts, also those behind `ray job submit`."""
    words: list[str] = []
    is_target = is_rest = False
    for word in [*tokens(statement), ";"]:
        if is_target:
            is_target = False
        elif word in REDIRECTIONS:
            is_target = True
            if words and words[-1] == "2":
                words.pop()
        elif set(word) <= set("();<>|&"):
            yield from _commands_of(words)
            words = []
            is_rest = word == ")"  # such as the end of a text around $(...)
        elif is_rest:
            continue
        else:
            words.append(word)


def _commands_of(words: list[str]) -> Iterator[SimpleCommand]:
    environment: list[str] = []
    while words and (ASSIGNMENT.fullmatch(words[0]) or words[0] in KEYWORDS):
        environment.append(words[0])
        words = words[1:]
    if not words or words[0] in ("for", "export", "set", "."):
        return
    program = Path(words[0]).name
    if (program, *words[1:3]) == SUBMIT and "--" in words:
        inner = words.index("--")
        yield SimpleCommand(program, tuple(words[1:inner]), tuple(environment))
        yield from _commands_of(words[inner + 1 :])
    else:
        yield SimpleCommand(program, tuple(words[1:]), tuple(environment))


@cache
def page_names() -> tuple[str, ...]:
    """Return the paths of all pages of the manual."""
    patterns = ("*.md", "nag/*.md", "infra/*.md", "docs/**/*.md")
    return tuple(
        path.relative_to(ROOT).as_posix()
        for pattern in patterns
        for path in sorted(ROOT.glob(pattern))
    )


@cache
def _parsed(page: str) -> list[Token]:
    return MarkdownIt("commonmark").parse((ROOT / page).read_text(encoding="utf-8"))


def blocks(*languages: str, page: str = "") -> list[Block]:
    """Return the blocks of all pages, or of one, in some languages or in all."""
    found = [
        Block(name, token.map[0] + 1, _language(token), token.content)
        for name in ([page] if page else page_names())
        for token in _parsed(name)
        if token.type == "fence" and token.map
    ]
    return [block for block in found if not languages or block.language in languages]


def _language(token: Token) -> str:
    is_console = not token.info and token.content.startswith("$ ")
    return "console" if is_console else token.info.strip()


def inline_code() -> Iterator[tuple[str, str]]:
    """Yield each `code` within a sentence or a table, with its page."""
    for page in page_names():
        for token in _parsed(page):
            if token.type == "inline":
                for child in token.children or []:
                    if child.type == "code_inline":
                        yield page, child.content
